"""What is true of the parts of a drawn line, written by the demo beside its live picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "truth.jsonl"
WAITING_AT_MOST = 100


def line_of(run: str, row: Mapping[str, Any]) -> str:
    """Return one line of the file: run, centre frame of a part, whether it is good, its defects.

    Args:
        row: ``defects`` holds ``class`` and ``xyxy``, pixels relative to the part.
    """
    defects = [{"label": d["class"], "xyxy": d["xyxy"]} for d in row.get("defects", ())]
    values = {"centre_frame": row["centre_frame"], "good": row["good"], "defects": defects}
    return json.dumps({"run": run, **values}) + "\n"


@dataclass(frozen=True, slots=True)
class Known:
    """What is true of a part.

    Attributes:
        defects: each with ``label`` and ``xyxy``, pixels relative to the part.
    """

    good: bool
    defects: tuple[Mapping[str, Any], ...]


class TruthFile:
    """Reads the file as it grows, and tells of each record whether its part is good."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0
        self._known: dict[str, dict[int, Known]] = {}
        self._waiting: list[tuple[int, Mapping[str, Any]]] = []

    def match(self, records: Sequence[tuple[int, Mapping[str, Any]]]) -> list[tuple[int, Known]]:
        """Take numbers and values of new records; return number and truth of those known now."""
        self._read()
        self._waiting = [*self._waiting, *records][-WAITING_AT_MOST:]
        found = [(number, self._truth(record), record) for number, record in self._waiting]
        self._waiting = [(number, record) for number, known, record in found if known is None]
        return [(number, known) for number, known, _ in found if known is not None]

    def _truth(self, record: Mapping[str, Any]) -> Known | None:
        """Return what is true of a record's part, once.

        Two parts may be in view at a time: the one in whose middle frames the record's lie is
        meant, and none that an earlier record has had.
        """
        known = self._known.get(record["run"], {})
        middle = (record["first_frame"] + record["last_frame"]) / 2
        frames = range(record["first_frame"], record["last_frame"] + 2)
        frame = min((f for f in frames if f in known), key=lambda f: abs(f - middle), default=None)
        return None if frame is None else known.pop(frame)

    def _read(self) -> None:
        with suppress(OSError), self._file.open("rb") as stream:
            stream.seek(self._at)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                row = json.loads(line)
                known = Known(row["good"], tuple(row["defects"]))
                self._known.setdefault(row["run"], {})[row["centre_frame"]] = known
