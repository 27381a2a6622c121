"""Who is let in: what is not allowed changes nothing, whoever asks and however."""

import io
import json
import socket
import sqlite3
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.config import StationConfig
from pipeline.errors import ConfigError
from pipeline.store import DATABASE
from pipeline.web.access import FAILURES, MAX_BODY_BYTES, Attempts, Refused
from pipeline.web.api import operations
from pipeline.web.board import Board
from pipeline.web.desk import SESSION_S, Desk, Role
from pipeline.web.server import Address, check, prepare
from tests.dashboards import config_in, dashboard, fill, mixed, pictured, record, token
from tests.doubles import LIMIT_S
from tests.perf.bombs import bombs, lay, wait_for_parts, was_refused

PASSWORD = "correct horse battery"


@pytest.fixture
def config(tmp_path: Path) -> StationConfig:
    made = config_in(tmp_path)
    fill(made, [*mixed(8), pictured(made, 9, "UNSURE", ("open",))])
    return made


@pytest.fixture
def local(config: StationConfig) -> Iterator[httpx.Client]:
    with dashboard(config) as client:
        yield client


@pytest.fixture
def board(config: StationConfig) -> Board:
    return Board(config)


@pytest.fixture
def locked(config: StationConfig, board: Board) -> Iterator[httpx.Client]:
    """Serve a dashboard with one account for each role."""
    for role in Role:
        board.desk.set_account(role.word, PASSWORD, role, "test")
    with dashboard(config, board=board) as client:
        yield client


def log_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    body = {"name": name, "password": password}
    return client.post("/api/v1/login", json=body, headers=token(client))


def a_part(client: httpx.Client) -> str:
    return str(client.get("/api/v1/parts").json()["parts"][0]["id"])


def reviews(config: StationConfig) -> int:
    desk = Desk.of(config.store_path)
    try:
        return int(desk.rows("SELECT count(*) FROM reviews")[0][0])
    finally:
        desk.close()


# -- roles ----------------------------------------------------------------------------------


def test_with_accounts_nobody_sees_anything_without_logging_in(locked: httpx.Client) -> None:
    paths = locked.get("/api/v1/openapi.json").json()["paths"]
    asked = 0
    for path, methods in paths.items():
        for method in methods:
            answer = locked.request(method, path.replace("{id}", "x"), headers=token(locked))
            assert answer.status_code == 401, (method, path)
            asked += 1
    assert asked >= 15


def test_every_operation_refuses_the_role_below_its_own(locked: httpx.Client, board: Board) -> None:
    paths = operations(board)
    for role in (Role.VIEWER, Role.OPERATOR):
        assert log_in(locked, role.word).status_code == 200
        above = [op for op in paths if op.role > role]
        assert above
        for op in above:
            path = "/api/v1" + op.path.replace("{id}", "x")
            answer = locked.request(op.method, path, json={}, headers=token(locked))
            assert answer.status_code == 403, op.path
            assert "role" in answer.json()["error"]


def test_a_viewer_may_look_and_an_operator_may_review(
    locked: httpx.Client, config: StationConfig
) -> None:
    log_in(locked, "viewer")
    review = f"/api/v1/parts/{a_part(locked)}/review"
    refused = locked.post(review, json={"verdict": "PASS"}, headers=token(locked))
    assert (refused.status_code, reviews(config)) == (403, 0)
    log_in(locked, "operator")
    done = locked.post(review, json={"verdict": "PASS"}, headers=token(locked))
    assert (done.status_code, reviews(config)) == (200, 1)
    assert done.json()["reviews"][0]["who"] == "operator"


def test_a_log_out_ends_the_session_for_good(locked: httpx.Client) -> None:
    log_in(locked, "engineer")
    cookie = locked.cookies["lineguard"]
    assert locked.get("/api/v1/audit").status_code == 200
    locked.post("/api/v1/logout", headers=token(locked))
    locked.cookies.set("lineguard", cookie, domain="127.0.0.1")
    assert locked.get("/api/v1/audit").status_code == 401


