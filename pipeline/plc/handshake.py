"""The PLC handshake as one pure state machine: events in, signals out; no I/O and no clock inside.

``step(state, event)`` returns the next state; ``signals(state)`` what the line must see. Every
event carries the monotonic time at which it happened, so that a test winds time at will. The table
and the timing diagram are in docs/plc.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

from pipeline.clock import NS_PER_MS
from pipeline.plc.signals import Code, Inputs, Signals, Timing
from pipeline.types import Verdict

MAX_OPEN_BOOKS = 10_000
"""Decided triggers that are remembered until the station has recorded them; the oldest go first."""


MAX_WAITING = 64
"""Verdicts nobody asked for that wait for the PLC to take the one before; the oldest go first."""


class Phase(Enum):
    """Where the conversation about one part stands."""

    CLEARING = "clearing"
    """Waiting until trigger and result acknowledge are both low."""
    IDLE = "idle"
    WORKING = "working"
    RESULT = "result"


@dataclass(frozen=True, slots=True)
class Line:
    """The carrier read what the PLC shows."""

    t_ns: int
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Attached:
    """A station begins a run: numbers start at 1, behind what the last run left unrecorded."""

    t_ns: int
    run: str = ""


@dataclass(frozen=True, slots=True)
class Alive:
    """The station gives a sign of life and says whether its verdicts can be trusted."""

    t_ns: int
    ready: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """The station's verdict on trigger ``number``."""

    t_ns: int
    number: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Found:
    """The station's verdict on a part that it found by itself at ``seen_ns``, without a trigger."""

    t_ns: int
    seen_ns: int
    part: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Recorded:
    """The station has written trigger ``number`` into its ledger."""

    t_ns: int
    number: int


@dataclass(frozen=True, slots=True)
class Detached:
    """The station is gone."""

    t_ns: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    t_ns: int


Event: TypeAlias = Line | Attached | Alive | Judged | Found | Recorded | Detached | Tick


@dataclass(frozen=True, slots=True)
class Case:
    """One trigger edge and what was said of it.

    Attributes:
        number: counts up from 1 within a run of the station.
        t_ns: when the edge was seen.
        verdict: what the line got; None while it is open.
        reason: why the guard decided it, empty if the station did.
        answered: the station has spoken on it, be it too late.
        origin: the run in which the edge was seen, and its number there.
    """

    number: int
    t_ns: int
    verdict: Verdict | None = None
    reason: str = ""
    answered: bool = False
    origin: tuple[str, int] = ("", 0)


@dataclass(frozen=True, slots=True)
class State:
    """All that the machine knows."""

    timing: Timing = field(default_factory=Timing)
    now_ns: int = 0
    phase: Phase = Phase.CLEARING
    phase_ns: int = 0
    inputs: Inputs = field(default_factory=Inputs)
    plc_ns: int | None = None
    attached: bool = False
    run: str = ""
    station_ready: bool = False
    station_ns: int = 0
    latched: bool = False
    waiting: tuple[Found, ...] = ()
    current: int = 0
    part: int = 0
    seen_ns: int = 0
    cases: tuple[Case, ...] = ()
    next_number: int = 1
    shown: Verdict | None = None
    acked: bool = False
    error: Code = Code.NONE
    missed: int = 0
    overruns: int = 0
    born_ns: int | None = None

    def case(self, number: int) -> Case | None:
        """Return the case of a trigger, or None if it is unknown or recorded."""
        return next((c for c in self.cases if c.number == number), None)

    @property
    def open_case(self) -> Case | None:
        """The accepted trigger that has no verdict yet."""
        return self.case(self.current) if self.phase is Phase.WORKING else None

    @property
    def plc_alive(self) -> bool:
        return (
            self.inputs.connected
            and self.plc_ns is not None
            and self.now_ns - self.plc_ns < self.timing.plc_silent_ns
        )

    @property
    def trusted(self) -> bool:
        """The station is there, alive and says that its verdicts can be trusted."""
        return (
            self.attached
            and self.station_ready
            and self.now_ns - self.station_ns < self.timing.station_silent_ns
        )

    @property
    def inhibited(self) -> bool:
        return self.latched or not self.trusted or not self.plc_alive

    @property
    def ready(self) -> bool:
        """Take a trigger only if the one before is wholly done, in the station too."""
        owed = any(c.number == self.current and not c.answered for c in self.cases)
        return self.phase is Phase.IDLE and not self.inhibited and not owed


