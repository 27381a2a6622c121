"""Chooses from which score a class makes a part fail or unsure, on pictures that are not test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import Threshold
from pipeline.lab.evaluate import MATCH_IOU, Looked
from pipeline.vision.geometry import iou

LOWEST, HIGHEST = 0.15, 0.70
FALSE_ALARM_COST = 2.0
"""A false alarm costs as much as so many missed defects: what is weaker than the fail score is
UNSURE still, and a line carries far more good parts than bad ones."""

UNSURE_SHARE = 0.6
"""The unsure band reaches down to this share of the fail score."""


def choose(looked: Sequence[Looked], labels: Sequence[str]) -> dict[str, Threshold]:
    """Return per label the fail score with the best F-measure on ``looked``, within sane limits.

    The measure is van Rijsbergen's with beta^2 = 1 / FALSE_ALARM_COST.

    A class that the part does not hold gets the middle of the limits.
    """
    return {label: _threshold(looked, i) for i, label in enumerate(labels)}


def _threshold(looked: Sequence[Looked], label: int) -> Threshold:
    score, right, true = _curve(looked, label)
    if true == 0 or len(score) == 0:
        fail = (LOWEST + HIGHEST) / 2
    else:
        hits = np.cumsum(right)
        found = np.arange(1, len(score) + 1)
        measure = (1 + FALSE_ALARM_COST) * hits / (true + FALSE_ALARM_COST * found)
        best = measure >= measure.max() - 1e-9
        # Between the last score that helps and the next one below lies the best cut.
        last = int(np.flatnonzero(best)[-1])
        below = score[last + 1] if last + 1 < len(score) else 0.0
        fail = float(np.clip((score[last] + below) / 2, LOWEST, HIGHEST))
    return Threshold(fail=round(fail, 3), unsure=round(fail * UNSURE_SHARE, 3))


def _curve(
    looked: Sequence[Looked], label: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return one class's scores, highest first, whether each found a defect, and the defects."""
    scores, rights, true = [], [], 0
    for item in looked:
        known = item.true[item.true.label == label]
        found = item.found[item.found.label == label]
        found = found[np.argsort(-found.score, kind="stable")]
        true += len(known)
        scores.append(found.score.astype(np.float64))
        rights.append(_right(known.xyxy, found.xyxy))
    score, right = np.concatenate(scores), np.concatenate(rights)
    order = np.argsort(-score, kind="stable")
    return score[order], right[order], true


def _right(known: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return 1 for each box, strongest first, that is the first to find a true one, else 0."""
    right = np.zeros(len(found))
    if len(known) == 0:
        return right
    overlap = iou(found, known)
    free = np.ones(len(known), bool)
    for i in range(len(found)):
        best = int(np.where(free, overlap[i], -1).argmax())
        if free[best] and overlap[i, best] >= MATCH_IOU:
            free[best], right[i] = False, 1.0
    return right
