"""The frame's way from exposure to verdict, the same for all callers: no threads, I/O or clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.light import Light
from pipeline.rules import Rulebook, vote
from pipeline.tracking import BeltTracker, Track
from pipeline.triggers import Trigger
from pipeline.types import (
    Box,
    Decision,
    Defect,
    Detections,
    Frame,
    Image,
    Inspection,
    Part,
    Sighting,
    Verdict,
)

ENDLESS_FRAMES = 90
"""Frames that one part may fill from edge to edge. Such a part is never seen whole: a view that is
shorter than the parts is a mistake in any case."""

MAX_DEFECTS = 100
"""Defects that are kept of one part, strongest first: a record stays below its 64 KiB."""


class FindsDefects(Protocol):
    """The part of a detector that an inspection needs."""

    labels: tuple[str, ...]

    def detect_at(self, image: Image, box: Box) -> Detections:
        """Return the defects of the part at ``box``, pixels of ``image``."""


@dataclass(slots=True)
class _Case:
    """What is known of a part in view."""

    part: Part
    views: list[Detections] = field(default_factory=list)
    picture: Image | None = None
    picture_box: Box | None = None
    picture_view: int = -1
    """Which of the views shows the picture."""
    strongest: float = -1.0
    next_view_px: float = 0.0
    """Way along the belt after which the next view is taken, from where it was first whole."""
    places: int = 0
    """Places on its way where a view was due, taken or not."""
    sure: bool = False
    decided: InView | None = None
    """What was said of it; its pictures are let go then."""
    doubt: str | None = None
    """Why what was seen of it cannot be trusted."""


@dataclass(frozen=True, slots=True)
class InView:
    """A part as the newest frame shows it.

    Attributes:
        part: as last seen.
        size: width and height of the whole part, pixels; an edge of the frame may cut its box.
        decision: None until it is decided.
        defects: what was found, strongest first; empty until it is decided.
    """

    part: Part
    size: tuple[float, float]
    decision: Decision | None = None
    defects: tuple[Defect, ...] = ()


class Inspector:
    """Follows parts through the frames and decides each exactly once.

    Args:
        views: pictures of one part that are looked at, at most, spread evenly over its way.
        decide_at: share of the frame along the belt where parts are decided, or None.
        sure_by: stop looking at a part once its verdict stays the same if all of its scores move
            by this much; None takes all views. The moment of its verdict stays the same.
        light: judges how the parts are lit; None does not.

    Attributes:
        fault: why what is seen now cannot be trusted, or None; parts in view become UNSURE.
    """

    def __init__(
        self,
        trigger: Trigger,
        detector: FindsDefects,
        rulebook: Rulebook,
        *,
        views: int = 5,
        lost_after_frames: int = 3,
        decide_at: float | None = None,
        sure_by: float | None = None,
        light: Light | None = None,
    ) -> None:
        self.trigger = trigger
        self._light = light or Light(None, learns=False)
        self._detector = detector
        self._rulebook = rulebook
        self._views = views
        self._decide_at = decide_at
        self._sure_by = sure_by
        self._tracker = BeltTracker(trigger.axis, lost_after_frames)
        self._cases: dict[int, _Case] = {}
        self._shots = 0
        self._last_seq = 0
        self._covered = 0
        self._doubted_at = -1
        self.fault: str | None = None

    @property
    def follows(self) -> bool:
        """Return whether parts are followed through frames that come all the time."""
        return self.trigger.tracks

    def inspect(self, frame: Frame) -> tuple[Inspection, ...]:
        """Take the next frame and return the parts that it decides.

        Raises:
            ModelError: the model failed; the parts in view are still undecided: see ``give_up``.
        """
        sightings = self.trigger.sightings(frame)
        self._last_seq = frame.seq
        if not self.trigger.tracks:
            return self._decide_each(frame, sightings)
        self._judge_view(frame, sightings)
        followed = self._tracker.follow(frame, sightings)
        for track in followed.present:
            self._case(track.part).part = track.part
        self._judge_light(frame, followed.present)
        self._doubt_all()
        for track in followed.present:
            self._look(frame, track)
        # A part that crossed a dim picture does not prove that the belt is the one it was.
        if self._light.fault is None and any(self._has_crossed(frame, t) for t in followed.left):
            self.trigger.crossed()
        due = [t for t in followed.present if self._is_due(frame, t)]
        done = self._decided([t.part.id for t in (*due, *followed.left)], frame.t_ns)
        for track in followed.left:
            del self._cases[track.part.id]
        return done

    def give_up(self, reason: str, t_ns: int) -> tuple[Inspection, ...]:
        """Decide every undecided part in view as UNSURE: what comes next tells nothing of it."""
        self._tracker.drop_all()
        done = self._decided(tuple(self._cases), t_ns, Decision(Verdict.UNSURE, (reason,)))
        self._cases.clear()
        return (*done, *self._unseen(None, t_ns, reason))

    def finish(self, t_ns: int) -> tuple[Inspection, ...]:
        """Decide, at the end of a recording, the parts that were seen whole and are due."""
        tracks = self._tracker.drop_all()
        done = self._decided(
            [t.part.id for t in tracks if t.entered is not None and self._decide_at is None], t_ns
        )
        self._cases.clear()
        return (*done, *self._unseen(None, t_ns, "the recording ended before a frame showed it"))

    def _judge_view(self, frame: Frame, sightings: Iterable[Sighting]) -> None:
        """Be at fault while the trigger is, or while one part fills the view and does not end.

        A covered lens, a lamp that is out and a jammed belt all look like that: no part comes any
        more, none is decided, and all would seem well.
        """
        spans = [self._tracker.span(s.box) for s in sightings]
        length = self._length(frame)
        filled = any(start <= 0 and end >= length for start, end in spans)
        self._covered = self._covered + 1 if filled else 0
        was, self.fault = self.fault, self.trigger.fault
        if self.fault is None and self._covered > ENDLESS_FRAMES:
            self.fault = (
                f"one part has filled the view for {self._covered} frames; is the lens covered, "
                "the lamp out, or the belt jammed?"
            )
        if was is None and self.fault is not None:
            self._doubted_at = frame.seq

    def _judge_light(self, frame: Frame, present: Iterable[Track]) -> None:
        shown = ((t.part.id, t.sighting.box) for t in present if t.sighting and t.sighting.whole)
        self._light.see(frame.image, shown)
        self.fault = self._light.fault or self.fault

    def _has_crossed(self, frame: Frame, track: Track) -> bool:
        """Tell whether a part that has left was seen whole and moved through half of the view.

        One that was in view when the fault began says nothing: it may have vanished with the rest.
        """
        if track.entered is None or track.part.first_frame <= self._doubted_at:
            return False
        moved = sum(self._tracker.span(track.part.box)) / 2 - track.entered
        return abs(moved) > self._length(frame) / 2

    def _doubt_all(self) -> None:
        if self.fault is not None:
            for case in self._cases.values():
                case.doubt = case.doubt or self.fault

    def in_view(self) -> tuple[InView, ...]:
        """Return the parts that are being followed, decided or not."""
        return tuple(
            replace(case.decided, part=case.part)
            if case.decided
            else InView(case.part, (case.part.box.width, case.part.box.height))
            for case in self._cases.values()
        )

    def _decide_each(self, frame: Frame, sightings: Iterable[Sighting]) -> tuple[Inspection, ...]:
        """Take every sighting as a part of its own, seen this once."""
        reason = "its exposure was lost before it was looked at"
        missed = self._unseen(frame, frame.t_ns, reason)
        for sighting in sightings:
            self._open_shot(frame.seq, frame.t_ns, sighting.box, sighting.part)
        self._light.see(frame.image, ((c.part.id, c.part.box) for c in self._cases.values()))
        self.fault = self._light.fault
        self._doubt_all()
        for case in self._cases.values():
            self._add_view(case, frame, case.part.box)
        done = self._decided(tuple(self._cases), frame.t_ns)
        self._cases.clear()
        return (*missed, *done)

    def _unseen(self, frame: Frame | None, t_ns: int, reason: str) -> tuple[Inspection, ...]:
        """Decide the parts that were announced and that no frame will show."""
        done: list[Inspection] = []
        for lost in self.trigger.unseen(frame):
            seq = self._last_seq if lost.frame is None else lost.frame
            part = self._open_shot(seq, t_ns, lost.box, lost.part)
            decision = lost.decision or Decision(Verdict.UNSURE, (reason,))
            done += self._decided((part,), t_ns, decision)
            del self._cases[part]
        return tuple(done)

    def _open_shot(self, seq: int, t_ns: int, box: Box, part: int | None) -> int:
        self._shots = self._shots + 1 if part is None else part
        self._case(Part(self._shots, t_ns, seq, seq, box))
        return self._shots

    def _case(self, part: Part) -> _Case:
        return self._cases.setdefault(part.id, _Case(part))

    def _look(self, frame: Frame, track: Track) -> None:
        """Take a view of a part that has moved far enough since the last one."""
        case = self._case(track.part)
        sighting, entered = track.sighting, track.entered
        if case.decided is not None or sighting is None or not sighting.whole or entered is None:
            return
        start, end = self._tracker.span(sighting.box)
        moved = abs((start + end) / 2 - entered)
        if case.places < self._views and moved >= case.next_view_px:
            line = self._line(frame)
            way = self._length(frame) - (end - start) if line is None else abs(line - entered)
            step = max(way / self._views, 1.0)
            # Views that a fast part missed are not made up for: they would show one place twice.
            case.next_view_px = (moved // step + 1) * step
            case.places += 1
            # When it is decided does not depend on how often it had to be looked at.
            if not case.sure:
                self._add_view(case, frame, sighting.box)

    def _add_view(self, case: _Case, frame: Frame, box: Box) -> None:
        found = self._detector.detect_at(frame.image, box)
        case.views.append(found.shifted(-box.x0, -box.y0))
        strongest = float(found.score.max()) if len(found) else 0.0
        if strongest > case.strongest:
            case.strongest, case.picture, case.picture_box = strongest, frame.image, box
            case.picture_view = len(case.views) - 1
        if self._sure_by is not None and len(case.views) < self._views:
            defects = vote(case.views, self._detector.labels)
            size = (box.width, box.height)
            case.sure = self._rulebook.is_sure(defects, len(case.views), size, self._sure_by)

    def _is_due(self, frame: Frame, track: Track) -> bool:
        if track.entered is None:
            return False
        line = self._line(frame)
        if line is None:
            leaving = track.sighting is None or not track.sighting.whole
            case = self._cases[track.part.id]
            return leaving or case.places >= self._views
        start, end = self._tracker.span(track.part.box)
        # Not "has crossed": a fast part may be past the line when it is first seen whole.
        return ((start + end) / 2 - line) * self._tracker.direction > 0

    def _length(self, frame: Frame) -> int:
        return int(frame.image.shape[1 if self.trigger.axis == "x" else 0])

    def _line(self, frame: Frame) -> float | None:
        return None if self._decide_at is None else self._decide_at * self._length(frame)

    def _decided(
        self, ids: Iterable[int], t_ns: int, given: Decision | None = None
    ) -> tuple[Inspection, ...]:
        """Decide those parts that are still open; a part is never decided twice."""
        done = []
        for case in (self._cases[id] for id in sorted(ids)):
            if case.decided is None:
                closed = self._closed(case, t_ns, given)
                done.append(closed)
                self._cases[case.part.id] = _Case(case.part, decided=in_view(closed))
        return tuple(done)

    def _closed(self, case: _Case, t_ns: int, given: Decision | None = None) -> Inspection:
        defects = vote(case.views, self._detector.labels)
        # Where it was last seen it may already be cut: a view shows the part's whole size.
        shown = case.picture_box or case.part.box
        size = (shown.width, shown.height)
        if given is None and case.doubt is not None:
            given = Decision(Verdict.UNSURE, (case.doubt,))
        decision = given or self._rulebook.decide(defects, len(case.views), size)
        return Inspection(
            part=case.part,
            decision=decision,
            defects=tuple(d for d in defects if d.score >= self._rulebook.least_score)[
                :MAX_DEFECTS
            ],
            views=len(case.views),
            picture=case.picture,
            picture_box=case.picture_box,
            picture_verdict=self._verdict_of_picture(case),
            stamps={"exposed": t_ns},
        )

    def _verdict_of_picture(self, case: _Case) -> Verdict | None:
        """Judge the kept picture alone: it is what can be run again, view by view is not kept."""
        if case.picture_box is None:
            return None
        found = case.views[case.picture_view]
        size = (case.picture_box.width, case.picture_box.height)
        return judged_alone(found, self._detector.labels, self._rulebook, len(case.views), size)


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
