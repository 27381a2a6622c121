"""What the watch of a station notices: silence, hanging workers, a blind view, a sick model."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cameras.synthetic import Options as SyntheticOptions
from pipeline.cameras.synthetic import create as synthetic
from pipeline.clock import SystemClock
from pipeline.errors import CameraError, ModelError
from pipeline.frames import FRAMES_MOST
from pipeline.monitor.figures import STATES, Snapshot
from pipeline.types import Image, Record
from pipeline.watch import Watch
from tests.doubles import LIMIT_S, Belt, ScriptedCamera, SpotDetector, Step, until
from tests.test_station import FAIL, PASS, PASSING, UNSURE, Line, paced, verdicts

NOTICED_S = 1.0
"""Within which a free-running camera's silence must be noticed: max(1 s, three frame times)."""
SLACK_S = 0.5
"""What the scheduler of a busy machine may add."""


class Watched:
    """Keeps what a station said of itself."""

    def __init__(self) -> None:
        self.said: list[Snapshot] = []

    def __call__(self, snapshot: Snapshot) -> None:
        self.said.append(snapshot)

    def first(self, part: str) -> Snapshot:
        return next(s for s in self.said if part in s.faults)

    def states(self) -> list[str]:
        """Return the states in order, each once in a row."""
        states = [s.state for s in self.said]
        return [s for i, s in enumerate(states) if i == 0 or states[i - 1] != s]


def watched_line(
    folder: Path,
    script: list[Step],
    live: bool = True,
    detector: SpotDetector | None = None,
    **watch: Any,
) -> Line:
    said = Watched()
    camera = ScriptedCamera(script, live=live)
    line = Line(folder, camera, detector or SpotDetector(), watch=Watch(take=said, **watch))
    line.said = said
    return line


def hang(release: threading.Event) -> Step:
    return lambda: until(release.is_set, "the release of the camera")


# --- a camera that goes silent, in each way that a camera can


def test_a_live_camera_that_hangs_is_noticed_within_a_second(tmp_path: Path) -> None:
    release = threading.Event()
    line = watched_line(tmp_path, [])
    line.rewind([*paced([line], PASSING[:12]), hang(release), *paced([line], PASSING[12:])])
    line.start()
    until(lambda: any("camera" in s.faults for s in line.said.said), "the silence")
    stalled = line.said.first("camera")
    assert stalled.frame_age_s is not None
    assert stalled.frame_age_s < NOTICED_S + SLACK_S
    assert stalled.state == "not ready"
    assert line.output.ready_states[-1] is False
    until(lambda: line.station.tally.verdicts["UNSURE"] > 0, "the part in view")
    release.set()
    tally = line.wait()
    assert "UNSURE" in tally.verdicts
    assert tally.captured == len(PASSING)
    told = line.output.ready_states
    assert True in told[told.index(False, told.index(True)) :], "not taken up again"


def test_a_slow_camera_is_not_taken_for_a_silent_one(tmp_path: Path) -> None:
    line = watched_line(tmp_path, [])
    wait = [lambda: time.sleep(1.1)]  # its frame time alone is longer than the shortest limit
    line.rewind([step for picture in PASSING[:4] for step in (*wait, picture)])
    line.run()
    assert not any("camera" in s.faults for s in line.said.said)


def test_a_triggered_camera_may_be_silent(tmp_path: Path) -> None:
    release = threading.Event()
    line = watched_line(tmp_path, [], stall_s=float("inf"), frozen_s=0.3)
    line.rewind([*paced([line], PASSING[:3]), hang(release)])
    line.start()
    until(lambda: (line.said.said[-1:] or [Snapshot(0)])[0].state == "ready", "the first frame")
    time.sleep(NOTICED_S + SLACK_S)
    assert line.station.faults == {}
    release.set()
    line.wait()


@pytest.mark.parametrize(
    "fault",
    [
        CameraError("camera 'top': closed the stream"),
        CameraError("camera 'top': the picture is now 160 x 120, it was 320 x 240"),
    ],
    ids=["closed", "another size"],
)
def test_each_trigger_has_a_record_whatever_the_camera_does(
    tmp_path: Path, fault: CameraError
) -> None:
    line = watched_line(tmp_path, [])
    line.rewind([*paced([line], PASSING[:12]), fault, *paced([line], PASSING[12:])])
    tally = line.run()
    assert tally.reopened == 1
    assert sum(tally.verdicts.values()) == len(line.records)
    assert "UNSURE" in tally.verdicts


def test_a_real_stall_and_loss_of_the_drawn_line_are_recorded(tmp_path: Path) -> None:
    options = SyntheticOptions(
        boards=2, width=320, height=200, board_px=160, variety=1, realtime=True, fps=60,
        stall_after=12, stall_ms=1200, fail_after=20,
    )  # fmt: skip
    said = Watched()
    camera = synthetic(options, "top", SystemClock())
    line = Line(tmp_path, camera, watch=Watch(take=said))
    tally = line.run()
    assert any("camera" in s.faults for s in said.said)
    assert sum(tally.verdicts.values()) == len(line.records) > 0


# --- too little of the processor


def test_a_station_that_cannot_keep_up_says_so(tmp_path: Path) -> None:
    given = threading.Event()
    waiting = SpotDetector(before=lambda: given.wait(LIMIT_S) and None)
    line = watched_line(tmp_path, [], detector=waiting)
    pictures = [Belt(parts=1).picture(100 + i) for i in range(FRAMES_MOST + 30)]

    def until_it_is_said() -> None:
        until(lambda: "load" in line.station.faults, "the overload")

    line.rewind([*pictures, until_it_is_said, given.set])
    tally = line.run()
    overloaded = line.said.first("load")
    assert overloaded.state in ("degraded", "stopping")
    assert overloaded.dropped["inspection too slow"] > 0
    assert "frames dropped so far" in overloaded.faults["load"]
    assert tally.captured == tally.inspected + sum(tally.dropped.values())


