"""The station: the only place with threads; it owns start, stop and the safe state.

capture --frames--> inspect --decisions--> keep --records--> ledger --> publish, per receiver
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from pipeline.cameras import Camera
from pipeline.clock import NS_PER_MS, NS_PER_S, Clock
from pipeline.errors import (
    CameraError,
    DiskFull,
    LineguardError,
    OutputError,
    PublishError,
    StoreError,
)
from pipeline.handoff import Handoff
from pipeline.inspection import InView
from pipeline.monitor.figures import LatencyCount, Snapshot
from pipeline.outputs import Output
from pipeline.publishers import Publisher
from pipeline.readiness import DISK, NOTICE, RECEIVER, Readiness
from pipeline.records import Identity, Link, StoredPicture, record_of
from pipeline.types import Decision, Frame, Inspection, Record, Verdict
from pipeline.watch import Lookout, Watch

log = logging.getLogger(__name__)

FRAMES_WAITING = 4
DECISIONS_WAITING = 256
RECORDS_PER_COMMIT = 64
RECORDS_PER_SEND = 64
LATENCIES_KEPT = 10_000
REOPEN_FIRST_S, REOPEN_MOST_S = 0.1, 1.0
RESEND_FIRST_S, RESEND_MOST_S = 0.5, 5.0
DRAIN_S = 5.0
DRAIN_AGAIN_MS = 200
WATCH_S = 0.05
COUNT_WAITING_NS = NS_PER_S
DISK_CHECK_S = 0.3
DECISIONS_HELD = 100_000
STOPPED = "station was stopped"
"""The reason of the parts that were in view when the station was told to stop."""


class Inspects(Protocol):
    """What the station needs of an inspector.

    Attributes:
        fault: why what is seen now cannot be trusted, or None.
    """

    @property
    def fault(self) -> str | None: ...

    def inspect(self, frame: Frame) -> tuple[Inspection, ...]: ...

    def give_up(self, reason: str, t_ns: int) -> tuple[Inspection, ...]: ...

    def finish(self, t_ns: int) -> tuple[Inspection, ...]: ...

    def in_view(self) -> tuple[InView, ...]: ...


class KeepsRecords(Protocol):
    """What the station needs of a ledger."""

    def append(self, drafts: Sequence[Callable[[Link], Record]]) -> tuple[Record, ...]: ...

    def shortage(self) -> str: ...

    def close(self) -> None: ...


class KeepsPictures(Protocol):
    """What the station needs of a picture store."""

    def __call__(self, inspection: Inspection, name: str) -> StoredPicture | None: ...


class Waits(Protocol):
    """What the station needs of an outbox."""

    def waiting(self, limit: int) -> tuple[Record, ...]: ...

    def count(self) -> int: ...

    def confirm(self, ids: Sequence[str]) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Tally:
    """The station's books; ``captured == inspected + sum(dropped)`` when it stands still.

    Attributes:
        captured: frames that the camera gave.
        inspected: frames that were looked at, the one included at which an inspection failed.
        dropped: frames that were not, by reason.
        lost_exposures: gaps in the camera's own numbering.
        reopened: times that the camera was opened again.
        verdicts: parts by verdict.
        latency_ms: of the last decisions.
    """

    captured: int = 0
    inspected: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lost_exposures: int = 0
    reopened: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands among the frames where the camera was away."""

    reason: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Stands among the frames where the model is to be tested."""


class Station:
    """Wires the parts of a station and runs them until the camera ends or it is told to stop.

    Args:
        outboxes: publisher and outbox per receiver.
        on_record: called with every record once it is in the ledger, from the keep thread.
        record_first: the outputs are told once the record is on the disk; else before.
        watch: how it looks after itself.
    """

    def __init__(
        self,
        *,
        camera: Camera,
        inspector: Inspects,
        ledger: KeepsRecords,
        keep_picture: KeepsPictures,
        identity: Identity,
        clock: Clock,
        outputs: Sequence[Output] = (),
        outboxes: Mapping[str, tuple[Publisher, Waits]] | None = None,
        on_record: Callable[[Record], None] = lambda record: None,
        record_first: bool = True,
        watch: Watch | None = None,
    ) -> None:
        self.tally = Tally()
        self.fault: LineguardError | None = None
        self.undelivered: dict[str, int] = {}
        """Records that each receiver still waits for, once ``run`` has ended."""
        self._camera = camera
        self._inspector = inspector
        self._ledger = ledger
        self._keep_picture = keep_picture
        self._identity = identity
        self._clock = clock
        self._outputs = tuple(outputs)
        self._outboxes = dict(outboxes or {})
        self._on_record = on_record
        self._record_first = record_first
        self._watch = watch or Watch()
        self._self_tests = 1  # the one before the start
        self._latencies = LatencyCount()
        self._waiting: dict[str, int] = {}
        self._books = threading.Lock()
        self._frames: Handoff[Frame | Gap | SelfTest] = Handoff(
            FRAMES_WAITING, lambda item: camera.live and isinstance(item, Frame)
        )
        self._decisions: Handoff[Inspection] = Handoff(DECISIONS_WAITING)
        self._stopping = threading.Event()
        self._kept = threading.Event()
        self._all_kept = threading.Event()
        self._readiness = Readiness(
            self._outputs, [p for p, _ in self._outboxes.values()], clock, identity.run, self._fail
        )
        self._lookout = Lookout(self._watch, clock, self._readiness, camera.live)

    def run(self) -> Tally:
        """Run until the camera has no more frames or ``stop`` is called; then bring all home.

        Raises:
            LineguardError: what made the station stop; all that was decided is in the ledger.
        """
        threads = [
            threading.Thread(target=loop, name=name, daemon=True)
            for name, loop in [
                ("capture", self._guarded(self._capture, self._end_capture)),
                ("inspect", self._guarded(self._inspect, self._end_inspection)),
                ("keep", self._guarded(self._keep, self._end_keeping)),
                *(
                    (f"publish-{name}", self._guarded(partial(self._publish, name), lambda: None))
                    for name in self._outboxes
                ),
            ]
        ]
        for part, said in self._watch.notices.items():
            self._readiness.fault(NOTICE + part, said)
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                with self._fails_safe():
                    self._look_after()
                thread.join(WATCH_S)
        if left := sum(isinstance(item, Frame) for item in self._frames):
            self.tally.dropped["station stopped"] += left
        with self._fails_safe():
            self._close()
            self._watch.take(self.snapshot())
        if self.fault is not None:
            raise self.fault
        return self.tally

    def stop(self) -> None:
        """End capture; what was captured is still decided, kept and published. Any thread.

        Parts in view that are not due are UNSURE: they will not be seen again.
        """
        self._stopping.set()
        self._camera.close()

    def fail(self, error: LineguardError) -> None:
        """Stop in the safe state because of something that no thread of the station saw."""
        self._fail(error)

    def note(self, part: str, reason: str | None) -> None:
        """Take in what is at fault outside the station's own threads; None: it is well."""
        self._readiness.note(part, reason)

    def request_self_test(self) -> None:
        """Have the running model tested before the next frame is looked at. Any thread."""
        self._offer(SelfTest())

    def snapshot(self) -> Snapshot:
        """Return what the station says of itself now."""
        tally = self.tally
        return Snapshot(
            t_ns=self._clock.now_ns(),
            state=self._readiness.state,
            faults=self._readiness.faults,
            frozen=self._lookout.frozen(),
            captured=tally.captured,
            inspected=tally.inspected,
            dropped=dict(tally.dropped),
            lost_exposures=tally.lost_exposures,
            reopened=tally.reopened,
            frame_age_s=self._lookout.frame_age_s,
            verdicts=dict(tally.verdicts),
            latencies=self._latencies.now(),
            waiting=dict(self._waiting),
            self_tests=self._self_tests,
            model=self._watch.model,
        )

    @property
    def state(self) -> str:
        """What it is doing now: starting, ready, degraded, not ready, stopping or stopped."""
        return self._readiness.state

    @property
    def faults(self) -> dict[str, str]:
        """What is at fault now, by part of the station."""
        return self._readiness.faults

    # -- threads ------------------------------------------------------------------------------

    def _capture(self) -> None:
        wait_s = REOPEN_FIRST_S
        last_seq: int | None = None
        while not self._stopping.is_set():
            try:
                for frame in self._read():
                    wait_s = REOPEN_FIRST_S
                    last_seq = self._take(frame, last_seq)
                    if self._stopping.is_set():
                        break
                return
            except CameraError as error:
                if self._stopping.is_set():
                    return
                if not self._camera.live:
                    raise
                self._readiness.fault("camera", str(error))
                self._offer(Gap(f"camera lost: {error}"))
                self.tally.reopened += 1
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, REOPEN_MOST_S)

    def _read(self) -> Iterator[Frame]:
        """Yield the camera's frames, each read being one step of the capture."""
        frames = self._camera.frames()
        while True:
            with self._lookout.beats["capture"].step():
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _take(self, frame: Frame, last_seq: int | None) -> int:
        self.tally.captured += 1
        if last_seq is not None:
            self.tally.lost_exposures += max(frame.seq - last_seq - 1, 0)
        self._lookout.frame_came()
        self._offer(frame)
        self._readiness.seen()
        return frame.seq

    def _offer(self, item: Frame | Gap | SelfTest) -> None:
        dropped = self._frames.put(item)
        if isinstance(dropped, Frame):
            reason = "station stopped" if dropped is item else "inspection too slow"
            with self._books:  # capture and the watch both come here
                self.tally.dropped[reason] += 1

    def _end_capture(self) -> None:
        """Drop ready before the last frames are looked at: what passes from now on is not seen."""
        self._frames.close()
        self._readiness.enter("stopping")

    def _inspect(self) -> None:
        for item in self._frames:
            with self._lookout.beats["inspect"].step():
                self._take_up(item)
        if not self._stopping.is_set():
            self._act(self._inspector.finish(self._clock.now_ns()))

    def _take_up(self, item: Frame | Gap | SelfTest) -> None:
        if isinstance(item, Gap):
            self._act(self._inspector.give_up(item.reason, self._clock.now_ns()))
        elif isinstance(item, SelfTest):
            self._test_model()
        else:
            self.tally.inspected += 1
            self._act(self._inspector.inspect(item))
            self._readiness.note("trigger", self._inspector.fault)

    def _test_model(self) -> None:
        """Test the model; the station is not ready meanwhile, for frames may be dropped."""
        self._readiness.fault("self-test", "the model is being tested", logging.INFO)
        self._watch.self_test()
        self._self_tests += 1
        self._readiness.clear("self-test")

    def _end_inspection(self) -> None:
        """Leave no part in view undecided, whatever ended the inspection."""
        self._frames.close()
        reason = f"station failed: {self.fault}" if self.fault else STOPPED
        try:
            self._act(self._inspector.give_up(reason, self._clock.now_ns()))
        finally:
            self._decisions.close()

    def _act(self, inspections: Sequence[Inspection]) -> None:
        """Hand decisions on to be recorded; act on them first where the outputs cannot wait.

        All are acted on and handed on before an output's failure stops the station.
        """
        done, failed = (inspections, None) if self._record_first else self._command(inspections)
        for inspection in done:
            if self._decisions.put(inspection) is not None:
                log.error("part %d: decided, but the ledger was closed", inspection.part.id)
                failed = self._reject_unrecorded([inspection]) or failed
        if failed is not None:
            raise failed

    def _command(
        self, inspections: Sequence[Inspection]
    ) -> tuple[list[Inspection], OutputError | None]:
        """Command every output even if one fails; return what the line got, and the failure."""
        done, failed = [], None
        for inspection in inspections:
            got = inspection.decision
            for output in self._outputs:
                try:
                    got = output.act(inspection) or got
                except OutputError as error:
                    failed = error
            acted = self._clock.now_ns()
            stamps = {**inspection.stamps, "acted": acted}
            done.append(replace(inspection, decision=got, stamps=stamps))
            self.tally.verdicts[got.verdict.value] += 1
            self.tally.latency_ms.append((acted - inspection.stamps["exposed"]) / NS_PER_MS)
            self._latencies.add((acted - inspection.stamps["exposed"]) / NS_PER_S)
        return done, failed

    def _reject_unrecorded(self, inspections: Sequence[Inspection]) -> OutputError | None:
        """Reject parts that have no record, unless they were acted on already."""
        if not self._record_first:
            return None
        return self._command([_unsure(i, "it could not be recorded") for i in inspections])[1]

    def _keep(self) -> None:
        while not self._decisions.ended:
            if batch := self._decisions.take(RECORDS_PER_COMMIT, DISK_CHECK_S):
                self._record(batch)
            with self._lookout.beats["keep"].step():
                self._check_disk()

    def _append(self, batch: Sequence[Inspection]) -> tuple[Record, ...]:
        with self._lookout.beats["keep"].step():
            return self._ledger.append([self._draft(i) for i in batch])

    def _record(self, batch: Sequence[Inspection]) -> None:
        """Write decisions down, then act on them, unless that was done before."""
        try:
            records = self._append(batch)
        except DiskFull as error:
            self._hold(batch, error)
            return
        except StoreError:
            self._reject_unrecorded(batch)
            raise
        if self._record_first and (failed := self._command(batch)[1]):
            self._fail(failed)  # the others are still recorded: that matters more
        self._tell(records)

    def _tell(self, records: Sequence[Record]) -> None:
        self._kept.set()
        with self._lookout.beats["keep"].step():
            for record in records:
                self._on_record(record)

    def _hold(self, batch: Sequence[Inspection], error: DiskFull) -> None:
        """Reject what finds no room, and record it, as rejected, once there is some.

        Raises:
            DiskFull: the station was stopped, or too many parts came, before there was.
        """
        self._readiness.fault("ledger", str(error))
        held = self._held(batch, error)
        while held:
            more = self._decisions.take(RECORDS_PER_COMMIT, DISK_CHECK_S)
            held += self._held(more, error)
            self._check_disk()
            try:
                due = held[:RECORDS_PER_COMMIT]
                self._tell(self._append(due))
                del held[: len(due)]
            except DiskFull:
                if self._decisions.ended or len(held) > DECISIONS_HELD:
                    log.error("%d parts were rejected and could not be recorded", len(held))
                    raise
        self._readiness.clear("ledger")

    def _held(self, batch: Sequence[Inspection], error: DiskFull) -> list[Inspection]:
        """Reject parts, without their pictures, which would fill the memory."""
        bare = [replace(i, picture=None, picture_box=None) for i in batch]
        if not self._record_first:
            return bare
        done, failed = self._command([_unsure(i, f"disk full: {error}") for i in bare])
        if failed is not None:
            self._fail(failed)
        return done

    def _check_disk(self) -> None:
        if shortage := self._ledger.shortage():
            self._readiness.fault(DISK, shortage)
        else:
            self._readiness.clear(DISK)

    def _end_keeping(self) -> None:
        self._decisions.close()
        for inspection in self._decisions:
            log.error("part %d: decided, but the ledger was closed", inspection.part.id)
            self._reject_unrecorded([inspection])
        self._all_kept.set()
        self._kept.set()

    def _draft(self, inspection: Inspection) -> Callable[[Link], Record]:
        time = self._clock.wall()
        verdict = inspection.decision.verdict.value.lower()
        name = f"{time:%Y/%m/%d/%H%M%S}-{self._identity.run}-{inspection.part.id:08d}-{verdict}"
        stamps = {"acted": self._clock.now_ns(), **inspection.stamps}
        inspection = replace(inspection, stamps=stamps)
        picture = None
        try:
            picture = self._keep_picture(inspection, name)
        except DiskFull as error:
            self._readiness.fault(DISK, str(error))
        except StoreError as error:
            self._fail(error)  # its record is still written: that matters more
        return lambda link: record_of(inspection, self._identity, link, time, picture)

    def _publish(self, name: str) -> None:
        publisher, outbox = self._outboxes[name]
        wait_s, deadline_ns, counted_ns = RESEND_FIRST_S, None, None
        while True:
            now_ns, finishing = self._clock.now_ns(), self._all_kept.is_set()
            if finishing and deadline_ns is None:
                deadline_ns = now_ns + int(DRAIN_S * NS_PER_S)
            if counted_ns is None or now_ns - counted_ns >= COUNT_WAITING_NS:
                self._waiting[name], counted_ns = outbox.count(), now_ns
            records = outbox.waiting(RECORDS_PER_SEND)
            if deadline_ns is not None and (not records or now_ns > deadline_ns):
                return
            if not records:
                self._kept.wait(0.2)
                self._kept.clear()
            elif self._sent(name, publisher, outbox, records):
                wait_s = RESEND_FIRST_S
            elif finishing:
                self._clock.sleep_until(now_ns + DRAIN_AGAIN_MS * NS_PER_MS)
            else:
                self._all_kept.wait(wait_s)
                wait_s = min(2 * wait_s, RESEND_MOST_S)

    def _sent(
        self, name: str, publisher: Publisher, outbox: Waits, records: Sequence[Record]
    ) -> bool:
        """Offer records to a receiver; return whether it took any."""
        try:
            confirmed = publisher.send(records)
            if not confirmed:
                raise PublishError(f"{name}: none of {len(records)} records was confirmed")
        except PublishError as error:
            self._readiness.fault(RECEIVER + name, str(error))
            return False
        try:
            outbox.confirm(confirmed)
        except DiskFull as error:
            self._readiness.fault(DISK, str(error))  # they are delivered again
            return False
        self._readiness.clear(RECEIVER + name)
        return True

    # -- the main thread's watch ----------------------------------------------------------------

    def _look_after(self) -> None:
        """Notice what the workers cannot notice themselves; tell how the station is."""
        if (silence := self._lookout.silence()) is not None:
            self._offer(Gap(f"camera lost: {silence}"))
        self._lookout.note_frozen()
        if self._lookout.self_test_is_due():
            self.request_self_test()
        self._watch.take(self.snapshot())

    # -- state --------------------------------------------------------------------------------

    def _guarded(self, loop: Callable[[], None], after: Callable[[], None]) -> Callable[[], None]:
        """Wrap a thread's loop: an error stops the whole station in the safe state."""

        def run() -> None:
            try:
                with self._fails_safe():
                    loop()
            finally:
                with self._fails_safe():
                    after()

        return run

    @contextmanager
    def _fails_safe(self) -> Iterator[None]:
        try:
            yield
        except LineguardError as error:
            self._fail(error)
        except Exception as error:
            log.exception("unexpected error in thread %s", threading.current_thread().name)
            self._fail(LineguardError(f"internal error: {error!r}; please report it"))

    def _fail(self, error: LineguardError) -> None:
        self.fault = self.fault or error
        try:
            # Whoever called ``run`` is told: a warning as well would say it twice.
            self._readiness.fault(threading.current_thread().name, str(error), logging.INFO)
        finally:
            self.stop()

    def _close(self) -> None:
        """Let go of everything, also of what comes after something that fails to close."""
        with ExitStack() as stack:
            stack.callback(self._ledger.close)
            for name, (publisher, outbox) in self._outboxes.items():
                stack.callback(outbox.close)
                stack.callback(self._count_undelivered, name, outbox)
                stack.callback(publisher.close)
            for output in self._outputs:
                stack.callback(output.close)
            stack.callback(self._camera.close)
            stack.callback(self._readiness.enter, "stopped")

    def _count_undelivered(self, name: str, outbox: Waits) -> None:
        self.undelivered[name] = outbox.count()


def _unsure(inspection: Inspection, reason: str) -> Inspection:
    decision = Decision(Verdict.UNSURE, (reason, *inspection.decision.reasons))
    return replace(inspection, decision=decision)
