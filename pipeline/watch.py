"""What a station's main thread watches: a silent camera, hanging workers, times for self-tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.clock import NS_PER_S, Clock
from pipeline.monitor.figures import Beat, ModelFacts, Snapshot
from pipeline.monitor.shifts import TimesOfDay
from pipeline.readiness import LOAD, Readiness

STALL_S, STALL_FRAMES = 0.9, 2.5
"""A free-running camera has stalled after the longer of these; with one look of the watch more it
is noticed within a second, or within three frame times."""

FIRST_STALL_S = 5.0
"""The same before a second frame has told the frame time."""

INTERVAL_SHARE = 0.2
"""Share by which the frame time follows what is seen."""

OVERLOADED_S = 10.0
"""A station has enough of the processor again once it has dropped no frame for so long."""

FROZEN_READ_S = 30.0
"""A camera's read that lasts longer will never return: its own time-outs are far shorter."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How a station looks after itself.

    Attributes:
        stall_s: a live camera without a frame for so long is at fault; None takes STALL_S or
            STALL_FRAMES frame times; ``inf`` for a camera that is triggered itself.
        frozen_s: a worker that is at one step for so long is at fault.
        self_test: asks the model for its golden pictures, in the inspect thread.
        self_test_at: local times of day, HH:MM.
        notices: what degrades the station from the start, by part.
        model: what runs; for the figures.
        rechecks: tells how many pictures the model has looked at twice.
        take: is given a snapshot some 20 times a second by the main thread, and a last one.
    """

    stall_s: float | None = None
    frozen_s: float = 10.0
    self_test: Callable[[], None] = lambda: None
    self_test_at: tuple[str, ...] = ()
    notices: Mapping[str, str] = field(default_factory=dict)
    model: ModelFacts = field(default_factory=ModelFacts)
    rechecks: Callable[[], int] = lambda: 0
    take: Callable[[Snapshot], None] = lambda snapshot: None


class Lookout:
    """Keeps the times that tell a silent camera and a hanging worker.

    Args:
        live: whether the camera gives frames unasked.

    Attributes:
        beats: of each worker; it marks its steps in its own.
    """

    def __init__(self, watch: Watch, clock: Clock, readiness: Readiness, live: bool) -> None:
        self.beats = {name: Beat(clock.now_ns) for name in ("capture", "inspect", "keep")}
        self._watch = watch
        self._clock = clock
        self._readiness = readiness
        self._live = live
        self._times = TimesOfDay(watch.self_test_at)
        self._frame_ns: int | None = None
        self._interval_ns = 0
        self._dropped = 0
        self._dropped_ns: int | None = None

    def frame_came(self) -> None:
        """Note that the camera gave a frame; the capture calls it."""
        now_ns, last_ns = self._clock.now_ns(), self._frame_ns
        if last_ns is not None and "camera" not in self._readiness.faults:
            share = INTERVAL_SHARE if self._interval_ns else 1.0
            self._interval_ns += int((now_ns - last_ns - self._interval_ns) * share)
        self._frame_ns = now_ns

    @property
    def frame_age_s(self) -> float | None:
        """Return the time since the last frame, s; None before the first."""
        last_ns = self._frame_ns
        return None if last_ns is None else (self._clock.now_ns() - last_ns) / NS_PER_S

    def silence(self) -> str | None:
        """Put the camera at fault if it has just gone silent, and return why; else None."""
        silent_s = self.frame_age_s
        ending = self._readiness.state in ("stopping", "stopped")
        if not self._live or silent_s is None or ending or silent_s <= self._most_silent_s():
            return None
        if "camera" in self._readiness.faults:
            return None
        reason = f"no frame for {silent_s * 1000:.0f} ms; check its power, cable and trigger"
        self._readiness.fault("camera", reason)
        return reason

    def frozen(self) -> tuple[str, ...]:
        """Return the workers that have been at one step for too long."""
        return tuple(n for n, beat in self.beats.items() if beat.busy_s() > self._most_busy_s(n))

    def note_frozen(self) -> None:
        """Put hanging workers at fault, and those that go on again no more."""
        frozen = self.frozen()
        for name, beat in self.beats.items():
            said = f"at one step for {beat.busy_s():.0f} s; the station must be started again"
            self._readiness.note(f"frozen {name}", said if name in frozen else None)

    def note_overload(self, dropped: int) -> None:
        """Put the load at fault while frames are dropped because the inspection is too slow.

        Args:
            dropped: how many were so far.
        """
        now_ns = self._clock.now_ns()
        if dropped > self._dropped:
            self._dropped, self._dropped_ns = dropped, now_ns
        since_ns = self._dropped_ns
        overloaded = since_ns is not None and now_ns - since_ns < OVERLOADED_S * NS_PER_S
        said = f"frames dropped so far: {dropped}; give it more cores, or lower views or frame rate"
        self._readiness.note(LOAD, said if overloaded else None)

    def self_test_is_due(self) -> bool:
        """Tell whether a time of self_test_at has come since the last question."""
        return self._times.due(self._clock.wall())

    def _most_silent_s(self) -> float:
        if self._watch.stall_s is not None:
            return self._watch.stall_s
        if not self._interval_ns:
            return FIRST_STALL_S
        return max(STALL_S, STALL_FRAMES * self._interval_ns / NS_PER_S)

    def _most_busy_s(self, name: str) -> float:
        if name != "capture":
            return self._watch.frozen_s
        # A camera may wait for its trigger, and a file waits for us.
        waits = not self._live or self._watch.stall_s == math.inf
        return math.inf if waits else max(FROZEN_READ_S, self._watch.frozen_s)
