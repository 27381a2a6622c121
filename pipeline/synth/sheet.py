"""The drawing sheet of a board designer: shapes, and the distance that they keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
Point = tuple[float, float]

SHIFT = 4  # cv2 draws with 1/16 pixel when coordinates are given in that unit


@dataclass(frozen=True)
class Line:
    """A trace along points, with round ends."""

    points: tuple[Point, ...]
    width: float

    def draw(self, canvas: Canvas, grow: float = 0.0, value: int = 1) -> None:
        thickness = max(1, round(self.width + 2 * grow))
        cv2.polylines(canvas, [_fixed(self.points)], False, value, thickness, cv2.LINE_8, SHIFT)


@dataclass(frozen=True)
class Disc:
    """A round pad, via or hole."""

    centre: Point
    radius: float

    def draw(self, canvas: Canvas, grow: float = 0.0, value: int = 1) -> None:
        x, y = _fixed((self.centre,))[0]
        radius = max(1, round((self.radius + grow) * (1 << SHIFT)))
        cv2.circle(canvas, (int(x), int(y)), radius, value, -1, cv2.LINE_8, SHIFT)


@dataclass(frozen=True)
class Area:
    """A filled polygon whose corners are rounded by a radius."""

    points: tuple[Point, ...]
    radius: float = 0.0

    def draw(self, canvas: Canvas, grow: float = 0.0, value: int = 1) -> None:
        outline = _fixed(self.points)
        cv2.fillPoly(canvas, [outline], value, cv2.LINE_8, SHIFT)
        if (thickness := round(2 * (self.radius + grow))) > 0:
            cv2.polylines(canvas, [outline], True, value, thickness, cv2.LINE_8, SHIFT)


Shape = Line | Disc | Area


class Sheet:
    """A board being laid out: its copper, and where new copper may no longer go."""

    def __init__(self, rng: np.random.Generator, size: int, trace: int, gap: int) -> None:
        self.rng = rng
        self.size = size
        self.trace = trace
        self.gap = gap
        self.copper: Canvas = np.zeros((size, size), np.uint8)
        self.taken: Canvas = np.zeros((size, size), np.uint8)
        self.drills: list[Disc | Line] = []

    def place(self, shapes: Sequence[Shape], *joins: Shape) -> bool:
        """Add shapes if they keep their distance; `joins` names the pads that they may touch."""
        fresh = np.zeros_like(self.copper)
        for shape in shapes:
            shape.draw(fresh)
        if not fresh.any():
            return False
        clash = fresh & self.taken
        for pad in joins:
            pad.draw(clash, self.gap + 1, 0)
        if clash.any():
            return False
        self.copper |= fresh
        for shape in shapes:
            shape.draw(self.taken, self.gap)
        return True

    def is_free(self, shape: Shape) -> bool:
        """Whether a shape keeps its distance from all that is placed."""
        fresh = np.zeros_like(self.copper)
        shape.draw(fresh)
        return not (fresh & self.taken).any()

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def point(self, beyond: float = 0.0) -> Point:
        low, high = -beyond, self.size + beyond
        return self.uniform(low, high), self.uniform(low, high)

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def heading(self) -> float:
        return float(self.rng.integers(8)) * np.pi / 4


def _fixed(points: Sequence[Point]) -> NDArray[np.int32]:
    return np.round(np.asarray(points, np.float64) * (1 << SHIFT)).astype(np.int32)