def signals(state: State) -> Signals:
    """Return what the PLC must see."""
    shown = state.shown if state.phase is Phase.RESULT else None
    age = state.now_ns - (state.now_ns if state.born_ns is None else state.born_ns)
    return Signals(
        ready=state.ready,
        trigger_ack=state.acked,
        busy=state.phase is Phase.WORKING,
        result_valid=shown is not None,
        ok=shown is Verdict.PASS,
        ng=shown is not None and shown is not Verdict.PASS,
        unsure=shown is Verdict.UNSURE,
        inhibit=state.inhibited,
        part=state.part,
        error=state.error,
        missed=state.missed,
        overruns=state.overruns,
        heartbeat=age // state.timing.heartbeat_ns % 65536,
        seen_ns=state.seen_ns,
    )


def step(state: State, event: Event) -> State:
    """Return the state after an event.

    What time brings comes first: a verdict that arrives after its deadline is late, even if nobody
    had looked at the clock in between.
    """
    born = event.t_ns if state.born_ns is None else state.born_ns
    state = _time_passed(replace(state, now_ns=max(event.t_ns, state.now_ns), born_ns=born))
    if isinstance(event, Line):
        state = _line_read(state, event.inputs)
    elif isinstance(event, Attached):
        state = _attached(state, event.run)
    elif isinstance(event, Alive):
        state = replace(state, station_ready=event.ready, station_ns=state.now_ns)
    elif isinstance(event, Judged):
        state = _judged(state, event)
    elif isinstance(event, Found):
        state = replace(state, waiting=(*state.waiting, event)[-MAX_WAITING:])
    elif isinstance(event, Recorded):
        state = _recorded(state, event.number)
    elif isinstance(event, Detached):
        state = replace(state, attached=False, station_ready=False)
    return _time_passed(state)


def _time_passed(state: State) -> State:
    """Close what is overdue and withdraw what no longer holds."""
    if state.plc_ns is not None and not state.plc_alive:
        return _plc_silent(state)
    case = state.open_case
    if case is not None:
        deadline_ms = state.timing.deadline_ns // NS_PER_MS
        if state.now_ns - case.t_ns >= state.timing.deadline_ns:
            return _guessed(state, Code.DEADLINE, f"no verdict within {deadline_ms} ms")
        if not state.attached or state.now_ns - state.station_ns >= state.timing.station_silent_ns:
            return _guessed(state, Code.STATION_LOST, "the station was gone or hung")
    if state.phase is Phase.RESULT and state.now_ns - state.phase_ns >= state.timing.ack_ns:
        return replace(_clearing(state), latched=True, error=Code.NO_RESULT_ACK)
    return _next_found(state) if state.waiting else state


def _next_found(state: State) -> State:
    """Show the next verdict that nobody asked for; one that is too old or inhibited is no news."""
    oldest = state.now_ns - state.timing.deadline_ns
    waiting = () if state.inhibited else tuple(f for f in state.waiting if f.seen_ns > oldest)
    if not waiting or state.phase is not Phase.IDLE:
        return replace(state, waiting=waiting)
    first, *rest = waiting
    shown = replace(state, waiting=tuple(rest), shown=first.verdict, part=first.part % 65536)
    return _entered(replace(shown, seen_ns=first.seen_ns), Phase.RESULT)


def _plc_silent(state: State) -> State:
    """Withdraw everything: nobody knows which part a PLC that comes back will ask about."""
    state = _closed(state, Verdict.UNSURE, "the PLC was silent")
    return replace(_clearing(state), plc_ns=None, acked=False, waiting=(), error=Code.PLC_SILENT)


