"""Parts larger than the model's input: no small defect is lost, none is counted twice."""

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.bundle import Artefact
from pipeline.detector import Detector
from pipeline.errors import ConfigError, ModelError
from pipeline.synth.board import draw_board
from pipeline.types import Box, Detections, Image, Tensor
from pipeline.vision.decode import decoder
from pipeline.vision.tiling import merged, tiles_of
from tests.doubles import detections

TILE, OVERLAP = 128, 32
FRAME = (480, 560)
BOARD = Box(60, 30, 460, 430)
MARK = 255
ARTEFACT = Artefact(path="none.onnx", sha256="0" * 64, runtimes=("spots",), precision="fp32")


class SpotRuntime:
    """Finds what is as bright as MARK in its input, each connected spot once."""

    name = "spots"
    input_shape = (1, TILE, TILE, 3)

    def infer(self, tensor: Tensor) -> tuple[Tensor, ...]:
        bright = (tensor[0].min(axis=2) == MARK).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        rows = [(x, y, x + w, y + h, 0.9, 0) for x, y, w, h, _ in stats[1:]]
        return (np.array(rows, np.float32).reshape(1, -1, 6),)

    def close(self) -> None:
        pass


def detector(overlap: int | None = OVERLAP) -> Detector:
    return Detector(
        ("scratch", "dent"), decoder("yolo-e2e"), SpotRuntime(), ARTEFACT, overlap=overlap
    )


def board(seed: int, *marks: tuple[int, int, int, int]) -> Image:
    """Draw a board of 400 pixels in a frame of 560 x 480, with marks (x, y, width, height)."""
    frame = np.full((*FRAME, 3), 40, np.uint8)
    copper = draw_board(np.random.default_rng(seed), 400).copper
    frame[30:430, 60:460] = np.where(copper[..., None], 150, 70)
    for x, y, width, height in marks:
        frame[y : y + height, x : x + width] = MARK
    return frame


def boxes(found: Detections) -> list[list[float]]:
    return sorted(found.xyxy.tolist())


@pytest.mark.parametrize("seed", range(4))
def test_every_small_defect_of_a_large_board_is_found_once_where_it_is(seed: int) -> None:
    random = np.random.default_rng(seed)
    # One per field of a grid: they do not touch, and many of them lie on seams.
    marks = [
        (x + int(random.integers(20)), y + int(random.integers(20)), 6, 3)
        for x in range(64, 430, 40)
        for y in range(34, 400, 40)
    ]
    found = detector().detect_at(board(seed, *marks), BOARD)
    assert boxes(found) == sorted([float(x), y, x + w, y + h] for x, y, w, h in marks)


def test_scaled_down_the_same_defects_are_lost() -> None:
    frame = board(1, (200, 200, 3, 2))
    assert len(detector(overlap=None).detect_at(frame, BOARD)) == 0
    assert len(detector().detect_at(frame, BOARD)) == 1


@pytest.mark.parametrize("mark", [(70, 200, 380, 4), (200, 40, 4, 380), (100, 100, 300, 300)])
def test_a_defect_over_several_tiles_is_one(mark: tuple[int, int, int, int]) -> None:
    x, y, width, height = mark
    found = detector().detect_at(board(2, mark), BOARD)
    assert boxes(found) == [[x, y, x + width, y + height]]


def test_two_defects_side_by_side_on_a_seam_stay_two() -> None:
    tiles = tiles_of(BOARD, FRAME, (TILE, TILE), OVERLAP)
    seam = int(tiles[1].x0)
    marks = [(seam + 2, 100, 5, 5), (seam + 10, 100, 5, 5), (seam + 18, 100, 5, 5)]
    assert len(detector().detect_at(board(3, *marks), BOARD)) == 3


def test_a_part_at_the_edge_of_the_frame_is_covered() -> None:
    cut = Box(-20, 100, 300, 470)
    found = detector().detect_at(board(4, (0, 110, 3, 3), (290, 460, 3, 3)), cut)
    assert boxes(found) == [[0, 110, 3, 113], [290, 460, 293, 463]]


def test_a_part_outside_the_frame_is_an_error_not_a_pass() -> None:
    with pytest.raises(ModelError, match="outside the frame"):
        detector().detect_at(board(0), Box(700, 0, 1000, 400))


@pytest.mark.parametrize("length", [129, 130, 224, 225, 400, 999])
@pytest.mark.parametrize("overlap", [0, 32, 63])
def test_tiles_cover_a_part_and_share_what_was_asked_for(length: int, overlap: int) -> None:
    tiles = tiles_of(Box(5, 3, 5 + length, 50), (1000, 1200), (TILE, TILE), overlap)
    starts = [t.x0 for t in tiles]
    assert (starts[0], tiles[-1].x1) == (5, 5 + length)
    assert all(a.x1 - b.x0 >= overlap for a, b in pairwise(tiles))
    assert all((t.width, t.height) == (TILE, TILE) for t in tiles)
    fewer = len(tiles) - 1
    assert fewer * TILE - (fewer - 1) * overlap < length, "fewer would not do"


def test_the_stronger_sight_of_a_defect_names_it() -> None:
    left, right = Box(0, 0, 100, 100), Box(60, 0, 160, 100)
    found = merged(
        [detections((70, 10, 90, 20, 0.5, 0)), detections((71, 10, 90, 21, 0.8, 1))], [left, right]
    )
    assert boxes(found) == [[70, 10, 90, 21]]
    assert (found.label.tolist(), found.score.tolist()) == ([1], [pytest.approx(0.8)])


@pytest.mark.parametrize("overlap", [64, 200])
def test_an_overlap_of_half_a_tile_or_more_is_refused(overlap: int) -> None:
    with pytest.raises(ConfigError, match="overlap_px"):
        detector(overlap)


def test_nothing_found_is_nothing() -> None:
    tiles: Any = [Box(0, 0, 10, 10), Box(5, 0, 15, 10)]
    assert len(merged([Detections.none(), Detections.none()], tiles)) == 0
