"""A whole station, end to end: whatever goes wrong, the books balance and no fault shows green."""

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.bundle import Threshold
from pipeline.cameras import Camera
from pipeline.clock import Clock, ManualClock, SystemClock
from pipeline.errors import (
    CameraError,
    DiskFull,
    LineguardError,
    ModelError,
    OutputError,
    PublishError,
    StoreError,
)
from pipeline.frames import FRAMES_MOST, FRAMES_WAITING
from pipeline.inspection import FindsDefects, Inspector
from pipeline.keeping import KeepsPictures, NotesIntents
from pipeline.outputs.recording import RecordingOutput
from pipeline.pictures import Pictures
from pipeline.publishers import Address, Publisher
from pipeline.publishers.file import FilePublisher
from pipeline.recipe import Recipe
from pipeline.records import Identity, Link, StoredPicture
from pipeline.rules import Rulebook
from pipeline.station import Station, Tally
from pipeline.store import Ledger, Outbox, read_records
from pipeline.triggers import Trigger
from pipeline.triggers.every_frame import EveryFrame
from pipeline.triggers.presence import Options, Presence
from pipeline.types import Image, Inspection, Record, Verdict
from pipeline.watch import Watch
from tests.doubles import (
    LIMIT_S,
    Belt,
    Lose,
    ScriptedCamera,
    SpotDetector,
    Step,
    manual_clock,
    until,
)

HASH = "0" * 64
IDENTITY = Identity("aoi-1", "run-1", "scripted", "any", "tiny 1", HASH, HASH, HASH, "spot/test")
BELT = Belt(parts=4, bad=frozenset({1}))
PASSING = BELT.passing()
PASS, FAIL, UNSURE = Verdict.PASS, Verdict.FAIL, Verdict.UNSURE


class FailingOutput(RecordingOutput):
    """Does not take the command for some parts, or no word on being ready."""

    def __init__(self, parts: Sequence[int] = (), ready: Sequence[bool] = ()) -> None:
        super().__init__()
        self._fail_parts, self._fail_ready = parts, ready

    def act(self, inspection: Inspection) -> None:
        super().act(inspection)
        if inspection.part.id in self._fail_parts:
            raise OutputError(f"gate: part {inspection.part.id} was not taken")

    def ready(self, is_ready: bool) -> None:
        super().ready(is_ready)
        if is_ready in self._fail_ready:
            raise OutputError(f"gate: ready={is_ready} was not taken")


class FailingLedger:
    """Takes records until the disk is full."""

    def __init__(self, ledger: Ledger, room: int) -> None:
        self._ledger, self._room = ledger, room

    def append(self, drafts: Sequence[Callable[[Link], Record]]) -> tuple[Record, ...]:
        self._room -= len(drafts)
        if self._room < 0:
            raise StoreError("store: No space left on device")
        return self._ledger.append(drafts)

    def shortage(self) -> str:
        return ""

    def close(self) -> None:
        self._ledger.close()


class FullLedger:
    """Has no room from one record on, for some attempts or for ever; says so as a disk would."""

    def __init__(self, ledger: Ledger, room: int, attempts: float) -> None:
        self._ledger, self._room, self._attempts = ledger, room, attempts
        self.told: list[str] = []

    def append(self, drafts: Sequence[Callable[[Link], Record]]) -> tuple[Record, ...]:
        if self._room < len(drafts) and self._attempts > 0:
            self._attempts -= 1
            raise DiskFull("store: No space left on device; make room there")
        self._room -= len(drafts)
        return self._ledger.append(drafts)

    def shortage(self) -> str:
        return "store: nearly full" if self._room <= 0 < self._attempts else ""

    def close(self) -> None:
        self._ledger.close()


