"""A trigger that sees parts on a belt by image alone: what differs from the empty belt is a part.

The frame is shrunk until noise has averaged out; an empty-belt picture is learned from the columns
that show no structure across the belt, follows the lamp from frame to frame, and everything that
differs from it along the belt is a part. Belt speed, part order and gaps play no role.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.plugins import Options as BaseOptions
from pipeline.types import Box, Frame, Image, Sighting

Cells = NDArray[np.float32]
Mask = NDArray[np.bool_]

ABSORB = 0.02
"""Share by which an empty cell of the belt picture moves to what is seen, per frame."""


class Options(BaseOptions):
    """How the belt lies in the picture and what is large enough to be a part.

    Attributes:
        axis: direction of travel in the picture: x (left or right) or y (up or down).
        lane: share of the frame across the belt that is looked at, from and to, 0..1.
        cell_px: side of the square that is averaged into one cell, pixels.
        contrast: grey levels by which a cell must differ from the empty belt.
        fill: share of the lane that must differ for a slice across the belt to show a part.
        min_length: shortest part along the belt, share of the frame.
        join: gaps along the belt up to this share of the frame lie inside one part.
        belt: whether the empty belt is darker or lighter than most parts, or not known.
    """

    axis: Literal["x", "y"] = "x"
    lane: tuple[float, float] = (0.0, 1.0)
    cell_px: int = 8
    contrast: float = 6.0
    fill: float = 0.1
    min_length: float = 0.05
    join: float = 0.02
    belt: Literal["dark", "light", "unknown"] = "unknown"


class Presence:
    """Finds parts against a learned empty belt."""

    tracks = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self.axis = options.axis
        self._belt: Cells | None = None
        self._empty: Mask | None = None

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        cells = self._cells(frame.image)
        if self._belt is None or self._belt.shape != cells.shape:
            self._belt = _belt_profile(cells, self._options.belt)
            self._empty = None
        self._follow_the_lamp(cells)
        differs = np.abs(cells - self._belt) > self._options.contrast
        present = differs.mean(axis=0) >= self._options.fill
        self._learn(cells, present)
        return self._parts(differs, present, frame.image)

    def _cells(self, image: Image) -> Cells:
        """Return mean grey levels of the lane, float32 (across the belt, along the belt)."""
        cell = self._options.cell_px
        height, width = image.shape[0] // cell, image.shape[1] // cell
        small = cv2.resize(image, (max(width, 1), max(height, 1)), interpolation=cv2.INTER_AREA)
        if small.ndim == 3:
            small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        cells: Cells = small.astype(np.float32)
        if self._options.axis == "y":
            cells = cells.T
        return cells[self._lane(cells.shape[0])]

    def _lane(self, across: int) -> slice:
        start, end = self._options.lane
        return slice(int(start * across), max(round(end * across), int(start * across) + 1))

    def _follow_the_lamp(self, cells: Cells) -> None:
        """Take up a change of exposure at once: cells that were empty mostly still are."""
        assert self._belt is not None
        if self._empty is not None and self._empty.any():
            change = np.median((cells - self._belt)[:, self._empty])
            self._belt += np.float32(change)

    def _learn(self, cells: Cells, present: Mask) -> None:
        assert self._belt is not None
        # A slice beside a part may hold its shadow or its blurred edge: it is not learned from.
        near = np.convolve(present, np.ones(5), mode="same") > 0
        self._empty = ~near
        self._belt[:, ~near] += ABSORB * (cells - self._belt)[:, ~near]

    def _parts(self, differs: Mask, present: Mask, image: Image) -> tuple[Sighting, ...]:
        along = len(present)
        starts, ends = _runs(present, int(self._options.join * along))
        long = (ends - starts) >= max(self._options.min_length * along, 1)
        return tuple(
            self._sighting(differs, int(start), int(end), image)
            for start, end in zip(starts[long], ends[long], strict=True)
        )

    def _sighting(self, differs: Mask, start: int, end: int, image: Image) -> Sighting:
        cell = self._options.cell_px
        rows = np.flatnonzero(differs[:, start:end].any(axis=1))
        length = image.shape[1] if self._options.axis == "x" else image.shape[0]
        offset = self._lane(
            (image.shape[0] if self._options.axis == "x" else image.shape[1]) // cell
        ).start
        low, high = (rows[0] + offset) * cell, (rows[-1] + 1 + offset) * cell
        first, last = start * cell, min(end * cell, length)
        whole = start > 0 and end < differs.shape[1]
        box = (first, low, last, high) if self._options.axis == "x" else (low, first, high, last)
        return Sighting(Box(*(float(v) for v in box)), whole)


def _belt_profile(cells: Cells, belt: str) -> Cells:
    """Guess the empty belt from one frame: the slices that show the least structure across it."""
    rough = (
        np.abs(np.diff(cells, axis=0)).mean(axis=0) if len(cells) > 1 else np.zeros(cells.shape[1])
    )
    quiet = rough <= np.quantile(rough, 0.1) + 0.5
    level = cells.mean(axis=0)
    if belt != "unknown":
        edge = np.quantile(level[quiet], 0.5)
        quiet &= level <= edge if belt == "dark" else level >= edge
    profile = np.median(cells[:, quiet], axis=1, keepdims=True)
    return np.repeat(profile, cells.shape[1], axis=1).astype(np.float32)


def _runs(present: Mask, join: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return starts and ends (exclusive) of runs of True, gaps of up to ``join`` closed."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], present, [False])).astype(np.int8)))
    starts, ends = edges[0::2], edges[1::2]
    if len(starts) == 0:
        return starts, ends
    apart = starts[1:] - ends[:-1] > join
    return starts[np.concatenate(([True], apart))], ends[np.concatenate((apart, [True]))]


def create(options: Options) -> Presence:
    """Make the trigger."""
    return Presence(options)
