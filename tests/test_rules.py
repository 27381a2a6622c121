"""The quality engineer's page, case by case: what passes, fails, and is left to a person."""

import json
from typing import Any

import pytest

from pipeline.bundle import Threshold
from pipeline.errors import ConfigError
from pipeline.recipe import Recipe
from pipeline.rules import MAX_REASONS, Rulebook, vote
from pipeline.types import Defect, Detections, Verdict
from tests.doubles import detections

LABELS = ("dent", "scratch")
THRESHOLDS = {label: Threshold(fail=0.5, unsure=0.3) for label in LABELS}
SIZE = (200.0, 100.0)
PASS, FAIL, UNSURE = Verdict.PASS, Verdict.FAIL, Verdict.UNSURE


def rulebook(**page: Any) -> Rulebook:
    return Rulebook(Recipe.model_validate_json(json.dumps({"name": "board-a", **page})), THRESHOLDS)


def dent(score: float, x: float = 50, y: float = 50, side: float = 10) -> Defect:
    half = side / 2
    return Defect("dent", score, (x - half, y - half, x + half, y + half), 1)


def scratch(score: float) -> Defect:
    return Defect("scratch", score, (10, 10, 30, 12), 1)


CASES: dict[str, tuple[dict[str, Any], list[Defect], Verdict]] = {
    "nothing found": ({}, [], PASS),
    "below unsure": ({}, [dent(0.29)], PASS),
    "at unsure": ({}, [dent(0.3)], UNSURE),
    "just below fail": ({}, [dent(0.499)], UNSURE),
    "at fail": ({}, [dent(0.5)], FAIL),
    "one fails, one is unsure": ({}, [dent(0.9), scratch(0.4)], FAIL),
    "recipe fails earlier": ({"defects": {"dent": {"fail": 0.2}}}, [dent(0.25)], FAIL),
    "recipe fails later": ({"defects": {"dent": {"fail": 0.95}}}, [dent(0.9)], UNSURE),
    "recipe has no unsure band": (
        {"defects": {"dent": {"fail": 0.5, "unsure": 0.5}}}, [dent(0.49)], PASS),
    "unsure from nothing": ({"defects": {"dent": {"unsure": 0.0}}}, [dent(0.0)], UNSURE),
    "too small": ({"defects": {"dent": {"min_size_px": 10.5}}}, [dent(0.9)], PASS),
    "just large enough": ({"defects": {"dent": {"min_size_px": 10}}}, [dent(0.9)], FAIL),
    "the longer side counts": (
        {"defects": {"scratch": {"min_size_px": 20}}}, [scratch(0.9)], FAIL),
    "as many as allowed": ({"defects": {"dent": {"allow": 2}}}, [dent(0.9), dent(0.8, 90)], PASS),
    "one more than allowed": (
        {"defects": {"dent": {"allow": 2}}}, [dent(0.9), dent(0.8, 90), dent(0.7, 130)], FAIL),
    "perhaps one more than allowed": (
        {"defects": {"dent": {"allow": 1}}}, [dent(0.9), dent(0.4, 90)], UNSURE),
    "allowed ones are counted per class": (
        {"defects": {"dent": {"allow": 1}}}, [dent(0.9), scratch(0.9)], FAIL),
    "small ones use up no allowance": (
        {"defects": {"dent": {"allow": 1, "min_size_px": 8}}},
        [dent(0.9), dent(0.9, 90, side=4)], PASS),
    "inside a zone": ({"zones": [{"name": "a", "xyxy": (0, 0, 0.5, 1)}]}, [dent(0.9, 99)], PASS),
    "beside a zone": ({"zones": [{"name": "a", "xyxy": (0, 0, 0.5, 1)}]}, [dent(0.9, 101)], FAIL),
    "above a zone": ({"zones": [{"name": "a", "xyxy": (0, 0.6, 1, 1)}]}, [dent(0.9, 99)], FAIL),
    "a zone for another class": (
        {"zones": [{"name": "a", "xyxy": (0, 0, 1, 1), "ignore": ["scratch"]}]},
        [dent(0.9)], FAIL),
    "a zone for this class": (
        {"zones": [{"name": "a", "xyxy": (0, 0, 1, 1), "ignore": ["dent"]}]}, [dent(0.9)], PASS),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_on(case: str) -> None:
    page, defects, expected = CASES[case]
    decision = rulebook(**page).decide(defects, 1, SIZE)
    assert decision.verdict is expected
    assert bool(decision.reasons) == (expected is not PASS)


@pytest.mark.parametrize(("views", "expected"), [(0, UNSURE), (2, UNSURE), (3, PASS), (9, PASS)])
def test_a_part_needs_its_views(views: int, expected: Verdict) -> None:
    assert rulebook(min_views=3).decide([], views, SIZE).verdict is expected


def test_a_part_that_was_never_looked_at_does_not_pass() -> None:
    decision = rulebook().decide([], 0, SIZE)
    assert decision.verdict is UNSURE
    assert "seen whole in 0 pictures" in decision.reasons[0]


@pytest.mark.parametrize(
    ("defects", "margin", "sure"),
    [
        ([], 0.2, True),
        ([dent(0.75)], 0.2, True),
        ([dent(0.65)], 0.2, False),  # might become UNSURE
        ([dent(0.4)], 0.0, False),  # is UNSURE
        ([dent(0.05)], 0.2, True),
        ([dent(0.15)], 0.2, False),  # might become UNSURE
        ([dent(0.9), scratch(0.4)], 0.2, True),  # one fails, whatever the other does
    ],
)
def test_a_verdict_is_sure_when_no_score_can_carry_it_elsewhere(
    defects: list[Defect], margin: float, sure: bool
) -> None:
    assert rulebook().is_sure(defects, 2, SIZE, margin) is sure


def test_a_part_that_has_not_had_its_views_is_not_sure() -> None:
    assert not rulebook(min_views=2).is_sure([dent(0.9)], 1, SIZE, 0.1)


def test_the_reasons_name_class_score_place_and_size() -> None:
    assert rulebook().decide([dent(0.912)], 1, SIZE).reasons == ("dent 0.91 at (45, 45), 10 px",)


def test_the_reasons_of_unsure_are_the_unsure_ones() -> None:
    page = {"defects": {"dent": {"allow": 1}}}
    (reason,) = rulebook(**page).decide([dent(0.9), dent(0.4, 90)], 1, SIZE).reasons
    assert "0.40" in reason


def test_the_list_of_reasons_is_bounded() -> None:
    defects = [dent(0.9, 10 * i) for i in range(MAX_REASONS + 5)]
    reasons = rulebook().decide(defects, 1, SIZE).reasons
    assert (len(reasons), reasons[-1]) == (MAX_REASONS + 1, "and 5 more")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"defects": {"rust": {}}}, "no label 'rust'; it has: dent, scratch"),
        (
            {"zones": [{"name": "a", "xyxy": (0, 0, 1, 1), "ignore": ["rust"]}]},
            "no label 'rust'; it has: dent, scratch",
        ),
        ({"defects": {"dent": {"unsure": 0.6}}}, r"dent: unsure \(0.6\) must not lie above fail"),
    ],
)
def test_a_recipe_that_does_not_fit_the_model_is_refused(page: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rulebook(**page)


def test_weak_detections_are_asked_for_down_to_half_the_lowest_band() -> None:
    rules = rulebook(defects={"scratch": {"unsure": 0.1}})
    assert (rules.least_score, rules.least_detection) == (0.1, 0.05)
    assert rules.band("dent") == Threshold(fail=0.5, unsure=0.3)


# --- the vote over several views


def test_nothing_seen_is_no_defect() -> None:
    assert vote([], LABELS) == ()
    assert vote([Detections.none()] * 3, LABELS) == ()


def test_the_score_is_the_mean_over_all_views() -> None:
    seen = detections((10, 10, 20, 20, 0.9, 0))
    (defect,) = vote([seen, Detections.none(), seen], LABELS)
    assert (defect.label, defect.score, defect.votes) == ("dent", 0.6, 2)


def test_the_class_is_the_one_with_the_largest_sum() -> None:
    views = [
        detections((10, 10, 20, 20, 0.7, 0)),
        detections((10, 10, 20, 20, 0.4, 1)),
        detections((10, 10, 20, 20, 0.4, 1)),
    ]
    (defect,) = vote(views, LABELS)
    assert (defect.label, defect.score) == ("scratch", 0.5)


def test_boxes_that_jitter_merge_into_their_mean() -> None:
    views = [detections((10 + d, 20 - d, 30 + d, 40 - d, 0.8, 0)) for d in (-6, 0, 6)]
    (defect,) = vote(views, LABELS)
    assert (defect.xyxy, defect.votes) == ((10, 20, 30, 40), 3)


def test_a_class_seen_twice_in_one_view_counts_once() -> None:
    (defect,) = vote([detections((0, 0, 9, 9, 0.8, 0), (1, 0, 10, 9, 0.6, 1))], LABELS)
    assert (defect.label, defect.score, defect.votes) == ("dent", 0.8, 1)


def test_neighbours_stay_apart() -> None:
    view = detections((0, 0, 20, 20, 0.9, 0), (22, 0, 42, 20, 0.8, 0), (0, 30, 20, 50, 0.7, 0))
    assert [d.score for d in vote([view] * 3, LABELS)] == [0.9, 0.8, 0.7]


def test_the_strongest_comes_first() -> None:
    weak_twice = detections((0, 0, 9, 9, 0.5, 0))
    strong_once = detections((0, 0, 9, 9, 0.5, 0), (60, 0, 69, 9, 0.9, 1))
    assert [d.label for d in vote([weak_twice, strong_once], LABELS)] == ["dent", "scratch"]


def test_scores_of_zero_are_voted_with() -> None:
    (defect,) = vote([detections((0, 0, 9, 9, 0, 0))], LABELS)
    assert (defect.score, defect.xyxy) == (0, (0, 0, 9, 9))
