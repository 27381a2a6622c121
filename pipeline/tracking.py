"""From sightings in successive frames to parts: a belt keeps its order and moves as one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from pipeline.types import Box, Frame, Part, Sighting

Span: TypeAlias = tuple[float, float]
"""From and to along the belt, pixels."""

LEARNING = 0.5
"""Share by which the speed follows what a frame shows. At 0.3 it lagged 3 frames behind a belt
that brakes, which is too far for parts that move by their own length per frame."""

STANDING = 0.1
"""Share of its highest speed below which a belt is taken to stand."""


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

    All parts share one speed, taken from the sightings themselves; an edge of a part that the
    frame cuts only bounds how far the part has moved. Size, order and gaps are not assumed.

    Where it must fail: until a first part was seen to move the speed is not known, and a part is
    taken to be the nearest one of the frame before; so until then, and where a belt that stood
    still starts again, parts may move by less than half their pitch, and a quarter of the view,
    per frame. At known speed the limit is one pitch. Between two frames the speed may fall at will
    (a belt stops), and rise by half a part's length above the highest speed so far.
    """

    def __init__(self, axis: Literal["x", "y"], lost_after_frames: int) -> None:
        self._axis = axis
        self._lost_after = lost_after_frames
        self._tracks: tuple[Track, ...] = ()
        self._speed_px = 0.0
        self._fastest_px = 0.0
        self._next_id = 1

    def span(self, box: Box) -> Span:
        """Return where a box starts and ends along the belt, pixels."""
        return (box.x0, box.x1) if self._axis == "x" else (box.y0, box.y1)

    @property
    def direction(self) -> int:
        """Return 1 or -1 as the belt moves to larger or smaller pixels, 0 while that is not clear.

        A belt that stands seems to move by the noise of its edges: that tells no direction.
        """
        if self._speed_px * self._fastest_px <= STANDING * self._fastest_px**2:
            return 0
        return 1 if self._speed_px > 0 else -1

    def follow(self, frame: Frame, sightings: Sequence[Sighting]) -> Followed:
        """Match the sightings of the next frame with the parts known so far."""
        matches = self._matches(frame, sightings)
        self._learn_speed(frame, [(self._tracks[i], sightings[j]) for i, j in matches.items()])
        seen = [
            self._moved(track, sightings[matches[i]], frame)
            if i in matches
            else replace(track, sighting=None)
            for i, track in enumerate(self._tracks)
        ]
        taken = set(matches.values())
        new = [s for j, s in enumerate(sightings) if j not in taken]
        seen += [self._begun(s, frame) for s in sorted(new, key=lambda s: self.span(s.box))]
        self._tracks = tuple(t for t in seen if not self._has_left(t, frame))
        return Followed(self._tracks, tuple(t for t in seen if self._has_left(t, frame)))

    def drop_all(self) -> tuple[Track, ...]:
        """Forget every part in view and return them."""
        dropped, self._tracks = self._tracks, ()
        return dropped

    def _matches(self, frame: Frame, sightings: Sequence[Sighting]) -> dict[int, int]:
        """Return pairs of track and sighting, the likeliest first, each used once."""
        likely = []
        for i, track in enumerate(self._tracks):
            way, possible = self._expected(track, frame)
            for j, sighting in enumerate(sightings):
                edges = self._ways(track, sighting, frame)
                if max(_apart(edge, possible) for edge in edges) <= self._slack(track, sighting):
                    likely.append((max(_apart(edge, (way, way)) for edge in edges), i, j))
        pairs: dict[int, int] = {}
        taken: set[int] = set()
        for _, i, j in sorted(likely):
            if i not in pairs and j not in taken:
                pairs[i] = j
                taken.add(j)
        return pairs

    def _expected(self, track: Track, frame: Frame) -> tuple[float, Span]:
        """Return the way that a part has most likely moved since, and what is possible, pixels."""
        if not self._fastest_px:
            quarter = self._length(frame) / 4
            return 0.0, (-quarter, quarter)
        steps = frame.seq - track.part.last_frame
        speeds = (0.0, self._speed_px, self._fastest_px)
        return self._speed_px * steps, (min(speeds) * steps, max(speeds) * steps)

    def _ways(self, track: Track, sighting: Sighting, frame: Frame) -> tuple[Span, Span]:
        """Return the least and the most way that each edge allows, were both the same part.

        An edge that the frame cuts lies somewhere beyond it, so it bounds the way on one side.
        """
        length = self._length(frame)
        was, now = self.span(track.part.box), self.span(sighting.box)
        start, end = now[0] - was[0], now[1] - was[1]
        return (
            (start if now[0] > 0 else -math.inf, start if was[0] > 0 else math.inf),
            (end if was[1] < length else -math.inf, end if now[1] < length else math.inf),
        )

    def _slack(self, track: Track, sighting: Sighting) -> float:
        spans = (self.span(track.part.box), self.span(sighting.box))
        return 0.5 * max(end - start for start, end in spans)

    def _learn_speed(self, frame: Frame, pairs: Iterable[tuple[Track, Sighting]]) -> None:
        """Take the middle of what the parts' edges show that no edge of the frame cuts."""
        speeds = sorted(
            way[0] / (frame.seq - track.part.last_frame)
            for track, sighting in pairs
            for way in self._ways(track, sighting, frame)
            if way[0] == way[1]
        )
        if not speeds:
            return
        seen = (speeds[(len(speeds) - 1) // 2] + speeds[len(speeds) // 2]) / 2
        before = self._speed_px if self._fastest_px else seen
        self._speed_px = before + LEARNING * (seen - before)
        self._fastest_px = max(self._fastest_px, self._speed_px, key=abs)

    def _length(self, frame: Frame) -> int:
        return int(frame.image.shape[1 if self._axis == "x" else 0])

    def _has_left(self, track: Track, frame: Frame) -> bool:
        return frame.seq - track.part.last_frame >= self._lost_after

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


def _apart(a: Span, b: Span) -> float:
    """Return the gap between two ranges; 0 if they meet."""
    return max(a[0] - b[1], b[0] - a[1], 0.0)
