"""From what was found on a part to its verdict: pure, and every verdict but PASS says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import Threshold
from pipeline.errors import ConfigError
from pipeline.recipe import DefectRule, Recipe, Zone
from pipeline.types import Box, Decision, Defect, Detections, Verdict

SAME_DEFECT = 0.6
"""Two boxes are one defect if their centres lie closer than this share of the stronger one's longer
side: a part's place is known to one cell of the trigger only, so views are off by some pixels."""

MAX_REASONS = 8


class Rulebook:
    """A recipe joined with a bundle's labels and thresholds."""

    def __init__(self, recipe: Recipe, thresholds: Mapping[str, Threshold]) -> None:
        """Check that the recipe names only labels that the bundle knows.

        Raises:
            ConfigError: it names another label, or unsure lies above fail.
        """
        self.recipe = recipe
        self._rules = {label: recipe.defects.get(label, DefectRule()) for label in thresholds}
        named = {*recipe.defects, *(label for zone in recipe.zones for label in zone.ignore)}
        if unknown := sorted(named - set(thresholds)):
            raise ConfigError(
                f"recipe '{recipe.name}': the model has no label '{unknown[0]}'; "
                f"it has: {', '.join(thresholds)}"
            )
        self._bands = {
            label: _band(recipe, label, rule, thresholds[label])
            for label, rule in self._rules.items()
        }

    @property
    def least_score(self) -> float:
        """Return the voted score below which a defect can change no verdict."""
        return min(band.unsure for band in self._bands.values())

    @property
    def least_detection(self) -> float:
        """Return the score from which detections are worth voting with.

        Half the lowest band: a view that sees a defect only weakly still counts in its mean.
        """
        return self.least_score / 2

    @property
    def one_fails(self) -> bool:
        """Return whether each defect whose score is high enough makes a part fail by itself."""
        tolerant = any(rule.allow or rule.min_size_px for rule in self._rules.values())
        return not (tolerant or self.recipe.zones)

    def band(self, label: str) -> Threshold:
        """Return the scores from which a defect of this class is unsure, and fails."""
        return self._bands[label]

    def decide(self, defects: Sequence[Defect], views: int, size: tuple[float, float]) -> Decision:
        """Judge a part.

        Args:
            defects: voted over the part's views.
            views: pictures of the whole part that were looked at.
            size: width and height of the part, pixels.
        """
        if views < self.recipe.min_views:
            return Decision(
                Verdict.UNSURE,
                (f"seen whole in {views} pictures; the recipe asks for {self.recipe.min_views}",),
            )
        counted = [d for d in defects if self._counts(d, size)]
        failing = [d for d in counted if d.score >= self._bands[d.label].fail]
        too_many = _beyond_allowance(failing, self._rules)
        if too_many:
            return Decision(Verdict.FAIL, _reasons(too_many))
        unsure = [
            d for d in counted if self._bands[d.label].unsure <= d.score < self._bands[d.label].fail
        ]
        open_cases = _beyond_allowance([*failing, *unsure], self._rules)
        if open_cases:
            return Decision(Verdict.UNSURE, _reasons([d for d in open_cases if d in unsure]))
        return Decision(Verdict.PASS)

    def is_sure(
        self, defects: Sequence[Defect], views: int, size: tuple[float, float], margin: float
    ) -> bool:
        """Return whether the verdict stays, and is not UNSURE, if all scores move by ``margin``.

        Args:
            defects, views, size: as for ``decide``.
            margin: of the score, 0..1, up and down.
        """
        verdicts = {
            self.decide([replace(d, score=d.score + by) for d in defects], views, size).verdict
            for by in (-margin, 0.0, margin)
        }
        return len(verdicts) == 1 and Verdict.UNSURE not in verdicts

    def _counts(self, defect: Defect, size: tuple[float, float]) -> bool:
        if defect.size_px < self._rules[defect.label].min_size_px:
            return False
        return not any(_ignores(zone, defect, size) for zone in self.recipe.zones)


