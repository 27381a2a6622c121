"""What a station shows to other processes: whole files, never older than they look."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.inspection import Inspector
from pipeline.live import STATE, View, Watched, Window, live_folder
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook
from pipeline.triggers import presence
from pipeline.types import Box, Decision, Frame, Part, Verdict
from pipeline.web.paint import paint_live
from tests.dashboards import Reported
from tests.doubles import Belt, SpotDetector, frames_of, until

from pipeline.bundle import Threshold  # isort: skip
from pipeline.inspection import InView  # isort: skip


def frame(seq: int, level: int = 90, height: int = 720) -> Frame:
    return Frame(np.full((height, 1280, 3), level, np.uint8), seq, SystemClock().now_ns(), "top")


def part(verdict: Verdict | None = None) -> InView:
    said = Decision(verdict) if verdict else None
    return InView(Part(7, 0, 1, 2, Box(100, 50, 500, 450)), (400, 400), said)


def test_a_reader_sees_the_newest_frame_scaled_down_with_its_parts(tmp_path: Path) -> None:
    window, view = Window(tmp_path, SystemClock()), View(tmp_path, os.getuid())
    with window.on(Reported()):
        window.offer(frame(41), [part(Verdict.FAIL)])
        glimpses = []
        until(lambda: bool((g := view.next_frame()) and glimpses.append(g) is None), "a frame")
        assert view.next_frame() is None, "the same frame twice"
    (glimpse,) = glimpses
    assert glimpse.image.shape == (360, 640, 3)
    assert glimpse.header["seq"] == 41
    assert glimpse.header["scale"] == 0.5
    assert glimpse.header["parts"][0]["verdict"] == "FAIL"


def test_no_more_frames_are_shown_than_were_asked_for(tmp_path: Path) -> None:
    window = Window(tmp_path, SystemClock(), fps=1)
    with window.on(Reported()):
        for seq in range(20):
            window.offer(frame(seq), ())
        view = View(tmp_path, os.getuid())
        until((tmp_path / "frame.bin").exists, "the first frame")
        glimpse = view.next_frame()
        assert glimpse is not None and glimpse.header["seq"] == 0


def test_a_change_of_state_is_told_and_the_last_one_stays(tmp_path: Path) -> None:
    station, view = Reported("starting"), View(tmp_path, os.getuid())
    with Window(tmp_path, SystemClock()).on(station):
        station.state, station.faults = "not ready", {"camera": "unplugged"}
        until(lambda: (view.state() or {}).get("faults") == {"camera": "unplugged"}, "the fault")
        station.state, station.faults = "stopped", {}
    state = view.state()
    assert state is not None and state["state"] == "stopped" and not state["ready"]


def test_what_another_user_wrote_is_not_shown(tmp_path: Path) -> None:
    with Window(tmp_path, SystemClock()).on(Reported()):
        pass
    assert View(tmp_path, os.getuid()).state() is not None
    assert View(tmp_path, os.getuid() + 1).state() is None


def test_a_window_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    with pytest.raises(ConfigError, match=r"live\.path"):
        Window(tmp_path / "here", SystemClock())


@pytest.mark.parametrize("junk", [b"", b"{", b"\xff" * 100, b'{"state"'])
def test_half_a_state_is_no_state(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / STATE).write_bytes(junk)
    assert View(tmp_path, os.getuid()).state() is None


def test_two_stores_have_two_windows(tmp_path: Path) -> None:
    assert live_folder(tmp_path / "a") != live_folder(tmp_path / "b")
    assert live_folder(tmp_path / "a") == live_folder(tmp_path / "b" / ".." / "a")


def test_every_part_is_shown_before_and_after_its_verdict(tmp_path: Path) -> None:
    belt = Belt(bad=frozenset({1}))
    trigger = presence.create(presence.Options())
    book = Rulebook(Recipe(name="r"), {"dent": Threshold(fail=0.5, unsure=0.3),
                                       "scratch": Threshold(fail=0.5, unsure=0.3)})  # fmt: skip
    plain = Inspector(trigger, SpotDetector(), book, views=2)
    watched = Watched(plain, Window(tmp_path, SystemClock()))
    seen: dict[int, list[Verdict | None]] = {}
    for shown in frames_of(belt.passing()):
        watched.inspect(shown)
        for view in watched.in_view():
            seen.setdefault(view.part.id, []).append(view.decision and view.decision.verdict)
    assert sorted(seen) == [1, 2, 3]
    for said in seen.values():
        assert said[0] is None
        assert said == sorted(said, key=lambda v: v is not None), "a verdict was taken back"
    assert seen[2][-1] is Verdict.FAIL
    assert seen[1][-1] is seen[3][-1] is Verdict.PASS


def test_the_live_picture_shows_a_gray_frame_and_parts_beyond_its_edge(tmp_path: Path) -> None:
    window, view = Window(tmp_path, SystemClock()), View(tmp_path, os.getuid())
    gray = Frame(np.full((96, 320), 60, np.uint8), 1, SystemClock().now_ns(), "top")
    beyond = InView(Part(1, 0, 1, 1, Box(0, 10, 50, 90)), (120, 80), Decision(Verdict.FAIL), ())
    with window.on(Reported()):
        window.offer(gray, [beyond])
        glimpses = []
        until(lambda: bool((g := view.next_frame()) and glimpses.append(g) is None), "a frame")
    assert paint_live(glimpses[0]).startswith(b"\xff\xd8")
