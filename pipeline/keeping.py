"""The keep side of a station: what was decided goes on the disk and to the line's outputs.

decisions --> picture --> ledger --> outputs; or the outputs first, where they cannot wait
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from pipeline.clock import NS_PER_MS, NS_PER_S, Clock
from pipeline.errors import DiskFull, LineguardError, OutputError, StoreError
from pipeline.handoff import Handoff
from pipeline.monitor.figures import Beat, LatencyCount
from pipeline.outputs import Output
from pipeline.readiness import DISK, Readiness
from pipeline.records import GENESIS, Identity, Link, StoredPicture, record_of
from pipeline.tally import Tally
from pipeline.types import Decision, Inspection, Record, Verdict

log = logging.getLogger(__name__)

DECISIONS_WAITING = 256
DISK_CHECK_S = 0.3
DECISIONS_HELD = 100_000


class KeepsRecords(Protocol):
    """What the station needs of a ledger."""

    def append(self, drafts: Sequence[Callable[[Link], Record]]) -> tuple[Record, ...]: ...

    def shortage(self) -> str: ...

    def close(self) -> None: ...


class KeepsPictures(Protocol):
    """What the station needs of a picture store."""

    def __call__(self, inspection: Inspection, name: str) -> StoredPicture | None: ...


class NotesIntents(Protocol):
    """Where a command is written down before it is given, if its record comes after."""

    def note(self, records: Sequence[Record]) -> None: ...

    def recorded(self, part: int) -> None: ...

    def close(self) -> None: ...


class Keeper:
    """Records decisions and acts on them, each exactly once.

    Args:
        intents: takes what the outputs are about to be told, if they are told first; or None.
        on_record: called with every record once it is in the ledger, from the keep thread.
        record_first: the outputs are told once the record is on the disk; else before.
        gather_ms: decisions that come within this of one are committed with it.
        beat: of the keep thread.
        fail: stops the station in the safe state.
        publish: takes what is in the ledger now.
        all_kept: called once nothing more will be recorded.

    Attributes:
        latencies: from exposure to command, of all parts.
    """

    def __init__(
        self,
        *,
        ledger: KeepsRecords,
        keep_picture: KeepsPictures,
        identity: Identity,
        clock: Clock,
        outputs: Sequence[Output],
        on_record: Callable[[Record], None],
        record_first: bool,
        gather_ms: int,
        intents: NotesIntents | None,
        readiness: Readiness,
        beat: Beat,
        tally: Tally,
        fail: Callable[[LineguardError], None],
        publish: Callable[[Sequence[Record]], None],
        all_kept: Callable[[], None],
    ) -> None:
        self.latencies = LatencyCount()
        self._ledger = ledger
        self._keep_picture = keep_picture
        self._identity = identity
        self._clock = clock
        self._outputs = outputs
        self._on_record = on_record
        self._record_first = record_first
        self._gather_ns = gather_ms * NS_PER_MS
        self._intents = None if record_first else intents
        self._readiness = readiness
        self._beat = beat
        self._tally = tally
        self._fail = fail
        self._publish = publish
        self._all_kept = all_kept
        self._checked_ns: int | None = None
        self._decisions: Handoff[Inspection] = Handoff(DECISIONS_WAITING)

    def take(self, inspections: Sequence[Inspection]) -> None:
        """Hand decisions on to be recorded; act on them first where the outputs cannot wait.

        All are acted on and handed on before an output's failure stops the station.
        """
        done, failed = inspections, None
        if not self._record_first:
            done, failed = self._command(self._intended(inspections))
        for inspection in done:
            if self._decisions.put(inspection) is not None:
                log.error("part %d: decided, but the ledger was closed", inspection.part.id)
                failed = self._reject_unrecorded([inspection]) or failed
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Take no more decisions; those that wait are still kept."""
        self._decisions.close()

    def _intended(self, inspections: Sequence[Inspection]) -> Sequence[Inspection]:
        """Write down what will be commanded; what cannot be written down is a reject.

        Raises:
            StoreError: it cannot be written, for another reason than a full disk; all are rejected.
        """
        if self._intents is None:
            return inspections
        time, link = self._clock.wall(), Link(1, GENESIS)
        now = dict.fromkeys(("acted", "written"), self._clock.now_ns())
        bare = [replace(i, stamps={**now, **i.stamps}) for i in inspections]
        try:
            self._intents.note([record_of(i, self._identity, link, time, None) for i in bare])
        except DiskFull as error:
            self._readiness.fault(DISK, str(error))
            return [_unsure(i, f"disk full: {error}") for i in inspections]
        except StoreError:
            self._command([_unsure(i, "it could not be recorded") for i in inspections])
            raise
        return inspections

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
            self._tally.verdicts[got.verdict.value] += 1
            self._tally.latency_ms.append((acted - inspection.stamps["exposed"]) / NS_PER_MS)
            self.latencies.add((acted - inspection.stamps["exposed"]) / NS_PER_S)
        return done, failed

    def _reject_unrecorded(self, inspections: Sequence[Inspection]) -> OutputError | None:
        """Reject parts that have no record, unless they were acted on already."""
        if not self._record_first:
            return None
        return self._command([_unsure(i, "it could not be recorded") for i in inspections])[1]

    def keep(self) -> None:
        """Keep what is taken until it is closed and nothing waits: the keep thread."""
        while not self._decisions.ended:
            if batch := self._decisions.take(DECISIONS_WAITING, DISK_CHECK_S):
                self._record([*batch, *self._gathered()])
            with self._beat.step():
                self._check_disk()

    def _gathered(self) -> list[Inspection]:
        """Return what else comes within the time that decisions wait for each other."""
        if not self._gather_ns:
            return []
        self._clock.sleep_until(self._clock.now_ns() + self._gather_ns)
        return self._decisions.take(DECISIONS_WAITING, 0)

    def _append(self, batch: Sequence[Inspection]) -> tuple[Record, ...]:
        with self._beat.step():
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
        self._publish(records)
        with self._beat.step():
            for record in records:
                if self._intents is not None:
                    self._intents.recorded(record.part)
                self._on_record(record)

    def _hold(self, batch: Sequence[Inspection], error: DiskFull) -> None:
        """Reject what finds no room, and record it, as rejected, once there is some.

        Raises:
            DiskFull: the station was stopped, or too many parts came, before there was.
        """
        self._readiness.fault("ledger", str(error))
        held = self._held(batch, error)
        while held:
            more = self._decisions.take(DECISIONS_WAITING, DISK_CHECK_S)
            held += self._held(more, error)
            self._check_disk()
            try:
                due = held[:DECISIONS_WAITING]
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
        """Look at the room on the disk, not oftener than it is of use: each look costs 0.1 ms."""
        now_ns = self._clock.now_ns()
        if self._checked_ns is not None and now_ns - self._checked_ns < DISK_CHECK_S * NS_PER_S:
            return
        self._checked_ns = now_ns
        if shortage := self._ledger.shortage():
            self._readiness.fault(DISK, shortage)
        else:
            self._readiness.clear(DISK)

    def end(self) -> None:
        """Reject what could not be recorded any more; whoever publishes finishes then."""
        self._decisions.close()
        for inspection in self._decisions:
            log.error("part %d: decided, but the ledger was closed", inspection.part.id)
            self._reject_unrecorded([inspection])
        if self._intents is not None:
            self._intents.close()
        self._all_kept()

    def _draft(self, inspection: Inspection) -> Callable[[Link], Record]:
        time = self._clock.wall()
        verdict = inspection.decision.verdict.value.lower()
        name = f"{time:%Y/%m/%d/%H%M%S}-{self._identity.run}-{inspection.part.id:08d}-{verdict}"
        picture = None
        try:
            picture = self._keep_picture(inspection, name)
        except DiskFull as error:
            self._readiness.fault(DISK, str(error))
        except StoreError as error:
            self._fail(error)  # its record is still written: that matters more
        now_ns = self._clock.now_ns()
        stamps = {"acted": now_ns, **inspection.stamps, "written": now_ns}
        timed = replace(inspection, stamps=stamps)
        return lambda link: record_of(timed, self._identity, link, time, picture)


def _unsure(inspection: Inspection, reason: str) -> Inspection:
    decision = Decision(Verdict.UNSURE, (reason, *inspection.decision.reasons))
    return replace(inspection, decision=decision)