def _line_read(state: State, new: Inputs) -> State:
    old = state.inputs
    beat = new.connected and (new.heartbeat != old.heartbeat or not old.connected)
    state = replace(state, inputs=new, plc_ns=state.now_ns if beat else state.plc_ns)
    if new.reset and not old.reset:
        state = replace(state, latched=False, error=Code.NONE)
    if not new.trigger and state.acked:
        state = replace(state, acked=False)
    elif new.trigger and not old.trigger:
        state = _triggered(state, new)
    if state.phase is Phase.RESULT and new.result_ack and not old.result_ack:
        state = _clearing(state)
    if state.phase is Phase.CLEARING and not new.trigger and not new.result_ack:
        state = _entered(state, Phase.IDLE)
    return state


def _triggered(state: State, new: Inputs) -> State:
    """Take a rising edge of the trigger: accept it, or count it and say why not."""
    ready, number = state.ready, state.next_number
    case = Case(number, state.now_ns, origin=(state.run, number))
    opened = (*state.cases, case)[-MAX_OPEN_BOOKS:]
    known = replace(state, cases=opened, next_number=number + 1)
    if ready:
        accepted = replace(
            known, current=number, part=new.part, seen_ns=state.now_ns, acked=True, error=Code.NONE
        )
        return _entered(accepted, Phase.WORKING)
    if state.phase in (Phase.WORKING, Phase.RESULT):
        # Which of the two parts a result would be for cannot be told: neither passes.
        reason = "a trigger came before the result of the one before was taken"
        known = _clearing(_closed(known, Verdict.UNSURE, reason))
        code, known = Code.OVERRUN, replace(known, overruns=(state.overruns + 1) % 65536)
    else:
        reason = "a trigger came while the station was not ready"
        code, known = Code.MISSED_TRIGGER, replace(known, missed=(state.missed + 1) % 65536)
    return replace(_with_verdict(known, number, Verdict.UNSURE, reason), error=code)


def _attached(state: State, run: str) -> State:
    """Number what the last run left unrecorded from 1 again; close what is still open."""
    state = _closed(state, Verdict.UNSURE, "the station was started anew")
    if state.phase is Phase.WORKING:
        state = _entered(replace(state, shown=Verdict.UNSURE), Phase.RESULT)
    left = tuple(replace(c, number=i) for i, c in enumerate(state.cases, 1))
    return replace(
        state, attached=True, run=run, station_ready=False, station_ns=state.now_ns,
        cases=left, next_number=len(left) + 1, current=0,
    )  # fmt: skip


def _judged(state: State, event: Judged) -> State:
    case = state.open_case
    if case is not None and case.number == event.number:
        verdict, reason = event.verdict, ""
        if verdict is Verdict.PASS and not state.trusted:
            verdict, reason = Verdict.UNSURE, "the station was not ready when it said PASS"
        state = _with_verdict(state, case.number, verdict, reason)
        state = _entered(replace(state, shown=verdict), Phase.RESULT)
    return _answered(state, event.number)


def _answered(state: State, number: int) -> State:
    cases = tuple(replace(c, answered=True) if c.number == number else c for c in state.cases)
    return replace(state, cases=cases)


def _recorded(state: State, number: int) -> State:
    return replace(
        state, cases=tuple(c for c in state.cases if c.number != number or not c.verdict)
    )


def _guessed(state: State, code: Code, reason: str) -> State:
    """Give UNSURE in the station's place."""
    state = replace(_closed(state, Verdict.UNSURE, reason), shown=Verdict.UNSURE, error=code)
    return _entered(state, Phase.RESULT)


def _closed(state: State, verdict: Verdict, reason: str) -> State:
    """Give the open trigger its verdict, if there is one."""
    case = state.open_case
    return state if case is None else _with_verdict(state, case.number, verdict, reason)


def _with_verdict(state: State, number: int, verdict: Verdict, reason: str) -> State:
    cases = tuple(
        replace(c, verdict=verdict, reason=reason) if c.number == number else c for c in state.cases
    )
    return replace(state, cases=cases)


def _clearing(state: State) -> State:
    return _entered(replace(state, shown=None), Phase.CLEARING)


def _entered(state: State, phase: Phase) -> State:
    return replace(state, phase=phase, phase_ns=state.now_ns)
