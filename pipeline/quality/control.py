"""Control charts of shares: is the line as it was, or did something change?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

LEAST_SUBGROUPS = 8
"""Limits from fewer subgroups would be guesses."""


@dataclass(frozen=True, slots=True)
class Point:
    """One subgroup of a p chart.

    Attributes:
        count, of: rejects among parts.
        low, high: three standard deviations around the centre, within 0..1.
        broken: rules that this point breaks, in words.
    """

    count: int
    of: int
    low: float
    high: float
    broken: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.count / self.of


@dataclass(frozen=True, slots=True)
class PChart:
    """A p chart; ``centre`` is None while there are too few subgroups for limits."""

    centre: float | None
    points: tuple[Point, ...]


def p_chart(counts: Sequence[int], sizes: Sequence[int]) -> PChart:
    """Chart the share of rejects per subgroup, with limits and the rules it breaks.

    Args:
        counts: rejects per subgroup, in order of time.
        sizes: parts per subgroup, at least 1 each.

    Source: D. C. Montgomery, Introduction to Statistical Quality Control, 7.2 (limits for each
    subgroup's own size); rules 1, 2, 3 and 5 of L. S. Nelson, J. Quality Technology 16 (1984).
    """
    if len(counts) < LEAST_SUBGROUPS:
        points = (Point(c, n, 0.0, 1.0, ()) for c, n in zip(counts, sizes, strict=True))
        return PChart(None, tuple(points))
    centre = sum(counts) / sum(sizes)
    sigmas = [math.sqrt(centre * (1 - centre) / n) for n in sizes]
    z = [(c / n - centre) / s if s else 0.0 for c, n, s in zip(counts, sizes, sigmas, strict=True)]
    return PChart(
        centre,
        tuple(
            Point(
                count,
                size,
                max(centre - 3 * sigma, 0.0),
                min(centre + 3 * sigma, 1.0),
                tuple(words for words, broken in _RULES if broken(z[: i + 1])),
            )
            for i, (count, size, sigma) in enumerate(zip(counts, sizes, sigmas, strict=True))
        ),
    )


def _outside(z: Sequence[float]) -> bool:
    return abs(z[-1]) > 3


def _one_side(z: Sequence[float]) -> bool:
    last = z[-9:]
    return len(last) == 9 and (all(v > 0 for v in last) or all(v < 0 for v in last))


def _trend(z: Sequence[float]) -> bool:
    last = z[-6:]
    steps = [b - a for a, b in pairwise(last)]
    return len(last) == 6 and (all(s > 0 for s in steps) or all(s < 0 for s in steps))


def _two_of_three(z: Sequence[float]) -> bool:
    last = z[-3:]
    high = abs(last[-1]) > 2
    return high and any(sum(side * v > 2 for v in last) >= 2 for side in (1, -1))


_RULES: tuple[tuple[str, Callable[[Sequence[float]], bool]], ...] = (
    ("beyond three standard deviations", _outside),
    ("nine in a row on one side of the centre", _one_side),
    ("six in a row rising or falling", _trend),
    ("two of three beyond two standard deviations on one side", _two_of_three),
)
