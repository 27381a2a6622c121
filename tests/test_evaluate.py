"""Evaluation against answers that are known by construction."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.bundle import Threshold
from pipeline.lab import thresholds
from pipeline.lab.evaluate import Looked, average_precision, recalls, verdicts
from pipeline.quality.intervals import Share
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook
from pipeline.types import Detections, Verdict

LABELS = ("scratch", "dent")
LIMITS = {label: Threshold(fail=0.5, unsure=0.3) for label in LABELS}


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(len(rows), 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def looked(true: Detections, seen: Detections) -> Looked:
    return Looked(Path("a.png"), 100, 100, true, seen)


HERE = (10, 10, 30, 30)
THERE = (60, 60, 80, 80)


def test_a_perfect_detector_has_an_average_precision_of_one() -> None:
    pictures = [
        looked(found((*HERE, 1, 0), (*THERE, 1, 1)), found((*HERE, 0.9, 0), (*THERE, 0.8, 1)))
    ]
    figures = average_precision(pictures, LABELS)
    assert figures["map33"] == figures["map50"] == figures["map50_95"] == 1.0
    assert figures["per_class"]["dent"] == {"ap33": 1.0, "ap50": 1.0, "ap50_95": 1.0}


def test_a_blind_detector_has_none() -> None:
    figures = average_precision([looked(found((*HERE, 1, 0)), Detections.none())], LABELS)
    assert figures["map50"] == 0.0
    assert figures["per_class"]["dent"]["ap50"] is None  # there was no dent to find


def test_a_box_that_is_off_counts_at_a_low_overlap_only() -> None:
    shifted = (14, 10, 34, 30)  # IoU 16/24
    figures = average_precision([looked(found((*HERE, 1, 0)), found((*shifted, 0.9, 0)))], LABELS)
    assert figures["map50"] == 1.0
    assert figures["map50_95"] == pytest.approx(0.4)  # 0.50, 0.55, 0.60, 0.65


def test_the_overlap_of_the_data_sets_own_paper_is_a_third() -> None:
    shifted = (19, 10, 39, 30)  # IoU 11/29 = 0.38
    figures = average_precision([looked(found((*HERE, 1, 0)), found((*shifted, 0.9, 0)))], LABELS)
    assert (figures["map33"], figures["map50"], figures["map50_95"]) == (1.0, 0.0, 0.0)


def test_recall_is_taken_at_the_score_from_which_a_part_fails() -> None:
    book = Rulebook(Recipe(name="r"), LIMITS)
    pictures = [
        looked(found((*HERE, 1, 0)), found((*HERE, 0.6, 0))),
        looked(found((*HERE, 1, 0)), found((*HERE, 0.4, 0))),
        looked(found((*HERE, 1, 0)), found((*HERE, 0.9, 1))),
    ]
    assert recalls(pictures, book, LABELS)["scratch"] == Share(1, 3)


def test_a_picture_gets_the_verdict_of_a_part() -> None:
    book = Rulebook(Recipe(name="r"), LIMITS)
    seen = [found((*HERE, 0.6, 0)), found((*HERE, 0.4, 1)), found((*HERE, 0.2, 1))]
    judged = verdicts([looked(Detections.none(), s) for s in seen], book, LABELS)
    assert judged == [Verdict.FAIL, Verdict.UNSURE, Verdict.PASS]


def test_the_threshold_lies_between_right_and_wrong_detections() -> None:
    true = found((*HERE, 1, 0))
    pictures = [looked(true, found((*HERE, 0.6, 0), (*THERE, 0.2, 0))) for _ in range(5)]
    chosen = thresholds.choose(pictures, LABELS)["scratch"]
    assert chosen.fail == pytest.approx(0.4)
    assert chosen.unsure < chosen.fail


def test_a_second_box_on_one_defect_is_a_false_one() -> None:
    true = found((*HERE, 1, 0))
    pictures = [looked(true, found((*HERE, 0.6, 0), (*HERE, 0.5, 0))) for _ in range(5)]
    assert thresholds.choose(pictures, LABELS)["scratch"].fail == pytest.approx(0.55)


@pytest.mark.parametrize(("false_alarms", "fail"), [(1, 0.15), (2, 0.55)])
def test_a_false_alarm_on_a_good_board_costs_as_much_as_two_missed_defects(
    false_alarms: int, fail: float
) -> None:
    true = found((*HERE, 1, 0))
    strong = [looked(true, found((*HERE, 0.7, 0))) for _ in range(20)]
    weak = [looked(true, found((*HERE, 0.3, 0))) for _ in range(3)]
    good = [looked(Detections.none(), found((*HERE, 0.4, 0))) for _ in range(false_alarms)]
    chosen = thresholds.choose([*strong, *weak, *good], LABELS)["scratch"]
    assert chosen.fail == pytest.approx(fail)


def test_figures_can_be_written_as_json(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    figures = average_precision([looked(found((*HERE, 1, 0)), found((*HERE, 0.9, 0)))], LABELS)
    assert json.loads(json.dumps(figures)) == figures
