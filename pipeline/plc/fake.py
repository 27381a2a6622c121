"""A PLC program as a double: it drives the handshake like a careful programmer's, and keeps books.

It is pure: ``scan`` is one cycle of the program. A test, a drill or a network client calls it as
often as its PLC would. Not calling it is a frozen PLC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from pipeline.clock import NS_PER_MS
from pipeline.plc.signals import Inputs, Signals

WATCHDOG_NS = 400 * NS_PER_MS
"""Without a new heartbeat for so long the line is inhibited."""


class _Step(Enum):
    WAIT_READY = "wait for ready"
    TRIGGER = "trigger until it is acknowledged"
    WAIT_RESULT = "wait for the result"
    ACKNOWLEDGE = "acknowledge until result valid falls"


@dataclass(slots=True)
class FakePlc:
    """Brings parts one after the other and lets one pass only on a fresh OK for that very part.

    Attributes:
        patience_ns: how long it waits in one step before it rejects the part and starts over.
        passed, rejected: the PLC's numbers of the parts, in order.
        inhibited: the line stands: no heartbeat, or the station says so.
        reject_reasons: why, by part.
    """

    patience_ns: int = 2000 * NS_PER_MS
    watchdog_ns: int = WATCHDOG_NS
    passed: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    reject_reasons: dict[int, str] = field(default_factory=dict)
    inhibited: bool = True
    part: int = 0
    _step: _Step = _Step.WAIT_READY
    _since_ns: int = 0
    _heartbeat: int | None = None
    _heard_ns: int | None = None
    _own_heartbeat: int = 0

    def scan(self, t_ns: int, seen: Signals | None) -> Inputs:
        """Run one cycle.

        Args:
            t_ns: monotonic time.
            seen: what the carrier read, or None if it read nothing.

        Returns:
            What the PLC writes.
        """
        self._own_heartbeat = (self._own_heartbeat + 1) % 65536
        self._watch(t_ns, seen)
        shown = seen or Signals()
        if self._step is _Step.WAIT_READY:
            self._wait_ready(t_ns, shown)
        elif t_ns - self._since_ns > self.patience_ns:
            self._start_over(t_ns, "the PLC lost patience")
        elif self._step is _Step.TRIGGER:
            self._trigger(t_ns, shown)
        elif self._step is _Step.WAIT_RESULT:
            self._wait_result(t_ns, shown)
        elif not shown.result_valid:
            self._go(_Step.WAIT_READY, t_ns)
        return Inputs(
            connected=True,
            trigger=self._step is _Step.TRIGGER,
            result_ack=self._step is _Step.ACKNOWLEDGE,
            # A line that was stopped by an error is taken up again by its own program.
            reset=self._step is _Step.WAIT_READY and bool(shown.error) and self._blinks,
            heartbeat=self._own_heartbeat,
            part=self.part,
        )

    @property
    def _blinks(self) -> bool:
        return self._own_heartbeat % 16 < 8

    def _watch(self, t_ns: int, seen: Signals | None) -> None:
        if seen is not None and seen.heartbeat != self._heartbeat:
            self._heartbeat, self._heard_ns = seen.heartbeat, t_ns
        fresh = self._heard_ns is not None and t_ns - self._heard_ns < self.watchdog_ns
        self.inhibited = not fresh or seen is None or seen.inhibit

    def _wait_ready(self, t_ns: int, shown: Signals) -> None:
        if shown.ready and not shown.result_valid and not self.inhibited:
            self.part = self.part % 65535 + 1
            self._go(_Step.TRIGGER, t_ns)

    def _trigger(self, t_ns: int, shown: Signals) -> None:
        if shown.trigger_ack:
            self._go(_Step.WAIT_RESULT, t_ns)

    def _wait_result(self, t_ns: int, shown: Signals) -> None:
        if not shown.result_valid or shown.part != self.part:
            return
        if shown.ok and not shown.ng and not shown.unsure and not self.inhibited:
            self.passed.append(self.part)
        else:
            self._reject("unsure" if shown.unsure else "ng" if shown.ng else "inhibited")
        self._go(_Step.ACKNOWLEDGE, t_ns)

    def _start_over(self, t_ns: int, reason: str) -> None:
        if self._step is not _Step.ACKNOWLEDGE:
            self._reject(reason)
        self._go(_Step.WAIT_READY, t_ns)

    def _reject(self, reason: str) -> None:
        self.rejected.append(self.part)
        self.reject_reasons[self.part] = reason

    def _go(self, step: _Step, t_ns: int) -> None:
        self._step, self._since_ns = step, t_ns
