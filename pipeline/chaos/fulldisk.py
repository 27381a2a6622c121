"""Fills the disk under a station at work, gives the room back, and counts what is left."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chaos.audit import Audit
from pipeline.chaos.kills import Siege
from pipeline.chaos.line import Line
from pipeline.chaos.states import States
from pipeline.clock import NS_PER_S
from pipeline.errors import ConfigError

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
        small_disk(folder / "disk") as disk,
        Line(folder, store=disk / "store", settings=SETTINGS) as line,
    ):
        siege = Siege(line, 0, lambda done: None)
        siege.start()
        with closing(States(line.broker_port)) as states:
            line.until(lambda: states.since(0, lambda s: s == "ready") is not None, "ready")
            siege.decide(BEFORE)
            on_step("the disk is full")
            began_ns = time.monotonic_ns()
            filled_ns = _fill(disk / "others")
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


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 16 MB in memory as long as the block lasts.

    Raises:
        ConfigError: this is not root, or it may not mount.
    """
    if os.geteuid() != 0:
        raise ConfigError("a small disk needs root: run this drill with sudo")
    folder.mkdir(parents=True)
    options = f"size={DISK_MB}m"
    mount(["-t", "tmpfs", "-o", options, "tmpfs", str(folder)])
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def mount(words: list[str]) -> None:
    """Mount something.

    Raises:
        ConfigError: it cannot be mounted.
    """
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"mount {' '.join(words)}: {done.stderr.strip()}")


def _fill(file: Path) -> int:
    """Write until nothing fits any more; return the moment, monotonic ns."""
    with file.open("wb", buffering=0) as stream:
        for size in (1 << 20, 1 << 12):
            try:
                while stream.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return time.monotonic_ns()


def _heard(line: Line, states: States, since_ns: int, wanted: Callable[[str], bool]) -> int:
    line.until(lambda: states.since(since_ns, wanted) is not None, "a change of state")
    moment = states.since(since_ns, wanted)
    assert moment is not None
    return moment
