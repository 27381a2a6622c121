"""A trigger that sees parts on a belt by image alone: what differs from the empty belt is a part.

The frame is shrunk until noise has averaged out; an empty-belt picture is learned from the columns
that show no structure across the belt, follows the lamp from frame to frame, and everything that
differs from it along the belt is a part. Belt speed, part order and gaps play no role.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.errors import ConfigError
from pipeline.plugins import Options as BaseOptions
from pipeline.triggers import Unseen
from pipeline.types import Box, Frame, Image, Sighting

Cells = NDArray[np.float32]
Mask = NDArray[np.bool_]
Share = Annotated[float, Field(ge=0, le=1)]

ABSORB = 0.02
"""Share by which an empty cell of the belt picture moves to what is seen, per frame, once it is
known; before, it takes the mean of what was seen: the first part may come after a few frames."""

BLIND_FRAMES = 30
"""Frames without an empty slice after which the belt is learned anew: the light changed unseen.

Or the lens was covered, and then the cover is learned and nothing is seen any more. So a belt that
was learned anew is on trial until a part has crossed it, or the old one is seen again.
"""

BLACK, WHITE = 4.0, 251.0
"""Grey levels below or above which a whole picture shows nothing; noise moves a cell by 0.5."""

LEAP_SHARE = 0.5
"""Share of its brightness by which the belt may change from one frame to the next."""

DIM_SHARE = 0.25
"""Share of its first brightness below which the belt is too dark to tell parts from it: a lamp that
goes out takes belt and parts to black together, and nothing would differ any more."""

MEDIAN_OF = 1024
"""Values from which the middle of many is taken; it is off by a twentieth of their spread."""

EDGE_SHARE = 0.05
"""Share of a part's length that must differ in a row of pixels for the part to reach there."""


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
    lane: tuple[Share, Share] = (0.0, 1.0)
    cell_px: Annotated[int, Field(ge=1, le=256)] = 8
    contrast: Annotated[float, Field(gt=0, le=255)] = 6.0
    fill: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_length: Share = 0.05
    join: Share = 0.02
    belt: Literal["dark", "light", "unknown"] = "unknown"

    @model_validator(mode="after")
    def _lane_has_a_width(self) -> "Options":
        if self.lane[0] >= self.lane[1]:
            raise ValueError(f"lane: from ({self.lane[0]}) must lie below to ({self.lane[1]})")
        return self


