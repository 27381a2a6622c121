"""Cameras over files: all frames, in order, and never silently short."""

import json
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.cameras import images, video
from pipeline.clock import NS_PER_S, ManualClock
from pipeline.errors import CameraError, ConfigError
from tests.contracts.test_cameras import clip, cut_clip

COUNT = 12


def play(file: Path, clock: ManualClock | None = None, **options: object) -> video.Video:
    return video.create(video.Options(path=file, **options), "top", clock or ManualClock())


def show(path: Path, **options: object) -> images.Images:
    return images.create(images.Options(path=path, **options), "top", ManualClock())


def save(file: Path, shade: int = 9, size: tuple[int, int] = (8, 6)) -> Path:
    assert cv2.imwrite(str(file), np.full((size[1], size[0], 3), shade, np.uint8))
    return file


def one_edit(file: Path, begin: float, length: float) -> Path:
    """Trim a clip by its edit list as editors do: shares of its duration."""
    data = bytearray(file.read_bytes())
    at = data.index(b"elst") + 12
    shown, start, rate = struct.unpack_from(">IiI", data, at)
    scale, duration = struct.unpack_from(">II", data, data.index(b"mdhd") + 16)
    assert scale > 0
    struct.pack_into(">IiI", data, at, int(shown * length), start + int(duration * begin), rate)
    file.write_bytes(data)
    return file


def test_pictures_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, shade in (("b.png", 20), ("a.bmp", 10), ("c.PNG", 30)):
        save(tmp_path / name, shade)
    (tmp_path / "notes.txt").write_text("not shown")
    camera = show(tmp_path)
    assert camera.total == 3
    assert [int(frame.image[0, 0, 0]) for frame in camera.frames()] == [10, 20, 30]


def test_one_picture_is_one_frame(tmp_path: Path) -> None:
    frames = list(show(save(tmp_path / "a.png"), gray=True).frames())
    assert [frame.image.shape for frame in frames] == [(6, 8)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "absent", "there is no such picture or folder"),
        (lambda folder: folder, "no picture in this folder"),
        (lambda folder: (folder / "a.png", (folder / "a.png").write_text("x"))[0], "not a picture"),
    ],
)
def test_a_wrong_folder_is_said(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        list(show(make(tmp_path)).frames())


def test_a_damaged_picture_stops_after_those_before_it(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(save(tmp_path / "c.png").read_bytes()[:-20])
    frames = show(tmp_path).frames()
    assert next(frames).seq == 0
    with pytest.raises(ConfigError, match=r"b\.png: the picture is damaged or cut off"):
        next(frames)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.avi", "a.mkv", "a.ts"])
def test_every_frame_of_a_clip_comes_in_order(tmp_path: Path, name: str) -> None:
    camera = play(clip(tmp_path / name))
    shades = [int(frame.image.mean()) for frame in camera.frames()]
    assert len(shades) == COUNT
    assert shades == sorted(shades)
    assert camera.total == (None if name in ("a.mkv", "a.ts") else COUNT)


def test_a_clip_may_be_gray(tmp_path: Path) -> None:
    assert next(play(clip(tmp_path / "a.mp4"), gray=True).frames()).image.shape == (48, 64)


def test_a_loop_goes_on_and_has_no_total(tmp_path: Path) -> None:
    camera = play(clip(tmp_path / "a.mp4"), loop=True)
    assert camera.total is None
    frames = list(islice(camera.frames(), 2 * COUNT + 3))
    assert [frame.seq for frame in frames] == list(range(2 * COUNT + 3))
    assert np.array_equal(frames[0].image, frames[2 * COUNT].image)


def test_realtime_keeps_the_pace_of_the_clip(tmp_path: Path) -> None:
    frames = play(clip(tmp_path / "a.mp4"), realtime=True).frames()
    assert [frame.t_ns for frame in frames] == [i * NS_PER_S // 25 for i in range(COUNT)]


def test_who_falls_behind_is_not_hurried(tmp_path: Path) -> None:
    clock = ManualClock()
    frames = play(clip(tmp_path / "a.mp4"), clock, realtime=True, fps=10).frames()
    next(frames)
    clock.advance(NS_PER_S)
    late, after = next(frames), next(frames)
    assert late.t_ns == NS_PER_S
    assert after.t_ns == NS_PER_S + NS_PER_S // 10


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.mp4", None, "No such file"),
        ("text.mp4", b"these are words and no pictures", "not a video that can be read"),
        ("empty.mp4", b"", "not a video that can be read"),
        ("list.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", "not a video"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n", "not a video"),
        ("head.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "damaged or cut off"),
    ],
)
def test_what_is_no_video_is_refused(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said) as error:
        next(play(tmp_path / name).frames())
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_clip_without_its_index_is_refused(tmp_path: Path) -> None:
    file = clip(tmp_path / "a.mp4")
    file.write_bytes(file.read_bytes()[: file.read_bytes().index(b"moov") - 4])
    with pytest.raises(ConfigError, match="damaged or cut off"):
        next(play(file).frames())


def test_a_cut_clip_gives_what_it_has_and_then_says_how_many_are_missing(tmp_path: Path) -> None:
    given = 0
    with pytest.raises(CameraError) as said:
        for _ in play(cut_clip(tmp_path / "a.mp4")).frames():
            given += 1
    assert 0 < given < COUNT
    assert f"{given} of {COUNT} frames came" in str(said.value)


def test_a_cut_mkv_is_noticed_by_the_time(tmp_path: Path) -> None:
    file = clip(tmp_path / "a.mkv", count=100)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(CameraError, match=r"it ends at .* s of 4\.0 s"):
        list(play(file).frames())


@pytest.mark.parametrize(("begin", "length"), [(0.0, 0.5), (0.5, 0.5)])
def test_a_clip_trimmed_by_its_edit_list_is_whole(
    tmp_path: Path, begin: float, length: float
) -> None:
    camera = play(one_edit(clip(tmp_path / "a.mp4"), begin, length))
    assert camera.total is None
    assert 0 < len(list(camera.frames())) < COUNT


def test_a_change_of_the_picture_size_midway_is_noticed(tmp_path: Path) -> None:
    joined = tmp_path / "joined.ts"
    first, second = clip(tmp_path / "a.ts"), clip(tmp_path / "b.ts", size=(32, 24))
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    shapes = []
    with pytest.raises(CameraError, match=f"format changes at frame {COUNT}"):
        for frame in play(joined).frames():
            shapes.append(frame.image.shape)
    assert shapes == [(48, 64, 3)] * COUNT


def test_clips_of_one_format_may_be_joined(tmp_path: Path) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(2 * clip(tmp_path / "a.ts").read_bytes())
    assert len(list(play(joined).frames())) == 2 * COUNT


def test_a_clip_above_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 x 48 pixels are more than the limit of 100"):
        next(play(clip(tmp_path / "a.mp4"), max_pixels=100).frames())


@pytest.mark.data
def test_the_shared_clips_are_whole(data_dir: Path) -> None:
    folder = data_dir / "videos"
    known = json.loads((folder / "VIDEOS.json").read_text())
    known["boards-line.mp4"] = json.loads((folder / "boards-line.json").read_text())
    for name, truth in known.items():
        camera = play(folder / name)
        assert camera.total == truth["frames"], name
        assert sum(1 for _ in camera.frames()) == truth["frames"], name
