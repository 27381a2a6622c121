"""The PLC handshake: whatever is interleaved with whatever, no part passes without a fresh OK."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.clock import NS_PER_MS
from pipeline.plc.fake import FakePlc
from pipeline.plc.handshake import (
    Alive,
    Attached,
    Detached,
    Event,
    Found,
    Judged,
    Line,
    Phase,
    Recorded,
    State,
    Tick,
    signals,
    step,
)
from pipeline.plc.signals import Code, Inputs, Signals, Timing
from pipeline.types import Verdict

PASS, FAIL, UNSURE = Verdict.PASS, Verdict.FAIL, Verdict.UNSURE
TIMING = Timing()
MS = NS_PER_MS


def run(state: State, *events: Event) -> State:
    for event in events:
        state = step(state, event)
    return state


def a_ready_line(t_ms: int = 0) -> State:
    """Return the state of a line with a station and a PLC, both alive, at ``t_ms`` + 1."""
    t = t_ms * MS
    return run(
        State(), Attached(t), Alive(t, True), Line(t, Inputs(True)),
        Line(t, Inputs(True, heartbeat=1)), Tick(t + MS),
    )  # fmt: skip


def shows(state: State, **inputs: int | bool) -> State:
    """Let the PLC show something else than before, a millisecond later."""
    seen = replace(state.inputs, heartbeat=state.inputs.heartbeat + 1, **inputs)  # type: ignore[arg-type]
    return step(state, Line(state.now_ns + MS, seen))


def at_work(part: int = 7) -> State:
    """Return a line whose PLC has triggered part ``part``, number 1."""
    return shows(a_ready_line(), trigger=True, part=part)


def judged(state: State, verdict: Verdict, number: int = 1) -> State:
    return step(state, Judged(state.now_ns, number, verdict))


def later(state: State, ms: int) -> State:
    """Let time pass with a station and a PLC that live."""
    for _ in range(ms // 50):
        t = state.now_ns + 50 * MS
        seen = replace(state.inputs, heartbeat=state.inputs.heartbeat + 1)
        state = run(state, Line(t, seen), Alive(t, state.station_ready))
    return state


def test_nothing_is_ready_and_all_is_inhibited_at_first() -> None:
    assert signals(State()) == Signals()
    assert Signals().inhibit
    assert not Signals().ready


def test_a_part_goes_through_all_steps() -> None:
    state = at_work(part=7)
    assert (signals(state).trigger_ack, signals(state).busy, signals(state).ready) == (1, 1, 0)
    state = shows(state, trigger=False)
    assert not signals(state).trigger_ack
    state = judged(state, PASS)
    seen = signals(state)
    assert (seen.result_valid, seen.ok, seen.ng, seen.part, seen.busy) == (1, 1, 0, 7, 0)
    state = shows(state, result_ack=True)
    assert not signals(state).result_valid
    assert not signals(state).ready
    state = shows(state, result_ack=False)
    assert signals(state).ready


@pytest.mark.parametrize(
    ("verdict", "ok", "ng", "unsure"), [(PASS, 1, 0, 0), (FAIL, 0, 1, 0), (UNSURE, 0, 1, 1)]
)
def test_the_line_rejects_what_is_unsure(verdict: Verdict, ok: int, ng: int, unsure: int) -> None:
    seen = signals(judged(at_work(), verdict))
    assert (seen.ok, seen.ng, seen.unsure) == (ok, ng, unsure)


def test_silence_gives_unsure_at_the_deadline() -> None:
    state = later(at_work(), 600)
    seen = signals(state)
    assert (seen.ng, seen.unsure, seen.error) == (1, 1, Code.DEADLINE)
    case = state.case(1)
    assert case is not None
    assert case.verdict is UNSURE
    assert "500 ms" in case.reason


def test_a_late_ok_is_not_shown_and_the_case_keeps_unsure() -> None:
    state = judged(later(at_work(), 600), PASS)
    assert not signals(state).ok
    case = state.case(1)
    assert case is not None
    assert (case.verdict, case.answered) == (UNSURE, True)


def test_an_ok_in_the_very_step_of_the_deadline_is_late() -> None:
    state = at_work()
    case = state.case(1)
    assert case is not None
    state = run(state, Alive(case.t_ns + 499 * MS, True))
    state = step(state, Judged(case.t_ns + TIMING.deadline_ns, 1, PASS))
    assert not signals(state).ok


def test_the_line_is_not_ready_until_the_station_has_answered_the_overdue_part() -> None:
    state = shows(later(at_work(), 600), trigger=False, result_ack=True)
    state = shows(state, result_ack=False)
    assert state.phase is Phase.IDLE
    assert not signals(state).ready
    assert signals(judged(state, FAIL)).ready


def test_an_ok_of_a_station_that_is_not_ready_is_no_ok() -> None:
    state = step(at_work(), Alive(3 * MS, False))
    seen = signals(judged(state, PASS))
    assert (seen.ok, seen.ng, seen.unsure) == (0, 1, 1)


def test_a_verdict_for_another_part_changes_nothing() -> None:
    assert not signals(judged(at_work(), PASS, number=2)).result_valid
    assert not signals(judged(a_ready_line(), PASS, number=1)).result_valid


def test_a_station_that_is_gone_gives_unsure_at_once() -> None:
    state = step(at_work(), Detached(5 * MS))
    seen = signals(state)
    assert (seen.ng, seen.unsure, seen.inhibit, seen.error) == (1, 1, 1, Code.STATION_LOST)


def test_a_station_that_hangs_inhibits_the_line_within_500_ms() -> None:
    state, t = a_ready_line(), 0
    while not signals(state).inhibit:
        t += 5 * MS
        state = step(state, Line(t, Inputs(True, heartbeat=t)))
    assert t <= 500 * MS


def test_a_frozen_plc_inhibits_the_line_within_500_ms_and_takes_the_ok_away() -> None:
    state = judged(at_work(), PASS)
    t = start = state.now_ns
    while not signals(state).inhibit:
        t += 5 * MS
        state = run(state, Line(t, state.inputs), Alive(t, True))
    assert t - start <= 500 * MS
    assert not signals(state).ok
    assert signals(state).error is Code.PLC_SILENT


def test_a_plc_that_is_gone_inhibits_at_once() -> None:
    state = judged(at_work(), PASS)
    seen = signals(step(state, Line(state.now_ns + MS, Inputs(connected=False))))
    assert (seen.inhibit, seen.ok, seen.result_valid) == (1, 0, 0)


def test_a_trigger_that_finds_no_ready_is_missed_counted_and_kept_for_the_record() -> None:
    state = step(a_ready_line(), Alive(2 * MS, False))
    state = shows(state, trigger=True)
    seen = signals(state)
    assert (seen.trigger_ack, seen.missed, seen.error) == (0, 1, Code.MISSED_TRIGGER)
    assert [(c.number, c.verdict) for c in state.cases] == [(1, UNSURE)]


@pytest.mark.parametrize("decided", [False, True])
def test_an_overrun_takes_the_ok_of_the_part_before_away(decided: bool) -> None:
    state = shows(at_work(), trigger=False)
    state = judged(state, PASS) if decided else state
    state = shows(state, trigger=True, part=8)
    seen = signals(state)
    assert (seen.ok, seen.result_valid, seen.overruns, seen.error) == (0, 0, 1, Code.OVERRUN)
    assert not signals(judged(state, PASS)).ok
    assert len(state.cases) == 2


def test_a_result_that_nobody_takes_stops_the_line_until_a_reset() -> None:
    state = later(judged(shows(at_work(), trigger=False), PASS), 1100)
    seen = signals(state)
    assert (seen.result_valid, seen.ok, seen.inhibit, seen.error) == (0, 0, 1, Code.NO_RESULT_ACK)
    assert signals(later(state, 1000)).inhibit
    seen = signals(shows(state, reset=True))
    assert (seen.inhibit, seen.ready, seen.error) == (0, 1, Code.NONE)


def test_a_new_run_is_told_what_the_last_one_left_unrecorded() -> None:
    state = step(judged(at_work(), PASS), Detached(9 * MS))
    state = step(state, Attached(10 * MS))
    assert [(c.number, c.verdict) for c in state.cases] == [(1, PASS)]
    assert state.next_number == 2
    assert run(state, Judged(11 * MS, 1, PASS), Recorded(12 * MS, 1)).cases == ()


def test_a_case_remembers_the_run_in_which_it_was_opened() -> None:
    state = run(State(), Attached(0, "first"), Line(1, Inputs(True, trigger=True)))
    state = run(state, Attached(2, "second"))
    assert [(c.number, c.origin) for c in state.cases] == [(1, ("first", 1))]


def test_an_open_trigger_of_a_run_before_is_never_decided_by_the_next_run() -> None:
    state = run(at_work(), Attached(5 * MS), Alive(5 * MS, True), Judged(6 * MS, 1, PASS))
    seen = signals(state)
    assert (seen.result_valid, seen.ok, seen.unsure) == (1, 0, 1)


def test_parts_that_the_station_finds_itself_are_shown_one_after_the_other() -> None:
    state = a_ready_line()
    state = run(
        state,
        Found(state.now_ns, state.now_ns, 3, PASS),
        Found(state.now_ns, state.now_ns, 4, FAIL),
    )
    assert (signals(state).part, signals(state).ok) == (3, 1)
    state = shows(shows(state, result_ack=True), result_ack=False)
    assert (signals(state).part, signals(state).ng) == (4, 1)


def test_a_found_part_is_never_shown_after_its_deadline_or_while_inhibited() -> None:
    state = a_ready_line()
    state = run(
        state,
        Found(state.now_ns, state.now_ns, 3, PASS),
        Found(state.now_ns, state.now_ns, 4, PASS),
    )
    state = shows(shows(later(state, 600), result_ack=True), result_ack=False)
    assert not signals(state).result_valid
    state = step(step(a_ready_line(), Alive(2 * MS, False)), Found(3 * MS, 3 * MS, 5, PASS))
    assert not signals(state).result_valid


# --- the whole line, with a fault at every stage


@dataclass
class WholeLine:
    """The machine, a PLC and a station in manual time, and an oracle beside them.

    The oracle knows what the machine may not be trusted with: which verdict the station gave to
    which part, and when.
    """

    state: State = field(default_factory=State)
    plc: FakePlc = field(default_factory=FakePlc)
    t_ns: int = 0
    shown: Inputs = field(default_factory=Inputs)
    trusted_ok: dict[int, int] = field(default_factory=dict)
    oks: int = 0

    def give(self, event: Event) -> None:
        self.state = step(self.state, event)
        seen = signals(self.state)
        assert not (seen.ok and seen.ng), seen
        assert not seen.ok or seen.result_valid, seen
        assert not (seen.ready and (seen.inhibit or seen.busy or seen.result_valid)), seen

    def scan(self, *, read: bool = True, wrote: bool = True) -> None:
        """Run a cycle of the PLC; what it reads or writes may be lost."""
        before = len(self.plc.passed)
        out = self.plc.scan(self.t_ns, signals(self.state) if read else None)
        for part in self.plc.passed[before:]:
            self.assert_fresh(part)
        if wrote:
            self.shown = out

    def carry(self) -> None:
        """Let the carrier bring over what the PLC wrote last."""
        self.give(Line(self.t_ns, self.shown))

    def judge(self, verdict: Verdict, number: int | None = None) -> None:
        """Let the station speak; the oracle notes an OK that may let a part pass."""
        case = self.state.open_case
        number = number if number is not None else (case.number if case else 0)
        now = self.t_ns
        in_time = case is not None and now - case.t_ns < TIMING.deadline_ns
        trusted = self.state.attached and self.state.station_ready and verdict is PASS
        if case is not None and case.number == number and in_time and trusted:
            self.trusted_ok[self.state.part] = now
        self.give(Judged(now, number, verdict))

    def assert_fresh(self, part: int) -> None:
        assert part in self.trusted_ok, f"part {part} passed without an OK"
        age_ms = (self.t_ns - self.trusted_ok.pop(part)) / MS
        assert age_ms <= (TIMING.ack_ns + self.plc.watchdog_ns) / MS, f"an OK of {age_ms} ms ago"

    def assert_books(self) -> None:
        done = len(self.plc.passed) + len(self.plc.rejected)
        assert len(set(self.plc.passed) & set(self.plc.rejected)) == 0
        assert self.plc.part - done in (0, 1)


FAULTS = (
    "none", "station hangs", "station dies", "verdict late", "verdict twice", "verdict of another",
    "not ready", "plc freezes", "plc reads nothing", "plc writes nothing", "plc restarts",
    "plc gone", "guard restarts", "trigger bounces", "stray ack", "double trigger",
)  # fmt: skip
"""What goes wrong with one part; each strikes after some random cycles, so at every stage."""


def one_part(line: WholeLine, dice: random.Random, fault: str) -> None:
    """Run the line until the PLC has done a part, a fault striking somewhere on the way."""
    strikes, lasts = dice.randrange(0, 14), dice.choice((1, 3, 8, 20, 60))
    answer_in, verdict = dice.randrange(0, 5), dice.choice((PASS, PASS, PASS, FAIL, UNSURE))
    done = len(line.plc.passed) + len(line.plc.rejected)
    waited = 0
    for cycle in range(600):
        line.t_ns += 10 * MS
        struck = strikes <= cycle < strikes + lasts
        now = fault if struck else "none"
        strike_once(line, fault, cycle == strikes)
        if now not in ("station hangs", "station dies"):
            if not line.state.attached:
                line.give(Attached(line.t_ns))
            line.give(Alive(line.t_ns, now != "not ready"))
        if now != "plc freezes":
            cut = now in ("plc writes nothing", "plc gone")
            line.scan(read=now != "plc reads nothing", wrote=not cut)
        if now == "plc gone":
            line.shown = Inputs()
        line.carry()
        waited = waited + 1 if line.state.open_case else 0
        if waited > answer_in and now not in ("station hangs", "station dies", "verdict late"):
            line.judge(verdict)
            if now == "verdict twice":
                line.judge(PASS, number=max(line.state.next_number - 1, 1))
        answer_debts(line)
        if len(line.plc.passed) + len(line.plc.rejected) > done:
            return


def strike_once(line: WholeLine, fault: str, now: bool) -> None:
    if not now:
        return
    if fault == "station dies":
        line.give(Detached(line.t_ns))
    elif fault == "guard restarts":
        line.state = State()
    elif fault == "plc restarts":
        part, kept = line.plc.part, line.plc
        line.plc = FakePlc(passed=kept.passed, rejected=[*kept.rejected], part=part)
        if part and part not in (*kept.passed, *kept.rejected):
            line.plc.rejected.append(part)
    elif fault == "trigger bounces":
        line.give(Line(line.t_ns, replace(line.shown, trigger=not line.shown.trigger)))
    elif fault == "stray ack":
        line.give(Line(line.t_ns, replace(line.shown, result_ack=True)))
    elif fault == "double trigger":
        line.give(Line(line.t_ns, replace(line.shown, trigger=False)))
        line.give(Line(line.t_ns, replace(line.shown, trigger=True)))
    elif fault == "verdict of another":
        line.judge(PASS, number=line.state.next_number)


def answer_debts(line: WholeLine) -> None:
    """Let a living station answer late for, and record, whatever the guard decided itself."""
    if line.state.attached and line.t_ns - line.state.station_ns < 20 * MS:
        for case in line.state.cases:
            if case.verdict is not None:
                line.judge(FAIL, number=case.number)
                line.give(Recorded(line.t_ns, case.number))


def test_of_10_000_parts_with_a_fault_at_every_stage_none_passes_without_a_fresh_ok() -> None:
    dice = random.Random(4)
    line = WholeLine()
    for part in range(10_000):
        one_part(line, dice, FAULTS[part % len(FAULTS)])
        line.trusted_ok.pop(line.plc.part, None)
    line.assert_books()
    done = len(line.plc.passed) + len(line.plc.rejected)
    assert done >= 9_900, "the line must come back by itself after every fault"
    assert len(line.plc.passed) > 3_000, "a line that passes nothing proves nothing"
    assert len(line.state.cases) < 5


class AnyInterleaving(RuleBasedStateMachine):
    """Random events in random order: the oracle of ``WholeLine`` checks each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.line = WholeLine()

    @rule(ms=st.sampled_from([0, 1, 5, 20, 99, 100, 399, 400, 499, 500, 1000, 2001]))
    def time_passes(self, ms: int) -> None:
        self.line.t_ns += ms * MS
        self.line.give(Tick(self.line.t_ns))

    @rule(read=st.booleans(), wrote=st.booleans())
    def plc_scans(self, read: bool, wrote: bool) -> None:
        self.line.scan(read=read, wrote=wrote)

    @rule()
    def carrier_carries(self) -> None:
        self.line.carry()

    @rule(n=st.integers(1, 12), verdict=st.sampled_from(list(Verdict)))
    def all_goes_well_for_a_while(self, n: int, verdict: Verdict) -> None:
        for _ in range(n):
            self.line.t_ns += 5 * MS
            self.line.give(Alive(self.line.t_ns, True))
            self.line.scan()
            self.line.carry()
            if self.line.state.open_case:
                self.line.judge(verdict)
            answer_debts(self.line)

    @rule(trigger=st.booleans(), ack=st.booleans(), reset=st.booleans(), beat=st.integers(0, 3))
    def noise_on_the_line(self, trigger: bool, ack: bool, reset: bool, beat: int) -> None:
        seen = Inputs(True, trigger, ack, reset, beat, self.line.plc.part)
        self.line.give(Line(self.line.t_ns, seen))

    @rule()
    def plc_is_cut_off(self) -> None:
        self.line.give(Line(self.line.t_ns, Inputs()))

    @rule(ready=st.booleans())
    def station_lives(self, ready: bool) -> None:
        self.line.give(Alive(self.line.t_ns, ready))

    @rule(verdict=st.sampled_from(list(Verdict)), number=st.none() | st.integers(0, 6))
    def station_judges(self, verdict: Verdict, number: int | None) -> None:
        self.line.judge(verdict, number)

    @rule(number=st.integers(0, 6))
    def station_records(self, number: int) -> None:
        self.line.give(Recorded(self.line.t_ns, number))

    @rule()
    def station_attaches(self) -> None:
        self.line.give(Attached(self.line.t_ns))

    @rule()
    def station_dies(self) -> None:
        self.line.give(Detached(self.line.t_ns))

    @rule()
    def guard_restarts(self) -> None:
        self.line.state = State()

    @invariant()
    def every_trigger_has_one_case_and_at_most_one_is_open(self) -> None:
        state = self.line.state
        numbers = [c.number for c in state.cases]
        assert numbers == sorted(set(numbers))
        assert all(1 <= n < state.next_number for n in numbers)
        assert sum(c.verdict is None for c in state.cases) <= 1
        assert (state.open_case is not None) == (state.phase is Phase.WORKING)


AnyInterleaving.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None
)
TestAnyInterleaving = AnyInterleaving.TestCase
