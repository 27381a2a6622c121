"""The station: the only place with threads; it owns start, stop and the safe state.

capture --frames--> inspect --decisions--> keep --records--> ledger --> publish, per receiver
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from pipeline.cameras import Camera
from pipeline.clock import NS_PER_S, Clock
from pipeline.errors import CameraError, LineguardError, ModelError, OutputError, PublishError
from pipeline.handoff import Handoff
from pipeline.outputs import Output
from pipeline.publishers import Publisher
from pipeline.records import Identity, Link, StoredPicture, record_of
from pipeline.types import Frame, Inspection, Record

log = logging.getLogger(__name__)

FRAMES_WAITING = 4
DECISIONS_WAITING = 256
RECORDS_PER_COMMIT = 64
RECORDS_PER_SEND = 64
LATENCIES_KEPT = 100_000
REOPEN_FIRST_S, REOPEN_MOST_S = 0.1, 1.0
RESEND_FIRST_S, RESEND_MOST_S = 0.5, 5.0
DRAIN_S = 5.0


class Inspects(Protocol):
    """What the station needs of an inspector."""

    def inspect(self, frame: Frame) -> tuple[Inspection, ...]: ...

    def give_up(self, reason: str, t_ns: int) -> tuple[Inspection, ...]: ...

    def finish(self, t_ns: int) -> tuple[Inspection, ...]: ...


class KeepsRecords(Protocol):
    """What the station needs of a ledger."""

    def append(self, drafts: Sequence[Callable[[Link], Record]]) -> tuple[Record, ...]: ...

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
        inspected: frames that were looked at.
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


class Station:
    """Wires the parts of a station and runs them until the camera ends or it is told to stop.

    Args:
        outboxes: publisher and outbox per receiver.
        on_record: called with every record once it is in the ledger, from the keep thread.
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
        self._frames: Handoff[Frame | Gap] = Handoff(FRAMES_WAITING, lossy=camera.live)
        self._decisions: Handoff[Inspection] = Handoff(DECISIONS_WAITING)
        self._stopping = threading.Event()
        self._kept = threading.Event()
        self._all_kept = threading.Event()
        self._faults: dict[str, str] = {}
        self._state_lock = threading.Lock()
        self._state = "starting"

    def run(self) -> Tally:
        """Run until the camera has no more frames or ``stop`` is called; then bring all home.

        Raises:
            LineguardError: what made the station stop; all that was decided is in the ledger.
        """
        threads = [
            threading.Thread(target=loop, name=name, daemon=True)
            for name, loop in [
                ("capture", self._guarded(self._capture, self._frames.close)),
                ("inspect", self._guarded(self._inspect, self._decisions.close)),
                ("keep", self._guarded(self._keep, self._end_keeping)),
                *(
                    (f"publish-{name}", self._guarded(partial(self._publish, name), lambda: None))
                    for name in self._outboxes
                ),
            ]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._change_state("stopped")
        self._close()
        if self.fault is not None:
            raise self.fault
        return self.tally

    def stop(self) -> None:
        """End capture; what was captured is still decided, kept and published. Any thread."""
        self._stopping.set()
        self._camera.close()

    @property
    def faults(self) -> dict[str, str]:
        """What is at fault now, by part of the station."""
        with self._state_lock:
            return dict(self._faults)

    # -- threads ------------------------------------------------------------------------------

    def _capture(self) -> None:
        wait_s = REOPEN_FIRST_S
        last_seq: int | None = None
        while not self._stopping.is_set():
            try:
                for frame in self._camera.frames():
                    wait_s = REOPEN_FIRST_S
                    self._clear("camera")
                    last_seq = self._take(frame, last_seq)
                return
            except CameraError as error:
                if not self._camera.live:
                    raise
                self._set_fault("camera", str(error))
                self._offer(Gap(f"camera lost: {error}"))
                self.tally.reopened += 1
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, REOPEN_MOST_S)

    def _take(self, frame: Frame, last_seq: int | None) -> int:
        self.tally.captured += 1
        if last_seq is not None:
            self.tally.lost_exposures += max(frame.seq - last_seq - 1, 0)
        self._offer(frame)
        return frame.seq

    def _offer(self, item: Frame | Gap) -> None:
        dropped = self._frames.put(item)
        if isinstance(dropped, Gap):
            # A gap must not be lost: it takes the place of the frame that pushed it out.
            dropped = self._frames.put(dropped)
        if isinstance(dropped, Frame):
            self.tally.dropped["station stopped" if dropped is item else "inspection too slow"] += 1

    def _inspect(self) -> None:
        now = self._clock.now_ns
        try:
            for item in self._frames:
                if isinstance(item, Gap):
                    self._act(self._inspector.give_up(item.reason, now()))
                else:
                    decided = self._inspector.inspect(item)
                    self.tally.inspected += 1
                    self._act(decided)
            self._act(self._inspector.finish(now()))
        except ModelError as error:
            self._set_fault("model", str(error))
            self._act(self._inspector.give_up(f"model failed: {error}", now()))
            raise

    def _act(self, inspections: Sequence[Inspection]) -> None:
        for inspection in inspections:
            failed = self._actuate(inspection)
            acted = self._clock.now_ns()
            done = replace(inspection, stamps={**inspection.stamps, "acted": acted})
            self.tally.verdicts[done.decision.verdict.value] += 1
            self.tally.latency_ms.append((acted - done.stamps["exposed"]) / 1e6)
            if self._decisions.put(done) is not None:
                log.error("part %d: decided after the ledger had closed", done.part.id)
            if failed is not None:
                raise failed

    def _actuate(self, inspection: Inspection) -> OutputError | None:
        """Command every output even if one fails: the record is written before the stop."""
        failed = None
        for output in self._outputs:
            try:
                output.act(inspection)
            except OutputError as error:
                failed = error
        return failed

    def _keep(self) -> None:
        while batch := self._decisions.take(RECORDS_PER_COMMIT):
            for record in self._ledger.append([self._draft(i) for i in batch]):
                self._on_record(record)
            self._kept.set()

    def _end_keeping(self) -> None:
        self._decisions.close()
        self._all_kept.set()

    def _draft(self, inspection: Inspection) -> Callable[[Link], Record]:
        time = self._clock.wall()
        name = f"{time:%Y/%m/%d}/{self._identity.run}-{inspection.part.id:08d}"
        picture = self._keep_picture(inspection, name)
        return lambda link: record_of(inspection, self._identity, link, time, picture)

    def _publish(self, name: str) -> None:
        publisher, outbox = self._outboxes[name]
        wait_s, deadline_ns = RESEND_FIRST_S, None
        while True:
            finishing = self._all_kept.is_set()
            if finishing and deadline_ns is None:
                deadline_ns = self._clock.now_ns() + int(DRAIN_S * NS_PER_S)
            records = outbox.waiting(RECORDS_PER_SEND)
            if finishing and (not records or self._clock.now_ns() > (deadline_ns or 0)):
                return
            if not records:
                self._kept.wait(0.2)
                self._kept.clear()
                continue
            try:
                outbox.confirm(publisher.send(records))
                self._clear(f"publisher {name}")
                wait_s = RESEND_FIRST_S
            except PublishError as error:
                self._set_fault(f"publisher {name}", str(error))
                self._all_kept.wait(wait_s) if not finishing else self._stopping.wait(0.2)
                wait_s = min(2 * wait_s, RESEND_MOST_S)

    # -- state --------------------------------------------------------------------------------

    def _guarded(self, loop: Callable[[], None], after: Callable[[], None]) -> Callable[[], None]:
        """Wrap a thread's loop: an error stops the whole station in the safe state."""

        def run() -> None:
            with self._fails_safe():
                loop()
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
        self._set_fault(threading.current_thread().name, str(error))
        self.stop()

    def _set_fault(self, part: str, reason: str) -> None:
        with self._state_lock:
            known = self._faults.get(part)
            self._faults[part] = reason
        if known is None:
            log.warning("%s: %s", part, reason)
            self._judge_state()

    def _clear(self, part: str) -> None:
        if part not in self._faults and self._state == "ready":
            return
        with self._state_lock:
            was = self._faults.pop(part, None)
        if was is not None:
            log.info("%s: well again", part)
        self._judge_state()

    def _judge_state(self) -> None:
        """Be ready only while nothing that a verdict needs is at fault."""
        with self._state_lock:
            needed = [part for part in self._faults if not part.startswith("publisher ")]
            state = "not ready" if needed else "degraded" if self._faults else "ready"
        self._change_state(state)

    def _change_state(self, state: str) -> None:
        with self._state_lock:
            if state == self._state:
                return
            before, self._state = self._state, state
            faults = dict(self._faults)
        log.info("state: %s -> %s", before, state)
        for output in self._outputs:
            output.ready(state in ("ready", "degraded"))
        for publisher, _ in self._outboxes.values():
            publisher.state(
                {
                    "state": state,
                    "faults": faults,
                    "run": self._identity.run,
                    "time": self._clock.wall().isoformat(),
                }
            )

    def _close(self) -> None:
        self._camera.close()
        for output in self._outputs:
            output.close()
        for publisher, _ in self._outboxes.values():
            publisher.close()
        self.undelivered = {name: box.count() for name, (_, box) in self._outboxes.items()}
        for _, outbox in self._outboxes.values():
            outbox.close()
        self._ledger.close()
