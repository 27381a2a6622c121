"""One physical part is one part to the tracker, whatever the belt and the camera do."""

from collections.abc import Collection, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tracking import BeltTracker
from pipeline.types import Box, Frame, Sighting
from tests.doubles import Belt

WIDTH = 640
CELL = 8


def sighting(start: float, end: float, axis: str = "x", width: int = WIDTH) -> Sighting:
    box = Box(start, 10, end, 90) if axis == "x" else Box(10, start, 90, end)
    return Sighting(box, whole=start > 0 and end < width)


def frame(seq: int) -> Frame:
    return Frame(np.zeros((WIDTH, WIDTH), np.uint8), seq, seq * 10, "top")


def quantised(start: float, end: float, cell: int) -> tuple[float, float]:
    """Widen to whole cells, as a trigger that sees cells would."""
    return start // cell * cell, min(-(-end // cell) * cell, WIDTH)


def ids(
    belt: Belt,
    speeds: Sequence[float],
    *,
    start: float = 0.0,
    dropped: Collection[int] = (),
    lost: Collection[tuple[int, int]] = (),
    axis: str = "x",
    cell: int = CELL,
    mirrored: bool = False,
) -> dict[int, set[int]]:
    """Run a belt past the tracker and return the ids that each physical part was given.

    Args:
        speeds: travel before each frame, pixels.
        start: where the front of the first part stands before the first frame, pixels.
        dropped: frames that never come.
        lost: (part, frame) that the trigger misses.
        mirrored: the belt moves the other way.
    """
    tracker = BeltTracker("x" if axis == "x" else "y", lost_after_frames=3)
    given_ids: dict[int, set[int]] = {}
    way = start
    for seq, speed in enumerate(speeds):
        way += speed
        if seq in dropped:
            continue
        shown = {}
        for k, *span in belt.spans(way, WIDTH):
            if span[1] - span[0] < cell / 2 or (k, seq) in lost:
                continue
            low, high = quantised(span[0], span[1], cell)
            low, high = (WIDTH - high, WIDTH - low) if mirrored else (low, high)
            shown[k] = sighting(low, high, axis)
        followed = tracker.follow(frame(seq), list(shown.values()))
        for track in followed.present:
            for k, seen in shown.items():
                if track.sighting is seen:
                    given_ids.setdefault(k, set()).add(track.part.id)
    return given_ids


def assert_one_id_each(found: dict[int, set[int]]) -> None:
    doubled = {k: v for k, v in found.items() if len(v) != 1}
    assert not doubled, f"parts with more than one id: {doubled}"
    assert len({i for v in found.values() for i in v}) == len(found), f"parts share an id: {found}"


def steady(speed: float, ways: float = 4 * WIDTH) -> list[float]:
    return [speed] * int(ways / speed)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("speed", [2, 5, 20, 45, 70])
def test_a_steady_belt(speed: float, axis: str, mirrored: bool) -> None:
    belt = Belt(100, 150, parts=12)
    found = ids(belt, steady(speed), axis=axis, mirrored=mirrored)
    assert_one_id_each(found)
    assert len(found) == 12


@pytest.mark.parametrize("length", [16, 60, 140, 600, 900])
def test_parts_of_any_length_even_longer_than_the_view(length: int) -> None:
    found = ids(Belt(length, length + 60, parts=4), steady(12, 5 * (length + WIDTH)))
    assert_one_id_each(found)
    assert len(found) == 4


def test_a_belt_that_gathers_speed_up_to_nearly_one_pitch_per_frame() -> None:
    belt = Belt(100, 150, parts=60)
    speeds = [min(20 + 5 * i, 135) for i in range(60)]
    assert_one_id_each(ids(belt, speeds))


SPEED_CHANGES: dict[str, Sequence[float]] = {
    "stops at once and starts again": [30] * 30 + [0] * 20 + [30] * 30,
    "stops for long": [40] * 20 + [0] * 200 + [40] * 20,
    "creeps": [0.5] * 300,
    "wavers": [20 + 15 * (-1) ** i for i in range(60)],
    "brakes": [max(60 - 6 * i, 0) for i in range(20)] + [0] * 5 + [10] * 60,
    "is halved": [60] * 20 + [30] * 40,
    "jerks back": [30] * 15 + [0] * 2 + [-4] * 3 + [30] * 30,
}


@pytest.mark.parametrize("name", SPEED_CHANGES)
@pytest.mark.parametrize("length", [60, 100])
def test_a_belt_that_changes_its_speed(name: str, length: int) -> None:
    assert_one_id_each(ids(Belt(length, 150, parts=20), SPEED_CHANGES[name], start=300))