class Receiver:
    """Confirms what it is sent, at most ``size`` records a time; may be away."""

    trouble = ""

    def __init__(self, size: int = 99, is_away: Callable[[], bool] = lambda: False) -> None:
        self.got: list[str] = []
        self.states: list[str] = []
        self.tried = 0
        self._size, self._is_away = size, is_away

    def send(self, records: Sequence[Record]) -> tuple[str, ...]:
        self.tried += 1
        if self._is_away():
            raise PublishError("receiver: connection refused")
        ids = tuple(r.id for r in records[: self._size])
        self.got += ids
        return ids

    def state(self, state: Any) -> None:
        assert state["ready"] is (state["state"] in ("ready", "degraded"))
        self.states.append(state["state"])

    def close(self) -> None:
        pass


def no_picture(inspection: Inspection, name: str) -> StoredPicture | None:
    del inspection, name
    return None


@dataclass
class Line:
    """A station around one camera, and everything that a test looks at afterwards."""

    folder: Path
    camera: Camera
    detector: FindsDefects = field(default_factory=SpotDetector)
    output: RecordingOutput = field(default_factory=RecordingOutput)
    publishers: dict[str, Publisher] = field(default_factory=dict)
    room: int | None = None
    full_for: float = 0
    record_first: bool = True
    gather_ms: int = 0
    intents: NotesIntents | None = None
    keep_picture: KeepsPictures = no_picture
    on_record: Callable[[Record], None] = lambda record: None
    settings: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    run_id: str = "run-1"
    watch: Watch = field(default_factory=Watch)
    trigger: Trigger = field(default_factory=lambda: Presence(Options()))
    said: Any = None

    def __post_init__(self) -> None:
        thresholds = {label: Threshold(fail=0.5, unsure=0.3) for label in SpotDetector.labels}
        rules = Rulebook(Recipe(name="any"), thresholds)
        ledger = Ledger(self.folder, tuple(self.publishers))
        self.station = Station(
            camera=self.camera,
            inspector=Inspector(
                self.trigger,
                self.detector,
                rules,
                now_ns=self.clock.now_ns,
                **self.settings,
            ),
            ledger=self._limited(ledger),
            keep_picture=self.keep_picture,
            identity=replace(IDENTITY, run=self.run_id),
            clock=self.clock,
            outputs=[self.output],
            outboxes={n: (p, Outbox(self.folder, n)) for n, p in self.publishers.items()},
            on_record=self.on_record,
            watch=self.watch,
            record_first=self.record_first,
            gather_ms=self.gather_ms,
            intents=self.intents,
        )
        self.error: LineguardError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _limited(self, ledger: Ledger) -> Ledger | FailingLedger | FullLedger:
        if self.room is None:
            return ledger
        if self.full_for:
            return FullLedger(ledger, self.room, self.full_for)
        return FailingLedger(ledger, self.room)

    def _run(self) -> None:
        try:
            self.station.run()
        except LineguardError as error:
            self.error = error

    def rewind(self, script: Sequence[Step]) -> None:
        """Give the scripted camera its script once the line that it looks at is there."""
        assert isinstance(self.camera, ScriptedCamera)
        self.camera.rewind(script)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> Tally:
        """Wait for the end; a station that hangs fails the test."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the station hangs"
        assert self.output.closed
        assert self.output.ready_states[-1:] in ([], [False]), "it ended green"
        self._assert_books()
        return self.station.tally

    def run(self) -> Tally:
        self.start()
        return self.wait()

    @property
    def records(self) -> list[Record]:
        return [r for r in read_records(self.folder) if r.run == self.run_id]

    def _assert_books(self) -> None:
        tally, records = self.station.tally, self.records
        assert tally.captured == tally.inspected + sum(tally.dropped.values()), tally
        assert [r.seq for r in records] == list(range(1, len(records) + 1))
        assert len({r.part for r in records}) == len(records), "a part was recorded twice"
        acted = [part for part, _ in self.output.acted]
        assert len(acted) == len(set(acted)) == sum(tally.verdicts.values())
        assert [r.part for r in records] == acted[: len(records)]
        rejected = dict(self.output.acted)
        assert all(rejected[r.part] == (r.verdict is not PASS) for r in records)


def verdicts(records: Sequence[Record]) -> list[Verdict]:
    return [r.verdict for r in records]


def paced(line: list[Line], pictures: Sequence[Image]) -> list[Step]:
    """Let a live camera wait before each picture until the one before was looked at."""

    def caught_up() -> None:
        station, tally = line[0].station, line[0].station.tally
        until(lambda: tally.inspected == tally.captured or station.fault is not None)

    return [step for picture in pictures for step in (caught_up, picture)]


# --- the normal way


@pytest.mark.parametrize("live", [False, True])
def test_a_recording_runs_to_its_end(tmp_path: Path, live: bool) -> None:
    line: list[Line] = []
    script = paced(line, PASSING) if live else PASSING
    line.append(Line(tmp_path, ScriptedCamera(script, live=live)))
    tally = line[0].run()
    assert line[0].error is None
    assert (tally.captured, tally.inspected, sum(tally.dropped.values())) == (
        len(PASSING), len(PASSING), 0,
    )  # fmt: skip
    assert verdicts(line[0].records) == [PASS, FAIL, PASS, PASS]
    assert tally.verdicts == {"PASS": 3, "FAIL": 1}
    assert line[0].output.ready_states[0] is True
    assert set(line[0].output.ready_states[1:]) == {False}


def test_a_camera_that_gives_nothing_is_never_ready(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera([]))
    assert line.run().captured == 0
    assert True not in line.output.ready_states


def test_exposures_that_the_camera_lost_are_counted(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera([*PASSING[:20], Lose(2), *PASSING[22:]]))
    tally = line.run()
    assert (tally.lost_exposures, tally.captured) == (2, len(PASSING) - 2)
    assert verdicts(line.records) == [PASS, FAIL, PASS, PASS]


def test_records_name_the_frames_the_latency_and_the_picture(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, 10_000)

    def keep(inspection: Inspection, name: str) -> StoredPicture | None:
        return pictures.keep(name, b"jpeg") if inspection.decision.verdict is FAIL else None

    line = Line(tmp_path, ScriptedCamera(PASSING), keep_picture=keep)
    line.run()
    first, second, *_ = line.records
    assert (first.station, first.run, first.image) == ("aoi-1", "run-1", None)
    assert first.first_frame < first.last_frame < second.last_frame
    assert first.latency_ms >= 0
    assert first.stages_ms is not None
    assert min(astuple(first.stages_ms)) >= 0
    assert second.image is not None
    assert (tmp_path / second.image).read_bytes() == b"jpeg"


def test_a_listener_gets_every_record_once_it_is_in_the_ledger(tmp_path: Path) -> None:
    heard: list[Record] = []
    in_ledger: list[int] = []

    def listen(record: Record) -> None:
        heard.append(record)
        in_ledger.append(len(list(read_records(tmp_path))))

    line = Line(tmp_path, ScriptedCamera(PASSING), on_record=listen)
    line.run()
    assert heard == line.records
    assert all(count >= i for i, count in enumerate(in_ledger, 1))


@pytest.mark.parametrize("record_first", [True, False])
def test_decisions_that_come_closely_are_committed_together(
    tmp_path: Path, record_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[int] = []
    append = Ledger.append

    def counted(self: Ledger, drafts: Sequence[Callable[[Link], Record]]) -> tuple[Record, ...]:
        commits.append(len(drafts))
        return append(self, drafts)

    monkeypatch.setattr(Ledger, "append", counted)
    frames = list(PASSING)[:20]
    line = Line(
        tmp_path,
        ScriptedCamera(frames),
        trigger=EveryFrame(),
        gather_ms=300,
        record_first=record_first,
    )
    line.run()
    assert sum(commits) == len(line.records) == len(line.output.acted) == 20
    assert len(commits) <= 10, commits


def test_the_inspection_waits_for_no_receiver(tmp_path: Path) -> None:
    receivers: dict[str, Publisher] = {
        "file": FilePublisher(tmp_path / "events.jsonl", Address("e", "s", "a", "l", "aoi-1")),
        "slow": Receiver(size=1),
    }
    line = Line(tmp_path / "store", ScriptedCamera(PASSING), publishers=receivers)
    line.run()
    assert line.station.undelivered == {"file": 0, "slow": 0}
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 4
    slow = receivers["slow"]
    assert isinstance(slow, Receiver)
    assert slow.got == [r.id for r in line.records]
    assert slow.states[0] in ("starting", "ready")
    assert slow.states[-1] == "stopped"


# --- the camera


def test_a_slow_inspection_drops_the_oldest_frames_of_a_live_camera(tmp_path: Path) -> None:
    given = threading.Event()

    def wait_for_the_camera() -> None:
        assert given.wait(LIMIT_S)

    belt = Belt(parts=1)
    count = FRAMES_MOST + 30
    pictures = [belt.picture(0), *(belt.picture(100 + i) for i in range(count))]
    camera = ScriptedCamera([*pictures, given.set], live=True)
    line = Line(tmp_path, camera, SpotDetector(before=wait_for_the_camera))
    tally = line.run()
    assert tally.captured == 1 + count
    assert tally.dropped["inspection too slow"] >= 1 + count - 2 - FRAMES_MOST - 1
    assert len(line.records) == 1


def test_every_exposure_of_a_camera_that_parts_trigger_has_a_verdict(tmp_path: Path) -> None:
    """Also those that came, and had to make room, before the first one was looked at."""
    given = threading.Event()

    def wait_for_the_camera() -> None:
        assert given.wait(LIMIT_S)

    count = 2 * FRAMES_MOST
    camera = ScriptedCamera([*[PASSING[0]] * count, given.set], live=True)
    watch = Watch(self_test=wait_for_the_camera)
    line = Line(tmp_path, camera, watch=watch, trigger=EveryFrame())
    line.station.request_self_test()
    tally = line.run()
    dropped = tally.dropped["inspection too slow"]
    assert dropped >= count - FRAMES_MOST - 1
    assert [r.first_frame for r in line.records] == list(range(count))
    unseen = [r for r in line.records if r.verdict is UNSURE]
    assert {r.reasons for r in unseen} == {("its exposure was lost before it was looked at",)}
    assert len(unseen) == dropped


def test_frames_that_have_just_come_are_not_dropped(tmp_path: Path) -> None:
    given = threading.Event()

    def wait_for_the_camera() -> None:
        assert given.wait(LIMIT_S)

    count = FRAMES_MOST - 1  # the self-test may wait among them
    camera = ScriptedCamera([*[PASSING[0]] * count, given.set], live=True)
    line = Line(
        tmp_path,
        camera,
        watch=Watch(self_test=wait_for_the_camera),
        trigger=EveryFrame(),
        clock=manual_clock(),  # no time passes
    )
    line.station.request_self_test()
    assert line.run().dropped == {}
    assert verdicts(line.records) == [PASS] * count


def test_a_recording_waits_for_a_slow_inspection(tmp_path: Path) -> None:
    line: list[Line] = []

    def camera_is_ahead() -> None:
        tally = line[0].station.tally
        until(lambda: tally.captured >= min(tally.inspected + FRAMES_WAITING, len(PASSING)))

    line.append(Line(tmp_path, ScriptedCamera(PASSING), SpotDetector(before=camera_is_ahead)))
    assert line[0].run().dropped == {}


def test_a_camera_that_is_lost_makes_parts_in_view_unsure_and_comes_back(tmp_path: Path) -> None:
    line: list[Line] = []
    half = 11
    first, second = paced(line, PASSING[:half]), paced(line, PASSING[half:])
    camera = ScriptedCamera([*first, CameraError("camera 'top': gone"), *second], live=True)
    line.append(Line(tmp_path, camera, settings={"decide_at": 0.9}))
    tally = line[0].run()
    assert line[0].error is None
    assert (camera.opened, tally.reopened) == (2, 1)
    assert line[0].output.ready_states[:3] == [True, False, True]
    records = line[0].records
    in_view = [r for r in records if r.reasons == ("camera lost: camera 'top': gone",)]
    assert verdicts(in_view) == [UNSURE, UNSURE]
    # The two in view are seen again as new parts, and the two that follow are as ever.
    assert verdicts([r for r in records if r not in in_view]) == [PASS, FAIL, PASS, PASS]


def test_a_gap_is_not_lost_when_frames_are(tmp_path: Path) -> None:
    """While the inspection is busy the camera is lost, and more frames come than may wait.

    Were the gap lost or late, a part from before it would be followed into the time after it.
    """
    given = threading.Event()

    def wait_for_the_camera() -> None:
        assert given.wait(LIMIT_S)

    belt = Belt(parts=1)
    before = [belt.picture(0), belt.picture(100)]
    after = [belt.picture(110 + 5 * i) for i in range(2 * FRAMES_MOST)]
    script: list[Step] = [*before, CameraError("gone"), *after, given.set]
    line = Line(
        tmp_path,
        ScriptedCamera(script, live=True),
        SpotDetector(before=wait_for_the_camera),
        settings={"decide_at": 0.99},
    )
    line.run()
    first, *_ = line.records
    assert first.reasons == ("camera lost: gone",)
    assert first.last_frame <= 1


def test_a_camera_that_stays_away_is_asked_again_until_the_station_is_stopped(
    tmp_path: Path,
) -> None:
    script = [CameraError(f"away {i}") for i in range(1000)]
    line = Line(tmp_path, ScriptedCamera(script, live=True))
    line.start()
    until(lambda: line.station.tally.reopened >= 2)
    assert "camera" in line.station.faults
    line.station.stop()
    line.wait()
    assert line.error is None
    assert True not in line.output.ready_states


def test_a_recording_that_breaks_off_ends_the_station(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera([*PASSING[:13], CameraError("the video is cut off")]))
    line.run()
    assert isinstance(line.error, CameraError)
    assert UNSURE in verdicts(line.records)
    assert line.records[-1].reasons == ("station failed: the video is cut off",)


def test_an_unknown_error_ends_the_station_in_the_safe_state(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera([*PASSING[:13], ZeroDivisionError("oops")]))
    line.run()
    assert "internal error: ZeroDivisionError('oops'); please report it" in str(line.error)
    assert line.output.ready_states[-1] is False


# --- the model


@pytest.mark.parametrize("live", [False, True])
def test_a_model_that_fails_leaves_no_part_undecided(tmp_path: Path, live: bool) -> None:
    line: list[Line] = []
    # Many more frames than may wait: the camera must not stay waiting for an inspection that died.
    endless = [*PASSING, *[PASSING[0]] * 50]
    script = paced(line, PASSING) if live else endless
    camera = ScriptedCamera(script, live=live)
    line.append(Line(tmp_path, camera, SpotDetector(fail_at=7)))
    tally = line[0].run()
    assert isinstance(line[0].error, ModelError)
    assert line[0].output.ready_states[:2] == [True, False]
    unsure = [r for r in line[0].records if r.verdict is UNSURE]
    assert unsure
    assert {r.reasons[0] for r in unsure} == {
        "station failed: the model gave up, as it was told to"
    }
    assert set(tally.dropped) <= {"station stopped", "inspection too slow"}


# --- the output


def test_a_part_whose_reject_failed_is_still_recorded(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera(PASSING), output=FailingOutput(parts=[2]))
    line.run()
    assert isinstance(line.error, OutputError)
    assert verdicts(line.records)[:2] == [PASS, FAIL]
    assert line.output.ready_states[-1] is False


def test_parts_that_are_decided_together_are_all_recorded_when_an_output_fails(
    tmp_path: Path,
) -> None:
    belt = Belt(length=60, pitch=100, parts=3)
    pictures = belt.passing()[:14]
    line = Line(
        tmp_path,
        ScriptedCamera([*pictures, CameraError("cut off")]),
        output=FailingOutput(parts=[1, 2, 3]),
        settings={"decide_at": 0.95},
    )
    line.run()
    assert verdicts(line.records) == [UNSURE] * 3


@pytest.mark.parametrize("word", [True, False])
def test_an_output_that_cannot_be_told_ready_stops_the_station(tmp_path: Path, word: bool) -> None:
    line = Line(tmp_path, ScriptedCamera(PASSING), output=FailingOutput(ready=[word]))
    line.run()
    assert isinstance(line.error, OutputError)


# --- the store


@pytest.mark.parametrize("room", [0, 2])
def test_a_full_disk_stops_the_station(tmp_path: Path, room: int) -> None:
    pictures = PASSING * 20
    line = Line(tmp_path, ScriptedCamera(pictures), room=room)
    line.run()
    assert isinstance(line.error, StoreError)
    assert len(line.records) <= room
    assert line.output.ready_states[-1] is False


class Gate(RecordingOutput):
    """Counts the records in the ledger at each command."""

    def __init__(self, store: Path) -> None:
        super().__init__()
        self.recorded: list[int] = []
        self._store = store

    def act(self, inspection: Inspection) -> None:
        super().act(inspection)
        self.recorded.append(len(list(read_records(self._store))))


def test_the_gate_is_told_once_the_record_is_on_the_disk(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    Line(tmp_path, ScriptedCamera(PASSING), output=gate).run()
    assert len(gate.recorded) == 4
    assert all(count >= i for i, count in enumerate(gate.recorded, 1))


def test_a_gate_that_cannot_wait_is_told_first(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera(PASSING), record_first=False)
    line.run()
    assert verdicts(line.records) == [PASS, FAIL, PASS, PASS]


def test_what_finds_no_room_is_rejected_and_recorded_once_there_is_some(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera([]), room=1, full_for=3)
    is_full, is_well = full_and_well(line)
    line.rewind([*PASSING, is_full, is_well])
    line.run()
    assert line.error is None
    assert len(line.records) == 4
    held = [r for r in line.records if r.reasons and r.reasons[0].startswith("disk full: ")]
    assert held
    assert set(verdicts(held)) == {UNSURE}
    assert line.station.faults == {}


def full_and_well(line: Line) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return steps of a camera that wait until the disk is full, and until the station is well."""

    def is_full() -> None:
        until(lambda: "ledger" in line.station.faults)

    def is_well() -> None:
        until(lambda: not line.station.faults)

    return is_full, is_well


