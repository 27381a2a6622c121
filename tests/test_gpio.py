"""Digital lines: the pulse comes at the gate, as wide as asked for, and never without an OK."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.clock import NS_PER_MS
from pipeline.errors import OutputError
from pipeline.outputs.gpio import DoubleLines, GpioCarrier, Options, create
from pipeline.plc.signals import Signals

MS = NS_PER_MS
WELL = Signals(ready=True, inhibit=False)
GATE = 4


def carrier(**given: Any) -> tuple[GpioCarrier, DoubleLines]:
    lines = DoubleLines()
    options = Options(**{"chip": "double", "gate": GATE, "transit_ms": 100, "pulse_ms": 30} | given)
    return GpioCarrier(options, lines), lines


def result(ok: bool, seen_ns: int = 0) -> Signals:
    return replace(WELL, ready=False, result_valid=True, ok=ok, ng=not ok, seen_ns=seen_ns)


def gate_over_time(carrier: GpioCarrier, lines: DoubleLines, last_ms: int = 200) -> list[int]:
    """Return the milliseconds at which the gate was energised."""
    on = []
    for ms in range(last_ms):
        carrier.exchange(WELL, ms * MS)
        if lines.values[GATE]:
            on.append(ms)
    return on


@pytest.mark.parametrize(
    ("gate_on", "ok", "pulses"),
    [
        ("pass", True, True),
        ("pass", False, False),
        ("reject", True, False),
        ("reject", False, True),
    ],
)
def test_the_gate_moves_when_the_part_is_there(gate_on: str, ok: bool, pulses: bool) -> None:
    gate, lines = carrier(gate_on=gate_on)
    gate.exchange(result(ok), 0)
    assert gate_over_time(gate, lines) == (list(range(100, 130)) if pulses else [])


def test_parts_close_together_each_get_their_pulse() -> None:
    gate, lines = carrier()
    for seen_ms in (0, 40, 80):
        gate.exchange(result(True, seen_ms * MS), 0)
        gate.exchange(WELL, 0)
    starts = [100, 140, 180]
    assert gate_over_time(gate, lines, 300) == [ms for s in starts for ms in range(s, s + 30)]


def test_an_inhibit_takes_back_the_pulses_of_good_parts_on_their_way() -> None:
    gate, lines = carrier()
    gate.exchange(result(True), 0)
    gate.exchange(Signals(), 50 * MS)
    assert gate_over_time(gate, lines) == []


def test_an_inhibit_leaves_the_rejects_on_their_way() -> None:
    gate, lines = carrier(gate_on="reject")
    gate.exchange(result(False), 0)
    gate.exchange(Signals(), 50 * MS)
    assert gate_over_time(gate, lines) == list(range(100, 130))


def test_a_pulse_that_was_missed_is_not_made_up_for() -> None:
    gate, lines = carrier()
    gate.exchange(result(True), 0)
    gate.exchange(WELL, 131 * MS)
    assert lines.values[GATE] is False


def test_signals_go_by_wire_and_the_safe_state_is_all_released() -> None:
    gate, lines = carrier(gate=None, shown={"ready": 1, "run": 2, "ok": 3, "beat": 5})
    assert not any(lines.values.values())
    gate.exchange(replace(WELL, heartbeat=3), 0)
    assert lines.values == {1: True, 2: True, 3: False, 5: True}
    gate.close()
    gate.close()
    assert not any(lines.values.values())
    assert lines.closed


def test_a_trigger_line_leads_the_handshake() -> None:
    gate, lines = carrier(gate=None, listen=True, taken={"trigger": 7, "result_ack": 8})
    lines.values[7] = True
    first, second = gate.exchange(WELL, 0), gate.exchange(WELL, 0)
    assert (first.connected, first.trigger, first.result_ack) == (True, True, False)
    assert first.heartbeat != second.heartbeat


def test_without_an_acknowledge_wire_a_result_counts_as_taken() -> None:
    gate, _ = carrier(gate=None, listen=True, taken={"trigger": 7})
    assert gate.exchange(result(True), 0).result_ack
    assert not gate.exchange(WELL, 0).result_ack


def test_a_chip_that_is_gone_is_an_error() -> None:
    gate, lines = carrier(shown={"ready": 1})
    lines.broken = True
    with pytest.raises(OutputError):
        gate.exchange(WELL, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gate": 4, "shown": {"ok": 4}}, "line 4 is named twice"),
        ({}, "no line is named"),
        ({"gate": 4, "listen": True}, "add trigger to taken"),
        ({"shown": {"okay": 3}}, "okay"),
    ],
)
def test_lines_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Options(**given)


def test_a_missing_chip_is_named() -> None:
    pytest.importorskip("gpiod", reason="needs lineguard[gpio]")
    with pytest.raises(OutputError, match="/dev/gpiochip99"):
        create(Options(chip="/dev/gpiochip99", gate=4))