def test_a_session_ends_by_itself(tmp_path: Path) -> None:
    now_s = 1000.0
    desk = Desk(tmp_path, lambda: now_s)
    desk.set_account("anna", PASSWORD, Role.VIEWER, "test")
    session = desk.log_in("anna", PASSWORD)
    assert session is not None and desk.person(session) is not None
    now_s += SESSION_S + 1
    assert desk.person(session) is None


def test_a_session_outlives_the_process_but_not_a_new_password(config: StationConfig) -> None:
    desk = Desk.of(config.store_path)
    desk.set_account("anna", PASSWORD, Role.VIEWER, "test")
    session = desk.log_in("anna", PASSWORD)
    assert session is not None
    desk.close()
    again = Desk.of(config.store_path)
    assert again.person(session) is not None
    again.set_account("anna", PASSWORD + "!", Role.VIEWER, "test")
    assert again.person(session) is None


# -- passwords ------------------------------------------------------------------------------


def test_the_cookie_is_for_this_site_and_not_for_scripts(locked: httpx.Client) -> None:
    said = log_in(locked, "viewer").headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said


def test_guessing_is_stopped_after_five_attempts_also_for_names_that_do_not_exist(
    locked: httpx.Client,
) -> None:
    said = [log_in(locked, f"nobody{i}", "wrong password").status_code for i in range(8)]
    assert said == [401] * FAILURES + [429] * (8 - FAILURES)
    blocked = log_in(locked, "engineer")
    assert blocked.status_code == 429
    assert int(blocked.headers["retry-after"]) > 0


def test_the_pause_after_failed_attempts_ends() -> None:
    now_s = 0.0
    attempts = Attempts(lambda: now_s)
    for _ in range(FAILURES):
        attempts.check("name a")
        attempts.failed("name a")
    with pytest.raises(Refused):
        attempts.check("name a")
    attempts.check("name b")
    now_s = 61.0
    attempts.check("name a")


@pytest.mark.parametrize(
    ("name", "password"), [("anna", "short"), ("anna", "x" * 300), ("a/b", PASSWORD), ("", "")]
)
def test_an_account_needs_a_plain_name_and_a_long_password(
    tmp_path: Path, name: str, password: str
) -> None:
    with pytest.raises(ConfigError):
        Desk(tmp_path).set_account(name, password, Role.VIEWER, "test")


def test_no_password_is_kept_readable(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.set_account("anna", PASSWORD, Role.ENGINEER, "test")
    desk.close()
    assert not any(PASSWORD.encode() in file.read_bytes() for file in tmp_path.iterdir())


# -- requests from elsewhere ----------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"x-csrf-token": ""}, {"x-csrf-token": "0" * 64}])
def test_a_change_without_the_token_of_the_page_is_refused(
    local: httpx.Client, config: StationConfig, headers: dict[str, str]
) -> None:
    path = f"/api/v1/parts/{a_part(local)}/review"
    answer = local.post(path, json={"verdict": "PASS"}, headers=headers)
    assert (answer.status_code, reviews(config)) == (403, 0)


@pytest.mark.parametrize(
    "content", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_form_of_another_site_can_send_is_refused(
    local: httpx.Client, config: StationConfig, content: str
) -> None:
    headers = token(local) | {"content-type": content}
    path = f"/api/v1/parts/{a_part(local)}/review"
    answer = local.post(path, content=b'{"verdict": "PASS"}', headers=headers)
    assert (answer.status_code, reviews(config)) == (400, 0)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "LOCALHOST."]
)
def test_an_unknown_host_name_is_refused(local: httpx.Client, host: str) -> None:
    assert local.get("/api/v1/line", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:80", "LOCALHOST"])
def test_the_machine_s_own_names_are_known(local: httpx.Client, host: str) -> None:
    assert local.get("/api/v1/line", headers={"host": host}).status_code == 200


def test_every_answer_forbids_scripts_from_elsewhere_and_frames(local: httpx.Client) -> None:
    for path in ("/line", "/api/v1/me", "/static/app.js", "/nowhere", "/api/v1/parts/x"):
        headers = local.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_no_page_has_a_script_or_a_style_in_it() -> None:
    static = Path(prepare.__code__.co_filename).parent / "static"
    page = (static / "index.html").read_text()
    assert "<style" not in page and " style=" not in page and "onclick" not in page
    assert page.count("<script") == page.count("<script src=")
    files = [f for f in static.rglob("*.js") if "vendor" not in f.parts]
    assert len(files) > 8
    for file in files:
        text = file.read_text()
        assert "innerHTML" not in text and "eval(" not in text, file
        assert "http://" not in text.replace("http://www.w3.org/", ""), file
        assert "https://" not in text, file


def test_a_stream_ends_soon_after_the_session_that_asked_for_it(
    locked: httpx.Client, config: StationConfig, board: Board
) -> None:
    log_in(locked, "viewer")
    with locked.stream("GET", "/api/v1/events") as answer:
        assert answer.status_code == 200
        board.desk.remove_account("viewer", "test")
        deadline = time.monotonic() + LIMIT_S
        for _ in answer.iter_bytes():
            assert time.monotonic() < deadline, "it goes on"
    assert locked.get("/api/v1/line").status_code == 401


# -- input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2f..%2fstore.py",
        "/static/%2e%2e/desk.py",
        "/static//etc/passwd",
        "/api/v1/parts/..%2f..%2fledger.sqlite/picture",
        "/api/v1/parts/%00/picture",
    ],
)
def test_no_path_leads_out_of_the_served_folder(local: httpx.Client, path: str) -> None:
    answer = raw_get(local, path)
    assert b" 404 " in answer.splitlines()[0]


