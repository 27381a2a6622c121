"""Throws thousands of generated requests at the interface, as nobody and as each role.

    python -m tests.perf.api_fuzz --cases 5000

It serves a dashboard of its own on 127.0.0.1, has schemathesis (PyPI) make requests from the
OpenAPI page, right and wrong ones, and fails on a server error or on an answer that the page does
not announce. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pipeline.web.board import Board
from pipeline.web.desk import Role
from tests.dashboards import config_in, dashboard, fill, mixed, pictured, token

PASSWORD = "correct horse battery"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
ROLES: Mapping[str, Role | None] = {"nobody": None, **{role.word: role for role in Role}}
VARIED = 11
"""Operations, at least, that take something which can be varied; the others are asked once."""

ENDLESS = ("events", "live.mjpg")
"""Streams do not end: they have tests of their own."""


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What came of one role."""

    role: str
    cases: int
    failures: int
    said: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="at least so many in all")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--role", action="append", choices=list(ROLES), help="only as this one")
    wanted = parser.parse_args()
    began_s = time.monotonic()
    done = fuzz(wanted.cases, wanted.seed, wanted.role or tuple(ROLES))
    figures: dict[str, Any] = {
        "cases": sum(f.cases for f in done),
        "failures": sum(f.failures for f in done),
        "seconds": round(time.monotonic() - began_s),
        "roles": {f.role: f.cases for f in done},
    }
    print(json.dumps(figures, indent=2))  # noqa: T201
    for fuzzed in done:
        if fuzzed.failures:
            sys.stderr.write(fuzzed.said)
    sys.exit(1 if figures["failures"] or figures["cases"] < wanted.cases else 0)


def fuzz(cases: int, seed: int, names: Sequence[str] = tuple(ROLES)) -> list[Fuzzed]:
    """Ask at least so many things of a dashboard, in all these roles together."""
    with tempfile.TemporaryDirectory(prefix="lineguard-fuzz-") as folder:
        config = config_in(Path(folder))
        fill(config, [*mixed(30), pictured(config, 31, "UNSURE", ("open",))])
        board = Board(config, demo=True)
        board.live.mkdir()
        for role in Role:
            board.desk.set_account(role.word, PASSWORD, role, "fuzz")
        with dashboard(config, board=board) as client:
            each = -(-cases // (VARIED * len(names)))
            settings = Path(folder) / "schemathesis.toml"
            # A record that is there: else only the refusal of its id would be tried.
            id = board.ledger.after(30, 1)[0].values()["id"]
            settings.write_text(f'[parameters]\n"path.id" = "{id}"\n')
            return [_as_role(client, ROLES[name], each, seed, settings) for name in names]


def _as_role(
    client: httpx.Client, role: Role | None, each: int, seed: int, settings: Path
) -> Fuzzed:
    client.cookies.clear()
    headers = token(client)
    if role is not None:
        body = {"name": role.word, "password": PASSWORD}
        client.post("/api/v1/login", json=body, headers=headers).raise_for_status()
        headers = {**token(client), "cookie": f"lineguard={client.cookies['lineguard']}"}
    words = [
        "--config-file", str(settings), "run", f"{client.base_url}api/v1/openapi.json",
        "--checks", ",".join(CHECKS), "--phases", "fuzzing", "--mode", "all",
        "--continue-on-failure", "--no-color", "--suppress-health-check", "all",
        "--max-examples", str(each), "--seed", str(seed),
        "--exclude-path-regex", f"({'|'.join(map(re.escape, ENDLESS))})$",
    ]  # fmt: skip
    for name, value in headers.items():
        words += ["--header", f"{name}: {value}"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        check=False,
    )
    said = done.stdout + done.stderr
    found = re.search(r"([\d,]+) generated(?:, ([\d,]+) found)?", said)
    failed = re.search(r"([\d,]+) unique failures", said)
    count = _number(found[1]) if found else 0
    failures = max(_number(failed[1]) if failed else 0, int(done.returncode != 0))
    return Fuzzed(role.word if role else "nobody", count, failures, said)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


if __name__ == "__main__":
    main()
