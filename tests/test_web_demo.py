"""The demo's panel over HTTP: another line is chosen, a video is sent, and who may do that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.lines import FIRST, SHOWN, WISH
from pipeline.web.board import Board
from pipeline.web.desk import Role
from pipeline.web.panel import MAX_VIDEO_BYTES, UPLOADS_AT_MOST
from tests.dashboards import config_in, dashboard, token

PASSWORD = "correct horse battery"
VIDEOS = "/api/v1/demo/videos"


@pytest.fixture
def board(tmp_path: Path) -> Board:
    made = Board(config_in(tmp_path), demo=True)
    offered = tmp_path / "offered"
    for folder in (made.live, offered, tmp_path / "sent"):
        folder.mkdir()
    (offered / "line.mp4").write_bytes(b"video")
    folders = [str(offered), str(tmp_path / "sent")]
    (made.live / SHOWN).write_text(json.dumps({"first": "Drawn boards", "folders": folders}))
    return made


@pytest.fixture
def client(board: Board) -> Iterator[httpx.Client]:
    with dashboard(board.config, board=board) as made:
        yield made


def send(client: httpx.Client, name: str, content: bytes = b"video") -> httpx.Response:
    return client.post(VIDEOS, params={"name": name}, content=content, headers=token(client))


def test_the_lines_that_are_offered_are_listed(client: httpx.Client) -> None:
    found = client.get("/api/v1/demo/lines").json()
    named = {line["id"]: line["words"] for line in found["lines"]}
    assert named[FIRST] == "Drawn boards"
    assert named["video:line.mp4"] == "line.mp4"
    assert (found["now"], found["said"]) == (FIRST, "")


def test_a_line_is_asked_for_and_the_audit_says_by_whom(client: httpx.Client, board: Board) -> None:
    body = {"line": "video:line.mp4"}
    client.post("/api/v1/demo/lines", json=body, headers=token(client)).raise_for_status()
    assert json.loads((board.live / WISH).read_text()) == body
    (entry,) = client.get("/api/v1/audit").json()["audit"]
    assert (entry["who"], entry["action"]) == ("local", "demo.line")


@pytest.mark.parametrize("line", ["webcam:63", "video:../line.mp4", "video:none.mp4", ""])
def test_a_line_that_is_not_offered_is_refused_in_one_line(
    client: httpx.Client, board: Board, line: str
) -> None:
    answer = client.post("/api/v1/demo/lines", json={"line": line}, headers=token(client))
    assert answer.status_code == 400
    assert answer.json()["error"] == f"there is no line '{line}' here; is its camera plugged in?"
    assert not (board.live / WISH).exists()


def test_a_video_that_is_sent_can_be_chosen(client: httpx.Client, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000  # larger than any other body may be
    answer = send(client, "my line.mp4", content)
    assert answer.json()["line"] == "video:my line.mp4"
    assert "video:my line.mp4" in [line["id"] for line in answer.json()["lines"]]
    assert [f.name for f in (tmp_path / "sent").iterdir()] == ["my line.mp4"]
    assert (tmp_path / "sent" / "my line.mp4").read_bytes() == content


@pytest.mark.parametrize(
    "name", ["../x.mp4", "/etc/x.mp4", ".x.mp4", "x.exe", "x", "", "a\x00.mp4"]
)
def test_a_name_that_leads_elsewhere_or_is_no_video_is_refused(
    client: httpx.Client, tmp_path: Path, name: str
) -> None:
    assert send(client, name).status_code == 400
    assert list((tmp_path / "sent").iterdir()) == []


def test_a_video_that_is_too_large_is_refused_whether_or_not_it_says_so(
    client: httpx.Client, tmp_path: Path
) -> None:
    announced = bytes(MAX_VIDEO_BYTES + 1)
    endless = iter([bytes(1 << 20)] * (MAX_VIDEO_BYTES // (1 << 20) + 1))
    for content in (announced, endless):
        try:
            answer = client.post(
                VIDEOS, params={"name": "x.mp4"}, content=content, headers=token(client)
            )
            assert answer.status_code == 413
        except httpx.TransportError as error:
            assert not isinstance(error, httpx.TimeoutException)  # cut off, which is as good
    assert list((tmp_path / "sent").iterdir()) == []
    assert client.get("/healthz").status_code == 200


def test_only_so_many_videos_are_taken(client: httpx.Client) -> None:
    sent = [send(client, f"{n}.mp4").status_code for n in range(UPLOADS_AT_MOST + 1)]
    assert sent == [200] * UPLOADS_AT_MOST + [400]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_only_an_engineer_changes_the_line(
    client: httpx.Client, board: Board, tmp_path: Path, role: Role
) -> None:
    assert client.post(VIDEOS, params={"name": "x.mp4"}, content=b"x").status_code == 403
    board.desk.set_account("anna", PASSWORD, role, "test")
    body = {"name": "anna", "password": PASSWORD}
    client.post("/api/v1/login", json=body, headers=token(client)).raise_for_status()
    line = client.post("/api/v1/demo/lines", json={"line": FIRST}, headers=token(client))
    assert (line.status_code, send(client, "x.mp4").status_code) == (403, 403)
    assert list((tmp_path / "sent").iterdir()) == []


def test_without_a_demo_it_is_said(client: httpx.Client, board: Board) -> None:
    (board.live / SHOWN).unlink()
    answer = client.get("/api/v1/demo/lines")
    assert answer.status_code == 404
    assert "is it running?" in answer.json()["error"]
