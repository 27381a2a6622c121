"""Damage the copper of a board as etching and handling do, one defect of a named kind at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synth import strokes
from pipeline.synth.strokes import Spot

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]

KINDS = ("open", "short", "mousebite", "spur", "copper", "pin-hole")

# DeepPCB draws its boxes around the brush stroke that made the defect, not around the pixels that
# changed: 10 px left and above, 9 px right and below (copper and pin-hole, where the stroke is
# seen whole, 1,995 boxes of trainval: 96 % are exactly 19 px wider and higher than the stroke).
MARGIN_BEFORE_PX, MARGIN_AFTER_PX = 10, 9

# Median and spread (of the logarithm) of the stroke: its longest side, from the same boxes less
# 19 px; for an open or short its width, as its length follows from the trace or the gap.
STROKE_PX = {
    "open": (5.0, 0.35),
    "short": (5.0, 0.35),
    "mousebite": (16.0, 0.38),
    "spur": (17.0, 0.30),
    "copper": (21.0, 0.40),
    "pin-hole": (20.0, 0.38),
}
TRIES = 100
SIZED_TRIES = 240  # an open or short of a wanted size needs a trace or gap that suits it
CLEAR_PX = 3  # what a defect must not touch stays at least this far away
LEAST_CHANGE_PX = 20  # 99 % of DeepPCB's islands and pin-holes have over 34
LEAST_PART_PX = 40  # a severed end or joined conductor smaller than this is a speck


@dataclass(frozen=True)
class Defect:
    """One defect: its kind, its labelled box (xyxy, px) and the largest extent of what changed."""

    kind: str
    xyxy: Box
    size_px: float


def add_defect(
    copper: Mask,
    kind: str,
    rng: np.random.Generator,
    *,
    size_px: float | None = None,
    avoid: Sequence[Box] = (),
) -> tuple[Mask, Defect] | None:
    """Add one defect to a board; a real, thresholded board does as well as a drawn one.

    Args:
        copper: bool (H, W), left unchanged.
        kind: one of KINDS.
        rng: the only source of chance.
        size_px: largest extent of the changed pixels, met within 15 % or 1 px; drawn when None.
        avoid: boxes (xyxy, px) that the new box must not touch.

    Returns:
        The damaged copper and the defect, or None where the board has no room for it.
    """
    places = PLACES[kind](copper)
    if kind == "open" and size_px is not None:
        places = _ridge(copper, 1.5, max(2.0, 0.6 * size_px))
    if len(places) == 0:
        return None
    for attempt in range(TRIES if size_px is None else SIZED_TRIES):
        y, x = divmod(int(places[rng.integers(len(places))]), copper.shape[1])
        if size_px is None:
            # On a crowded board only a smaller one finds room.
            stroke_px = _usual_stroke(kind, rng) * (1 - 0.5 * attempt / TRIES)
        else:
            stroke_px = _stroke_for(kind, size_px, rng)
        spot = _spot(copper, x, y)
        stroke = STROKES[kind](spot, stroke_px, rng)
        if stroke is None or not stroke.any():
            continue
        found = _apply(spot, kind, stroke, size_px)
        if found is None:
            continue
        damaged, defect = found
        if _clear_of(defect.xyxy, avoid, copper.shape):
            result = copper.copy()
            height, width = damaged.shape
            result[spot.y0 : spot.y0 + height, spot.x0 : spot.x0 + width] = damaged
            return result, defect
    return None


def damage(
    copper: Mask, count: int, rng: np.random.Generator, avoid: Sequence[Box] = ()
) -> tuple[Mask, tuple[Defect, ...]]:
    """Add up to `count` defects of random kinds whose boxes do not touch each other."""
    defects: list[Defect] = []
    for _ in range(count):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        taken = [*avoid, *(defect.xyxy for defect in defects)]
        if (found := add_defect(copper, kind, rng, avoid=taken)) is not None:
            copper, defect = found
            defects.append(defect)
    return copper, tuple(defects)


def _usual_stroke(kind: str, rng: np.random.Generator) -> float:
    median, spread = STROKE_PX[kind]
    return float(np.clip(median * np.exp(rng.normal(0, spread)), 0.5 * median, 5 * median))


def _stroke_for(kind: str, size_px: float, rng: np.random.Generator) -> float:
    """The stroke to try for a wanted size: part of a bite or spur overlaps what is there."""
    if kind in ("open", "short"):
        return float(rng.uniform(min(2.5, size_px), size_px))
    share = float(rng.uniform(1.0, 1.5)) if kind in ("mousebite", "spur") else 1.0
    return size_px * share


def _spot(copper: Mask, x: int, y: int, reach: int = 96) -> Spot:
    x0, y0 = max(0, x - reach), max(0, y - reach)
    return Spot(copper[y0 : y + reach + 1, x0 : x + reach + 1], x0, y0, (x - x0, y - y0))


def _apply(
    spot: Spot, kind: str, stroke: Mask, size_px: float | None
) -> tuple[Mask, Defect] | None:
    """Lay the stroke on the copper; None unless it keeps the promise of its kind."""
    height, width = stroke.shape
    left, top, right, bottom = _extent(stroke)
    if left < CLEAR_PX or top < CLEAR_PX or right > width - CLEAR_PX or bottom > height - CLEAR_PX:
        return None
    removes = kind in ("open", "mousebite", "pin-hole")
    damaged = spot.copper & ~stroke if removes else spot.copper | stroke
    changed = damaged ^ spot.copper
    if not changed.any():
        return None
    c = _extent(changed)
    size = float(max(c[2] - c[0], c[3] - c[1]))
    if size_px is None and int(changed.sum()) < LEAST_CHANGE_PX:
        return None
    if size_px is not None and abs(size - size_px) > max(1.0, 0.15 * size_px):
        return None
    pad = 14
    window = (
        slice(max(0, top - pad), bottom + pad),
        slice(max(0, left - pad), right + pad),
    )
    if not PROMISES[kind](spot.copper[window], damaged[window], stroke[window]):
        return None
    box = (
        float(left + spot.x0 - MARGIN_BEFORE_PX),
        float(top + spot.y0 - MARGIN_BEFORE_PX),
        float(right + spot.x0 + MARGIN_AFTER_PX),
        float(bottom + spot.y0 + MARGIN_AFTER_PX),
    )
    return damaged, Defect(kind, box, size)


def _extent(mask: Mask) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _clear_of(box: Box, avoid: Sequence[Box], shape: tuple[int, ...]) -> bool:
    height, width = shape
    if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
        return False
    return all(
        box[0] > other[2] or box[2] < other[0] or box[1] > other[3] or box[3] < other[1]
        for other in avoid
    )


# Where a defect of each kind may start: flat indices into the board.


def _depth(mask: Mask) -> NDArray[np.float32]:
    return np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3), np.float32)


def _ridge(mask: Mask, least: float, most: float) -> NDArray[np.intp]:
    """Middle lines of the mask where its half width lies within limits."""
    depth = _depth(mask)
    peak = depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 0.1
    return np.flatnonzero(peak & (depth >= least) & (depth <= most))


def _edge(copper: Mask) -> NDArray[np.intp]:
    inner = cv2.erode(copper.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.flatnonzero(copper & ~inner)


def _inside(mask: Mask) -> NDArray[np.intp]:
    return np.flatnonzero(_depth(mask) >= CLEAR_PX + 2)


def _invert(places: Callable[[Mask], NDArray[np.intp]]) -> Callable[[Mask], NDArray[np.intp]]:
    return lambda copper: places(~copper)


# Promises: what must hold in the window around the stroke before and after.


def _count(mask: Mask, least_px: int = 1, connectivity: int = 8) -> int:
    """Number of connected pieces of at least an area."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity
    )
    return int((stats[1:, cv2.CC_STAT_AREA] >= least_px).sum())


