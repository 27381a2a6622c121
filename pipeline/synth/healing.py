"""Takes labelled defects off a real board, so that it can be the template of its own picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synth.defects import LEAST_CHANGE_PX, MARGIN_AFTER_PX, MARGIN_BEFORE_PX, Box

Mask = NDArray[np.bool_]

_ADDED = ("short", "spur", "copper")
_ISLANDS = ("copper", "pin-hole")
_AROUND_PX = 8  # an island that reaches no further is whole in the patch
_SLACKS_PX = (1, 3, 5, 8)  # what is healed is this much larger than the stroke, on every side
_MOST_MISFIT = 0.35  # share of an edge's pixels that no straight run of copper explains
_PER_SLANT = 0.002  # of two runs that fit alike, the straighter one
_DISCS_PX = (13, 21, 31)


def healed(copper: Mask, defects: Iterable[tuple[str, Box]]) -> Mask:
    """Return a board without its labelled defects.

    An island goes as a whole. Elsewhere the copper beyond two opposite edges of the defect is
    drawn through, straight or slanted, whichever fits the other two edges best; a disc closes or
    opens what no straight run explains, or what is as it was after that: a bend, mostly. Where
    copper was too much none is added, and the reverse. Of DeepPCB's training part
    3 of 2,058 defects stay as they were.

    Args:
        copper: bool (H, W); it is not changed.
        defects: kind, and labelled box with the margins of DeepPCB (xyxy, px).
    """
    board = copper.copy()
    for kind, box in defects:
        is_added = kind in _ADDED
        spots = [s for px in _SLACKS_PX if (s := _stroke_of(box, board.shape, px)) is not None]
        if not spots or (kind in _ISLANDS and _drop_island(board, spots[0], is_added)):
            continue
        for spot, filled in _ways(board, spots, is_added):
            here = board[spot.rows, spot.columns]
            after = here & filled if is_added else here | filled
            if np.count_nonzero(after != here) >= LEAST_CHANGE_PX:
                board[spot.rows, spot.columns] = after
                break
    return board


def _ways(board: Mask, spots: list[_Spot], is_added: bool) -> Iterator[tuple[_Spot, Mask]]:
    """Yield what may fill the spots, the likeliest way first."""
    for spot in spots:
        run = _best_run(board, spot)
        if run is not None:
            yield spot, run
    for disc_px in _DISCS_PX:
        for spot in spots:
            yield spot, _smoothed(board, spot, is_added, disc_px)


@dataclass(frozen=True, slots=True)
class _Spot:
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def rows(self) -> slice:
        return slice(self.y0, self.y1)

    @property
    def columns(self) -> slice:
        return slice(self.x0, self.x1)

    @property
    def turned(self) -> _Spot:
        return _Spot(self.y0, self.x0, self.y1, self.x1)

    def grown(self, by: int, shape: tuple[int, ...]) -> _Spot:
        x0, y0 = max(self.x0 - by, 0), max(self.y0 - by, 0)
        return _Spot(x0, y0, min(self.x1 + by, shape[1]), min(self.y1 + by, shape[0]))


def _stroke_of(box: Box, shape: tuple[int, ...], slack_px: int) -> _Spot | None:
    """Return the stroke within a labelled box, a little larger; None if nothing is left."""
    before, after = MARGIN_BEFORE_PX - slack_px, MARGIN_AFTER_PX - slack_px
    x0, y0 = (max(round(v) + before, 0) for v in box[:2])
    x1, y1 = min(round(box[2]) - after, shape[1]), min(round(box[3]) - after, shape[0])
    return _Spot(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _drop_island(board: Mask, spot: _Spot, is_copper: bool) -> bool:
    """Turn over every piece that lies within the spot's surroundings; say if there was one."""
    around = spot.grown(_AROUND_PX, board.shape)
    patch = board[around.rows, around.columns]
    pieces = (patch if is_copper else ~patch).astype(np.uint8)
    count, number = cv2.connectedComponents(pieces, connectivity=8)
    edge = np.concatenate([number[0], number[-1], number[:, 0], number[:, -1]])
    inside = np.setdiff1d(np.arange(1, count), edge)
    patch[np.isin(number, inside)] = not is_copper
    return bool(inside.size)


def _best_run(board: Mask, spot: _Spot) -> Mask | None:
    """Return what fills a spot if copper runs straight through it, or None if nothing fits."""
    down = _runs(board, spot)
    across = [(misfit, fill.T) for misfit, fill in _runs(board.T, spot.turned)]
    misfit, fill = min((*down, *across), key=lambda run: run[0], default=(1.0, None))
    return fill if misfit <= _MOST_MISFIT else None


def _runs(board: Mask, spot: _Spot) -> list[tuple[float, Mask]]:
    """Return, for every slant, how badly runs from top to bottom fit the spot, and their fill."""
    rows, columns = board.shape
    if spot.y0 < 1 or spot.y1 >= rows:
        return []
    top, bottom, length = board[spot.y0 - 1], board[spot.y1], spot.y1 - spot.y0
    xs = np.arange(spot.x0 - 1, spot.x1 + 1)[None]
    share = (np.arange(length)[:, None] + 1) / (length + 1)
    found = []
    for slant in range(-length - 2, length + 3):
        if spot.x0 - abs(slant) < 1 or spot.x1 + abs(slant) >= columns:
            continue
        shift = np.rint(slant * share).astype(int)
        above, below = top[xs - shift], bottom[xs + slant - shift]
        fill = np.where(share < 0.5, above, below)
        sides = (
            np.mean(fill[:, 0] != board[spot.rows, spot.x0 - 1]),
            np.mean(fill[:, -1] != board[spot.rows, spot.x1]),
        )
        apart = np.mean(above[:, 1:-1] != below[:, 1:-1])
        found.append((float(apart + np.mean(sides)) + _PER_SLANT * abs(slant), fill[:, 1:-1]))
    return found


def _smoothed(board: Mask, spot: _Spot, is_added: bool, disc_px: int) -> Mask:
    around = spot.grown(2 * disc_px, board.shape)
    patch = board[around.rows, around.columns].astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (disc_px, disc_px))
    how = cv2.MORPH_OPEN if is_added else cv2.MORPH_CLOSE
    smooth = cv2.morphologyEx(patch, how, disc).astype(bool)
    y, x = spot.y0 - around.y0, spot.x0 - around.x0
    return np.asarray(smooth[y : y + spot.y1 - spot.y0, x : x + spot.x1 - spot.x0], np.bool_)
