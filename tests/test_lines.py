"""The demo's line is changed on its page: to a video, a webcam, and back, come what may."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.demo import Place, demo, drawn_line
from pipeline.errors import CameraError, ConfigError
from pipeline.lines import FIRST, Lines, offers, read_shown, webcam, webcams, wish
from pipeline.replay import Replay
from pipeline.shipped import shipped
from pipeline.station import Station
from tests.doubles import until

DRAWN = drawn_line(boards=None, seed=5, realtime=True)
CLIP = Path(__file__).parent / "replay" / "drawn.mp4"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a line.mp4").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    (folder / "-rf.mp4").write_bytes(b"")
    (folder / "elsewhere.mp4").symlink_to(CLIP)
    return folder


@pytest.fixture
def lines(tmp_path: Path, videos: Path) -> Iterator[Lines]:
    with Lines(tmp_path, DRAWN, "Drawn boards", videos) as made:
        yield made


def said(folder: Path) -> str:
    shown = read_shown(folder)
    assert shown is not None
    return shown.said


def test_videos_with_plain_names_are_offered_and_every_webcam(tmp_path: Path, lines: Lines) -> None:
    shown = read_shown(tmp_path)
    assert shown is not None
    cameras = [f"webcam:{number}" for number in webcams()]
    assert list(offers(shown)) == [FIRST, "video:a line.mp4", *cameras]


def test_webcams_are_the_video_devices_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("video10", "video2", "video-dec0", "video", "v4l-subdev0"):
        (tmp_path / name).touch()
    assert webcams(tmp_path) == (2, 10)


def test_a_choice_ends_the_line_that_runs_and_is_taken_up(
    tmp_path: Path, lines: Lines, videos: Path
) -> None:
    stopped: list[str] = []
    lines.runs(lambda: stopped.append("first"))
    assert not lines.advance(), "nothing was chosen"
    lines.runs(lambda: stopped.append("first"))
    wish(tmp_path, "video:a line.mp4")
    until(lambda: stopped == ["first"], "the end of the line")
    assert lines.advance()
    assert lines.section["path"] == str(videos / "a line.mp4")
    assert lines.section["loop"] is True
    wish(tmp_path, FIRST)
    until(lambda: not (tmp_path / "line.json").exists(), "the wish to be taken")
    lines.runs(lambda: stopped.append("second"))
    assert stopped == ["first", "second"], "it was chosen before the line had begun"
    assert lines.advance()
    assert lines.section == DRAWN


@pytest.mark.parametrize("line", ["video:../a line.mp4", "video:elsewhere.mp4", "webcam:64", "x"])
def test_what_is_not_offered_is_not_shown_and_the_page_says_so(
    tmp_path: Path, lines: Lines, line: str
) -> None:
    stopped: list[str] = []
    lines.runs(lambda: stopped.append(line))
    wish(tmp_path, line)
    until(lambda: bool(stopped), "the wish")
    assert lines.advance()
    assert lines.section == DRAWN
    assert said(tmp_path) == f"{line}: this line is not offered any more; choose another one"


def test_a_line_that_fails_gives_way_to_the_first_which_may_fail_for_good(
    tmp_path: Path, lines: Lines
) -> None:
    error = CameraError("camera 'demo': the video is damaged")
    assert not lines.fall_back(error), "there is none to fall back to"
    stopped: list[str] = []
    lines.runs(lambda: stopped.append("first"))
    wish(tmp_path, "video:a line.mp4")
    until(lambda: bool(stopped), "the wish")
    lines.advance()
    assert lines.fall_back(error)
    assert lines.section == DRAWN
    assert said(tmp_path) == str(error)


def test_an_absent_folder_of_videos_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--videos .*none: no such folder"):
        Lines(tmp_path, DRAWN, "Drawn boards", tmp_path / "none")


def test_a_webcam_that_is_not_there_is_one_clear_line() -> None:
    from pipeline.cameras.v4l2 import Options, create
    from pipeline.clock import SystemClock

    section = webcam(63)
    camera = create(Options(device=section["device"]), "demo", SystemClock())
    with pytest.raises(CameraError, match=r"^camera 'demo': there is no /dev/video63; is it plug"):
        next(camera.frames())


def test_the_demo_goes_on_with_the_video_that_was_chosen(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("iotcore", reason="the demo's broker is not installed")
    stations: list[Station] = []
    ended: list[tuple[str, Replay]] = []
    heard: list[tuple[str, bool]] = []
    live = tmp_path / "live"
    document = shipped("configs/demo.yaml").read_text().replace("../models", str(shipped("models")))
    file = tmp_path / "station.yaml"
    file.write_text(f"{document}\nlive: {{path: {live}}}\n")
    broken = tmp_path / "videos"
    broken.mkdir()
    (broken / "broken.mp4").write_bytes(CLIP.read_bytes()[:2000])
    (broken / "drawn.mp4").write_bytes(CLIP.read_bytes())

    def begin(station: Station, total: int | None) -> None:
        stations.append(station)
        if len(stations) == 1:
            wish(live, "video:broken.mp4")

    def message(event: dict[str, object]) -> None:
        shown = read_shown(live)
        assert shown is not None
        heard.append((shown.now, "broken.mp4" in shown.said))
        if heard[-1] == (FIRST, True):
            if heard.count(heard[-1]) == 1:
                wish(live, "video:drawn.mp4")
        elif shown.now == "video:drawn.mp4":
            stations[-1].stop()

    done = demo(
        file,
        Place(tmp_path / "store"),
        DRAWN,
        videos=broken,
        on_start=begin,
        on_message=message,
        on_change=lambda words, done: ended.append((words, done)),
    )
    assert [words for words, _ in ended] == ["Drawn boards", "Drawn boards"]
    assert done.records
    assert done.truth is None, "nothing is known of a video"
    assert heard[-1] == ("video:drawn.mp4", False)
