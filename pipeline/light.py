"""Whether parts are lit as they should be: a dim lamp hides defects, and all would look good."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import numpy as np

from pipeline.types import Box, Image

STEP_PX = 16
BRIGHT_SHARE = 0.99
"""The bright places tell of the lamp, the mean of the product: 24 boards of one line, with more or
less copper, had means of 63 to 124, and 99 % of their pixels lay below 200 to 220."""

LEARNED_PARTS = 3
DARKEST, BRIGHTEST = 0.5, 2.0
"""Shares of the usual brightness. Parts of one product differ by some percent, a lamp that ages
loses 30 % in its life; at half the light a defect shows half of its contrast."""

WELL_SIGHTINGS = 3
"""Well-lit sightings after which the light is trusted again."""


class Light:
    """Compares the brightness of parts with the recipe's limits, or with that of the first parts.

    Args:
        limits: least and most grey level of a part's bright places; None learns what is usual.
        learns: whether there is something to learn from: parts of one line, one after the other.

    Attributes:
        fault: why what is seen cannot be trusted, or None.
    """

    def __init__(self, limits: tuple[float, float] | None, *, learns: bool = True) -> None:
        self.fault: str | None = None
        self._limits = limits
        self._learns = learns
        self._first: dict[int, float] = {}
        self._well = 0

    def see(self, image: Image, parts: Iterable[tuple[int, Box]]) -> None:
        """Look at the parts that a frame shows whole.

        Args:
            image: uint8 (H, W, 3) or (H, W).
            parts: number of each part, and its box in pixels of the image.
        """
        if self._limits is None and not self._learns:
            return
        for number, box in parts:
            level = _level(image, box)
            if level is None:
                continue
            if self._limits is None:
                self._learn(number, level)
            else:
                self._judge(level, self._limits)

    def _learn(self, number: int, level: float) -> None:
        self._first.setdefault(number, level)
        if len(self._first) > LEARNED_PARTS:  # the first ones have been seen to their end
            usual = median(list(self._first.values())[:LEARNED_PARTS])
            self._limits = usual * DARKEST, min(usual * BRIGHTEST, 255.0)

    def _judge(self, level: float, limits: tuple[float, float]) -> None:
        least, most = limits
        if least <= level <= most:
            self._well += 1
            self.fault = self.fault if self._well < WELL_SIGHTINGS else None
            return
        self._well = 0
        if self.fault is None:
            said, what = ("dark", "dim") if level < least else ("bright", "bright")
            self.fault = (
                f"the picture is too {said}: bright places of the part have level {level:.0f}, "
                f"not {least:.0f} to {most:.0f}; is the lamp too {what}, the lens dirty, or the "
                "exposure changed?"
            )


def _level(image: Image, box: Box) -> float | None:
    """Return the level that 99 % of a box lie below, or None of nothing; a few pixels will do.

    Every channel is a pixel of its own: the white of a lamp lies in all of them.
    """
    x0, y0, x1, y1 = (max(round(v), 0) for v in (box.x0, box.y0, box.x1, box.y1))
    levels = image[y0:y1:STEP_PX, x0:x1:STEP_PX].ravel()
    if not levels.size:
        return None
    # Every frame asks: NumPy's quantile, which interpolates, takes twice as long.
    rank = int(BRIGHT_SHARE * (levels.size - 1))
    return float(np.partition(levels, rank)[rank])