def test_a_full_disk_takes_the_line_from_ready_and_gives_it_back(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera([]), room=2, full_for=3)
    is_full, is_well = full_and_well(line)
    line.rewind([*PASSING, is_full, is_well, *PASSING])
    line.run()
    assert line.error is None
    changes = [word for word, _ in itertools.groupby(line.output.ready_states)]
    assert changes[:3] == [True, False, True]
    assert len(line.records) == 8


def test_a_disk_that_stays_full_ends_in_the_safe_state_and_rejects_all(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera(PASSING), room=1, full_for=float("inf"))
    line.run()
    assert isinstance(line.error, DiskFull)
    unrecorded = {part for part, _ in line.output.acted} - {r.part for r in line.records}
    assert unrecorded
    assert all(rejected for part, rejected in line.output.acted if part in unrecorded)


def test_a_part_that_cannot_be_recorded_is_rejected(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera(PASSING), room=0)
    line.run()
    assert line.output.acted
    assert all(rejected for _, rejected in line.output.acted)


def test_a_picture_that_finds_no_room_costs_neither_record_nor_readiness(tmp_path: Path) -> None:
    def fail(inspection: Inspection, name: str) -> StoredPicture | None:
        raise DiskFull(f"{name}: No space left on device; make room there")

    line = Line(tmp_path, ScriptedCamera(PASSING), keep_picture=fail)
    line.run()
    assert line.error is None
    assert verdicts(line.records) == [PASS, FAIL, PASS, PASS]
    assert all(r.image is None for r in line.records)


