"""Pictures into the model's input, boxes back out of it, and drawings for people."""

from typing import Any

import numpy as np
import pytest

from pipeline.errors import BundleError, ModelError
from pipeline.types import Box, Defect, Detections, Verdict
from pipeline.vision.crop import window_at
from pipeline.vision.decode import MAX_CANDIDATES, decoder
from pipeline.vision.draw import Mark, annotate, marks_of, marks_of_defects
from pipeline.vision.geometry import areas, centred_in, iou
from pipeline.vision.letterbox import GREY, Letterbox, Placement


def boxes(*rows: tuple[float, ...]) -> Any:
    return np.array(rows, np.float32).reshape(-1, 4)


def plain(height: int, width: int, value: int = 7) -> Any:
    return np.full((height, width, 3), value, np.uint8)


# --- geometry


def test_iou_of_every_pair() -> None:
    a = boxes((0, 0, 10, 10), (0, 0, 0, 0))
    b = boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (0, 0, 0, 0))
    np.testing.assert_allclose(iou(a, b), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]], atol=1e-6)
    assert iou(boxes(), b).shape == (0, 4)


def test_a_box_turned_inside_out_has_no_area() -> None:
    assert areas(boxes((5, 5, 1, 9), (0, 0, 2, 3))).tolist() == [0, 6]


def test_which_boxes_have_their_centre_inside() -> None:
    rows = boxes((0, 0, 2, 2), (-2, 0, 0, 2), (9, 9, 11, 11), (-4, 0, 4, 2))
    assert centred_in(rows, Box(0, 0, 10, 10)).tolist() == [True, False, False, True]


# --- letterbox


@pytest.mark.parametrize(
    ("how", "size", "place"),
    [
        ("window", (40, 60), (0, 0, 40, 60)),
        ("window", (20, 30), (10, 15, 20, 30)),
        ("window", (21, 31), (9, 14, 21, 31)),
        ("window", (80, 60), (0, 15, 40, 30)),
        ("fit", (20, 30), (0, 0, 40, 60)),
        ("fit", (10, 30), (10, 0, 20, 60)),
        ("fit", (400, 30), (0, 28, 40, 3)),
        ("fit", (1, 4000), (19, 0, 1, 60)),
    ],
)
def test_where_a_picture_lands(
    how: str, size: tuple[int, int], place: tuple[int, int, int, int]
) -> None:
    box = Letterbox(40, 60)
    getattr(box, how)(plain(*size))
    y, x, height, width = place
    expected = np.full((1, 40, 60, 3), GREY, np.uint8)
    expected[0, y : y + height, x : x + width] = 7
    np.testing.assert_array_equal(box.tensor, expected)


def test_the_buffer_is_reused_and_holds_no_trace_of_the_picture_before() -> None:
    box, fresh = Letterbox(40, 60), Letterbox(40, 60)
    memory = box.tensor.ctypes.data
    for size in [(40, 60), (10, 12), (80, 20), (10, 12), (40, 60), (12, 10)]:
        box.window(plain(*size, value=200))
    fresh.window(plain(12, 10, value=200))
    np.testing.assert_array_equal(box.tensor, fresh.tensor)
    assert (box.tensor.ctypes.data, box.tensor.flags["C_CONTIGUOUS"]) == (memory, True)


@pytest.mark.parametrize("how", ["fit", "window"])
def test_a_picture_that_is_an_input_as_it_is_is_not_copied(how: str) -> None:
    box, picture = Letterbox(40, 60), plain(40, 60, value=200)
    placement = getattr(box, how)(picture)
    assert box.tensor.shape == (1, 40, 60, 3)
    assert np.shares_memory(box.tensor, picture)
    assert placement == Placement(1.0, 1.0, 0, 0, 60, 40)
    box.window(np.tile(picture, (1, 2, 1))[:, 60:])  # its rows lie apart
    assert (box.tensor == 200).all()
    assert not np.shares_memory(box.tensor, picture)
    box.window(plain(10, 10))
    assert (picture == 200).all()