_TINY = np.finfo(np.float32).tiny


def vote(views: Sequence[Detections], labels: Sequence[str]) -> tuple[Defect, ...]:
    """Merge the detections of several views of one part.

    Args:
        views: detections per view, pixels relative to the part's upper left corner.
        labels: class names.

    Returns:
        Defects, strongest first. A defect's score is the mean over all views, 0 where a view does
        not show it; its class is the one with the largest sum; its box the mean of its boxes.
    """
    if not any(map(len, views)):  # as most parts are
        return ()
    xyxy = np.concatenate([v.xyxy for v in views])
    score = np.concatenate([v.score for v in views])
    label = np.concatenate([v.label for v in views])
    view = np.repeat(np.arange(len(views)), [len(v) for v in views])
    defects = []
    free = np.ones(len(score), bool)
    for first in np.argsort(-score, kind="stable"):
        if free[first]:
            same = free & _same_place(xyxy, int(first))
            free &= ~same
            defects.append(
                _merged(xyxy[same], score[same], label[same], view[same], len(views), labels)
            )
    return tuple(sorted(defects, key=lambda d: -d.score))


def _same_place(xyxy: NDArray[np.float32], first: int) -> NDArray[np.bool_]:
    centre = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    side = (xyxy[first, 2:] - xyxy[first, :2]).max()
    near: NDArray[np.bool_] = np.abs(centre - centre[first]).max(axis=1) <= SAME_DEFECT * side
    return near


def _merged(
    xyxy: NDArray[np.float32],
    score: NDArray[np.float32],
    label: NDArray[np.int32],
    view: NDArray[np.intp],
    views: int,
    labels: Sequence[str],
) -> Defect:
    best = np.zeros(views, np.float64)
    np.maximum.at(best, view, score)
    per_label = np.bincount(label, weights=score, minlength=len(labels))
    # A threshold of 0 lets scores of 0 in, and those must not be divided by.
    weight = (score + _TINY)[:, None]
    box = (xyxy * weight).sum(axis=0) / weight.sum()
    x0, y0, x1, y1 = (round(float(v), 1) for v in box)
    return Defect(
        label=labels[int(per_label.argmax())],
        score=round(float(best.mean()), 4),
        xyxy=(x0, y0, x1, y1),
        votes=int((best > 0).sum()),
    )


def _band(recipe: Recipe, label: str, rule: DefectRule, default: Threshold) -> Threshold:
    fail = default.fail if rule.fail is None else rule.fail
    unsure = min(default.unsure, fail) if rule.unsure is None else rule.unsure
    if unsure > fail:
        raise ConfigError(
            f"recipe '{recipe.name}': {label}: unsure ({unsure}) must not lie above fail ({fail})"
        )
    return Threshold(fail=fail, unsure=unsure)


def _ignores(zone: Zone, defect: Defect, size: tuple[float, float]) -> bool:
    if zone.ignore and defect.label not in zone.ignore:
        return False
    x, y = Box(*defect.xyxy).centre
    x0, y0, x1, y1 = zone.xyxy
    return x0 * size[0] <= x < x1 * size[0] and y0 * size[1] <= y < y1 * size[1]


def _beyond_allowance(defects: Sequence[Defect], rules: Mapping[str, DefectRule]) -> list[Defect]:
    """Return the defects of those classes that show more of them than the recipe tolerates."""
    count: dict[str, int] = {}
    for defect in defects:
        count[defect.label] = count.get(defect.label, 0) + 1
    return [d for d in defects if count[d.label] > rules[d.label].allow]


def _reasons(defects: Sequence[Defect]) -> tuple[str, ...]:
    said = [
        f"{d.label} {d.score:.2f} at ({d.xyxy[0]:.0f}, {d.xyxy[1]:.0f}), {d.size_px:.0f} px"
        for d in defects[:MAX_REASONS]
    ]
    return (
        (*said, f"and {len(defects) - MAX_REASONS} more")
        if len(defects) > MAX_REASONS
        else tuple(said)
    )
