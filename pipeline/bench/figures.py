"""What measurements are told in: medians with their range, percentiles, pairs taken in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Progress = Callable[[int, int], None]
"""Told (done, total)."""

ROUNDS = 5
"""A median of fewer says nothing of its spread."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was taken several times."""

    median: float
    min: float
    max: float
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of work.

    Attributes:
        count: frames, parts or records.
        seconds: of the wall.
        cpu_s: of this process, all threads.
    """

    count: int
    seconds: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.count / self.seconds

    @property
    def ms(self) -> float:
        return self.seconds / self.count * 1e3

    @property
    def cpu_ms(self) -> float:
        return self.cpu_s / self.count * 1e3


def spread(values: Sequence[float], digits: int = 4) -> Spread:
    """Sum up what was measured several times."""
    median, low, high = statistics.median(values), min(values), max(values)
    return Spread(round(median, digits), round(low, digits), round(high, digits), len(values))


def percentiles(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Return ``p50``, ``p99``, ``p999`` (nearest rank) and ``max``; nothing of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {
        name: round(ordered[math.ceil(share * len(ordered)) - 1], digits)
        for name, share in shares.items()
    }


def timed(work: Callable[[], object], count: int) -> Round:
    """Time work that handles ``count`` things."""
    cpu_s, began = time.process_time(), time.perf_counter()
    work()
    return Round(count, time.perf_counter() - began, time.process_time() - cpu_s)


def in_turns(
    sides: Sequence[Callable[[], Round]], rounds: int, progress: Progress
) -> list[list[Round]]:
    """Let each side work once a round: whatever else the machine does meets all of them.

    The order turns round from round to round, so that none is always the one after a pause.

    Returns:
        The rounds of each side.
    """
    taken: list[list[Round]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            taken[side].append(sides[side]())
        progress(number + 1, rounds)
    return taken


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the spread of the ratios, round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])
