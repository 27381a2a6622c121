"""Whatever is asked, in whatever role: an answer, no server error, no change by accident."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.config import StationConfig
from pipeline.lines import SHOWN
from pipeline.web.board import Board
from pipeline.web.desk import Desk, Role
from tests.dashboards import config_in, dashboard, fill, mixed, pictured, token

CASES = 120
PASSWORD = "correct horse battery"
ODD: tuple[Any, ...] = (
    "", "0", "-1", "1", "50", "9" * 30, "1e9", "NaN", "true", "null", "PASS", "open", "²", "٣",
    "'; DROP TABLE parts; --", "%", "\x00", "é" * 70, "../../etc/passwd", "{id}", "\U0001f600",
)  # fmt: skip
ODD_JSON: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 2**70, "", "PASS", "FAIL", [], {}, [[]], {"open": {}},
    {"open": {"fail": 0.5}}, {"open": {"fail": 2}}, [{"label": "open", "xyxy": [0, 0, 9, 9]}],
    "\x00", "²", [0], [10**9],
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> StationConfig:
    made = config_in(tmp_path)
    fill(made, [*mixed(30), pictured(made, 31, "UNSURE", ("open",))])
    return made


@pytest.fixture
def client(config: StationConfig) -> Iterator[httpx.Client]:
    board = Board(config, demo=True)
    board.live.mkdir()
    (board.live / SHOWN).write_text(json.dumps({"first": "Drawn", "folders": [str(board.live)]}))
    for role in Role:
        board.desk.set_account(role.word, PASSWORD, role, "test")
    with dashboard(config, board=board) as made:
        yield made


def operations(client: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    streams = ("events", "live.mjpg")
    return [
        (path, method, op)
        for path, methods in sorted(paths.items())
        if not path.endswith(streams)
        for method, op in methods.items()
    ]


@pytest.mark.parametrize("role", [None, *Role], ids=str)
def test_no_request_makes_a_server_error(
    client: httpx.Client, config: StationConfig, role: Role | None
) -> None:
    if role is not None:
        body = {"name": role.word, "password": PASSWORD}
        client.post("/api/v1/login", json=body, headers=token(client)).raise_for_status()
    some = [p["id"] for p in client.get("/api/v1/parts").json().get("parts", [])]
    table, chance = operations(client), random.Random(11)
    headers = token(client) | {"content-type": "application/json"}
    answered = set()
    for _ in range(CASES):
        path, method, op = chance.choice(table)
        id = chance.choice([*some[:3], "x", "%2e%2e", "%00", "9" * 60])
        answer = client.request(
            method, path.replace("{id}", id), headers=headers, **_values(op, chance)
        )
        answered.add(answer.status_code)
        assert answer.status_code < 500, (path, answer.text)
        assert str(answer.status_code) in op["responses"], (path, answer.status_code)
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error"}
    assert answered == {401} if role is None else {200, 400} <= answered
    desk = Desk.of(config.store_path)
    assert desk.rows("SELECT count(*) FROM reviews WHERE verdict NOT IN ('PASS', 'FAIL')") == [(0,)]
    desk.close()


def test_generated_requests_get_only_answers_that_the_page_announces() -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from tests.perf.api_fuzz import fuzz

    done = fuzz(200, seed=5)
    assert [(f.role, f.failures) for f in done] == [(f.role, 0) for f in done], done[0].said
    assert sum(f.cases for f in done) >= 200


def _values(op: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return a query or a body: some right keys, some odd values, now and then a stranger."""
    named = [p["name"] for p in op["parameters"] if p["in"] == "query"]
    query = {name: chance.choice(ODD) for name in named if chance.random() < 0.5}
    if chance.random() < 0.1:
        query["stranger"] = "1"
    if "requestBody" not in op:
        return {"params": query}
    (kind,) = op["requestBody"]["content"].items()
    if kind[0] != "application/json":
        return {"params": query, "content": chance.randbytes(chance.choice([0, 9, 9000]))}
    schema = kind[1]["schema"]
    body: Any = {k: chance.choice(ODD_JSON) for k in schema["properties"] if chance.random() < 0.7}
    if chance.random() < 0.1:
        body = chance.choice(ODD_JSON)
    content = json.dumps(body) if chance.random() < 0.95 else '{"half": '
    return {"content": content}
