"""The frame's way from exposure to verdict, the same for all callers: no threads, I/O or clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.rules import Rulebook, vote
from pipeline.tracking import BeltTracker, Track
from pipeline.triggers import Trigger
from pipeline.types import (
    Box,
    Decision,
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
    strongest: float = -1.0
    next_view_px: float = 0.0
    """Way along the belt after which the next view is taken, from where it was first whole."""
    decided: bool = False
    doubt: str | None = None
    """Why what was seen of it cannot be trusted."""


class Inspector:
    """Follows parts through the frames and decides each exactly once.

    Args:
        views: pictures of one part that are looked at, at most, spread evenly over its way.
        decide_at: share of the frame along the belt where parts are decided, or None.

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
    ) -> None:
        self._trigger = trigger
        self._detector = detector
        self._rulebook = rulebook
        self._views = views
        self._decide_at = decide_at
        self._tracker = BeltTracker(trigger.axis, lost_after_frames)
        self._cases: dict[int, _Case] = {}
        self._shots = 0
        self._next_seq: int | None = None
        self._covered = 0
        self.fault: str | None = None

    @property
    def follows(self) -> bool:
        """Return whether parts are followed through frames that come all the time."""
        return self._trigger.tracks

    def inspect(self, frame: Frame) -> tuple[Inspection, ...]:
        """Take the next frame and return the parts that it decides.

        Raises:
            ModelError: the model failed; the parts in view are still undecided: see ``give_up``.
        """
        sightings = self._trigger.sightings(frame)
        if not self._trigger.tracks:
            return self._decide_each(frame, sightings)
        self._judge_view(frame, sightings)
        followed = self._tracker.follow(frame, sightings)
        for track in followed.present:
            self._case(track.part).part = track.part
        self._doubt_all()
        for track in followed.present:
            self._look(frame, track)
        if any(self._has_crossed(frame, t) for t in followed.left):
            self._trigger.crossed()
        due = [t for t in followed.present if self._is_due(frame, t)]
        done = self._decided([t.part.id for t in (*due, *followed.left)], frame.t_ns)
        for track in followed.left:
            del self._cases[track.part.id]
        return done

    def give_up(self, reason: str, t_ns: int) -> tuple[Inspection, ...]:
        """Decide every undecided part in view as UNSURE: what comes next tells nothing of it."""
        self._tracker.drop_all()
        done = self._decided(tuple(self._cases), t_ns, unsure=reason)
        self._cases.clear()
        return done

    def finish(self, t_ns: int) -> tuple[Inspection, ...]:
        """Decide, at the end of a recording, the parts that were seen whole and are due."""
        tracks = self._tracker.drop_all()
        done = self._decided(
            [t.part.id for t in tracks if t.entered is not None and self._decide_at is None], t_ns
        )
        self._cases.clear()
        return done

    def _judge_view(self, frame: Frame, sightings: Iterable[Sighting]) -> None:
        """Be at fault while the trigger is, or while one part fills the view and does not end.

        A covered lens, a lamp that is out and a jammed belt all look like that: no part comes any
        more, none is decided, and all would seem well.
        """
        spans = [self._tracker.span(s.box) for s in sightings]
        length = self._length(frame)
        filled = any(start <= 0 and end >= length for start, end in spans)
        self._covered = self._covered + 1 if filled else 0
        self.fault = self._trigger.fault
        if self.fault is None and self._covered > ENDLESS_FRAMES:
            self.fault = (
                f"one part has filled the view for {self._covered} frames; is the lens covered, "
                "the lamp out, or the belt jammed?"
            )

    def _has_crossed(self, frame: Frame, track: Track) -> bool:
        """Tell whether a part that has left was seen whole and moved through half of the view."""
        if track.entered is None:
            return False
        moved = sum(self._tracker.span(track.part.box)) / 2 - track.entered
        return abs(moved) > self._length(frame) / 2

    def _doubt_all(self) -> None:
        if self.fault is not None:
            for case in self._cases.values():
                case.doubt = case.doubt or self.fault

    def _decide_each(self, frame: Frame, sightings: Iterable[Sighting]) -> tuple[Inspection, ...]:
        """Take every sighting as a part of its own, seen this once."""
        missed = self._missed(frame)
        for sighting in sightings:
            self._open_shot(frame.seq, frame.t_ns, sighting.box)
        for case in self._cases.values():
            self._add_view(case, frame, case.part.box)
        done = self._decided(tuple(self._cases), frame.t_ns)
        self._cases.clear()
        return (*missed, *done)

    def _missed(self, frame: Frame) -> tuple[Inspection, ...]:
        """Decide the parts whose exposures did not come here: each of them was one."""
        height, width = frame.image.shape[:2]
        for seq in range(self._next_seq or frame.seq, frame.seq):
            self._open_shot(seq, frame.t_ns, Box(0, 0, width, height))
        self._next_seq = frame.seq + 1
        return self.give_up("its exposure was lost before it was looked at", frame.t_ns)

    def _open_shot(self, seq: int, t_ns: int, box: Box) -> None:
        self._shots += 1
        self._case(Part(self._shots, t_ns, seq, seq, box))

    def _case(self, part: Part) -> _Case:
        return self._cases.setdefault(part.id, _Case(part))

    def _look(self, frame: Frame, track: Track) -> None:
        """Take a view of a part that has moved far enough since the last one."""
        case = self._case(track.part)
        sighting, entered = track.sighting, track.entered
        if case.decided or sighting is None or not sighting.whole or entered is None:
            return
        start, end = self._tracker.span(sighting.box)
        moved = abs((start + end) / 2 - entered)
        if len(case.views) < self._views and moved >= case.next_view_px:
            line = self._line(frame)
            way = self._length(frame) - (end - start) if line is None else abs(line - entered)
            step = max(way / self._views, 1.0)
            # Views that a fast part missed are not made up for: they would show one place twice.
            case.next_view_px = (moved // step + 1) * step
            self._add_view(case, frame, sighting.box)

    def _add_view(self, case: _Case, frame: Frame, box: Box) -> None:
        found = self._detector.detect_at(frame.image, box)
        case.views.append(found.shifted(-box.x0, -box.y0))
        strongest = float(found.score.max()) if len(found) else 0.0
        if strongest > case.strongest:
            case.strongest, case.picture, case.picture_box = strongest, frame.image, box

    def _is_due(self, frame: Frame, track: Track) -> bool:
        if track.entered is None:
            return False
        line = self._line(frame)
        if line is None:
            leaving = track.sighting is None or not track.sighting.whole
            return leaving or len(self._cases[track.part.id].views) >= self._views
        start, end = self._tracker.span(track.part.box)
        # Not "has crossed": a fast part may be past the line when it is first seen whole.
        return ((start + end) / 2 - line) * self._tracker.direction > 0

    def _length(self, frame: Frame) -> int:
        return int(frame.image.shape[1 if self._trigger.axis == "x" else 0])

    def _line(self, frame: Frame) -> float | None:
        return None if self._decide_at is None else self._decide_at * self._length(frame)

    def _decided(
        self, ids: Iterable[int], t_ns: int, unsure: str | None = None
    ) -> tuple[Inspection, ...]:
        """Decide those parts that are still open; a part is never decided twice."""
        done = []
        for case in (self._cases[id] for id in sorted(ids)):
            if not case.decided:
                done.append(self._closed(case, t_ns, unsure))
                # The pictures are let go; what stays says that the part is decided.
                self._cases[case.part.id] = _Case(case.part, decided=True)
        return tuple(done)

    def _closed(self, case: _Case, t_ns: int, unsure: str | None = None) -> Inspection:
        defects = vote(case.views, self._detector.labels)
        # Where it was last seen it may already be cut: a view shows the part's whole size.
        shown = case.picture_box or case.part.box
        decision = self._rulebook.decide(defects, len(case.views), (shown.width, shown.height))
        unsure = unsure or case.doubt
        if unsure is not None:
            decision = Decision(Verdict.UNSURE, (unsure,))
        return Inspection(
            part=case.part,
            decision=decision,
            defects=tuple(d for d in defects if d.score >= self._rulebook.least_score)[
                :MAX_DEFECTS
            ],
            views=len(case.views),
            picture=case.picture,
            picture_box=case.picture_box,
            stamps={"exposed": t_ns},
        )
