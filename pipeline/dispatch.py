"""The publish side of a station: what the ledger holds goes to every receiver, from its outbox."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from pipeline.clock import NS_PER_MS, NS_PER_S, Clock
from pipeline.errors import DiskFull, PublishError
from pipeline.publishers import Publisher
from pipeline.readiness import DISK, RECEIVER, Readiness
from pipeline.types import Record

RECORDS_PER_SEND = 256
"""Several windows of a publisher, so that a receipt is waited for once in a while only."""
RESEND_FIRST_S, RESEND_MOST_S = 0.5, 5.0
LOOK_S = 0.2
"""So often a receiver is looked at while nothing is sent to it."""

DRAIN_S = 5.0
DRAIN_AGAIN_MS = 200
COUNT_WAITING_NS = NS_PER_S


class Waits(Protocol):
    """What the station needs of an outbox."""

    def waiting(self, limit: int) -> tuple[Record, ...]: ...

    def count(self) -> int: ...

    def confirm(self, ids: Sequence[str]) -> None: ...

    def close(self) -> None: ...


class Dispatch:
    """Sends records to receivers, each from an outbox and at a pace of its own.

    Args:
        outboxes: publisher and outbox per receiver.
        kept: is set whenever there is something new to send.
        all_kept: is set once nothing more will come.

    Attributes:
        waiting: records that each receiver still waits for, as counted last.
        undelivered: the same, once it is closed.
    """

    def __init__(
        self,
        outboxes: Mapping[str, tuple[Publisher, Waits]],
        clock: Clock,
        readiness: Readiness,
        kept: threading.Event,
        all_kept: threading.Event,
    ) -> None:
        self.waiting: dict[str, int] = {}
        self.undelivered: dict[str, int] = {}
        self._outboxes = outboxes
        self._clock = clock
        self._readiness = readiness
        self._kept = kept
        self._all_kept = all_kept

    def publish(self, name: str) -> None:
        """Publish to one receiver until all is kept and sent, or time is up: its thread."""
        publisher, outbox = self._outboxes[name]
        wait_s, deadline_ns, counted_ns = RESEND_FIRST_S, None, None
        while True:
            now_ns, finishing = self._clock.now_ns(), self._all_kept.is_set()
            if finishing and deadline_ns is None:
                deadline_ns = now_ns + int(DRAIN_S * NS_PER_S)
            if counted_ns is None or now_ns - counted_ns >= COUNT_WAITING_NS:
                self.waiting[name], counted_ns = outbox.count(), now_ns
            records = outbox.waiting(RECORDS_PER_SEND)
            if deadline_ns is not None and (not records or now_ns > deadline_ns):
                return
            if not records:
                self._readiness.note(RECEIVER + name, publisher.trouble or None)
                self._kept.wait(LOOK_S)
                self._kept.clear()
            elif self._sent(name, publisher, outbox, records):
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
            if self._all_kept.wait(LOOK_S) or (was_away and not publisher.trouble):
                return

    def _sent(
        self, name: str, publisher: Publisher, outbox: Waits, records: Sequence[Record]
    ) -> bool:
        """Offer records to a receiver; return whether it took any."""
        if trouble := publisher.trouble:
            self._readiness.fault(RECEIVER + name, trouble)  # known at once; sending may take time
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

    def close(self) -> None:
        """Let go of receivers and outboxes, also of those after one that fails to close."""
        with ExitStack() as stack:
            for name, (publisher, outbox) in self._outboxes.items():
                stack.callback(outbox.close)
                stack.callback(self._count_undelivered, name, outbox)
                stack.callback(publisher.close)

    def _count_undelivered(self, name: str, outbox: Waits) -> None:
        self.undelivered[name] = outbox.count()
