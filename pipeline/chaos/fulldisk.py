"""Fills the disk under a station at work, gives the room back, and counts what is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chaos.audit import Audit
from pipeline.chaos.kills import Siege
from pipeline.chaos.line import Line
from pipeline.chaos.states import States
from pipeline.clock import NS_PER_S
from pipeline.smalldisk import fill, small_disk

DISK_MB = 16
RESERVE_MB = 2
BEFORE = 100
FULL_S = 3.0
SETTINGS = {"reserve_mb": RESERVE_MB, "keep_pictures_mb": 4}


@dataclass(frozen=True, slots=True)
class Filled:
    """What a full disk did.

    Attributes:
        audit: the books; parts that found no room were rejected, and recorded afterwards.
        degraded_s: from the full disk to the station saying that it is not well; 0 if it said so
            while the disk was being filled.
        stopped_s: from the full disk to the station saying that it is not ready.
        recovered_s: from room on the disk to ``ready``.
    """

    audit: Audit
    degraded_s: float
    stopped_s: float
    recovered_s: float

    def figures(self) -> dict[str, Any]:
        """Return the figures under their documented keys."""
        seconds = {k: getattr(self, k) for k in ("degraded_s", "stopped_s", "recovered_s")}
        return {**self.audit.figures(), **seconds}


def fill_disk(folder: Path, on_step: Callable[[str], None]) -> Filled:
    """Run a line in an empty folder whose store lies on a disk of 16 MB; as root.

    Raises:
        ConfigError: this is not root, or it may not mount.
        LineguardError: the line did not survive.
    """
    with (
        small_disk(folder / "disk", DISK_MB) as disk,
        Line(folder, store=disk / "store", settings=SETTINGS) as line,
    ):
        siege = Siege(line, 0, lambda done: None)
        siege.start()
        with closing(States(line.broker_port)) as states:
            line.until(lambda: states.since(0, lambda s: s == "ready") is not None, "ready")
            siege.decide(BEFORE)
            on_step("the disk is full")
            began_ns = time.monotonic_ns()
            fill(disk / "others")
            filled_ns = time.monotonic_ns()
            degraded_ns = _heard(line, states, began_ns, lambda s: s != "ready")
            stopped_ns = _heard(line, states, filled_ns, lambda s: s == "not ready")
            line.pause(FULL_S)
            on_step("there is room again")
            (disk / "others").unlink()
            free_ns = time.monotonic_ns()
            ready_ns = _heard(line, states, free_ns, lambda s: s == "ready")
            siege.decide(BEFORE)
        siege.finish(0)
        return Filled(
            siege.audit(),
            round(max(0, degraded_ns - filled_ns) / NS_PER_S, 2),
            round((stopped_ns - filled_ns) / NS_PER_S, 2),
            round((ready_ns - free_ns) / NS_PER_S, 2),
        )


def _heard(line: Line, states: States, since_ns: int, wanted: Callable[[str], bool]) -> int:
    line.until(lambda: states.since(since_ns, wanted) is not None, "a change of state")
    moment = states.since(since_ns, wanted)
    assert moment is not None
    return moment
