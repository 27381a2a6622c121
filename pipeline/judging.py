"""From what was seen of a part to its verdict: the vote over its views, and the rules; pure."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.casework import Case, InView
from pipeline.rules import Rulebook, vote
from pipeline.types import Decision, Detections, Inspection, Verdict

MAX_DEFECTS = 100
"""Defects that are kept of one part, strongest first: a record stays below its 64 KiB."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides by a rulebook.

    Attributes:
        labels: of the detector, in its order.
    """

    rulebook: Rulebook
    labels: tuple[str, ...]

    def is_sure(self, case: Case, size: tuple[float, float], sure_by: float) -> bool:
        """Tell whether more views could hardly change the verdict; see ``Rulebook.is_sure``."""
        defects = vote(case.views, self.labels)
        return self.rulebook.is_sure(defects, len(case.views), size, sure_by)

    def close(self, case: Case, t_ns: int, given: Decision | None = None) -> Inspection:
        """Decide a part.

        Args:
            t_ns: exposure of the frame that led to it, monotonic.
            given: the decision, where it is not the model's; None asks the rules.
        """
        defects = vote(case.views, self.labels)
        # Where it was last seen it may already be cut: a view shows the part's whole size.
        shown = case.picture_box or case.part.box
        size = (shown.width, shown.height)
        if given is None and case.doubt is not None:
            given = Decision(Verdict.UNSURE, (case.doubt,))
        kept = [d for d in defects if d.score >= self.rulebook.least_score]
        said = self.rulebook.decide(defects, len(case.views), size)
        return Inspection(
            part=case.part,
            decision=given or said,
            defects=tuple(kept[:MAX_DEFECTS]),
            views=len(case.views),
            picture=case.picture,
            picture_box=case.picture_box,
            picture_verdict=self._verdict_of_picture(case, said, size),
            stamps={"exposed": t_ns},
        )

    def _verdict_of_picture(
        self, case: Case, of_all: Decision, size: tuple[float, float]
    ) -> Verdict | None:
        """Judge the kept picture alone: it is what can be run again, view by view is not kept."""
        if case.picture_box is None or case.picture_view < 0:
            return None
        if len(case.views) == 1:  # the vote over all views is of this one
            return of_all.verdict
        found = case.views[case.picture_view]
        return judged_alone(found, self.labels, self.rulebook, len(case.views), size)


def judged_alone(
    found: Detections,
    labels: tuple[str, ...],
    rulebook: Rulebook,
    views: int,
    size: tuple[float, float],
) -> Verdict:
    """Return the verdict that one view of a part would give.

    Args:
        found: in pixels relative to the part.
        views: pictures of the part that were looked at; the recipe may ask for some.
        size: width and height of the part, pixels.
    """
    return rulebook.decide(vote([found], labels), views, size).verdict


def in_view(inspection: Inspection) -> InView:
    """Return a decided part without its pictures."""
    shown = inspection.picture_box or inspection.part.box
    size = (shown.width, shown.height)
    return InView(inspection.part, size, inspection.decision, inspection.defects)
