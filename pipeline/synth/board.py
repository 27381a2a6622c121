"""Draw the copper of bare circuit boards that a designer could have laid out, without defects."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synth.layouts import STYLE_SHARES, STYLES, scatter
from pipeline.synth.sheet import Canvas, Sheet

Mask = NDArray[np.bool_]

MIN_ISLAND_PX = 110  # a smaller piece of copper would read as a spurious one
MIN_HOLE_PX = 60  # a smaller clearing would read as a pin-hole


@dataclass(frozen=True)
class Board:
    """A drawn board: bool (H, W) copper, and the trace width and clearance it was laid out with."""

    copper: Mask
    trace_px: int
    gap_px: int


def draw_board(rng: np.random.Generator, size: int = 640) -> Board:
    """Lay out one board crop; features run out of the frame as on a crop of a larger board.

    Args:
        rng: the only source of chance.
        size: height and width, pixels.

    Returns:
        The copper of a good board: no tiny island, no tiny hole, no near touch.
    """
    while True:
        board = _layout(rng, size)
        if _is_sound(board.copper):
            return board


def _is_sound(copper: Mask) -> bool:
    """Whether a board shows enough to be judged, and neither a near touch nor a hair-thin neck."""
    if not 0.01 < float(copper.mean()) < 0.94:
        return False
    image = cv2.copyMakeBorder(copper.astype(np.uint8), 4, 4, 4, 4, cv2.BORDER_REPLICATE)
    pieces = cv2.connectedComponents(image)[0]
    grown = cv2.dilate(image, np.ones((5, 5), np.uint8))
    worn = cv2.erode(image, np.ones((3, 3), np.uint8))
    return all(pieces == cv2.connectedComponents(other)[0] for other in (grown, worn))


def _layout(rng: np.random.Generator, size: int) -> Board:
    trace = int(np.clip(np.exp(rng.normal(np.log(11.5), 0.6)), 4, 34))
    gap = int(np.clip(trace * rng.uniform(0.7, 1.6), 7, 22))
    sheet = Sheet(rng, size, trace, gap)
    first, second = rng.choice(len(STYLES), 2, p=STYLE_SHARES)
    STYLES[first](sheet)
    if sheet.chance(0.6):
        STYLES[second](sheet)
    for _ in range(int(rng.choice((0, 6, 20, 45)))):
        scatter(sheet)
    copper = _drilled(sheet)
    if sheet.chance(0.18):
        copper = _poured(copper, max(8, gap - 2))
    if trace > 6 and sheet.chance(0.22):  # a plane with slits and clearings is the same, inverted
        copper = ~copper
    copper = tidy(_roughen(copper, rng, min(1.0, trace / 8)))
    turned = np.rot90(copper, int(rng.integers(4)))
    turned = turned[:, ::-1] if sheet.chance(0.5) else turned
    return Board(np.ascontiguousarray(turned), trace, gap)


def tidy(copper: Mask) -> Mask:
    """Drop slivers, tiny islands and tiny holes, which an inspector would call defects."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    image = copper.astype(np.uint8)
    padded = cv2.copyMakeBorder(image, 4, 4, 4, 4, cv2.BORDER_REPLICATE)
    padded = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)
    padded = cv2.morphologyEx(padded, cv2.MORPH_OPEN, kernel)
    image = padded[4:-4, 4:-4]
    solid = ~_small(image, MIN_ISLAND_PX, 8) & (image > 0)
    holes = _small((~solid).astype(np.uint8), MIN_HOLE_PX, 4)
    return np.asarray(solid | holes, np.bool_)


def _small(image: Canvas, least_px: int, connectivity: int) -> Mask:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=connectivity)
    small = stats[:, cv2.CC_STAT_AREA] < least_px
    small[0] = False
    return np.asarray(small[labels], np.bool_)


def _roughen(copper: Mask, rng: np.random.Generator, share: float) -> Mask:
    # Binarised scans have stair steps of a pixel or two along the edges: a soft edge cut at a
    # level that wavers from place to place gives the same look.
    soft = cv2.GaussianBlur(copper.astype(np.float32), (0, 0), 1.3)
    waver = rng.standard_normal(copper.shape, np.float32)
    waver = cv2.GaussianBlur(waver, (0, 0), float(rng.uniform(0.8, 2.0)))
    waver *= share * float(rng.uniform(0.03, 0.15)) / float(waver.std())
    return np.asarray(soft + waver > 0.5, np.bool_)


def _drilled(sheet: Sheet) -> Mask:
    copper = sheet.copper.copy()
    for hole in sheet.drills:
        hole.draw(copper, 0, 0)
    return copper > 0


def _poured(copper: Mask, gap: int) -> Mask:
    """Flood the free room with copper, a clearance away from everything."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1))
    free = (cv2.dilate(copper.astype(np.uint8), kernel) == 0).astype(np.uint8)
    free = cv2.morphologyEx(free, cv2.MORPH_OPEN, np.ones((15, 15), np.uint8))
    free[_small(free, 4000, 8)] = 0
    return np.asarray(copper | (free > 0), np.bool_)
