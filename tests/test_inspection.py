"""Every part is decided exactly once, and what was not seen well enough is UNSURE."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from pipeline.bundle import Threshold
from pipeline.errors import ModelError
from pipeline.inspection import FindsDefects, Inspector
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook
from pipeline.triggers import Trigger
from pipeline.triggers.every_frame import EveryFrame
from pipeline.triggers.presence import Options, Presence
from pipeline.types import Box, Detections, Frame, Image, Inspection, Verdict
from tests.doubles import HEIGHT, WIDTH, Belt, SpotDetector, frames_of

THRESHOLDS = {label: Threshold(fail=0.5, unsure=0.3) for label in SpotDetector.labels}
PASS, FAIL, UNSURE = Verdict.PASS, Verdict.FAIL, Verdict.UNSURE


class Witness(SpotDetector):
    """Remembers the boxes that it was shown."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__(fail_at)
        self.shown: list[Box] = []

    def detect_at(self, image: Image, box: Box) -> Detections:
        self.shown.append(box)
        return super().detect_at(image, box)


def inspector(
    detector: FindsDefects | None = None,
    trigger: Trigger | None = None,
    page: dict[str, Any] | None = None,
    **settings: Any,
) -> Inspector:
    return Inspector(
        trigger or Presence(Options()),
        detector or SpotDetector(),
        Rulebook(Recipe.model_validate({"name": "any", **(page or {})}), THRESHOLDS),
        **settings,
    )


def decided(line: Inspector, frames: Sequence[Frame]) -> list[Inspection]:
    return [inspection for frame in frames for inspection in line.inspect(frame)]


def assert_once_each(done: Sequence[Inspection], parts: int) -> None:
    assert [i.part.id for i in done] == list(range(1, parts + 1))