def test_parts_move_their_own_length_per_frame() -> None:
    assert_one_id_each(ids(Belt(20, 100, parts=20), steady(40)))


def test_a_sighting_that_is_missed_changes_nothing() -> None:
    for missed in range(3, 40):
        lost = {(k, missed) for k in range(10)}
        assert_one_id_each(ids(Belt(100, 150, parts=10), steady(30), lost=lost))


def test_a_part_that_is_missed_while_its_neighbour_enters_is_not_mistaken_for_it() -> None:
    tracker = BeltTracker("x", 3)
    tracker.follow(frame(0), [sighting(0, 260)])
    tracker.follow(frame(1), [sighting(0, 300)])
    tracker.follow(frame(2), [sighting(24, 336)])
    (first, neighbour) = tracker.follow(frame(3), [sighting(0, 24)]).present
    assert (first.part.id, first.sighting) == (1, None)
    assert neighbour.part.id == 2


def test_frames_that_are_dropped_change_nothing() -> None:
    found = ids(Belt(100, 150, parts=10), steady(30), dropped={10, 11, 20, 31, 32})
    assert_one_id_each(found)


def test_parts_in_view_at_the_start() -> None:
    found = ids(Belt(100, 150, parts=8), steady(30), start=500)
    assert_one_id_each(found)
    assert len(found) == 8


def test_a_part_is_whole_only_between_the_edges() -> None:
    tracker = BeltTracker("x", 3)
    (cut,) = tracker.follow(frame(0), [sighting(0, 50)]).present
    (whole,) = tracker.follow(frame(1), [sighting(20, 120)]).present
    (on,) = tracker.follow(frame(2), [sighting(90, 190)]).present
    assert (cut.entered, whole.entered, on.entered) == (None, 70.0, 70.0)


def test_a_part_has_left_after_so_many_frames_without_it() -> None:
    tracker = BeltTracker("x", 3)
    tracker.follow(frame(5), [sighting(100, 200)])
    assert not tracker.follow(frame(6), []).left
    assert not tracker.follow(frame(7), []).left
    (left,) = tracker.follow(frame(8), []).left
    assert (left.part.id, left.part.first_frame, left.part.last_frame) == (1, 5, 5)
    assert tracker.follow(frame(9), []) == tracker.follow(frame(10), [])


def test_what_was_dropped_is_a_new_part_when_it_is_seen_again() -> None:
    tracker = BeltTracker("x", 3)
    tracker.follow(frame(0), [sighting(100, 200)])
    (dropped,) = tracker.drop_all()
    (again,) = tracker.follow(frame(1), [sighting(110, 210)]).present
    assert (dropped.part.id, again.part.id) == (1, 2)
    assert not tracker.drop_all()[1:]


@st.composite
def passages(draw: st.DrawFn) -> tuple[Belt, list[float], float, set[int], set[tuple[int, int]]]:
    """Draw a belt within the limits that the tracker states.

    After a stand a part must move by less than half a pitch, and a quarter of the view, from
    sighting to sighting, and here each sighting is off by up to one cell. A frame that is lost
    doubles the way between two.
    """
    length = draw(st.integers(24, 300))
    pitch = length + draw(st.integers(24, 400))
    clean = draw(st.booleans())
    top = max(min(0.45 * pitch, WIDTH / 4) * (1.0 if clean else 0.5) - CELL, 1.0)
    learning = [top] * 8
    shares = draw(st.lists(st.floats(0.0, 1.0), min_size=30, max_size=60))
    dropped = draw(st.sets(st.integers(10, 60), max_size=4))
    lost = {
        (k, seq)
        for k, seq in draw(st.sets(st.tuples(st.integers(0, 40), st.integers(10, 60)), max_size=8))
        if not dropped & {seq - 2, seq - 1, seq + 1, seq + 2}
    }
    lost -= {(k, seq + 1) for k, seq in lost} | {(k, seq + 2) for k, seq in lost}
    dropped -= {seq + 2 for seq in dropped} | {seq + 1 for seq in dropped}
    dropped, lost = (set(), set()) if clean else (dropped, lost)
    speeds = [*learning, *(share * top for share in shares)]
    return Belt(length, pitch, parts=40), speeds, draw(st.floats(0, pitch)), dropped, lost


@given(passages())
@settings(max_examples=150, deadline=None)
def test_every_part_gets_exactly_one_id(
    passage: tuple[Belt, list[float], float, set[int], set[tuple[int, int]]],
) -> None:
    belt, speeds, start, dropped, lost = passage
    assert_one_id_each(ids(belt, speeds, start=start, dropped=dropped, lost=lost))
