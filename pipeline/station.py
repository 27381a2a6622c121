"""The station: the only place with threads; it owns start, stop and the safe state.

capture --frames--> inspect --decisions--> keep --records--> ledger --> publish, per receiver
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Protocol

from pipeline.cameras import Camera
from pipeline.casework import InView
from pipeline.clock import Clock
from pipeline.dispatch import Dispatch, Waits
from pipeline.errors import CameraError, LineguardError
from pipeline.frames import Frames, Gap, Item, SelfTest
from pipeline.keeping import Keeper, KeepsPictures, KeepsRecords, NotesIntents
from pipeline.monitor.figures import Snapshot
from pipeline.outputs import Output
from pipeline.publishers import Publisher
from pipeline.readiness import NOTICE, Readiness
from pipeline.records import Identity
from pipeline.tally import Tally
from pipeline.types import Frame, Inspection, Record
from pipeline.watch import Lookout, Watch

log = logging.getLogger(__name__)

SETTLE_S = 0.002
"""So often a verdict that is due is asked for while no frame comes."""

REOPEN_FIRST_S, REOPEN_MOST_S = 0.1, 1.0
WATCH_S = 0.05
TOO_SLOW = "inspection too slow"
STOPPED = "station was stopped"
"""The reason of the parts that were in view when the station was told to stop."""


class Inspects(Protocol):
    """What the station needs of an inspector.

    Attributes:
        fault: why what is seen now cannot be trusted, or None.
        owes: whether a verdict is due whose pictures are still looked at: ``settle`` gives it.
    """

    @property
    def fault(self) -> str | None: ...

    @property
    def owes(self) -> bool: ...

    def settle(self) -> tuple[Inspection, ...]: ...

    def inspect(self, frame: Frame) -> tuple[Inspection, ...]: ...

    def give_up(self, reason: str, t_ns: int) -> tuple[Inspection, ...]: ...

    def finish(self, t_ns: int) -> tuple[Inspection, ...]: ...

    def in_view(self) -> tuple[InView, ...]: ...


class Station:
    """Wires the parts of a station and runs them until the camera ends or it is told to stop.

    Args:
        outboxes: publisher and outbox per receiver.
        on_record: called with every record once it is in the ledger, from the keep thread.
        record_first: the outputs are told once the record is on the disk; else before.
        gather_ms: decisions that come within this of one are committed with it.
        intents: takes what outputs that are told first are about to be told; or None.
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
        gather_ms: int = 0,
        intents: NotesIntents | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.tally = Tally()
        self.fault: LineguardError | None = None
        self._camera = camera
        self._inspector = inspector
        self._ledger = ledger
        self._clock = clock
        self._outputs = tuple(outputs)
        self._outboxes = dict(outboxes or {})
        self._watch = watch or Watch()
        self._self_tests = 1  # the one before the start
        self._books = threading.Lock()
        self._frames = Frames(camera.live, clock.now_ns)
        self._stopping = threading.Event()
        self._readiness = Readiness(
            self._outputs, [p for p, _ in self._outboxes.values()], clock, identity.run, self._fail
        )
        self._lookout = Lookout(self._watch, clock, self._readiness, camera.live)
        self._dispatch = Dispatch(self._outboxes, clock, self._readiness, self.tally)
        self._keeper = Keeper(
            ledger=ledger,
            keep_picture=keep_picture,
            identity=identity,
            clock=clock,
            outputs=self._outputs,
            on_record=on_record,
            record_first=record_first,
            gather_ms=gather_ms,
            intents=intents,
            readiness=self._readiness,
            beat=self._lookout.beats["keep"],
            tally=self.tally,
            fail=self._fail,
            publish=self._dispatch.take,
            all_kept=self._dispatch.finish,
        )

    def run(self) -> Tally:
        """Run until the camera has no more frames or ``stop`` is called; then bring all home.

        Raises:
            LineguardError: what made the station stop; all that was decided is in the ledger.
        """
        publish = self._dispatch.publish
        threads = [
            threading.Thread(target=loop, name=name, daemon=True)
            for name, loop in [
                ("capture", self._guarded(self._capture, self._end_capture)),
                ("inspect", self._guarded(self._inspect, self._end_inspection)),
                ("keep", self._guarded(self._keeper.keep, self._keeper.end)),
                *(
                    (f"publish-{name}", self._guarded(partial(publish, name), lambda: None))
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
            latencies=self._keeper.latencies.now(),
            waiting=dict(self._dispatch.waiting),
            self_tests=self._self_tests,
            rechecks=self._watch.rechecks(),
            model=self._watch.model,
        )

    @property
    def undelivered(self) -> dict[str, int]:
        """Records that each receiver still waits for, once ``run`` has ended."""
        return self._dispatch.undelivered

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

    def _offer(self, item: Item) -> None:
        dropped = self._frames.put(item)
        if isinstance(dropped, Frame):
            reason = "station stopped" if dropped is item else TOO_SLOW
            with self._books:  # capture and the watch both come here
                self.tally.dropped[reason] += 1

    def _end_capture(self) -> None:
        """Drop ready before the last frames are looked at: what passes from now on is not seen."""
        self._frames.close()
        self._readiness.enter("stopping")

    def _inspect(self) -> None:
        while not self._frames.ended:
            for item in self._frames.take(1, SETTLE_S if self._inspector.owes else None):
                with self._lookout.beats["inspect"].step():
                    self._take_up(item)
            if self._inspector.owes:  # the next frame may be long in coming, or never come
                self._keeper.take(self._inspector.settle())
        if not self._stopping.is_set():
            self._keeper.take(self._inspector.finish(self._clock.now_ns()))

    def _take_up(self, item: Item) -> None:
        if isinstance(item, Gap):
            self._keeper.take(self._inspector.give_up(item.reason, self._clock.now_ns()))
        elif isinstance(item, SelfTest):
            self._test_model()
        else:
            self.tally.inspected += 1
            self._keeper.take(self._inspector.inspect(item))
            self._readiness.note("picture", self._inspector.fault)

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
            self._keeper.take(self._inspector.give_up(reason, self._clock.now_ns()))
        finally:
            self._keeper.close()

    # -- the main thread's watch ----------------------------------------------------------------

    def _look_after(self) -> None:
        """Notice what the workers cannot notice themselves; tell how the station is."""
        if (silence := self._lookout.silence()) is not None:
            self._offer(Gap(f"camera lost: {silence}"))
        self._lookout.note_frozen()
        self._lookout.note_overload(self.tally.dropped[TOO_SLOW])
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
            stack.callback(self._dispatch.close)
            for output in self._outputs:
                stack.callback(output.close)
            stack.callback(self._camera.close)
            stack.callback(self._readiness.enter, "stopped")