def _grown(mask: Mask, by: int) -> Mask:
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0, np.bool_)


def _severs(before: Mask, after: Mask, stroke: Mask) -> bool:
    parts = _count(after, LEAST_PART_PX) - _count(before, LEAST_PART_PX)
    # A cut so thin that eight-neighbours almost bridge it would be disputed by every eye.
    return parts == 1 and _count(_grown(after, 1), 60) > _count(_grown(before, 1), 60)


def _joins(before: Mask, after: Mask, stroke: Mask) -> bool:
    return _count(after) == _count(before) - 1 and _count(~after, connectivity=4) <= 1 + _count(
        ~before, connectivity=4
    )


def _same_pieces(before: Mask, after: Mask, stroke: Mask) -> bool:
    """Neither severed, joined nor holed, and not nearly so."""
    return _count(after) == _count(before) and _count(~after, connectivity=4) == _count(
        ~before, connectivity=4
    )


def _bites(before: Mask, after: Mask, stroke: Mask) -> bool:
    thin = _count(~_grown(~after, 1), 8) <= _count(~_grown(~before, 1), 8)
    deep = int((before ^ after).sum()) >= 14
    return deep and thin and _same_pieces(before, after, stroke)


def _protrudes(before: Mask, after: Mask, stroke: Mask) -> bool:
    far = _count(_grown(after, 1)) == _count(_grown(before, 1))
    far = far and _count(~_grown(after, 1), 8, 4) <= _count(~_grown(before, 1), 8, 4)
    return far and int((before ^ after).sum()) >= 14 and _same_pieces(before, after, stroke)


def _stands_alone(before: Mask, after: Mask, stroke: Mask) -> bool:
    return (
        not (before & _grown(stroke, CLEAR_PX)).any()
        and _count(stroke, connectivity=4) == 1
        and _count(~after, connectivity=4) == _count(~before, connectivity=4)
    )


def _pierces(before: Mask, after: Mask, stroke: Mask) -> bool:
    return _stands_alone(~before, ~after, stroke)


PLACES: dict[str, Callable[[Mask], NDArray[np.intp]]] = {
    "open": lambda copper: _ridge(copper, 1.5, 34.0),
    "short": _edge,
    "mousebite": _edge,
    "spur": _edge,
    "copper": _invert(_inside),
    "pin-hole": _inside,
}
STROKES: dict[str, Callable[[Spot, float, np.random.Generator], Mask | None]] = {
    "open": strokes.cut,
    "short": strokes.bridge,
    "mousebite": strokes.bite,
    "spur": strokes.bump,
    "copper": strokes.blot,
    "pin-hole": strokes.blot,
}
PROMISES: dict[str, Callable[[Mask, Mask, Mask], bool]] = {
    "open": _severs,
    "short": _joins,
    "mousebite": _bites,
    "spur": _protrudes,
    "copper": _stands_alone,
    "pin-hole": _pierces,
}