class Presence:
    """Finds parts against a learned empty belt."""

    tracks = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self.axis = options.axis
        self._belt: Cells | None = None
        self._empty: Mask = np.zeros(0, np.bool_)
        self._seen: Cells = np.zeros(0, np.float32)
        """Frames in which each slice was empty, since its belt was guessed."""
        self._seq = 0
        self._blind = 0
        self._trusted: Cells | None = None
        """The belt before it was learned anew; None while the present one is not on trial."""
        self._learned_level = 0.0
        self._unlit = False

    @property
    def fault(self) -> str | None:
        if self._unlit:
            return "the picture is black, white or far darker than it was; is the lamp on?"
        if self._trusted is None:
            return None
        return (
            "what is seen is not the belt that was learned, and nothing is trusted until "
            "a part has crossed it; is the lens covered, or the lamp out? Else start the station "
            "again with an empty belt"
        )

    def crossed(self) -> None:
        self._trusted = None

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        lane = self._lane_of(frame.image)
        cells = _shrunk(lane, self._options.cell_px)
        if self._belt is None or self._belt.shape != cells.shape:
            self._belt = _belt_profile(cells, self._options.belt)
            self._empty, self._blind = np.zeros(cells.shape[1], np.bool_), 0
            self._seen = np.zeros(cells.shape[1], np.float32)
            self._trusted, self._learned_level = None, _middle(self._belt)
        self._follow_the_lamp(cells, frame.seq)
        differs = np.abs(cells - self._belt) > self._options.contrast
        present = _share(differs, 0) >= self._options.fill
        self._learn(cells, present)
        return self._parts(differs, present, lane, frame.image)

    def unseen(self, frame: Frame | None) -> tuple[Unseen, ...]:
        """Return nothing: a part is known only once a frame has shown it."""
        del frame
        return ()

    def _lane_of(self, image: Image) -> Image:
        """Return the lane in grey, whole cells of it, uint8 (across the belt, along the belt)."""
        cell = self._options.cell_px
        height, width = (side // cell for side in image.shape[:2])
        if not height or not width:
            raise ConfigError(
                f"trigger: a picture of {image.shape[1]} x {image.shape[0]} pixels is smaller than "
                f"a cell of {cell}; lower trigger.cell_px"
            )
        rows, columns = slice(0, height * cell), slice(0, width * cell)
        if self._options.axis == "x":
            lane = self._lane(height)
            return _grey(image[lane.start * cell : lane.stop * cell, columns])
        lane = self._lane(width)
        return np.asarray(_grey(image[rows, lane.start * cell : lane.stop * cell])).T

    def _lane(self, across: int) -> slice:
        start, end = self._options.lane
        return slice(int(start * across), max(round(end * across), int(start * across) + 1))

    def _follow_the_lamp(self, cells: Cells, seq: int) -> None:
        """Take up a change of light at once; where nothing looks empty for long, learn anew."""
        assert self._belt is not None
        belts = [self._belt] if self._trusted is None else [self._trusted, self._belt]
        if seq - self._seq == 1 and self._empty.any():
            # A lamp moves all that was empty a frame ago. After lost frames a part may lie there.
            belts.append(self._belt + _middle((cells - self._belt)[:, self._empty]))
        anew = _belt_profile(cells, self._options.belt) if self._blind >= BLIND_FRAMES else None
        if anew is not None:
            belts.append(anew)
        looks = [self._looks_empty(cells, b) for b in belts]
        best = max(range(len(belts)), key=lambda i: np.count_nonzero(looks[i]))
        belt, empty = belts[best], looks[best]
        if belt is anew:
            self._seen[:] = 0
        if belt is self._trusted:
            self._trusted = None
        elif self._trusted is None and (belt is anew or self._leaps(belt)):
            self._trusted = self._belt
        self._blind = 0 if empty.any() else self._blind + 1
        if empty.any():
            belt = belt + _middle((cells - belt)[:, empty])
        self._belt, self._seq = belt.astype(np.float32), seq
        self._unlit = bool(
            cells.max() < BLACK
            or cells.min() > WHITE
            or _middle(belt) < DIM_SHARE * self._learned_level
        )

    def _leaps(self, belt: Cells) -> bool:
        """Tell whether the light changed at once by more than a lamp does: more likely, something
        lies before the lens."""
        assert self._belt is not None
        before = _middle(self._belt)
        return abs(_middle(belt) - before) > LEAP_SHARE * before

    def _looks_empty(self, cells: Cells, belt: Cells) -> Mask:
        """Return which slices across the belt show no part, bool (along the belt,)."""
        differs = np.abs(cells - belt) > self._options.contrast
        return _share(differs, 0) < self._options.fill

    def _learn(self, cells: Cells, present: Mask) -> None:
        assert self._belt is not None
        # A slice beside a part may hold its shadow or its blurred edge: it is not learned from.
        near = np.convolve(present, np.ones(5))[2:-2] > 0
        self._empty = ~near
        share = np.maximum(1 / (self._seen + 1), np.float32(ABSORB))
        self._belt += np.where(self._empty, share, np.float32(0)) * (cells - self._belt)
        self._seen += self._empty

    def _parts(
        self, differs: Mask, present: Mask, lane: Image, image: Image
    ) -> tuple[Sighting, ...]:
        along = len(present)
        starts, ends = _runs(present, int(self._options.join * along))
        long = (ends - starts) >= max(self._options.min_length * along, 1)
        return tuple(
            self._sighting(differs, int(start), int(end), lane, image)
            for start, end in zip(starts[long], ends[long], strict=True)
        )

    def _sighting(self, differs: Mask, start: int, end: int, lane: Image, image: Image) -> Sighting:
        """Place a part: its cells first, then each edge to the pixel.

        To the cell alone a part of 640 pixels comes out as 648, and a model made for 640 would see
        it scaled.
        """
        assert self._belt is not None
        cell = self._options.cell_px
        shown = _share(differs[:, start:end], 1)
        rows = np.flatnonzero(shown >= min(EDGE_SHARE, shown.max()))
        low, high = int(rows[0]), int(rows[-1]) + 1
        length, breadth = image.shape[1::-1] if self._options.axis == "x" else image.shape[:2]
        top = self._lane(breadth // cell).start * cell
        part, belt = _Cut(lane, self._belt, cell), self._options
        whole = start > 0 and end < differs.shape[1]
        x0 = part.edge_along(start, low, high, belt.contrast, belt.fill) if start > 0 else 0
        x1 = length
        if end < differs.shape[1]:
            x1 = part.edge_along(end, low, high, belt.contrast, belt.fill, far=True)
        y0 = part.edge_across(low, start, end, belt.contrast)
        y1 = part.edge_across(high, start, end, belt.contrast, far=True)
        box = (x0, y0 + top, x1, y1 + top)
        if self._options.axis == "y":
            box = (box[1], box[0], box[3], box[2])
        return Sighting(Box(*(float(v) for v in box)), whole)


@dataclass(frozen=True, slots=True)
class _Cut:
    """The lane in grey beside the empty belt in cells; travel along the second axis."""

    lane: Image
    belt: Cells
    cell: int

    def edge_along(
        self, at: int, low: int, high: int, contrast: float, share: float, far: bool = False
    ) -> int:
        """Return the pixel along the belt where a part starts (``far``: ends) near cell ``at``."""
        cell = self.cell
        strip = self.lane[low * cell : high * cell, max(at - 1, 0) * cell : (at + 1) * cell]
        mean = _mean_of_blocks(strip, high - low, strip.shape[1])
        beside = min(at, self.belt.shape[1] - 1) if far else at - 1
        differs = np.abs(mean - self.belt[low:high, beside, None]) > contrast
        return _first(_share(differs, 0) >= share, at * cell, cell, far)

    def edge_across(self, at: int, start: int, end: int, contrast: float, far: bool = False) -> int:
        """Return the pixel across the belt where a part starts (or ends) near cell ``at``."""
        cell = self.cell
        strip = self.lane[max(at - 1, 0) * cell : (at + 1) * cell, start * cell : end * cell]
        mean = _mean_of_blocks(strip, strip.shape[0], end - start)
        beside = min(at, len(self.belt) - 1) if far else max(at - 1, 0)
        differs = np.abs(mean - self.belt[beside, start:end]) > contrast
        return _first(_share(differs, 1) >= EDGE_SHARE, at * cell, cell, far)


def _first(present: Mask, coarse: int, cell: int, far: bool) -> int:
    """Return the pixel of the first (``far``: last) slice that shows the part, else ``coarse``."""
    slices = np.flatnonzero(present)
    if len(slices) == 0:
        return coarse
    begin = max(coarse - cell, 0)
    return begin + int(slices[-1]) + 1 if far else begin + int(slices[0])


def _mean_of_blocks(grey: Image, rows: int, columns: int) -> Cells:
    """Return the mean of each block of a picture that divides into ``rows`` x ``columns``."""
    size = (columns, rows)
    exact = grey.astype(np.float32, order="C")
    return np.asarray(cv2.resize(exact, size, interpolation=cv2.INTER_AREA))


def _shrunk(lane: Image, cell: int) -> Cells:
    """Return mean grey levels per cell, float32.

    In halves, for which OpenCV has vector code: 0.3 instead of 0.9 ms for 1280 x 720 and 8.
    """
    is_turned = lane.strides[0] < lane.strides[1]
    left, small = cell, lane.T if is_turned else lane
    while left > 1:
        by = 2 if left % 2 == 0 else left
        size = (small.shape[1] // by, small.shape[0] // by)
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
        left //= by
    return np.array(small.T if is_turned else small, np.float32, order="C")


def _share(mask: Mask, axis: int) -> NDArray[np.float32]:
    """Return the share of True along an axis; the mean of booleans takes 5 times as long."""
    count = np.add.reduce(mask.view(np.uint8), axis=axis, dtype=np.uint16)
    return np.asarray(count / np.float32(mask.shape[axis]), np.float32)


def _middle(values: Cells) -> float:
    """Return the median of some of many values: of all it takes twenty times as long."""
    some = values.reshape(-1)[:: max(values.size // MEDIAN_OF, 1)]
    return float(np.partition(some, len(some) // 2)[len(some) // 2])


def _grey(image: Image) -> Image:
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


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