def test_a_picture_that_a_record_places_elsewhere_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    config = config_in(tmp_path)
    sly = [
        "../secret.jpg",
        "pictures/../../secret.jpg",
        str(tmp_path / "secret.jpg"),
        "ledger.sqlite",
    ]

    kept = fill(
        config, [record(n, image=path, image_sha256="0" * 64) for n, path in enumerate(sly, 1)]
    )
    with dashboard(config) as client:
        for one in kept:
            answer = client.get(f"/api/v1/parts/{one.id}/picture")
            assert answer.status_code == 404
            assert b"secret" not in answer.content


def test_a_record_whose_id_is_a_path_is_not_packed_into_an_archive(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    fill(config, [pictured(config, n, "UNSURE", ("open",)) for n in (1, 2)])
    with sqlite3.connect(config.store_path / DATABASE) as ledger:
        (body,) = ledger.execute("SELECT body FROM records WHERE number = 2").fetchone()
        sly = json.loads(body) | {"id": "../../../evil"}
        ledger.execute(
            "UPDATE records SET id = ?, body = ? WHERE number = 2", (sly["id"], json.dumps(sly))
        )
    with dashboard(config) as client:
        for format in ("labelstudio", "yolo", "coco"):
            answer = client.get("/api/v1/reviews/export", params={"format": format})
            names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
            assert not any(".." in name or name.startswith("/") for name in names)


def test_bombs_are_refused_and_the_dashboard_goes_on(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    lay(config)
    with dashboard(config) as client:
        ids = [part["id"] for part in wait_for_parts(client)]
        for name, send in bombs(client, ids, token(client)):
            assert was_refused(send), name
            assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/parts", {"verdict": "GREEN"}),
        ("/parts", {"limit": "100000"}),
        ("/parts", {"before": "x"}),
        ("/parts", {"since_ms": "-1"}),
        ("/parts", {"unknown": "1"}),
        ("/parts", {"text": "x" * 100}),
        ("/quality/chart", {"size": "0"}),
        ("/quality/trend", {"step": "year"}),
        ("/quality/pareto", {"hours": "9" * 30}),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(
    local: httpx.Client, path: str, values: dict[str, str]
) -> None:
    answer = local.get(f"/api/v1{path}", params=values)
    assert answer.status_code == 400
    assert next(iter(values)) in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"verdict": "UNSURE"},
        {"verdict": "PASS", "who": "somebody else"},
        {"verdict": "FAIL", "wrong": [7]},
        {"verdict": "FAIL", "wrong": [-1]},
        {"verdict": "FAIL", "note": "x" * 501},
        {"verdict": "FAIL", "added": [{"label": "no such", "xyxy": [0, 0, 1, 1]}]},
        {"verdict": "FAIL", "added": [{"label": "open", "xyxy": [0, 0, 1]}]},
    ],
)
def test_a_review_that_is_not_one_is_refused(
    local: httpx.Client, config: StationConfig, body: Any
) -> None:
    path = f"/api/v1/parts/{a_part(local)}/review"
    answer = local.post(path, json=body, headers=token(local))
    assert (answer.status_code, reviews(config)) == (400, 0)


