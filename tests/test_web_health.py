"""The state in words: green only while everything is known to be well."""

from typing import Any

import pytest

from pipeline.clock import NS_PER_MS, NS_PER_S
from pipeline.web.health import NO_PICTURE_S, SILENT_S, judge

NOW = 1_000 * NS_PER_S


def state(name: str = "ready", silent_s: float = 0.1, blind_s: float = 0.05, **faults: str) -> Any:
    return {
        "state": name,
        "faults": faults,
        "written_ns": NOW - int(silent_s * NS_PER_S),
        "frame_ns": NOW - int(blind_s * NS_PER_S),
    }


def test_a_station_that_is_ready_and_sees_is_good() -> None:
    health = judge(state(), NOW)
    assert (health.level, health.reasons, health.trusted) == ("good", (), True)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "No station"),
        (state(silent_s=SILENT_S + 0.1), "No sign of life"),
        (state(silent_s=-10), "No sign of life"),
        (state(blind_s=NO_PICTURE_S + 0.1), "no picture"),
        (state("starting"), "starting"),
        (state("not ready", camera="unplugged"), "unplugged"),
        (state("stopping"), "stopping"),
        (state("stopped"), "stopped"),
        (state("something new"), "something new"),
        ({}, "No sign of life"),
    ],
)
def test_whatever_is_not_well_is_not_green_and_says_why(said: Any, words: str) -> None:
    health = judge(said, NOW)
    assert health.level != "good"
    assert not health.trusted
    assert words in " ".join((health.title, *health.reasons))


def test_a_station_that_stopped_of_a_fault_stays_a_fault() -> None:
    assert judge(state("stopped"), NOW).level == "off"
    died = judge(state("stopped", keep="the disk is full"), NOW)
    assert (died.level, died.reasons[0]) == ("fault", "keep: the disk is full")


def test_records_that_wait_are_a_warning_while_verdicts_stay_good() -> None:
    health = judge(state("degraded", **{"publisher mqtt": "broker gone"}), NOW)
    assert (health.level, health.trusted) == ("warning", True)
    assert health.reasons == ("mqtt: broker gone",)


def test_a_station_that_died_while_ready_is_a_fault_within_two_seconds() -> None:
    died = state()
    assert judge(died, NOW).level == "good"
    assert judge(died, NOW + 2000 * NS_PER_MS).level == "fault"