@pytest.mark.parametrize("decide_at", [None, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("speed", [5, 20, 60])
def test_every_part_is_decided_exactly_once(speed: int, decide_at: float | None) -> None:
    belt = Belt(parts=6, bad=frozenset({1, 4}))
    line = inspector(decide_at=decide_at)
    done = decided(line, frames_of(belt.passing(speed)))
    assert_once_each(done, 6)
    assert [i.decision.verdict for i in done] == [PASS, FAIL, PASS, PASS, FAIL, PASS]
    assert line.finish(0) == line.give_up("late", 0) == ()


@pytest.mark.parametrize("speed", [4, 16])
def test_views_are_limited_and_spread_over_the_way(speed: int) -> None:
    detector = Witness()
    line = inspector(detector, views=4)
    (done,) = decided(line, frames_of(Belt(parts=1).passing(speed)))
    assert done.views == detector.calls == 4
    starts = [box.x0 for box in detector.shown]
    way = WIDTH - 80
    assert starts[0] <= 8 + speed
    assert np.abs(np.array(starts) - starts[0] - np.arange(4) * way / 4).max() <= speed
    assert starts[-1] >= way / 2


def test_a_belt_that_stands_takes_no_more_views() -> None:
    detector = Witness()
    line = inspector(detector, views=50)
    belt = Belt(parts=1)
    decided(line, frames_of([belt.picture(way) for way in (0, 20, 60, 100, *[140] * 40)]))
    assert detector.calls == 2, "whole at 100 and at 140, and then no more"


@pytest.mark.parametrize("share", [0.4, 0.5, 0.7])
def test_a_part_is_decided_where_the_recipe_wants_it(share: float) -> None:
    line = inspector(decide_at=share)
    (done,) = decided(line, frames_of(Belt(parts=1).passing(10)))
    middle = done.part.box.centre[0]
    assert share * WIDTH <= middle <= share * WIDTH + 10
    assert done.stamps["exposed"] == done.part.last_frame * 10_000_000


def test_it_says_where_the_time_of_a_part_went() -> None:
    now_ns = count(10**9, 1000)
    line = inspector(decide_at=0.5, now_ns=lambda: next(now_ns))
    (done,) = decided(line, frames_of(Belt(parts=1).passing(10)))
    assert set(done.spent_ns) == {"wait", "trigger", "look", "rules"}
    assert (done.spent_ns["trigger"], done.spent_ns["rules"]) == (1000, 1000)
    taken_ns = done.stamps["exposed"] + done.spent_ns["wait"]
    assert taken_ns > 10**9
    assert done.stamps["decided"] == taken_ns + 3000
    assert done.spent_ns["look"] > 0


def test_a_part_that_no_frame_decided_has_no_times() -> None:
    line = inspector(now_ns=lambda: 0)
    decided(line, frames_of([Belt(parts=1).picture(way) for way in (0, 60, 100)]))
    (done,) = line.give_up("the camera was lost", 0)
    assert done.spent_ns == {}


def test_views_are_taken_before_the_line_where_parts_are_decided() -> None:
    detector = Witness()
    decided(inspector(detector, views=3, decide_at=0.5), frames_of(Belt(parts=1).passing(5)))
    assert len(detector.shown) == 3
    assert detector.shown[-1].centre[0] <= WIDTH / 2


def test_what_a_turned_view_shows_lies_where_it_was() -> None:
    frames = frames_of(Belt(parts=1, bad=frozenset({0})).passing(5))
    ahead, turning = Witness(), Witness()
    (seen,) = decided(inspector(ahead, views=4), frames)
    (turned,) = decided(inspector(turning, views=4, half_turns=True), frames)
    assert turned.defects == seen.defects
    assert turned.defects[0].votes == 4
    assert turning.shown[0::2] == ahead.shown[0::2]
    assert turning.shown[1::2] == [box.turned(WIDTH, HEIGHT) for box in ahead.shown[1::2]]


def test_the_picture_that_is_kept_is_none_that_was_turned() -> None:
    class SeesMoreWhenTurned(SpotDetector):
        def detect_at(self, image: Image, box: Box) -> Detections:
            found = super().detect_at(image, box)
            score = found.score if self.calls % 2 == 0 else found.score / 2
            return replace(found, score=score)

    frames = frames_of(Belt(parts=1, bad=frozenset({0})).passing(5))
    (done,) = decided(inspector(SeesMoreWhenTurned(), views=4, half_turns=True), frames)
    assert done.defects[0].score == pytest.approx(0.9 * 0.75)
    assert done.picture_verdict is UNSURE, "judged by the weaker view, which was not turned"


@pytest.mark.parametrize("bad", [frozenset(), frozenset({0})])
def test_a_part_whose_verdict_is_clear_is_looked_at_no_more(bad: frozenset[int]) -> None:
    frames = frames_of(Belt(parts=1, bad=bad).passing(5))
    looks = []
    for sure_by in (None, 0.1):
        detector = Witness()
        line = inspector(detector, page={"min_views": 2}, views=6, sure_by=sure_by)
        (done,) = decided(line, frames)
        assert done.decision.verdict is (FAIL if bad else PASS)
        assert done.views == detector.calls
        looks.append(done.views)
    assert looks == [6, 2]


def test_a_part_whose_scores_lie_near_a_threshold_gets_all_its_views() -> None:
    frames = frames_of(Belt(parts=1, bad=frozenset({0})).passing(5))
    detector = Witness()
    (done,) = decided(inspector(detector, views=6, sure_by=0.45), frames)
    assert done.views == detector.calls == 6


def test_a_part_that_was_never_seen_whole_is_unsure() -> None:
    belt = Belt(length=WIDTH + 50, pitch=900, parts=1)
    (done,) = decided(inspector(), frames_of(belt.passing(20)))
    assert (done.decision.verdict, done.views, done.picture) == (UNSURE, 0, None)


def test_a_part_that_leaves_as_the_station_starts_is_unsure() -> None:
    belt = Belt(parts=2, pitch=200)
    pictures = [belt.picture(0), *(belt.picture(way) for way in range(WIDTH + 40, 1000, 20))]
    done = decided(inspector(), frames_of(pictures))
    assert [i.decision.verdict for i in done] == [UNSURE, PASS]


def test_fewer_views_than_the_recipe_asks_for_are_unsure() -> None:
    (done,) = decided(inspector(page={"min_views": 6}), frames_of(Belt(parts=1).passing(20)))
    assert (done.decision.verdict, done.views) == (UNSURE, 5)


def test_frames_that_are_missing_double_no_part() -> None:
    frames = [f for f in frames_of(Belt(parts=6).passing(15)) if f.seq % 7 not in (3, 4)]
    assert_once_each(decided(inspector(), frames), 6)


def test_a_zone_is_a_share_of_the_whole_part_also_when_it_is_decided_while_leaving() -> None:
    """The spot is in the middle; of a part that the edge has cut it would be at the far end."""
    page = {"zones": ({"name": "far end", "xyxy": (0.7, 0.0, 1.0, 1.0)},)}
    line = inspector(page=page, views=50)
    (done,) = decided(line, frames_of(Belt(parts=1, bad=frozenset({0})).passing(30)))
    assert done.part.box.width < 80, "it was decided while the edge cut it"
    assert done.decision.verdict is FAIL


def test_the_picture_shows_the_defect_and_the_box_lies_on_the_part() -> None:
    belt = Belt(parts=1, bad=frozenset({0}))
    (done,) = decided(inspector(), frames_of(belt.passing(20)))
    assert done.picture is not None
    assert done.picture_box is not None
    (defect,) = done.defects
    x0, y0 = int(done.picture_box.x0 + defect.xyxy[0]), int(done.picture_box.y0 + defect.xyxy[1])
    assert done.picture[y0 + 4, x0 + 4] == 255
    assert (defect.label, defect.votes) == ("dent", done.views)


# --- what goes wrong


def test_giving_up_makes_every_undecided_part_in_view_unsure() -> None:
    frames = frames_of(Belt(parts=3, length=60, pitch=100).passing(20))
    line = inspector(decide_at=0.9)
    assert decided(line, frames[:14]) == []
    done = line.give_up("camera lost", 77)
    assert_once_each(done, 3)
    assert {i.decision for i in done} == {done[0].decision}
    assert (done[0].decision.verdict, done[0].decision.reasons) == (UNSURE, ("camera lost",))
    assert done[0].stamps["exposed"] == 77
    assert line.give_up("again", 78) == ()


def test_a_part_that_is_seen_again_after_a_gap_is_a_new_part() -> None:
    frames = frames_of(Belt(parts=1).passing(20))
    line = inspector()
    decided(line, frames[:8])
    (lost,) = line.give_up("camera lost", 0)
    (again,) = decided(line, frames[8:])
    assert (lost.part.id, lost.decision.verdict) == (1, UNSURE)
    assert (again.part.id, again.decision.verdict) == (2, PASS)


def test_a_decided_part_is_not_given_up() -> None:
    frames = frames_of(Belt(parts=1).passing(20))
    line = inspector(views=1)
    (done,) = decided(line, frames[:8])
    assert done.decision.verdict is PASS
    assert line.give_up("camera lost", 0) == ()


def test_the_end_of_a_recording_decides_the_parts_that_were_seen_whole() -> None:
    frames = frames_of(Belt(parts=2, length=100, pitch=150).passing(20))
    line = inspector()
    decided(line, frames[:10])
    done = line.finish(5)
    assert [(i.part.id, i.decision.verdict) for i in done] == [(1, PASS)]
    assert line.finish(6) == ()


def test_the_end_of_a_recording_decides_nothing_before_the_line() -> None:
    line = inspector(decide_at=0.9)
    decided(line, frames_of(Belt(parts=1).passing(20))[:10])
    assert line.finish(5) == ()


@pytest.mark.parametrize("call", range(1, 12))
def test_no_part_is_lost_or_decided_twice_when_the_model_fails(call: int) -> None:
    """At whichever look it fails: what was decided and what is given up are all parts seen."""
    frames = frames_of(Belt(parts=4, length=60, pitch=90).passing(20))
    line = inspector(SpotDetector(fail_at=call))
    done: list[Inspection] = []
    seen = 0
    with pytest.raises(ModelError):
        for frame in frames:
            seen = max(seen, len(Belt(parts=4, length=60, pitch=90).spans(frame.seq * 20)))
            done += line.inspect(frame)
    done += line.give_up("model failed", 0)
    assert_once_each(sorted(done, key=lambda i: i.part.id), len(done))
    assert len(done) >= seen


def test_a_part_that_left_in_the_frame_at_which_the_model_fails_is_not_lost() -> None:
    """Part 1 has left three frames after its last sighting; there the model fails on part 2."""
    first = Belt(parts=1, length=80, pitch=999)
    empty = first.picture(0)
    second = np.roll(first.picture(80 + 40), 0)
    pictures = [empty, first.picture(WIDTH + 40), empty, empty, second]
    line = inspector(SpotDetector(fail_at=1))
    decided(line, frames_of(pictures[:4]))
    with pytest.raises(ModelError):
        line.inspect(frames_of([second], first=4)[0])
    assert [i.part.id for i in line.give_up("model failed", 0)] == [1, 2]


# --- a camera that is triggered itself


def test_each_triggered_frame_is_a_part() -> None:
    belt = Belt(parts=1, bad=frozenset({0}))
    frames = frames_of([belt.picture(0), belt.picture(200)])
    done = decided(inspector(trigger=EveryFrame()), frames)
    assert_once_each(done, 2)
    assert [i.decision.verdict for i in done] == [PASS, FAIL]


def test_a_triggered_part_is_unsure_when_the_model_fails() -> None:
    (frame,) = frames_of([Belt().picture(200)])
    line = inspector(SpotDetector(fail_at=1), trigger=EveryFrame())
    with pytest.raises(ModelError):
        line.inspect(frame)
    (done,) = line.give_up("model failed", 0)
    assert (done.part.id, done.decision.verdict) == (1, UNSURE)


def test_a_triggered_part_whose_frame_was_lost_is_unsure() -> None:
    frames = frames_of([Belt().picture(0)] * 5)
    done = decided(inspector(trigger=EveryFrame()), [frames[0], frames[3]])
    assert_once_each(done, 4)
    assert [i.decision.verdict for i in done] == [PASS, UNSURE, UNSURE, PASS]
    assert [i.part.first_frame for i in done] == [0, 1, 2, 3]
