"""Paint what a defect changes: strokes as a hand or the etch would leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Canvas = NDArray[np.uint8]
Point = tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """A square cut-out of the copper around a place, where one defect is tried."""

    copper: Mask
    x0: int
    y0: int
    at: Point  # in cut-out coordinates

    def inward(self) -> float:
        """Angle across the copper's edge at the spot, pointing into the copper."""
        x, y = int(self.at[0]), int(self.at[1])
        near = self.copper[max(0, y - 9) : y + 10, max(0, x - 9) : x + 10].astype(np.float32)
        soft = cv2.GaussianBlur(near, (0, 0), 2.5)
        row, column = min(y, 9), min(x, 9)
        gx = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3)[row, column]
        gy = cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3)[row, column]
        return float(np.arctan2(gy, gx))


def _brush(shape: tuple[int, ...], points: Sequence[Point], widths: Sequence[float]) -> Mask:
    """Paint a line of dabs whose width changes from point to point."""
    canvas: Canvas = np.zeros(shape, np.uint8)
    for a, b, width in zip(points[:-1], points[1:], widths, strict=False):
        start = (round(a[0]), round(a[1]))
        end = (round(b[0]), round(b[1]))
        cv2.line(canvas, start, end, 1, max(1, round(width)))
    return canvas > 0


def _fray(stroke: Mask, rng: np.random.Generator, share: float) -> Mask:
    """Nibble at the border of a stroke, as binarising does."""
    inner = cv2.erode(stroke.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    border = stroke & ~inner
    kept = stroke & ~(border & (rng.random(stroke.shape, np.float32) < share))
    return _largest(kept)


def _largest(mask: Mask) -> Mask:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4
    )
    if count <= 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), np.bool_)


def _wander(
    start: Point, heading: float, length: float, rng: np.random.Generator, bend: float
) -> list[Point]:
    """A hand-drawn line: it sways around its heading."""
    count = max(2, round(length / 4))
    headings = heading + np.cumsum(rng.normal(0, bend, count)) * 0.5
    steps = np.stack((np.cos(headings), np.sin(headings)), axis=1) * (length / count)
    points = np.vstack(([start], np.asarray(start) + np.cumsum(steps, axis=0)))
    return [(float(x), float(y)) for x, y in points]


def blot(spot: Spot, extent: float, rng: np.random.Generator) -> Mask | None:
    """A spot of dirt or a void: a blob, a short thick line, a hook or a scribble."""
    style = rng.random()
    if style < 0.5:
        return _fray(_blob(spot, extent, rng), rng, 0.15)
    if style < 0.82:
        width = float(np.clip(extent * rng.uniform(0.25, 0.5), 2, 10))
        points = _wander((0, 0), float(rng.uniform(0, 7)), extent - width, rng, 0.35)
        widths = width * rng.uniform(0.7, 1.2, len(points))
    elif style < 0.9:
        width = float(np.clip(extent * 0.2, 2, 6))
        heading = float(rng.integers(8)) * np.pi / 4
        corner = _along((0, 0), heading, extent * 0.8)
        bent = heading + float(rng.choice((-1, 1))) * float(rng.uniform(1.2, 1.9))
        points = [(0.0, 0.0), corner, _along(corner, bent, extent * float(rng.uniform(0.3, 0.8)))]
        widths = np.full(3, width)
    else:
        width = float(np.clip(extent * 0.12, 1.4, 3))
        count = int(rng.integers(5, 10))
        xs = rng.uniform(-0.5, 0.5, count) * extent
        ys = np.linspace(-0.35, 0.35, count) * extent
        points = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
        widths = np.full(count, width)
    centred = _centred(points, spot.at, extent, width)
    stroke = _brush(spot.copper.shape, centred, [float(w) for w in widths])
    return _fray(stroke, rng, float(rng.choice((0.0, 0.15, 0.3))))


