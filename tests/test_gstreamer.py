"""A camera through GStreamer: its pictures are what its source gives, its ends are told."""

import shutil
import threading
import time
from itertools import islice

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.cameras import gstreamer
from pipeline.clock import SystemClock
from pipeline.errors import CameraError

pytestmark = pytest.mark.skipif(
    shutil.which(gstreamer.PROGRAM) is None, reason="apt-get install gstreamer1.0-tools"
)

ORANGE = "videotestsrc is-live=true pattern=solid-color foreground-color=0xffff8010"


def camera(source: str = ORANGE, width: int = 64, **options: object) -> gstreamer.Gstreamer:
    given = {"source": source, "width": width, "height": 48, "open_ms": 30_000} | options
    made = gstreamer.Options.model_validate(given)
    return gstreamer.create(made, "top", SystemClock())


@pytest.mark.parametrize("width", [64, 65, 66, 67])
def test_pictures_of_any_width_come_in_blue_green_red(width: int) -> None:
    frame = next(camera(width=width).frames())
    assert frame.image.shape == (48, width, 3)
    assert np.abs(frame.image.astype(int) - (0x10, 0x80, 0xFF)).max() <= 2


def test_a_gray_camera_gives_one_channel() -> None:
    frame = next(camera("videotestsrc pattern=white", width=65, gray=True).frames())
    assert frame.image.shape == (48, 65)
    assert frame.image.min() >= 250


def test_pictures_are_not_mixed_with_what_the_program_says() -> None:
    talking = f"{ORANGE} ! identity silent=false ! progressreport silent=false update-freq=1"
    frames = list(islice(camera(talking).frames(), 20))
    assert all(np.array_equal(frame.image, frames[0].image) for frame in frames)


def test_a_source_that_stops_giving_pictures_is_lost() -> None:
    stuck = "videotestsrc is-live=true ! valve name=v drop=true"
    with pytest.raises(CameraError, match="no picture for"):
        next(camera(stuck, open_ms=500).frames())


def test_a_size_that_the_source_does_not_have_is_a_camera_error() -> None:
    with pytest.raises(CameraError, match="has ended"):
        next(camera("videotestsrc ! video/x-raw,width=32,height=32").frames())


def test_an_element_that_does_not_exist_is_named() -> None:
    with pytest.raises(CameraError, match="nvarguscamerasrc"):
        next(camera("nvarguscamerasrc sensor-id=0").frames())


def test_no_process_is_left_behind() -> None:
    opened = camera()
    frames = opened.frames()
    next(frames)
    launch = opened._launch
    assert launch is not None
    opened.close()
    assert list(frames) == []
    assert launch._process.returncode is not None


def test_an_end_is_quick_while_no_picture_comes() -> None:
    opened = camera("videotestsrc is-live=true ! valve drop=true")
    reader = threading.Thread(target=lambda: list(opened.frames()), daemon=True)
    reader.start()
    deadline = time.monotonic() + 30
    while opened._launch is None and time.monotonic() < deadline:
        time.sleep(0.01)
    opened.close()
    reader.join(20)
    assert not reader.is_alive()


def test_a_quote_that_is_not_closed_is_found_in_the_station_file() -> None:
    with pytest.raises(ValidationError, match="No closing quotation"):
        camera("videotestsrc 'pattern")
