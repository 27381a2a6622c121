"""The synthetic boards: what is drawn is good, what is damaged keeps its promise, truth is true."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.lab.synth import add_defects_to, write_dataset, write_line_video
from pipeline.synth.board import MIN_HOLE_PX, MIN_ISLAND_PX, Board, draw_board
from pipeline.synth.defects import KINDS, Defect, add_defect, damage
from pipeline.synth.layouts import STYLE_SHARES, STYLES
from pipeline.synth.line import BeltScene, BeltSetup
from pipeline.synth.optics import BINARY, FAMILIES, photograph, random_look
from pipeline.synth.sheet import Disc, Line, Sheet

Mask = NDArray[np.bool_]
SEEDS = range(6)
SMALL = BeltSetup(
    width=320, height=200, board_px=160, belt_px_per_frame=8, gap_px=(20, 90), boards=5, variety=5
)


def pieces(mask: Mask, connectivity: int = 8) -> NDArray[np.intp]:
    """Areas of the connected pieces of a mask, largest first."""
    stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)[2]
    return np.sort(stats[1:, cv2.CC_STAT_AREA])[::-1]


def holes(copper: Mask) -> int:
    return len(pieces(~copper, 4))


def striped(pitch: int = 40, width: int = 18) -> Mask:
    """Straight traces from edge to edge: every cut and bridge shows in the number of pieces."""
    rows = np.arange(320) % pitch < width
    return np.repeat(rows[:, None], 320, axis=1)


def damaged(kind: str, seed: int, size_px: float | None = None) -> tuple[Mask, Mask, Defect]:
    copper = striped()
    found = add_defect(copper, kind, np.random.default_rng(seed), size_px=size_px)
    assert found is not None
    return copper, *found


@pytest.fixture(scope="module")
def boards() -> list[Board]:
    return [draw_board(np.random.default_rng(seed)) for seed in SEEDS]


def test_the_same_seed_draws_the_same_board_and_picture() -> None:
    first, second = (np.random.default_rng(7) for _ in range(2))
    assert np.array_equal(draw_board(first).copper, draw_board(second).copper)
    copper = striped()
    looks = [random_look(rng) for rng in (first, second)]
    assert looks[0] == looks[1]
    assert np.array_equal(photograph(copper, looks[0], first), photograph(copper, looks[1], second))


def test_a_good_board_has_no_tiny_island_and_no_tiny_hole(boards: list[Board]) -> None:
    for board in boards:
        assert pieces(board.copper).min() >= MIN_ISLAND_PX
        assert pieces(~board.copper, 4).min() >= MIN_HOLE_PX


def test_a_good_board_has_no_near_touch(boards: list[Board]) -> None:
    for board in boards:
        grown = cv2.dilate(board.copper.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert len(pieces(grown)) == len(pieces(board.copper))


@pytest.mark.parametrize("style", STYLES)
def test_every_style_lays_copper_that_keeps_its_clearance(style: Callable[[Sheet], None]) -> None:
    sheet = next(s for s in (laid_out(style, seed) for seed in range(20)) if s.copper.any())
    apart = cv2.dilate(sheet.copper, np.ones((5, 5), np.uint8)) > 0
    assert len(pieces(apart)) == len(pieces(sheet.copper > 0))


def laid_out(style: Callable[[Sheet], None], seed: int) -> Sheet:
    sheet = Sheet(np.random.default_rng(seed), 640, 12, 12)
    style(sheet)
    return sheet


def test_the_shares_of_the_styles_add_up_to_one() -> None:
    assert len(STYLE_SHARES) == len(STYLES)
    assert sum(STYLE_SHARES) == pytest.approx(1)


def test_a_neck_may_touch_the_two_pads_it_joins_and_nothing_else() -> None:
    sheet = Sheet(np.random.default_rng(0), 320, 10, 12)
    left, right, between = (Disc((x, 160.0), 20) for x in (60.0, 260.0, 160.0))
    neck = Line(((60.0, 160.0), (260.0, 160.0)), 8)
    assert sheet.place([left]) and sheet.place([right])
    assert not sheet.place([neck], left)
    assert sheet.place([neck], left, right)
    assert not sheet.place([between], left, right)
    assert len(pieces(sheet.copper > 0)) == 1


def test_some_good_boards_are_planes_with_slits() -> None:
    shares = [draw_board(np.random.default_rng((5, seed)), 320).copper.mean() for seed in range(12)]
    assert max(shares) > 0.5 > min(shares)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_open_severs_a_trace(seed: int) -> None:
    before, after, _ = damaged("open", seed)
    large = pieces(after) >= 200
    assert large.sum() == len(pieces(before)) + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_joins_two_traces(seed: int) -> None:
    before, after, _ = damaged("short", seed)
    assert len(pieces(after)) == len(pieces(before)) - 1


@pytest.mark.parametrize("kind", ["mousebite", "spur"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_bite_or_spur_leaves_every_net_as_it_was(kind: str, seed: int) -> None:
    before, after, _ = damaged(kind, seed)
    assert len(pieces(after)) == len(pieces(before))
    assert holes(after) == holes(before)


@pytest.mark.parametrize("seed", SEEDS)
def test_spurious_copper_is_one_island_more(seed: int) -> None:
    before, after, _ = damaged("copper", seed)
    assert len(pieces(after)) == len(pieces(before)) + 1
    assert holes(after) == holes(before)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pin_hole_is_one_hole_more(seed: int) -> None:
    before, after, _ = damaged("pin-hole", seed)
    assert holes(after) == holes(before) + 1
    assert len(pieces(after)) == len(pieces(before))


@pytest.mark.parametrize("kind", KINDS)
def test_copper_is_only_taken_by_some_kinds_and_only_added_by_the_others(kind: str) -> None:
    before, after, _ = damaged(kind, 3)
    takes = kind in ("open", "mousebite", "pin-hole")
    assert (after & ~before).any() == (not takes)
    assert (before & ~after).any() == takes


@pytest.mark.parametrize("kind", KINDS)
def test_the_box_holds_every_changed_pixel_with_a_margin(kind: str) -> None:
    for seed in SEEDS:
        before, after, defect = damaged(kind, seed)
        ys, xs = np.nonzero(before ^ after)
        x0, y0, x1, y1 = defect.xyxy
        assert xs.min() - x0 >= 10 and ys.min() - y0 >= 10
        assert x1 - xs.max() >= 10 and y1 - ys.max() >= 10
        assert defect.size_px == max(np.ptp(xs), np.ptp(ys)) + 1


@pytest.mark.parametrize("kind", ["mousebite", "spur", "copper", "pin-hole"])
@pytest.mark.parametrize("size_px", [5, 8, 12])
def test_a_wanted_size_is_met(kind: str, size_px: float) -> None:
    _, _, defect = damaged(kind, 1, size_px)
    assert abs(defect.size_px - size_px) <= max(1.0, 0.15 * size_px)


def test_defects_of_one_board_keep_their_boxes_apart(boards: list[Board]) -> None:
    _, defects = damage(boards[0].copper, 8, np.random.default_rng(0))
    assert len(defects) >= 4
    for index, one in enumerate(defects):
        for other in defects[index + 1 :]:
            a, b = one.xyxy, other.xyxy
            assert a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]


@pytest.mark.parametrize("kind", ["open", "mousebite", "pin-hole", "spur", "short"])
def test_bare_laminate_has_no_room_for_a_defect_of_copper(kind: str) -> None:
    bare = np.zeros((200, 200), np.bool_)
    assert add_defect(bare, kind, np.random.default_rng(0)) is None


def test_the_binary_look_has_only_black_and_white() -> None:
    image = photograph(striped(), BINARY, np.random.default_rng(0))
    assert image.shape == (320, 320, 3)
    assert set(np.unique(image)) == {0, 255}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_look_tells_copper_from_laminate(family: str) -> None:
    copper = striped()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        image = photograph(copper, random_look(rng, family), rng).astype(np.float64)
        assert np.abs(image[copper].mean(axis=0) - image[~copper].mean(axis=0)).max() > 25


def test_a_data_set_can_be_read_back(tmp_path: Path) -> None:
    yaml = write_dataset(tmp_path / "set", images=6, good_share=0.3, seed=2, val_share=0.5)
    assert "val: images/val" in yaml.read_text()
    summary = json.loads((tmp_path / "set/synth.json").read_text())
    sizes = [json.loads(row) for row in (tmp_path / "set/sizes.jsonl").read_text().splitlines()]
    rows = []
    for part in ("train", "val"):
        pictures = sorted((tmp_path / "set/images" / part).iterdir())
        assert len(pictures) == 3
        for picture in pictures:
            assert cv2.imread(str(picture)).shape == (640, 640, 3)
            label = tmp_path / "set/labels" / part / f"{picture.stem}.txt"
            rows += [np.array(row.split(), float) for row in label.read_text().splitlines()]
    assert len(rows) == len(sizes) == sum(summary["defects"].values()) > 0
    assert all(
        0 <= row[0] < len(KINDS) and (row[1:] > 0).all() and (row[1:] < 1).all() for row in rows
    )
    assert all((tmp_path / "set" / row["image"]).exists() for row in sizes)


def test_the_same_seed_writes_the_same_data_set(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dataset(tmp_path / name, images=2, good_share=0, seed=4, size=320)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file() and path.name != "data.yaml":
            assert (
                path.read_bytes()
                == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
            )


def test_added_defects_leave_old_labels_and_their_pixels_alone(tmp_path: Path) -> None:
    write_dataset(
        tmp_path / "old", images=2, good_share=0, seed=1, looks={"binary": 1}, val_share=0
    )
    add_defects_to(tmp_path / "old", tmp_path / "new", per_image=3, seed=9)
    for label in (tmp_path / "old/labels/train").iterdir():
        old = label.read_text().splitlines()
        new = (tmp_path / "new/labels/train" / label.name).read_text().splitlines()
        assert new[: len(old)] == old
        assert len(old) < len(new) <= len(old) + 3
        images = [
            cv2.imread(str(tmp_path / name / f"images/train/{label.stem}.png"), 0)
            for name in ("old", "new")
        ]
        for row in old:
            x, y, w, h = (float(value) * 640 for value in row.split()[1:])
            area = np.s_[round(y - h / 2) : round(y + h / 2), round(x - w / 2) : round(x + w / 2)]
            assert np.array_equal(images[0][area], images[1][area])


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"images": 0}, "images"),
        ({"good_share": 1.5}, "good_share"),
        ({"val_share": -1}, "val_share"),
        ({"size": 10}, "size"),
        ({"looks": {"sepia": 1}}, "sepia"),
        ({"looks": {"grey": 0}}, "looks"),
    ],
)
def test_a_bad_argument_is_named(tmp_path: Path, bad: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        write_dataset(tmp_path / "set", **{"images": 1, **bad})  # type: ignore[arg-type]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        write_dataset(tmp_path, images=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("direction", ["right to left", "left to right"])
def test_each_board_stands_in_the_middle_at_its_centre_frame(direction: str) -> None:
    scene = BeltScene(5, BeltSetup(direction=direction, boards=4, variety=4))  # type: ignore[arg-type]
    for index in range(4):
        centre = scene.centre_frame(index)
        boxes = {placed.index: placed.xyxy for placed in scene.visible(centre)}
        assert boxes[index] == (320.0, 40.0, 960.0, 680.0)
        before, after = (
            dict((p.index, p.xyxy) for p in scene.visible(centre + step))[index][0]
            for step in (-1, 1)
        )
        assert after - before == (-40 if direction == "right to left" else 40)


def test_boards_keep_their_gap() -> None:
    scene = BeltScene(2, BeltSetup(boards=60))
    centres = np.array([scene.centre_frame(index) for index in range(60)])
    gaps = np.diff(centres) * 20 - 640
    assert gaps.min() >= 120
    assert gaps.max() <= 360 + 20
    assert len(set(gaps)) > 3


def test_frames_do_not_depend_on_the_order_in_which_they_are_asked_for() -> None:
    forward, backward = BeltScene(3, SMALL), BeltScene(3, SMALL)
    total = forward.frame_count
    assert total is not None
    numbers = range(0, total, 9)
    kept = {number: forward.frame(number) for number in numbers}
    for number in reversed(numbers):
        frame = backward.frame(number)
        assert frame.shape == (200, 320, 3) and frame.dtype == np.uint8
        assert np.array_equal(frame, kept[number])
    assert [forward.truth(i) for i in range(5)] == [backward.truth(i) for i in range(5)]


def test_the_picture_in_the_frame_is_the_board_that_the_truth_describes() -> None:
    scene = BeltScene(3, SMALL)
    frame = scene.frame(scene.centre_frame(2)).astype(np.float64)
    shown = frame[20:180, 80:240].mean(axis=2).ravel()
    board = scene.picture(2).image.mean(axis=2).ravel()
    assert np.corrcoef(shown, board)[0, 1] > 0.9


def test_an_endless_belt_goes_on() -> None:
    scene = BeltScene(1, BeltSetup(width=320, height=200, board_px=160, variety=2))
    assert scene.frame_count is None
    assert scene.visible(1_000_000)
    assert scene.frame(1_000_000).shape == (200, 320, 3)


def test_a_line_video_carries_its_truth(tmp_path: Path) -> None:
    truth = write_line_video(tmp_path / "line.mp4", boards=3, seed=1, setup=SMALL)
    rows = [json.loads(row) for row in truth.read_text().splitlines()]
    geometry = json.loads((tmp_path / "line.json").read_text())
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert set(rows[0]) == {"index", "board", "good", "centre_frame", "board_y", "defects"}
    clip = cv2.VideoCapture(str(tmp_path / "line.mp4"))
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == geometry["frames"] > rows[-1]["centre_frame"]
    assert geometry["good"] == sum(row["good"] for row in rows)
    assert geometry["boards"] == 3
    with pytest.raises(ConfigError, match="new file"):
        write_line_video(tmp_path / "line.mp4", boards=3)


def test_boards_of_one_layout_differ_only_where_they_are_damaged() -> None:
    setup = BeltSetup(layout=3, variety=12, good_share=0.5, defects=(1, 1), look=BINARY)
    pictures = [BeltScene(seed, setup).picture(i) for seed in (1, 2) for i in range(6)]
    good = [p.image for p in pictures if not p.defects]
    assert len(good) >= 2
    assert all(np.mean(np.abs(g.astype(int) - good[0]) > 64) < 0.01 for g in good)
    bad = next(p for p in pictures if p.defects)
    x0, y0, x1, y1 = (int(v) for v in bad.defects[0].xyxy)
    differs = np.abs(bad.image.astype(int) - good[0]) > 64
    assert differs[y0:y1, x0:x1].any()
