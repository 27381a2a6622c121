"""From sightings in successive frames to parts: a belt keeps its order and moves as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.types import Box, Frame, Part, Sighting


@dataclass(frozen=True, slots=True)
class Track:
    """A part being followed.

    Attributes:
        part: as last seen.
        sighting: the last sighting, or None if this frame does not show it.
        entered: centre along the belt where it was first seen whole, pixels; None before that.
    """

    part: Part
    sighting: Sighting | None
    entered: float | None


@dataclass(frozen=True, slots=True)
class Followed:
    """What one frame did to the tracks: those in view, those that have left."""

    present: tuple[Track, ...]
    left: tuple[Track, ...]


class BeltTracker:
    """Follows parts on a belt by where the belt must have carried them.

    All parts share one speed, taken from the sightings themselves, so a part that is cut by the
    edge of the frame is matched by its uncut edge. Order and gaps are not assumed.
    """

    def __init__(self, axis: Literal["x", "y"], lost_after_frames: int) -> None:
        self._axis = axis
        self._lost_after = lost_after_frames
        self._tracks: list[Track] = []
        self._speed_px = 0.0
        self._last_seq: int | None = None
        self._next_id = 1

    def span(self, box: Box) -> tuple[float, float]:
        """Return where a box starts and ends along the belt, pixels."""
        return (box.x0, box.x1) if self._axis == "x" else (box.y0, box.y1)

    def follow(self, frame: Frame, sightings: Sequence[Sighting]) -> Followed:
        """Match the sightings of the next frame with the parts known so far."""
        steps = 1 if self._last_seq is None else max(frame.seq - self._last_seq, 1)
        self._last_seq = frame.seq
        matches = dict(self._matches(sightings, steps))
        self._learn_speed(matches, sightings, steps)
        seen = [
            self._moved(track, sightings[matches[i]], frame)
            if i in matches
            else replace(track, sighting=None)
            for i, track in enumerate(self._tracks)
        ]
        new = [s for j, s in enumerate(sightings) if j not in matches.values()]
        seen += [self._begun(s, frame) for s in sorted(new, key=lambda s: self.span(s.box))]
        gone = [t for t in seen if frame.seq - t.part.last_frame >= self._lost_after]
        self._tracks = [t for t in seen if t not in gone]
        return Followed(tuple(self._tracks), tuple(gone))

    def drop_all(self) -> tuple[Track, ...]:
        """Forget every part in view and return them."""
        dropped, self._tracks = tuple(self._tracks), []
        self._last_seq = None
        return dropped

    def _matches(self, sightings: Sequence[Sighting], steps: int) -> Iterator[tuple[int, int]]:
        """Yield (track, sighting) pairs, nearest first, each used once."""
        near = sorted(
            (self._distance(track, sighting, steps), i, j)
            for i, track in enumerate(self._tracks)
            for j, sighting in enumerate(sightings)
        )
        tracks: set[int] = set()
        taken: set[int] = set()
        for distance, i, j in near:
            start, end = self.span(self._tracks[i].part.box)
            seen_start, seen_end = self.span(sightings[j].box)
            gate = 0.5 * max(end - start, seen_end - seen_start)
            if distance <= gate and i not in tracks and j not in taken:
                tracks.add(i)
                taken.add(j)
                yield i, j

    def _distance(self, track: Track, sighting: Sighting, steps: int) -> float:
        """Return how far the better of both edges lies from where the belt carried it, pixels."""
        start, end = self.span(track.part.box)
        seen_start, seen_end = self.span(sighting.box)
        way = self._speed_px * steps
        return min(abs(seen_start - start - way), abs(seen_end - end - way))

    def _learn_speed(
        self, matches: dict[int, int], sightings: Sequence[Sighting], steps: int
    ) -> None:
        ways = []
        for i, j in matches.items():
            start, end = self.span(self._tracks[i].part.box)
            seen_start, seen_end = self.span(sightings[j].box)
            # An edge of the frame that cuts the part does not move: the other edge tells the way.
            ways.append(max(seen_start - start, seen_end - end, key=abs) / steps)
        if ways:
            way = sorted(ways)[len(ways) // 2]
            self._speed_px += (way - self._speed_px) * (0.3 if self._speed_px else 1.0)

    def _moved(self, track: Track, sighting: Sighting, frame: Frame) -> Track:
        entered = track.entered
        if entered is None and sighting.whole:
            entered = sum(self.span(sighting.box)) / 2
        part = replace(track.part, last_frame=frame.seq, box=sighting.box)
        return Track(part, sighting, entered)

    def _begun(self, sighting: Sighting, frame: Frame) -> Track:
        part = Part(self._next_id, frame.t_ns, frame.seq, frame.seq, sighting.box)
        self._next_id += 1
        return self._moved(Track(part, sighting, None), sighting, frame)
