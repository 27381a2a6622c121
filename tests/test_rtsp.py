"""A network camera: every frame counted, a stall noticed, the stream taken up again."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.cameras import rtsp
from pipeline.cameras._formats import SplitPictures
from pipeline.clock import SystemClock
from pipeline.errors import CameraError, ConfigError
from tests import rtsp_server
from tests.rtsp_server import RtspCamera

NOTICED_S = 2.0
PATIENCE_S = 20.0

Start = Callable[..., RtspCamera]


@pytest.fixture
def start() -> Iterator[Start]:
    if not rtsp_server.available():
        pytest.skip("no GStreamer RTSP server for /usr/bin/python3 (gir1.2-gst-rtsp-server-1.0)")
    running: list[RtspCamera] = []

    def started(**options: object) -> RtspCamera:
        running.append(rtsp_server.start(**options))  # type: ignore[arg-type]
        return running[-1]

    yield started
    for server in running:
        server.stop()


def camera_of(server: RtspCamera, **options: object) -> rtsp.Rtsp:
    return rtsp.create(rtsp.Options(url=server.url, **options), "top", SystemClock())


def until_lost(camera: rtsp.Rtsp) -> tuple[list[int], float, str]:
    """Read until the CameraError; return the seqs, seconds from the last frame to it, and it."""
    seqs: list[int] = []
    last_s = time.monotonic()
    try:
        for frame in camera.frames():
            seqs.append(frame.seq)
            last_s = time.monotonic()
    except CameraError as error:
        return seqs, time.monotonic() - last_s, str(error)
    raise AssertionError("the stream ended without an error")


def first_frame_again(camera: rtsp.Rtsp) -> tuple[int, Iterator[object]]:
    """Reopen as the capture loop does, until a frame comes."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        frames = camera.frames()
        try:
            return next(frames).seq, frames
        except CameraError:
            if time.monotonic() > deadline_s:
                raise


def test_every_frame_is_counted(start: Start) -> None:
    sent = 90
    seqs, _, said = until_lost(camera_of(start(frames=sent)))
    assert seqs == list(range(len(seqs)))
    # The first is left out, and FFmpeg keeps the last one or two of a stream until the next come.
    assert sent - 3 <= len(seqs) <= sent - 1
    assert "no frame for" in said


def test_each_picture_is_whole(start: Start) -> None:
    areas = []
    with pytest.raises(CameraError, match="no frame for"):
        for frame in camera_of(start(frames=60), gray=True).frames():
            areas.append(int(np.count_nonzero(frame.image > 128)))
    assert max(areas) < 1.1 * min(areas)


def test_halves_of_pictures_are_refused(start: Start) -> None:
    frames = camera_of(start(sets=-1)).frames()
    with pytest.raises(CameraError, match="comes as halves of pictures"):
        pytest.fail(f"a half was handed out as frame {next(frames).seq}")


KEY, OTHER = True, False
GOOD = [(33.0 * i, OTHER) for i in range(3, 15)]
NEXT_HALVES = [(500.0, KEY), (500.0, KEY)]
NEXT_WHOLE = [(500.0, KEY), (533.0, OTHER), (566.0, OTHER)]


@pytest.mark.parametrize(
    ("stream", "whole", "are_split"),
    [
        ([(0.0, KEY), (0.0, OTHER), (33.0, OTHER), *NEXT_WHOLE], 5, False),
        ([(0.0, KEY), (33.0, KEY), (66.0, KEY), (100.0, KEY)], 2, False),
        ([(0.0, KEY), (0.0, KEY), *GOOD, *NEXT_HALVES], 0, True),
        ([(0.0, KEY), (33.0, KEY), *GOOD, *NEXT_HALVES], 0, True),
        ([(0.0, KEY), (0.0, KEY), *GOOD, *NEXT_WHOLE], 2, False),
    ],
    ids=["whole", "key pictures alone", "halves", "halves of two stamps", "whole after a doubt"],
)
def test_halves_show_as_two_key_pictures(
    stream: list[tuple[float, bool]], whole: int, are_split: bool
) -> None:
    pictures = SplitPictures()
    assert sum(pictures.is_whole(at_ms, is_key) for at_ms, is_key in stream) == whole
    assert pictures.are_split == are_split


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["closed", "hung"])
def test_a_lost_camera_is_noticed_and_taken_up_again(start: Start, how: signal.Signals) -> None:
    server = start()
    camera = camera_of(server)
    frames = camera.frames()
    last = [next(frames).seq for _ in range(5)][-1]
    server.process.send_signal(how)
    sent_s = last_s = time.monotonic()
    with pytest.raises(CameraError, match=r"no frame for \d+ ms"):
        for frame in frames:
            last, last_s = frame.seq, time.monotonic()
    assert time.monotonic() - last_s <= NOTICED_S
    assert last_s - sent_s <= NOTICED_S, "frames go on coming from a dead server"
    server.stop()
    start(port=server.port)
    seq, _ = first_frame_again(camera)
    assert seq == last + 1
    camera.close()


