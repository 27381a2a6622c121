"""The drawn belt as a camera: repeatable, with its truth, and with faults on demand."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline.cameras import synthetic, v4l2
from pipeline.clock import NS_PER_S, ManualClock
from pipeline.errors import CameraError, ConfigError

SMALL = {"width": 320, "height": 200, "board_px": 160, "variety": 3}


def belt(clock: ManualClock | None = None, **options: object) -> synthetic.Synthetic:
    made = synthetic.Options(**(SMALL | options))
    return synthetic.create(made, "top", clock or ManualClock())


def test_the_same_seed_shows_the_same_pictures() -> None:
    one, two, other = (next(belt(seed=seed).frames()).image for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_counted_line_ends_and_its_truth_is_complete() -> None:
    camera = belt(boards=3, speed_px=40)
    frames = list(camera.frames())
    assert len(frames) == camera.total
    assert [row["index"] for row in camera.truth] == [0, 1, 2]
    assert set(camera.truth[0]) == {
        "index", "board", "good", "centre_frame", "board_y", "defects",
    }  # fmt: skip
    assert camera.geometry["board_px"] == 160
    assert all(row["centre_frame"] < len(frames) for row in camera.truth)


def test_the_truth_of_an_endless_belt_grows() -> None:
    camera = belt(speed_px=40)
    frames = camera.frames()
    next(frames)
    before = len(camera.truth)
    list(islice(frames, 60))
    assert camera.total is None
    assert len(camera.truth) > before


def test_dropped_frames_leave_gaps() -> None:
    camera = belt(drop_frames=(1, 4, 5))
    assert [frame.seq for frame in islice(camera.frames(), 5)] == [0, 2, 3, 6, 7]


def test_realtime_is_live_and_keeps_its_pace() -> None:
    camera = belt(realtime=True, fps=50)
    assert camera.live
    assert not belt().live
    stamps = [frame.t_ns for frame in islice(camera.frames(), 4)]
    assert np.diff(stamps).tolist() == [NS_PER_S // 50] * 3


@pytest.mark.parametrize(
    ("fault", "said", "took_s"),
    [
        ({"fail_after": 3}, "lost before frame 3", 0),
        ({"stall_after": 3}, "no frame for 1000 ms", 1),
    ],
)
def test_a_fault_comes_once_and_the_belt_goes_on(
    fault: dict[str, int], said: str, took_s: int
) -> None:
    clock = ManualClock()
    camera = belt(clock, **fault)
    frames = camera.frames()
    assert [frame.seq for frame in islice(frames, 3)] == [0, 1, 2]
    with pytest.raises(CameraError, match=said):
        next(frames)
    assert clock.now_ns() == took_s * NS_PER_S
    assert next(camera.frames()).seq == 3


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="board_px"):
        belt(board_px=400)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda folder: folder / "video9", CameraError, "is it plugged in"),
        (lambda folder: folder, ConfigError, "is not a device"),
        (lambda _: Path("/dev/null"), CameraError, "cannot be opened"),
    ],
    ids=["absent", "no device", "no camera"],
)
def test_a_usb_camera_that_cannot_be_used_is_said(
    tmp_path: Path, make: object, error: type[Exception], said: str
) -> None:
    device = make(tmp_path)  # type: ignore[operator]
    camera = v4l2.create(v4l2.Options(device=str(device)), "top", ManualClock())
    with pytest.raises(error, match=said) as raised:
        next(camera.frames())
    assert str(device) in str(raised.value)