@pytest.mark.parametrize("how", ["fit", "window"])
@pytest.mark.parametrize("size", [(40, 60), (25, 25), (333, 97), (81, 121)])
def test_boxes_find_their_way_back(how: str, size: tuple[int, int]) -> None:
    placement = getattr(Letterbox(40, 60), how)(plain(*size))
    corners = boxes(
        (placement.dx, placement.dy,
         placement.dx + size[1] * placement.scale_x, placement.dy + size[0] * placement.scale_y)
    )  # fmt: skip
    np.testing.assert_allclose(placement.back(corners), [[0, 0, size[1], size[0]]], atol=1e-3)


def test_a_box_is_clipped_to_the_picture() -> None:
    placement = Letterbox(40, 60).window(plain(20, 30))
    assert placement.back(boxes((0, 0, 60, 40))).tolist() == [[0, 0, 30, 20]]


@pytest.mark.parametrize("size", [(20, 30), (80, 60)])
def test_mono_is_replicated(size: tuple[int, int]) -> None:
    mono = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    one, other = Letterbox(40, 60), Letterbox(40, 60)
    one.window(mono)
    other.window(np.repeat(mono[..., None], 3, axis=2))
    np.testing.assert_array_equal(one.tensor, other.tensor)


def test_a_thin_scratch_survives_scaling_down() -> None:
    picture = plain(400, 600, 0)
    picture[:, 301] = 255
    box = Letterbox(40, 60)
    box.fit(picture)
    assert box.tensor.max() >= 25