def test_an_absent_camera_is_one_line_without_a_wait(start: Start) -> None:
    server = start()
    server.stop()
    began_s = time.monotonic()
    with pytest.raises(CameraError, match="no stream from rtsp://") as said:
        next(camera_of(server).frames())
    assert "\n" not in str(said.value)
    assert time.monotonic() - began_s < NOTICED_S


def test_a_hung_camera_does_not_hold_up_the_opening(start: Start) -> None:
    server = start()
    server.process.send_signal(signal.SIGSTOP)
    began_s = time.monotonic()
    with pytest.raises(CameraError, match="no stream"):
        next(camera_of(server, open_ms=500).frames())
    assert time.monotonic() - began_s < NOTICED_S


def test_a_changed_picture_size_after_reopening_is_refused(start: Start) -> None:
    server = start()
    camera = camera_of(server)
    assert next(camera.frames()).image.shape == (240, 320, 3)
    server.stop()
    start(port=server.port, size=(160, 120))
    with pytest.raises(CameraError, match="now 160 x 120, it was 320 x 240"):
        next(camera.frames())


def test_a_picture_size_that_changes_on_the_way_is_noticed_within_a_second(start: Start) -> None:
    camera = camera_of(start(change_ms=1500))
    began_s = time.monotonic()
    with pytest.raises(CameraError, match="size or format changed"):
        for _ in camera.frames():
            assert time.monotonic() - began_s < PATIENCE_S, "the change went unnoticed"
    camera.close()


def test_a_camera_that_serves_one_session_can_be_used_without_the_watch(start: Start) -> None:
    camera = camera_of(start(frames=60), watch_format=False)
    seqs, _, said = until_lost(camera)
    assert len(seqs) > 50
    assert "no frame for" in said


def test_the_password_comes_from_a_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss:w/rd\n")
    server = start(login=("guard", "p@ss:w/rd"))
    camera = camera_of(server, user="guard", password_file=tmp_path / "password")
    assert next(camera.frames()).seq == 0
    camera.close()


def test_a_wrong_password_is_not_shown(start: Start, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim")
    server = start(login=("guard", "p@ss:w/rd"))
    with pytest.raises(CameraError, match="check the address, user and password") as said:
        next(camera_of(server, user="guard", password_file=tmp_path / "password").frames())
    assert "geheim" not in str(said.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://a/b"}, "not of the form rtsp://"),
        ({"url": "rtsp:///line"}, "not of the form rtsp://"),
        ({"url": "rtsp://a:x/line"}, "not of the form rtsp://"),
        ({"url": "rtsp://guard:geheim@a/line"}, "holds a user or password"),
        ({"url": "rtsp://a/line", "user": "guard"}, "a user needs one of"),
        ({"url": "rtsp://a/line", "password_env": "P"}, "a camera without user needs none"),
    ],
)
def test_a_wrong_address_is_refused_at_once(options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        rtsp.create(rtsp.Options(**options), "top", SystemClock())
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"password_file": Path("/no/such/file")}, "password_file /no/such/file: No such file"),
        ({"password_env": "LINEGUARD_NO_SUCH_VARIABLE"}, "VARIABLE is not set"),
    ],
)
def test_a_missing_password_is_said(option: dict[str, object], said: str) -> None:
    options = rtsp.Options(url="rtsp://127.0.0.1:9/line", user="guard", **option)
    with pytest.raises(ConfigError, match=said):
        next(rtsp.create(options, "top", SystemClock()).frames())


def test_opencv_has_the_timeouts_that_a_stall_is_noticed_by() -> None:
    assert hasattr(cv2, "CAP_PROP_OPEN_TIMEOUT_MSEC")
    assert hasattr(cv2, "CAP_PROP_READ_TIMEOUT_MSEC")
    assert hasattr(cv2, "CAP_PROP_FRAME_TYPE")