def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so(
    local: httpx.Client, config: StationConfig
) -> None:
    path = f"/api/v1/parts/{a_part(local)}/review"
    headers = token(local) | {"content-type": "application/json"}
    declared = local.post(path, content=b" " * (MAX_BODY_BYTES + 1), headers=headers)
    assert declared.status_code == 413
    try:
        endless = local.post(path, content=iter([b" " * 9000] * 10), headers=headers)
        assert endless.status_code in (400, 413)
    except httpx.HTTPError:
        pass  # the connection was cut, which is as good
    assert reviews(config) == 0
    assert local.get("/healthz").status_code == 200


# -- audit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["audit", "reviews"])
@pytest.mark.parametrize("change", ["UPDATE {} SET who = 'x'", "DELETE FROM {}"])
def test_the_database_itself_refuses_to_rewrite_what_people_did(
    local: httpx.Client, config: StationConfig, table: str, change: str
) -> None:
    path = f"/api/v1/parts/{a_part(local)}/review"
    assert local.post(path, json={"verdict": "PASS"}, headers=token(local)).status_code == 200
    desk = Desk.of(config.store_path)
    with pytest.raises(Exception, match="append-only"):
        desk.rows(change.format(table))
    desk.close()


def test_logins_and_refused_logins_are_in_the_audit(locked: httpx.Client) -> None:
    log_in(locked, "engineer", "wrong password")
    log_in(locked, "engineer")
    actions = [e["action"] for e in locked.get("/api/v1/audit").json()["audit"]]
    assert actions[:2] == ["session.begin", "session.refused"]


# -- where it listens -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "station.example"])
def test_elsewhere_it_needs_tls(config: StationConfig, host: str) -> None:
    with pytest.raises(ConfigError, match="tls-cert"):
        check(Board(config), Address(host))


def test_elsewhere_it_needs_an_account_also_behind_a_proxy(config: StationConfig) -> None:
    with pytest.raises(ConfigError, match="password"):
        check(Board(config), Address(hosts=("station.example",)))


def test_a_port_that_is_taken_is_said(config: StationConfig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="another port"):
            prepare(Board(config), Address(port=taken.getsockname()[1]))


def test_an_answer_of_two_pieces_is_not_held_back(config: StationConfig) -> None:
    """Without its protocol's number asyncio leaves Nagle's algorithm on: 40 ms for each answer."""
    serving = prepare(Board(config), Address(port=0))
    assert serving.listening.proto == socket.IPPROTO_TCP
    serving.listening.close()


def test_over_tls_the_cookie_is_secure(config: StationConfig, tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    board = Board(config)
    board.desk.set_account("anna", PASSWORD, Role.VIEWER, "test")
    address = Address("127.0.0.1", 0, (), certificate, key)
    with dashboard(config, board=board, address=address) as client:
        assert str(client.base_url).startswith("https://")
        assert "secure" in log_in(client, "anna").headers["set-cookie"].lower()


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "1", "-subj", "/CN=localhost"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl here to make a certificate with")
    return certificate, key


def raw_get(client: httpx.Client, path: str) -> bytes:
    """Ask for a path as it is written: httpx would tidy it up."""
    url = client.base_url
    with socket.create_connection((url.host, url.port or 80), 10) as line:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        line.sendall(head.encode())
        got = b""
        while piece := line.recv(65536):
            got += piece
    return got