@pytest.mark.parametrize("times", [2, 3, 4, 6, 8, 12])
def test_each_pixel_is_the_mean_of_its_block(times: int) -> None:
    rng = np.random.default_rng(times)
    picture = rng.integers(0, 256, (40 * times, 60 * times, 3), dtype=np.uint8)
    box = Letterbox(40, 60)
    box.window(picture)
    mean = picture.reshape(40, times, 60, times, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(box.tensor[0], mean, atol=1.5)


def test_a_view_of_a_read_only_frame_is_taken() -> None:
    frame = plain(100, 100)
    frame[30:50, 40:70] = 99
    frame.flags.writeable = False
    box = Letterbox(40, 60)
    box.window(frame[30:50, 40:70])
    assert (box.tensor == 99).sum() == 20 * 30 * 3


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros(5, np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any) -> None:
    with pytest.raises(ModelError, match="cannot look at a picture of shape"):
        Letterbox(40, 60).window(picture)


# --- crop


@pytest.mark.parametrize(
    ("box", "origin", "size"),
    [
        (Box(90, 40, 110, 60), (85, 35), (30, 30)),
        (Box(0, 0, 10, 10), (0, 0), (20, 20)),
        (Box(190, 90, 200, 100), (180, 80), (20, 20)),
        (Box(50.4, 20.6, 150.2, 40.1), (50, 20), (21, 101)),
        (Box(-20, 20, 150, 40), (0, 20), (20, 150)),
        (Box(300, 300, 310, 310), (200, 100), (0, 0)),
        (Box(-50, 10, -40, 20), (0, 0), (30, 0)),
    ],
)
def test_the_window_around_a_part(box: Box, origin: tuple[int, int], size: tuple[int, int]) -> None:
    frame = plain(100, 200)
    view, corner = window_at(frame, box, 30, 30)
    assert (corner, view.shape[:2]) == (origin, size)
    assert view.size == 0 or np.shares_memory(view, frame)


# --- decode


def e2e(*rows: tuple[float, ...]) -> tuple[Any, ...]:
    return (np.array(rows, np.float32).reshape(1, -1, 6),)


def raw(*columns: tuple[float, ...]) -> tuple[Any, ...]:
    return (np.array(columns, np.float32).T[None],)


def as_lists(found: Detections) -> tuple[Any, ...]:
    return (
        np.round(found.xyxy.astype(float), 3).tolist(),
        np.round(found.score.astype(float), 3).tolist(),
        found.label.tolist(),
    )


def test_the_end_to_end_head_is_cut_at_the_lowest_score() -> None:
    outputs = e2e((1, 2, 3, 4, 0.5, 1), (5, 6, 7, 8, 0.25, 0), (0, 0, 9, 9, 0.24, 1))
    found = decoder("yolo-e2e").read(outputs, 0.25)
    assert as_lists(found) == ([[1, 2, 3, 4], [5, 6, 7, 8]], [0.5, 0.25], [1, 0])
    assert (found.xyxy.dtype, found.score.dtype, found.label.dtype) == (
        np.float32, np.float32, np.int32,
    )  # fmt: skip


def test_the_raw_head_loses_doubles_within_a_class_only() -> None:
    outputs = raw(
        (10, 8, 8, 8, 0.6, 0.0),
        (10, 10, 8, 8, 0.9, 0.1),
        (10, 10, 8, 8, 0.0, 0.7),
        (40, 40, 4, 4, 0.3, 0.0),
        (60, 60, 4, 4, 0.1, 0.1),
    )
    found = decoder("yolo").read(outputs, 0.3)
    boxes_, scores, labels = as_lists(found)
    assert (scores, labels) == ([0.9, 0.7, 0.3], [0, 1, 0])
    assert boxes_ == [[6, 6, 14, 14], [6, 6, 14, 14], [38, 38, 42, 42]]


def test_boxes_that_show_the_same_defect_decide_together_where_it_lies() -> None:
    outputs = raw(
        (10, 10, 8, 8, 0.9, 0.0),
        (10, 11, 8, 8, 0.3, 0.0),
        (10, 12, 8, 8, 0.8, 0.0),  # it overlaps the first by 0.6
        (10, 11, 8, 8, 0.1, 0.5),  # another class
    )
    found = decoder("yolo").read(outputs, 0.3)
    assert as_lists(found) == ([[6, 6.25, 14, 14.25], [6, 7, 14, 15]], [0.9, 0.5], [0, 1])


def test_a_box_without_an_area_stays_what_it_is() -> None:
    found = decoder("yolo").read(raw((10, 10, 0, 8, 0.9, 0.0)), 0.3)
    assert found.xyxy.tolist() == [[10, 6, 10, 14]]


def test_corners_are_read_as_corners() -> None:
    outputs = raw((6, 7, 14, 15, 0.6, 0.0), (6, 8, 14, 16, 0.9, 0.1), (38, 38, 42, 42, 0.1, 0.3))
    found = decoder("yolo-xyxy").read(outputs, 0.3)
    assert as_lists(found) == ([[6, 7.6, 14, 15.6], [38, 38, 42, 42]], [0.9, 0.3], [0, 1])
    assert decoder("yolo-xyxy").classes(outputs) == 2


def test_a_yolox_head_multiplies_that_something_is_there_with_what_it_is() -> None:
    rows = [
        (10, 11, 8, 8, 0.9, 0.5, 1.0),
        (10, 13, 8, 8, 0.8, 0.1, 0.9),
        (40, 40, 4, 4, 0.5, 0.5, 0),
    ]
    outputs = (np.array(rows, np.float32)[None],)
    found = decoder("yolox").read(outputs, 0.25)
    assert as_lists(found) == ([[6, 7, 14, 15], [38, 38, 42, 42]], [0.9, 0.25], [1, 0])
    assert decoder("yolox").classes(outputs) == 2


@pytest.mark.parametrize("place", [4, 5])
def test_a_yolox_head_with_scores_outside_0_to_1_is_refused(place: int) -> None:
    tensor = np.zeros((1, 3, 7), np.float32)
    tensor[0, 1, place] = 20
    with pytest.raises(ModelError, match="right decoder"):
        decoder("yolox").read((tensor,), 0.5)


@pytest.mark.parametrize("name", ["yolo", "yolo-xyxy", "yolo-e2e"])
def test_nothing_found_is_an_empty_answer(name: str) -> None:
    outputs = (np.zeros((1, 6, 6), np.float32),)
    found = decoder(name).read(outputs, 0.5)
    assert (len(found), found.xyxy.shape) == (0, (0, 4))


def test_a_flood_of_candidates_is_bounded() -> None:
    random = np.random.default_rng(1)
    tensor = random.uniform(0, 600, (1, 6, 9000)).astype(np.float32)
    tensor[0, 2:4] = 3
    tensor[0, 4:] = random.uniform(0.5, 1, (2, 9000))
    assert 0 < len(decoder("yolo").read((tensor,), 0.1)) <= MAX_CANDIDATES


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("yolo-e2e", (np.zeros((1, 3, 7), np.float32),)),
        ("yolo-e2e", (np.zeros((2, 3, 6), np.float32),)),
        ("yolo-e2e", (np.zeros((3, 6), np.float32),)),
        ("yolo-e2e", ()),
        ("yolo-e2e", (np.zeros((1, 3, 6), np.float32),) * 2),
        ("yolo", (np.zeros((1, 4, 9), np.float32),)),
        ("yolo-xyxy", (np.zeros((1, 4, 9), np.float32),)),
        ("yolox", (np.zeros((1, 9, 5), np.float32),)),
        ("yolo", (np.zeros((1, 6, 9), np.float16),)),
    ],
)
def test_an_output_of_another_form_is_refused(name: str, outputs: tuple[Any, ...]) -> None:
    with pytest.raises(ModelError, match="its decoder reads"):
        decoder(name).read(outputs, 0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("name", ["yolo", "yolo-e2e"])
def test_a_value_that_is_no_number_never_reads_as_no_defect(
    name: str, place: int, value: float
) -> None:
    tensor = np.zeros((1, 6, 6), np.float32)
    tensor[(0, 2, place) if name == "yolo-e2e" else (0, place, 2)] = value
    with pytest.raises(ModelError, match="no verdict is possible"):
        decoder(name).read((tensor,), 0.5)


@pytest.mark.parametrize("name", ["yolo", "yolo-e2e"])
@pytest.mark.parametrize("score", [-0.5, 1.5, 300])
def test_scores_outside_0_to_1_are_refused(name: str, score: float) -> None:
    tensor = np.zeros((1, 6, 6), np.float32)
    tensor[(0, 2, 4) if name == "yolo-e2e" else (0, slice(4, 6), 2)] = score
    with pytest.raises(ModelError, match="right decoder"):
        decoder(name).read((tensor,), 0.5)


def test_an_unknown_decoder_names_the_known_ones() -> None:
    with pytest.raises(BundleError, match=r"'detr'.*yolo, yolo-e2e, yolo-xyxy, yolox"):
        decoder("detr")


# --- draw


def test_a_drawing_is_a_copy_with_a_banner_below() -> None:
    picture = plain(300, 400, 90)
    drawn = annotate(picture, [Mark((50, 60, 90, 100), "dent 0.91")], Verdict.FAIL, "part 7")
    assert (picture == 90).all()
    assert drawn.shape[0] > 300
    assert drawn.shape[1:] == (400, 3)
    assert (drawn[61:99, 51:89] == 90).all(), "the defect itself stays free"
    assert not (drawn[:300] == 90).all()


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_a_frame_stands_out_on_any_ground(ground: int) -> None:
    drawn = annotate(plain(200, 200, ground), [Mark((60, 60, 140, 140), "")]).astype(int)
    assert np.abs(drawn[100, 50:60] - ground).max() > 90


@pytest.mark.parametrize("size", [(30, 20), (64, 64), (2000, 3000)])
def test_any_size_and_mono_can_be_drawn_on(size: tuple[int, int]) -> None:
    marks = [Mark((-5, -5, 9e3, 9e3), "large 1.00"), Mark((0, 0, 1, 1), "small 0.10", 99)] * 2
    drawn = annotate(np.zeros(size, np.uint8), marks, Verdict.UNSURE, "a caption " * 50)
    assert drawn.shape[1:] == (size[1], 3)


def test_marks_carry_label_and_score() -> None:
    found = Detections(boxes((1, 2, 3, 4)), np.array([0.456], np.float32), np.array([1], np.int32))
    assert marks_of(found, ("dent", "scratch")) == (Mark((1, 2, 3, 4), "scratch 0.46", 1),)


def test_defects_are_drawn_where_the_part_is() -> None:
    defect = Defect("scratch", 0.5, (1, 2, 3, 4), 2)
    (mark,) = marks_of_defects([defect], Box(100, 200, 300, 300), ("dent", "scratch"))
    assert mark == Mark((101, 202, 103, 204), "scratch 0.50", 1)
