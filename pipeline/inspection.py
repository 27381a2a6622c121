"""The frame's way from exposure to verdict, the same for all callers: no threads or I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.casework import Case, InView, Look, View, at_once
from pipeline.judging import Judge, in_view
from pipeline.light import Light
from pipeline.rules import Rulebook
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


class FindsDefects(Protocol):
    """The part of a detector that an inspection needs."""

    labels: tuple[str, ...]

    def detect_at(self, image: Image, box: Box) -> Detections:
        """Return the defects of the part at ``box``, pixels of ``image``."""


@dataclass(frozen=True, slots=True)
class _Due:
    """A part whose verdict is due, and what shows it meanwhile."""

    case: Case
    shown: Case
    t_ns: int
    given: Decision | None
    spent_ns: Mapping[str, int]


class Inspector:
    """Follows parts through the frames and decides each exactly once.

    Args:
        views: pictures of one part that are looked at, at most, spread evenly over its way.
        decide_at: share of the frame along the belt where parts are decided, or None.
        sure_by: stop looking at a part once its verdict stays the same if all of its scores move
            by this much; None takes all views. The moment of its verdict stays the same.
        half_turns: turn every second view of a part by 180 degrees before it is looked at.
        light: judges how the parts are lit; None does not.
        look: begins to look at a part; several pictures may be looked at at once. The verdicts are
            the same and come in the same order, but a verdict whose pictures are not done comes
            with a later call: ``owes``, ``settle``. None looks with ``detector`` at once.
        now_ns: tells the time, on the clock of the frames, so that it can be said where it went;
            no decision depends on it. None leaves that out.

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
        half_turns: bool = False,
        light: Light | None = None,
        look: Look | None = None,
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        self.trigger = trigger
        self._light = light or Light(None, learns=False)
        self._begin = look or at_once(detector.detect_at)
        self._judge = Judge(rulebook, detector.labels)
        self._views = views
        self._decide_at = decide_at
        self._sure_by = sure_by
        self._half_turns = half_turns
        self._now_ns = now_ns
        self._spent_ns: Mapping[str, int] = {}
        self._tracker = BeltTracker(trigger.axis, lost_after_frames)
        self._cases: dict[int, Case] = {}
        self._due: deque[_Due] = deque()
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
        """Take the next frame and return the parts that are decided by now, in their order.

        Raises:
            ModelError: the model failed; the parts in view are still undecided: see ``give_up``.
        """
        taken_ns = self._now_ns() if self._now_ns else 0
        sightings = self.trigger.sightings(frame)
        self._last_seq = frame.seq
        if not self.trigger.tracks:
            self._note_time(frame, taken_ns)
            return self._decide_each(frame, sightings)
        self._judge_view(frame, sightings)
        followed = self._tracker.follow(frame, sightings)
        for track in followed.present:
            self._case(track.part).part = track.part
        self._judge_light(frame, followed.present)
        self._doubt_all()
        self._note_time(frame, taken_ns)
        for track in followed.present:
            self._look(frame, track)
        # A part that crossed a dim picture does not prove that the belt is the one it was.
        if self._light.fault is None and any(self._has_crossed(frame, t) for t in followed.left):
            self.trigger.crossed()
        due = [t for t in followed.present if self._is_due(frame, t)]
        self._decide([t.part.id for t in (*due, *followed.left)], frame.t_ns)
        for track in followed.left:
            del self._cases[track.part.id]
        return self._settled()

    @property
    def owes(self) -> bool:
        """Whether a verdict is due whose pictures are still looked at."""
        return bool(self._due)

    def settle(self) -> tuple[Inspection, ...]:
        """Return the parts whose pictures are done by now, without another frame.

        Raises:
            ModelError: as ``inspect``.
        """
        return self._settled()

    def give_up(self, reason: str, t_ns: int) -> tuple[Inspection, ...]:
        """Decide every undecided part in view as UNSURE: what comes next tells nothing of it."""
        self._tracker.drop_all()
        self._decide(tuple(self._cases), t_ns, Decision(Verdict.UNSURE, (reason,)))
        self._cases.clear()
        self._decide_unseen(None, t_ns, reason)
        return self._settled(wait=True, failing=False)

    def finish(self, t_ns: int) -> tuple[Inspection, ...]:
        """Decide, at the end of a recording, the parts that were seen whole and are due."""
        tracks = self._tracker.drop_all()
        self._spent_ns = {}
        self._decide(
            [t.part.id for t in tracks if t.entered is not None and self._decide_at is None], t_ns
        )
        self._cases.clear()
        self._decide_unseen(None, t_ns, "the recording ended before a frame showed it")
        return self._settled(wait=True)

    def _note_time(self, frame: Frame, taken_ns: int) -> None:
        """Note where the time of this frame went until its parts are known."""
        if self._now_ns is not None:
            trigger_ns = self._now_ns() - taken_ns
            self._spent_ns = {"wait": taken_ns - frame.t_ns, "trigger": trigger_ns}

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
        self._decide_unseen(frame, frame.t_ns, reason)
        for sighting in sightings:
            self._open_shot(frame.seq, frame.t_ns, sighting.box, sighting.part)
        self._light.see(frame.image, ((c.part.id, c.part.box) for c in self._cases.values()))
        self.fault = self._light.fault
        self._doubt_all()
        for case in self._cases.values():
            self._add_view(case, frame, case.part.box)
        self._decide(tuple(self._cases), frame.t_ns)
        self._cases.clear()
        return self._settled()

    def _decide_unseen(self, frame: Frame | None, t_ns: int, reason: str) -> None:
        """Decide the parts that were announced and that no frame will show."""
        for lost in self.trigger.unseen(frame):
            seq = self._last_seq if lost.frame is None else lost.frame
            part = self._open_shot(seq, t_ns, lost.box, lost.part)
            decision = lost.decision or Decision(Verdict.UNSURE, (reason,))
            self._decide((part,), t_ns, decision)
            del self._cases[part]

    def _open_shot(self, seq: int, t_ns: int, box: Box, part: int | None) -> int:
        self._shots = self._shots + 1 if part is None else part
        self._case(Part(self._shots, t_ns, seq, seq, box))
        return self._shots

    def _case(self, part: Part) -> Case:
        return self._cases.setdefault(part.id, Case(part))

    def _look(self, frame: Frame, track: Track) -> None:
        """Take a view of a part that has moved far enough since the last one."""
        case = self._case(track.part)
        sighting, entered = track.sighting, track.entered
        if case.is_closed or sighting is None or not sighting.whole or entered is None:
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
            if not self._is_sure(case):
                self._add_view(case, frame, sighting.box)

    def _add_view(self, case: Case, frame: Frame, box: Box) -> None:
        case.last_box = box
        turned = self._half_turns and (len(case.views) + len(case.begun)) % 2 == 1
        if turned:
            height, width = frame.image.shape[:2]
            found = self._begin(frame.image[::-1, ::-1], box.turned(width, height))
        else:
            found = self._begin(frame.image, box)
        case.begun.append(View(frame.image, box, found, turned))
        case.take_in(wait=False)

    def _is_sure(self, case: Case) -> bool:
        """Tell whether a part need not be looked at again; ask only where it would be."""
        if self._sure_by is None or case.sure or case.last_box is None:
            return case.sure
        case.take_in(wait=True)
        size = (case.last_box.width, case.last_box.height)
        case.sure = self._judge.is_sure(case, size, self._sure_by)
        return case.sure

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

    def _decide(self, ids: Iterable[int], t_ns: int, given: Decision | None = None) -> None:
        """Let those parts be decided that are still open; a part is never decided twice."""
        for case in (self._cases[id] for id in sorted(ids)):
            if not case.is_closed:
                shown = Case(case.part, is_closed=True)
                self._cases[case.part.id] = shown
                # What no frame led to was not on its way through the stages.
                spent_ns = {} if given else self._spent_ns
                self._due.append(_Due(case, shown, t_ns, given, spent_ns))

    def _settled(self, *, wait: bool = False, failing: bool = True) -> tuple[Inspection, ...]:
        """Return the parts that are due, in their order, as far as their pictures are done.

        Raises:
            ModelError: it failed with one of them, and ``failing``; all of them stay due.
        """
        ready: list[_Due] = []
        for due in self._due:
            if not due.case.take_in(wait=wait):
                break
            ready.append(due)
        failure = next((d.case.failure for d in ready if d.case.failure is not None), None)
        if failing and failure is not None:
            raise failure
        done = []
        for due in ready:
            self._due.popleft()
            done.append(self._timed(due))
            due.shown.decided = in_view(done[-1])
        return tuple(done)

    def _timed(self, due: _Due) -> Inspection:
        """Close a case; say where its time went, if a frame led to the decision."""
        if self._now_ns is None or not due.spent_ns:
            return self._judge.close(due.case, due.t_ns, due.given)
        begun_ns = self._now_ns()
        closed = self._judge.close(due.case, due.t_ns, due.given)
        decided_ns = self._now_ns()
        rules_ns = decided_ns - begun_ns
        return replace(
            closed,
            stamps={**closed.stamps, "decided": decided_ns},
            spent_ns={**due.spent_ns, "look": due.case.look_ns, "rules": rules_ns},
        )