def _blob(spot: Spot, extent: float, rng: np.random.Generator) -> Mask:
    """A closed, lumpy outline."""
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    lumps = 1 + rng.uniform(0.0, 0.3) * np.sin(angles * rng.integers(2, 4) + rng.uniform(0, 6))
    lumps += rng.normal(0, 0.06, len(angles))
    slim = rng.uniform(0.45, 1.0)
    x, y = np.cos(angles) * lumps, np.sin(angles) * lumps * slim
    turn = rng.uniform(0, np.pi)
    outline = np.stack(
        (x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)), axis=1
    )
    outline -= (outline.max(axis=0) + outline.min(axis=0)) / 2
    outline *= max(extent - 1, 1.0) / np.ptp(outline, axis=0).max()
    canvas: Canvas = np.zeros(spot.copper.shape, np.uint8)
    fixed = np.round((outline + np.asarray(spot.at)) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], 1, cv2.LINE_8, 4)
    return canvas > 0


def _centred(points: Sequence[Point], at: Point, extent: float, width: float) -> list[Point]:
    """Move and scale a line so that its stroke is centred and has the wanted extent."""
    array = np.asarray(points, np.float64)
    array -= (array.max(axis=0) + array.min(axis=0)) / 2
    array *= max(extent - width, 1.0) / max(float(np.ptp(array, axis=0).max()), 1e-6)
    array += np.asarray(at)
    return [(float(x), float(y)) for x, y in array]


def _along(start: Point, heading: float, length: float) -> Point:
    return start[0] + length * float(np.cos(heading)), start[1] + length * float(np.sin(heading))


def cut(spot: Spot, width: float, rng: np.random.Generator) -> Mask | None:
    """A stroke across a trace: one swaying line, or several ragged ones side by side."""
    reach = _half_width(spot)
    if reach is None:
        return None
    axis, half = reach
    across = axis + np.pi / 2 + float(rng.normal(0, 0.3))
    length = 2 * half / max(abs(float(np.cos(across - axis - np.pi / 2))), 0.5)
    length += float(rng.uniform(2, 6))
    start = _along(spot.at, across + np.pi, length / 2)
    shape = spot.copper.shape
    style = rng.random()
    if style < 0.55:
        points = _wander(start, across, length, rng, 0.25)
        return _fray(_brush(shape, points, [width] * len(points)), rng, 0.15)
    if style < 0.7 and half < 9:
        return _fray(_blob(spot, length * float(rng.uniform(1.0, 1.3)), rng), rng, 0.15)
    stroke = np.zeros(shape, np.bool_)
    splay = min(0.3, 2.5 / half)
    for _ in range(int(rng.integers(2, 5))):
        aside = _along(start, axis, float(rng.normal(0, width * 0.8)))
        points = _wander(aside, across + float(rng.normal(0, splay)), length, rng, splay)
        stroke |= _brush(shape, points, [float(rng.uniform(1.5, 3.5))] * len(points))
    return stroke


def _half_width(spot: Spot) -> tuple[float, float] | None:
    """Direction of the trace under the spot, and half its width; None where it has none."""
    x, y = spot.at
    angles = np.arange(16) * np.pi / 16
    runs = [_run(spot.copper, x, y, a) + _run(spot.copper, x, y, a + np.pi) for a in angles]
    narrow = int(np.argmin(runs))
    if max(runs) < 2.2 * runs[narrow]:
        return None
    return float(angles[narrow] - np.pi / 2), runs[narrow] / 2


def _run(mask: Mask, x: float, y: float, heading: float, most: int = 90) -> int:
    """Steps from a place to where the mask changes, along a heading."""
    steps = np.arange(1, most)
    xs = np.clip(np.round(x + steps * np.cos(heading)).astype(int), 0, mask.shape[1] - 1)
    ys = np.clip(np.round(y + steps * np.sin(heading)).astype(int), 0, mask.shape[0] - 1)
    differs = mask[ys, xs] != mask[int(y), int(x)]
    return int(differs.argmax()) if differs.any() else most


