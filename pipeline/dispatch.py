"""The publish side of a station: what the ledger holds goes to every receiver, from its outbox."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from pipeline.clock import NS_PER_MS, NS_PER_S, Clock
from pipeline.errors import DiskFull, PublishError
from pipeline.handoff import Handoff
from pipeline.publishers import Publisher
from pipeline.readiness import DISK, RECEIVER, Readiness
from pipeline.tally import Tally
from pipeline.types import Record

RECORDS_PER_SEND = 256
"""Several windows of a publisher, so that a receipt is waited for once in a while only."""
RESEND_FIRST_S, RESEND_MOST_S = 0.5, 5.0
LOOK_S = 0.2
"""So often a receiver is looked at while nothing is sent to it."""

SETTLE_NS = 200 * NS_PER_MS
"""So long a confirmation may be known here alone: whatever is killed then is told again."""
DRAIN_S = 5.0
DRAIN_AGAIN_MS = 200
COUNT_WAITING_NS = NS_PER_S


class Waits(Protocol):
    """What the station needs of an outbox."""

    def waiting(self, limit: int) -> tuple[Record, ...]: ...

    def count(self) -> int: ...

    def confirm(self, ids: Sequence[str]) -> None: ...

    def settle(self) -> None: ...

    def close(self) -> None: ...


class Dispatch:
    """Sends records to receivers, each from an outbox and at a pace of its own.

    A receiver that keeps up is told of a record as it was kept; one that does not, or that has
    just been met, of what its outbox holds.

    Args:
        outboxes: publisher and outbox per receiver.
        tally: its ``told`` is kept.

    Attributes:
        waiting: records that each receiver still waits for, as counted last.
        undelivered: the same, once it is closed.
    """

    def __init__(
        self,
        outboxes: Mapping[str, tuple[Publisher, Waits]],
        clock: Clock,
        readiness: Readiness,
        tally: Tally,
    ) -> None:
        self.waiting: dict[str, int] = {}
        self.undelivered: dict[str, int] = {}
        self._outboxes = outboxes
        self._clock = clock
        self._readiness = readiness
        self._tally = tally
        self._fresh: dict[str, Handoff[Record]] = {
            name: Handoff(RECORDS_PER_SEND, may_drop=lambda record: True) for name in outboxes
        }
        self._finishing = threading.Event()

    def take(self, records: Sequence[Record]) -> None:
        """Hand on what is in the ledger now, in its order; never waits."""
        for fresh in self._fresh.values():
            for record in records:
                fresh.put(record)

    def finish(self) -> None:
        """Say that nothing more will come: what waits is still sent, for a bounded time."""
        self._finishing.set()
        for fresh in self._fresh.values():
            fresh.close()

    def publish(self, name: str) -> None:
        """Publish to one receiver until all is kept and sent, or time is up: its thread."""
        publisher, outbox = self._outboxes[name]
        line = _InOrder(self._fresh[name], outbox)
        wait_s, deadline_ns, counted_ns, settled_ns = RESEND_FIRST_S, None, None, 0
        while True:
            records = line.next()
            now_ns, finishing = self._clock.now_ns(), self._finishing.is_set()
            if finishing and deadline_ns is None:
                deadline_ns = now_ns + int(DRAIN_S * NS_PER_S)
            if not records or now_ns - settled_ns >= SETTLE_NS:
                settled_ns = now_ns
                self._settle(outbox)
            if counted_ns is None or now_ns - counted_ns >= COUNT_WAITING_NS:
                self.waiting[name], counted_ns = outbox.count(), now_ns
            if deadline_ns is not None and (line.ended or now_ns > deadline_ns):
                return
            if not records:
                self._readiness.note(RECEIVER + name, publisher.trouble or None)
            elif self._sent(name, publisher, line, records):
                wait_s = RESEND_FIRST_S
            elif finishing:
                self._clock.sleep_until(now_ns + DRAIN_AGAIN_MS * NS_PER_MS)
            else:
                self._rest(publisher, wait_s)
                wait_s = min(2 * wait_s, RESEND_MOST_S)

    def _rest(self, publisher: Publisher, wait_s: float) -> None:
        """Wait before the next attempt; a receiver that is back is not kept waiting."""
        was_away = bool(publisher.trouble)
        for _ in range(round(wait_s / LOOK_S)):
            if self._finishing.wait(LOOK_S) or (was_away and not publisher.trouble):
                return

    def _sent(
        self, name: str, publisher: Publisher, line: _InOrder, records: Sequence[Record]
    ) -> bool:
        """Offer records to a receiver; return whether it took any."""
        if trouble := publisher.trouble:
            self._readiness.fault(RECEIVER + name, trouble)  # known at once; sending may take time
        try:
            confirmed = publisher.send(records)
            if not confirmed:
                raise PublishError(f"{name}: none of {len(records)} records was confirmed")
        except PublishError as error:
            line.told((), records)
            self._readiness.fault(RECEIVER + name, str(error))
            return False
        line.told(confirmed, records)
        self._tally.told[name] += len(confirmed)
        self._readiness.clear(RECEIVER + name)
        return True

    def _settle(self, outbox: Waits) -> None:
        try:
            outbox.settle()
        except DiskFull as error:
            self._readiness.fault(DISK, str(error))  # known here still; written down later

    def close(self) -> None:
        """Let go of receivers and outboxes, also of those after one that fails to close."""
        with ExitStack() as stack:
            for name, (publisher, outbox) in self._outboxes.items():
                stack.callback(outbox.close)
                stack.callback(self._count_undelivered, name, outbox)
                stack.callback(publisher.close)

    def _count_undelivered(self, name: str, outbox: Waits) -> None:
        self.undelivered[name] = outbox.count()


class _InOrder:
    """What one receiver is told next: fresh records while it keeps up, else those of its outbox.

    A fresh record is used only if it follows directly on the last one that was told; so nothing
    is left out, whatever was dropped, refused or recorded before this process began.

    Attributes:
        ended: nothing more will come, and the outbox was empty.
    """

    def __init__(self, fresh: Handoff[Record], outbox: Waits) -> None:
        self.ended = False
        self._fresh = fresh
        self._outbox = outbox
        self._last: Record | None = None
        self._keeps_up = False

    def next(self) -> Sequence[Record]:
        """Return the oldest that were not told; wait a little for one if there is none."""
        if self._keeps_up:
            fresh = self._fresh.take(RECORDS_PER_SEND, LOOK_S)
            if fresh and self._follows(fresh):
                return fresh
            if not fresh and not self._fresh.ended:
                return ()
        is_last = self._fresh.ended
        records = self._outbox.waiting(RECORDS_PER_SEND)
        self._keeps_up = not records
        self.ended = is_last and not records
        return records

    def _follows(self, fresh: list[Record]) -> bool:
        """Take away what was told from the outbox already; tell whether the rest comes next."""
        last = self._last
        if last is None or fresh[0].run != last.run:
            return False
        fresh[:] = [record for record in fresh if record.seq > last.seq]
        return not fresh or fresh[0].seq == last.seq + 1

    def told(self, confirmed: Sequence[str], offered: Sequence[Record]) -> None:
        """Note which of the offered records the receiver has."""
        if confirmed:
            self._outbox.confirm(confirmed)
        newest, last = offered[-1], self._last
        if last is None or newest.run != last.run or newest.seq > last.seq:
            self._last = newest
        self._keeps_up = len(confirmed) == len(offered) < RECORDS_PER_SEND