def test_a_picture_that_cannot_be_kept_costs_no_record(tmp_path: Path) -> None:
    def fail(inspection: Inspection, name: str) -> StoredPicture | None:
        raise StoreError(f"{name}: No space left on device")

    line = Line(tmp_path, ScriptedCamera(PASSING), keep_picture=fail)
    tally = line.run()
    assert isinstance(line.error, StoreError)
    assert len(line.records) == sum(tally.verdicts.values()) > 0
    assert all(r.image is None for r in line.records)


def test_a_listener_that_breaks_stops_the_station_and_loses_nothing_kept(tmp_path: Path) -> None:
    def breaks(record: Record) -> None:
        raise KeyError(record.part)

    line = Line(tmp_path, ScriptedCamera(PASSING), on_record=breaks)
    line.run()
    assert "internal error" in str(line.error)
    assert line.records


# --- the receivers


def test_a_receiver_that_is_away_costs_no_record_and_no_readiness(tmp_path: Path) -> None:
    away = Receiver(is_away=lambda: True)
    line: list[Line] = []

    def has_been_tried() -> None:
        until(lambda: away.tried > 0)

    script: list[Step] = [*PASSING, has_been_tried, *PASSING]
    camera = ScriptedCamera(script)
    line.append(Line(tmp_path, camera, publishers={"mqtt": away}, clock=ManualClock()))
    line[0].run()
    assert line[0].error is None
    assert line[0].station.undelivered == {"mqtt": len(line[0].records)}
    assert "degraded" in away.states
    assert "not ready" not in away.states
    assert away.tried < 60, "it hammers at a receiver that is away"
    again = Outbox(tmp_path, "mqtt")
    assert again.count() == len(line[0].records)
    again.close()


