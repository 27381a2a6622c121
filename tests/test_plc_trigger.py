"""The trigger of a PLC: each number becomes one part, with a picture or without."""

import numpy as np

from pipeline.triggers.plc import Options, PlcTrigger
from pipeline.types import Decision, Frame, Verdict

MS = 1_000_000
UNSURE = Decision(Verdict.UNSURE, ("no verdict within 500 ms",))


def frame(t_ms: int) -> Frame:
    return Frame(np.zeros((10, 20), np.uint8), 1, t_ms * MS, "top")


def parts(trigger: PlcTrigger, t_ms: int) -> list[int | None]:
    return [sighting.part for sighting in trigger.sightings(frame(t_ms))]


def test_the_first_exposure_after_the_trigger_shows_the_part_once() -> None:
    trigger = PlcTrigger(Options())
    trigger.announce(1, 50 * MS, None)
    assert [parts(trigger, t) for t in (40, 50, 60)] == [[], [1], []]


def test_the_exposure_may_be_asked_for_later() -> None:
    trigger = PlcTrigger(Options(delay_ms=30))
    trigger.announce(1, 50 * MS, None)
    assert [parts(trigger, t) for t in (60, 80)] == [[], [1]]


def test_a_trigger_that_was_decided_before_a_frame_came_is_recorded_unseen() -> None:
    trigger = PlcTrigger(Options())
    trigger.announce(1, 50 * MS, None)
    trigger.announce(1, 50 * MS, UNSURE)
    assert parts(trigger, 700) == []
    assert [(u.part, u.decision) for u in trigger.unseen(frame(700))] == [(1, UNSURE)]
    assert trigger.unseen(frame(710)) == ()


def test_news_of_a_trigger_that_has_its_frame_changes_nothing() -> None:
    trigger = PlcTrigger(Options())
    trigger.announce(1, 50 * MS, None)
    assert parts(trigger, 60) == [1]
    trigger.announce(1, 50 * MS, UNSURE)
    assert trigger.unseen(frame(70)) == trigger.unseen(None) == ()


def test_where_frames_end_no_trigger_is_forgotten() -> None:
    trigger = PlcTrigger(Options())
    trigger.announce(1, 50 * MS, None)
    trigger.announce(2, 60 * MS, UNSURE)
    assert [(u.part, u.decision) for u in trigger.unseen(None)] == [(1, None), (2, UNSURE)]
