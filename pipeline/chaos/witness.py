"""What the reject gate of a chaos line saw, read from its journal while it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Act:
    """One command that reached the gate.

    Attributes:
        pid: of the station process.
        part: number of the part in that start.
        rejected: what was commanded.
        t_ns: monotonic time of the machine.
    """

    pid: int
    part: int
    rejected: bool
    t_ns: int


class Witness:
    """Reads a journal as it grows.

    Attributes:
        acts: the commands so far, in order.
        told_ns: when the station said anew whether it is ready: each change of its state.
    """

    def __init__(self, journal: Path) -> None:
        self.acts: list[Act] = []
        self.told_ns: list[int] = []
        self._journal = journal
        self._read = 0

    def look(self) -> int:
        """Read what is new; return how many commands there are."""
        if self._journal.exists():
            with self._journal.open("rb") as stream:
                stream.seek(self._read)
                lines = stream.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            self._read += len(whole)
            for line in whole.splitlines():
                self._take(json.loads(line))
        return len(self.acts)

    def _take(self, said: dict[str, int]) -> None:
        if "ready" in said:
            self.told_ns.append(said["t_ns"])
        if "part" in said:
            self.acts.append(Act(said["pid"], said["part"], bool(said["rejected"]), said["t_ns"]))
