"""The gate: a guard process that outlives the station and never lets a late OK act."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, OutputError
from pipeline.gate.client import Gate
from pipeline.gate.wire import LOG, NamedOutput, Spec
from pipeline.types import Box, Decision, Inspection, Part, Verdict
from tests.conftest import REPOSITORY
from tests.doubles import until
from tests.plc_lines import end_guard

PASS, FAIL, UNSURE = Verdict.PASS, Verdict.FAIL, Verdict.UNSURE


def spec(pulse_ms: int = 50, **output: Any) -> Spec:
    options = {"chip": "double", "gate": 4, "pulse_ms": pulse_ms} | output
    return Spec(
        outputs=(NamedOutput(kind="gpio", options=options),), triggered=False, deadline_ms=5000,
        ack_ms=1000, plc_silent_ms=400, station_silent_ms=400, heartbeat_ms=100,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_guard(tmp_path)


def inspection(part: int, verdict: Verdict, ago_ms: int = 0) -> Inspection:
    seen_ns = time.monotonic_ns() - ago_ms * 1_000_000
    decision = Decision(verdict, () if verdict is PASS else ("why",))
    stamps = {"exposed": seen_ns}
    shown = Part(part, seen_ns, 1, 1, Box(0, 0, 1, 1))
    return Inspection(shown, decision, (), 1, None, None, stamps=stamps)


def guards(store: Path) -> list[int]:
    lines = (store / LOG).read_text().splitlines()
    return [int(line.split()[-1]) for line in lines if "guards as process" in line]


def lives(process: int) -> bool:
    try:
        return f"{process} (" in Path(f"/proc/{process}/stat").read_text() and (
            Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
        )
    except FileNotFoundError:
        return False


def ready_gate(spec: Spec, store: Path) -> Gate:
    gate = Gate(spec, store)
    gate.ready(True)
    return gate


def test_a_verdict_in_time_is_taken_as_it_is(store: Path) -> None:
    gate = ready_gate(spec(), store)
    got = [gate.act(inspection(i, v)) for i, v in enumerate((PASS, FAIL, UNSURE), 1)]
    assert got == [None, None, None]
    gate.close()


def test_a_late_ok_acts_as_unsure_and_keeps_what_it_would_have_been(store: Path) -> None:
    gate = ready_gate(spec(), store)
    got = gate.act(inspection(1, PASS, ago_ms=6000))
    assert got is not None
    assert got.verdict is UNSURE
    assert "no verdict within 5000 ms" in got.reasons[0]
    assert "PASS after 6" in got.reasons[1]
    gate.close()


def test_an_ok_of_a_station_that_is_not_ready_acts_as_unsure(store: Path) -> None:
    gate = Gate(spec(), store)
    got = gate.act(inspection(1, PASS))
    assert got is not None
    assert got.verdict is UNSURE
    gate.close()


def test_good_bye_ends_the_guard(store: Path) -> None:
    gate = ready_gate(spec(), store)
    (guard,) = guards(store)
    gate.close()
    gate.close()
    until(lambda: not lives(guard), "the guard's end")


def killed_station(store: Path) -> int:
    """Attach from a process that is then killed; return the guard's number."""
    page = (store / "spec.json").resolve()
    page.write_text(spec().model_dump_json())
    program = (
        "import sys, time; from pathlib import Path\n"
        "from pipeline.gate.client import Gate; from pipeline.gate.wire import Spec\n"
        f"gate = Gate(Spec.model_validate_json(Path({str(page)!r}).read_text()), "
        f"Path({str(store)!r}))\n"
        "gate.ready(True); print('up', flush=True); time.sleep(600)\n"
    )
    station = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    with station:
        assert station.stdout is not None
        assert station.stdout.readline() == b"up\n"
        station.kill()
    return guards(store)[-1]


def test_the_guard_outlives_a_killed_station_and_serves_the_next_one(store: Path) -> None:
    guard = killed_station(store)
    until(lambda: "inhibit: True" in (store / LOG).read_text(), "the safe state")
    assert lives(guard)
    gate = ready_gate(spec(), store)
    assert gate.act(inspection(1, PASS)) is None
    assert guards(store) == [guard]
    gate.close()


def test_a_station_with_other_outputs_gets_a_guard_of_its_own(store: Path) -> None:
    guard = killed_station(store)
    gate = ready_gate(spec(pulse_ms=60), store)
    assert gate.act(inspection(1, PASS)) is None
    assert len(guards(store)) == 2
    assert not lives(guard)
    gate.close()


def test_two_stations_cannot_share_a_store(store: Path) -> None:
    gate = ready_gate(spec(), store)
    with pytest.raises(OutputError, match="another station runs on this store"):
        Gate(spec(), store)
    assert gate.act(inspection(1, PASS)) is None
    gate.close()


def test_a_station_hears_that_its_guard_was_killed(store: Path) -> None:
    gate = ready_gate(spec(), store)
    heard: list[OutputError] = []
    lost = threading.Event()

    def on_lost(error: OutputError) -> None:
        heard.append(error)
        lost.set()

    gate.watch(on_lost, lambda fault: None)
    os.kill(guards(store)[-1], signal.SIGKILL)
    assert lost.wait(20)
    assert "the guard is gone" in str(heard[0])
    with pytest.raises(OutputError, match="the guard is gone"):
        gate.act(inspection(1, PASS))
    gate.close()


def test_an_output_that_does_not_open_is_the_stations_own_error(store: Path) -> None:
    with pytest.raises((OutputError, ConfigError), match="gpio"):
        Gate(spec(chip="/dev/gpiochip99"), store)
    assert not guards(store)