def bridge(spot: Spot, width: float, rng: np.random.Generator) -> Mask | None:
    """A stroke from an edge across the clearance to the copper opposite."""
    x, y = spot.at
    heading = spot.inward() + np.pi + float(rng.normal(0, 0.25))
    outside = _along(spot.at, heading, 3.0)
    if not _within(spot.copper.shape, outside) or spot.copper[int(outside[1]), int(outside[0])]:
        return None
    gap = _run(spot.copper, outside[0], outside[1], heading, 80)
    if gap >= 80 or _in_hole(spot.copper, outside):
        return None
    length = gap + 3 + float(rng.uniform(3, 9))
    start = _along((x, y), heading + np.pi, float(rng.uniform(1, 4)))
    shape = spot.copper.shape
    style = rng.random()
    if style < 0.4:
        ends = [start, _along(start, heading, length)]
        return _fray(_brush(shape, ends, [width]), rng, 0.1)
    if style < 0.85:
        points = _wander(start, heading, length, rng, 0.2)
        widths = width * rng.uniform(0.8, 1.25, len(points))
        return _fray(_brush(shape, points, [float(w) for w in widths]), rng, 0.1)
    stroke = np.zeros(shape, np.bool_)
    for side in (-1, 1):
        aside = _along(start, heading + np.pi / 2, side * width * float(rng.uniform(0.4, 1.0)))
        points = _wander(aside, heading, length, rng, min(0.15, 2 / length))
        stroke |= _brush(shape, points, [max(2.0, width * 0.5)] * len(points))
    return stroke


def _in_hole(copper: Mask, at: Point) -> bool:
    """Whether a place lies in a hole of the copper: a bar across a drill hole joins nothing."""
    _, labels = cv2.connectedComponents((~copper).astype(np.uint8), connectivity=4)
    edge = np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    return bool((edge != labels[int(at[1]), int(at[0])]).all())


def _within(shape: tuple[int, ...], at: Point) -> bool:
    return 0 <= at[0] < shape[1] and 0 <= at[1] < shape[0]


def bite(spot: Spot, extent: float, rng: np.random.Generator) -> Mask | None:
    """A stroke or blot on an edge that takes copper away."""
    return _at_edge(spot, extent, rng, inward=1.0)


def bump(spot: Spot, extent: float, rng: np.random.Generator) -> Mask | None:
    """A stroke or blot on an edge that adds copper."""
    return _at_edge(spot, extent, rng, inward=-1.0)


def _at_edge(spot: Spot, extent: float, rng: np.random.Generator, inward: float) -> Mask | None:
    heading = spot.inward() + (np.pi if inward < 0 else 0.0)
    style = rng.random()
    if style < (0.4 if inward > 0 else 0.25):
        centre = _along(spot.at, heading, extent * float(rng.uniform(0.05, 0.3)))
        moved = Spot(spot.copper, spot.x0, spot.y0, centre)
        return blot(moved, extent, rng)
    width = float(np.clip(extent * rng.uniform(0.22, 0.45), 2, 9))
    skew = float(rng.normal(0, 0.55))
    start = _along(spot.at, heading + np.pi, float(rng.uniform(0.5, 3.0)))
    stroke = np.zeros(spot.copper.shape, np.bool_)
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        length = max(2.0, extent - width) * float(rng.uniform(0.7, 1.0))
        points = _wander(start, heading + skew, length, rng, 0.3)
        taper = np.linspace(1.15, float(rng.uniform(0.6, 1.1)), len(points))
        stroke |= _brush(spot.copper.shape, points, [float(w) for w in width * taper])
        start = _along(start, heading + np.pi / 2, float(rng.normal(0, width)))
        skew += float(rng.normal(0, 0.5))
    return _fray(stroke, rng, float(rng.choice((0.0, 0.15, 0.3))))
