"""Confidence intervals of shares."""

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``of``, with its 95 % interval."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """Return the share, or None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's score interval, 95 %.

        Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927) 209-212.
        """
        if self.of == 0:
            return 0.0, 1.0
        p, n, z2 = self.count / self.of, self.of, Z_95**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def as_dict(self) -> dict[str, float | int | list[float] | None]:
        """Return ``count``, ``of``, ``share`` and ``interval`` for JSON."""
        low, high = self.interval
        share = None if self.value is None else round(self.value, 6)
        return {
            "count": self.count,
            "of": self.of,
            "share": share,
            "interval": [round(low, 6), round(high, 6)],
        }

    def __str__(self) -> str:
        if self.value is None:
            return "0 of 0"
        low, high = self.interval
        return (
            f"{self.count} of {self.of} ({self.value:.1%}; 95 % interval {low:.1%} to {high:.1%})"
        )