def test_a_receiver_that_comes_back_gets_everything(tmp_path: Path) -> None:
    is_away = threading.Event()
    is_away.set()
    receiver = Receiver(is_away=is_away.is_set)

    def comes_back() -> None:
        until(lambda: receiver.tried > 0)
        is_away.clear()

    script: list[Step] = [*PASSING, comes_back, *PASSING]
    line = Line(tmp_path, ScriptedCamera(script), publishers={"mqtt": receiver})
    line.run()
    assert receiver.got == [r.id for r in line.records]
    assert line.station.faults == {}


def test_a_backlog_alone_makes_no_station_ready(tmp_path: Path) -> None:
    """Records of an earlier run are delivered before the camera has given its first frame."""
    before: dict[str, Publisher] = {"mqtt": Receiver(0)}
    Line(tmp_path, ScriptedCamera(PASSING), publishers=before, clock=ManualClock()).run()
    receiver = Receiver()

    def delivered() -> None:
        until(lambda: len(receiver.got) == 4)

    line = Line(
        tmp_path, ScriptedCamera([delivered]), publishers={"mqtt": receiver}, run_id="run-2"
    )
    line.run()
    assert True not in line.output.ready_states


# --- stopping


@pytest.mark.parametrize("live", [False, True])
def test_a_station_is_stopped_from_another_thread(tmp_path: Path, live: bool) -> None:
    line = Line(tmp_path, ScriptedCamera(PASSING * 1000, live=live))
    line.start()
    until(lambda: line.station.tally.captured > 20)
    line.station.stop()
    line.station.stop()
    tally = line.wait()
    assert line.error is None
    assert tally.captured < len(PASSING) * 1000


def test_parts_in_view_are_unsure_when_the_station_is_stopped(tmp_path: Path) -> None:
    line: list[Line] = []

    def stop() -> None:
        line[0].station.stop()

    script = [*paced(line, PASSING[:8]), stop, *PASSING[8:]]
    line.append(Line(tmp_path, ScriptedCamera(script)))
    line[0].run()
    (record,) = line[0].records
    assert (record.verdict, record.reasons) == (UNSURE, ("station was stopped",))


def test_a_station_that_is_stopped_before_it_runs_ends_at_once(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera(PASSING * 1000))
    line.station.stop()
    assert line.run().captured == 0
