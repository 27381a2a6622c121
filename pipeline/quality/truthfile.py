"""What is true of the parts of a drawn line, written by the demo beside its live picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "truth.jsonl"
WAITING_AT_MOST = 100


def line_of(run: str, row: Mapping[str, Any]) -> str:
    """Return one line of the file: run, centre frame of a part, and whether it is good."""
    values = {"run": run, "centre_frame": row["centre_frame"], "good": row["good"]}
    return json.dumps(values) + "\n"


class TruthFile:
    """Reads the file as it grows, and tells of each record whether its part is good."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0
        self._known: dict[str, dict[int, bool]] = {}
        self._waiting: list[tuple[int, Mapping[str, Any]]] = []

    def match(self, records: Sequence[tuple[int, Mapping[str, Any]]]) -> list[tuple[int, bool]]:
        """Take numbers and values of new records; return number and truth of those known now."""
        self._read()
        self._waiting = [*self._waiting, *records][-WAITING_AT_MOST:]
        found = [(number, self._good(record), record) for number, record in self._waiting]
        self._waiting = [(number, record) for number, good, record in found if good is None]
        return [(number, good) for number, good, _ in found if good is not None]

    def _good(self, record: Mapping[str, Any]) -> bool | None:
        known = self._known.get(record["run"], {})
        return _first(
            known[frame]
            for frame in range(record["first_frame"], record["last_frame"] + 2)
            if frame in known
        )

    def _read(self) -> None:
        with suppress(OSError), self._file.open("rb") as stream:
            stream.seek(self._at)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                row = json.loads(line)
                self._known.setdefault(row["run"], {})[row["centre_frame"]] = row["good"]


def _first(values: Iterable[bool]) -> bool | None:
    return next(iter(values), None)
