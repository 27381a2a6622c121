"""Covers a large part with tiles of the model's input, and makes one box of what lies on a seam."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Box, Detections
from pipeline.vision.geometry import Boxes, areas

SAME_SHARE = 0.5
"""Share of the smaller of two boxes that both must cover, in what both tiles show, to be one."""


def tiles_of(box: Box, frame: tuple[int, int], tile: tuple[int, int], overlap: int) -> list[Box]:
    """Return the fewest tiles that cover a part, spread evenly, row by row.

    Args:
        box: the part, pixels of the frame.
        frame, tile: height and width, pixels.
        overlap: pixels that neighbours share at least; a smaller defect is whole in one of them.
            Below half of either side of a tile.

    Returns:
        Whole pixels within the frame; none if the part lies outside it.
    """
    rows = _spans(box.y0, box.y1, tile[0], overlap, frame[0])
    columns = _spans(box.x0, box.x1, tile[1], overlap, frame[1])
    return [Box(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns if x1 > x0 and y1 > y0]


def merged(found: Sequence[Detections], tiles: Sequence[Box]) -> Detections:
    """Join what several tiles show of one defect: its whole box, its highest score and that label.

    Two boxes of two tiles are one defect if they agree in what both tiles show. So a scratch that
    is longer than the overlap becomes one, and two defects side by side stay two.

    Args:
        found: per tile, pixels of the frame.
        tiles: the same number.
    """
    xyxy = np.concatenate([f.xyxy for f in found])
    score = np.concatenate([f.score for f in found])
    label = np.concatenate([f.label for f in found])
    group = _groups(len(score), list(_same(found, tiles)))
    first = np.flatnonzero(group == np.arange(len(group)))
    for other in np.flatnonzero(group != np.arange(len(group))):
        whole = xyxy[group[other]]
        np.minimum(whole[:2], xyxy[other, :2], out=whole[:2])
        np.maximum(whole[2:], xyxy[other, 2:], out=whole[2:])
        if score[other] > score[group[other]]:
            score[group[other]], label[group[other]] = score[other], label[other]
    return Detections(xyxy, score, label)[first]


def _spans(low: float, high: float, tile: int, overlap: int, limit: int) -> list[tuple[int, int]]:
    """Return where tiles start and end along one side of the frame."""
    start, end = max(math.floor(low), 0), min(math.ceil(high), limit)
    if end <= start:
        return []
    if end - start <= tile:
        start = min(max(round((low + high - tile) / 2), 0), max(limit - tile, 0))
        return [(start, min(start + tile, limit))]
    steps = math.ceil((end - start - tile) / (tile - overlap))
    starts = [start + round(i * (end - start - tile) / steps) for i in range(steps + 1)]
    return [(at, at + tile) for at in starts]


def _same(
    found: Sequence[Detections], tiles: Sequence[Box]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield, for every two tiles that overlap, the numbers of the boxes that are one defect."""
    begin = np.cumsum([0, *(len(f) for f in found)])
    for i, a in enumerate(tiles):
        for j, b in enumerate(tiles[:i]):
            shared = (max(a.x0, b.x0), max(a.y0, b.y0), min(a.x1, b.x1), min(a.y1, b.y1))
            if shared[0] < shared[2] and shared[1] < shared[3] and len(found[i]) and len(found[j]):
                one, other = np.nonzero(_agree(found[i].xyxy, found[j].xyxy, shared))
                yield begin[i] + one, begin[j] + other


def _agree(a: Boxes, b: Boxes, within: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return which boxes are the same as far as both tiles show them, bool (n, m)."""
    low, high = np.array(within[:2], np.float32), np.array(within[2:], np.float32)
    a, b = (
        np.concatenate((np.maximum(c[:, :2], low), np.minimum(c[:, 2:], high)), 1) for c in (a, b)
    )
    common = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    smaller = np.minimum(areas(a)[:, None], areas(b)[None, :])
    both = np.prod(np.maximum(common, 0), axis=2)
    return np.asarray((smaller > 0) & (both >= SAME_SHARE * smaller))


def _groups(
    count: int, pairs: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
) -> NDArray[np.intp]:
    """Return for each of ``count`` boxes the lowest number of those that it is one with."""
    group = np.arange(count)
    changed = bool(pairs)
    while changed:
        before = group.copy()
        for one, other in pairs:
            lowest = np.minimum(group[one], group[other])
            np.minimum.at(group, one, lowest)
            np.minimum.at(group, other, lowest)
        changed = bool((before != group).any())
    return group