# --- workers that hang


def test_a_hanging_inspection_is_frozen_and_not_ready(tmp_path: Path) -> None:
    release = threading.Event()

    def wait() -> None:
        until(release.is_set, "the release of the model")

    waiting = SpotDetector(before=wait)
    line = watched_line(tmp_path, list(PASSING), live=False, detector=waiting, frozen_s=0.2)
    line.start()
    until(lambda: bool(line.said.said) and line.said.said[-1].frozen == ("inspect",), "the freeze")
    until(lambda: "frozen inspect" in line.station.faults, "the fault")
    assert line.output.ready_states[-1] is False
    release.set()
    line.wait()
    assert verdicts(line.records) == [PASS, FAIL, PASS, PASS]


def test_a_hanging_disk_is_frozen(tmp_path: Path) -> None:
    release = threading.Event()

    def wait(record: Record) -> None:
        until(release.is_set, "the release of the disk")

    said = Watched()
    camera = ScriptedCamera(PASSING)
    line = Line(tmp_path, camera, on_record=wait, watch=Watch(take=said, frozen_s=0.2))
    line.start()
    until(lambda: bool(said.said) and said.said[-1].frozen == ("keep",), "the freeze")
    release.set()
    line.wait()


# --- the self-test while it runs


def test_a_self_test_on_demand_is_counted(tmp_path: Path) -> None:
    asked = []
    line = watched_line(tmp_path, [], self_test=lambda: asked.append(1))
    line.rewind([*PASSING[:3], line.station.request_self_test, *PASSING[3:5]])
    line.run()
    assert asked == [1]
    assert line.said.said[-1].self_tests == 2


def test_a_model_that_fails_its_self_test_stops_the_station_in_the_safe_state(
    tmp_path: Path,
) -> None:
    def sick() -> None:
        raise ModelError("self-test: golden picture 1: 'dent' was not found as it should be")

    line = watched_line(tmp_path, [], live=False, self_test=sick)
    line.rewind([*PASSING[:12], line.station.request_self_test, *PASSING[12:]])
    tally = line.run()
    assert isinstance(line.error, ModelError)
    assert tally.verdicts["PASS"] == 0
    assert set(verdicts(line.records)) <= {UNSURE, FAIL}


def test_what_a_person_has_allowed_degrades_and_does_not_stop(tmp_path: Path) -> None:
    notices = {"model": "the bundle is not signed; model.trust.unsigned allows it"}
    line = watched_line(tmp_path, list(PASSING), live=False, notices=notices)
    line.run()
    assert "degraded" in line.said.states()
    assert "ready" not in line.said.states()
    assert True in line.output.ready_states
    assert verdicts(line.records) == [PASS, FAIL, PASS, PASS]


def test_every_state_that_is_said_is_a_known_one(tmp_path: Path) -> None:
    line = watched_line(tmp_path, list(PASSING), live=False)
    line.run()
    assert set(line.said.states()) <= set(STATES)
    assert line.said.states()[-1] == "stopped"
    assert line.said.said[-1].latencies.count == 4


# --- a view that shows nothing


def shown(line: Line, is_at_fault: bool, what: str) -> Step:
    """Return a step that waits until the picture is at fault, or is not, with all looked at."""

    def holds() -> bool:
        tally = line.station.tally
        return tally.inspected == tally.captured and (
            ("picture" in line.station.faults) is is_at_fault
        )

    return lambda: until(holds, what)


def of(level: int, like: Image) -> Image:
    return np.full_like(like, level)


@pytest.mark.parametrize("level", [0, 20, 255], ids=["lamp out", "lens covered", "blinded"])
def test_a_view_that_shows_nothing_is_never_green(tmp_path: Path, level: int) -> None:
    belt = Belt(parts=2)
    before, after = belt.passing()[:20], Belt(parts=4).passing()
    blind = [of(level, before[0])] * 60
    line = watched_line(tmp_path, [], live=False)
    is_at_fault = shown(line, True, "a fault")
    line.rewind(
        [*before, *blind, is_at_fault, *blind, is_at_fault, *after, shown(line, False, "recovery")]
    )
    line.run()
    assert line.error is None
    assert sum(line.station.tally.verdicts.values()) == len(line.records)


def test_a_part_that_never_ends_is_a_fault(tmp_path: Path) -> None:
    empty = Belt(parts=0).picture(0)
    jammed = empty.copy()
    jammed[16:80] = 150  # from edge to edge; the belt shows above and below
    line = watched_line(tmp_path, [], live=False)
    at_fault = shown(line, True, "a fault")
    line.rewind([*[empty] * 5, shown(line, False, "a good start"), *[jammed] * 120, at_fault])
    line.run()
    assert verdicts(line.records) in ([], [UNSURE])


def test_parts_that_are_decided_while_the_view_is_in_doubt_are_unsure(tmp_path: Path) -> None:
    belt = Belt(parts=3)
    lit = belt.passing()
    dark = [np.asarray(p // 12, np.uint8) for p in lit]  # the lamp is nearly out
    line = watched_line(tmp_path, [*[lit[0]] * 3, *lit[:14], *dark[14:]], live=False)
    line.run()
    assert PASS not in verdicts(line.records)
