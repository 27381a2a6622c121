"""What every camera promises, whatever its kind."""

import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.cameras import Camera, gstreamer, images, rtsp, synthetic, v4l2, video
from pipeline.clock import ManualClock, SystemClock
from pipeline.errors import CameraError
from tests import rtsp_server

COUNT = 12
PATIENCE_S = 30.0
SMALL = {"width": 320, "height": 200, "board_px": 160, "variety": 2}

Make = Callable[[Path], Camera]


def clip(file: Path, count: int = COUNT, size: tuple[int, int] = (64, 48)) -> Path:
    """Write a clip whose pictures grow brighter."""
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
    for i in range(count):
        writer.write(np.full((size[1], size[0], 3), min(10 * i, 250), np.uint8))
    writer.release()
    return file


def cut_clip(file: Path) -> Path:
    """Write a clip whose index is whole and whose pictures end halfway."""
    data = clip(file).read_bytes()
    pictures = data.index(b"mdat") + 4
    half = (data.index(b"moov") - 4 - pictures) // 2
    file.write_bytes(data[: pictures + half] + bytes(half) + data[pictures + 2 * half :])
    return file


def make_images(folder: Path) -> Camera:
    for i in range(COUNT):
        cv2.imwrite(str(folder / f"{i:03}.png"), np.full((48, 64, 3), 10 * i, np.uint8))
    return images.create(images.Options(path=folder), "top", ManualClock())


def make_video(folder: Path) -> Camera:
    return video.create(video.Options(path=clip(folder / "a.mp4")), "top", ManualClock())


def make_synthetic(_folder: Path) -> Camera:
    return synthetic.create(synthetic.Options(**SMALL), "top", ManualClock())


def make_live_synthetic(_folder: Path) -> Camera:
    options = synthetic.Options(realtime=True, fps=100, **SMALL)
    return synthetic.create(options, "top", SystemClock())


def make_network(_folder: Path, **server: int) -> Camera:
    running = rtsp_server.start(**server)
    RUNNING.append(running)
    return rtsp.create(rtsp.Options(url=running.url), "top", SystemClock())


def make_gstreamer(_folder: Path, source: str = "videotestsrc is-live=true") -> Camera:
    options = gstreamer.Options(source=source, width=322, height=200, open_ms=30_000)
    return gstreamer.create(options, "top", SystemClock())


RUNNING: list[rtsp_server.RtspCamera] = []
CAMERAS = (
    make_images,
    make_video,
    make_synthetic,
    make_live_synthetic,
    make_network,
    make_gstreamer,
)


def lost_video(folder: Path) -> Camera:
    return video.create(video.Options(path=cut_clip(folder / "a.mp4")), "top", ManualClock())


def failed_synthetic(_folder: Path) -> Camera:
    return synthetic.create(synthetic.Options(fail_after=3, **SMALL), "top", ManualClock())


def stalled_synthetic(_folder: Path) -> Camera:
    return synthetic.create(synthetic.Options(stall_after=3, **SMALL), "top", ManualClock())


def ended_network(folder: Path) -> Camera:
    return make_network(folder, frames=20)


def ended_gstreamer(folder: Path) -> Camera:
    return make_gstreamer(folder, "videotestsrc num-buffers=5")


def absent_gstreamer(folder: Path) -> Camera:
    return make_gstreamer(folder, f"v4l2src device={folder}/video9")


def absent_device(folder: Path) -> Camera:
    return v4l2.create(v4l2.Options(device=str(folder / "video9")), "top", ManualClock())


LOST = (
    lost_video, failed_synthetic, stalled_synthetic, ended_network, absent_device,
    ended_gstreamer, absent_gstreamer,
)  # fmt: skip


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if "network" in request.node.callspec.id and not rtsp_server.available():
        pytest.skip("no GStreamer RTSP server for /usr/bin/python3 (gir1.2-gst-rtsp-server-1.0)")
    if "gstreamer" in request.node.callspec.id and shutil.which(gstreamer.PROGRAM) is None:
        pytest.skip("no gst-launch-1.0 (apt-get install gstreamer1.0-tools)")
    yield tmp_path
    while RUNNING:
        RUNNING.pop().stop()


every_camera = pytest.mark.parametrize("make", CAMERAS, ids=lambda make: make.__name__)


@every_camera
def test_frames_rise_and_are_sealed(make: Make, folder: Path) -> None:
    camera = make(folder)
    frames = list(islice(camera.frames(), 5))
    camera.close()
    assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame.camera == "top" for frame in frames)
    assert [frame.t_ns for frame in frames] == sorted(frame.t_ns for frame in frames)
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert frame.image.ndim == 3
        assert frame.image.flags.c_contiguous
        assert not frame.image.flags.writeable
    assert len({id(frame.image) for frame in frames}) == 5


@every_camera
def test_the_numbers_go_on_after_reopening(make: Make, folder: Path) -> None:
    camera = make(folder)
    first = [frame.seq for frame in islice(camera.frames(), 3)]
    camera.close()
    assert [frame.seq for frame in islice(camera.frames(), 3)] == [n + 3 for n in first]
    camera.close()


@every_camera
def test_close_may_come_twice_and_before_the_first_frame(make: Make, folder: Path) -> None:
    camera = make(folder)
    camera.close()
    assert next(camera.frames()).seq == 0
    camera.close()
    camera.close()


@every_camera
def test_close_from_another_thread_ends_the_frames(make: Make, folder: Path) -> None:
    camera = make(folder)
    frames = camera.frames()
    next(frames)
    closer = threading.Thread(target=camera.close)
    closer.start()
    closer.join(PATIENCE_S)
    assert not closer.is_alive()
    assert list(frames) == []


@every_camera
def test_close_ends_a_reader_in_another_thread(make: Make, folder: Path) -> None:
    camera = make(folder)
    began = threading.Event()

    def read() -> None:
        for _ in camera.frames():
            began.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert began.wait(PATIENCE_S)
    camera.close()
    reader.join(PATIENCE_S)
    assert not reader.is_alive()


@pytest.mark.parametrize("make", LOST, ids=lambda make: make.__name__)
def test_a_lost_device_is_a_camera_error_of_one_line(make: Make, folder: Path) -> None:
    with pytest.raises(CameraError) as said:
        for _ in make(folder).frames():
            pass
    assert str(said.value).startswith("camera 'top': ")
    assert "\n" not in str(said.value)
