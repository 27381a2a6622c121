"""A trigger that the line's PLC gives: the first exposure after it shows the part."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from pipeline.clock import NS_PER_MS
from pipeline.plugins import Options as BaseOptions
from pipeline.triggers import Unseen
from pipeline.types import Box, Decision, Frame, Sighting


class Options(BaseOptions):
    """When the picture is taken.

    Attributes:
        delay_ms: from the trigger to the exposure that shows the part; a little below zero where
            the PLC triggers the camera by a wire of its own.
    """

    delay_ms: Annotated[int, Field(ge=-1000, le=60_000)] = 0


@dataclass(slots=True)
class _Waiting:
    t_ns: int
    decision: Decision | None


class PlcTrigger:
    """Keeps the triggers that no frame has shown yet, by number, in order."""

    tracks = False
    axis: Literal["x", "y"] = "x"
    fault: str | None = None

    def __init__(self, options: Options) -> None:
        self._delay_ns = options.delay_ms * NS_PER_MS
        self._waiting: dict[int, _Waiting] = {}
        self._shown = 0
        self._lock = threading.Lock()

    def announce(self, number: int, t_ns: int, decision: Decision | None) -> None:
        """Take a trigger, or the news that it was decided without us; any thread.

        Numbers rise. News of a trigger that was given a frame already are none: its own verdict,
        late, will learn what the line got.
        """
        with self._lock:
            if number > self._shown:
                self._waiting[number] = _Waiting(t_ns, decision)

    def crossed(self) -> None:
        """Do nothing: no part is followed."""

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        height, width = frame.image.shape[:2]
        with self._lock:
            due = [
                number
                for number, waiting in self._waiting.items()
                if waiting.decision is None and frame.t_ns >= waiting.t_ns + self._delay_ns
            ]
            self._take(due)
        return tuple(Sighting(Box(0, 0, width, height), part=number) for number in due)

    def unseen(self, frame: Frame | None) -> tuple[Unseen, ...]:
        with self._lock:
            gone = {
                number: waiting
                for number, waiting in self._waiting.items()
                if frame is None or waiting.decision is not None
            }
            self._take(list(gone))
        return tuple(Unseen(number, decision=w.decision) for number, w in gone.items())

    def _take(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._waiting[number]
            self._shown = max(self._shown, number)


def create(options: Options) -> PlcTrigger:
    """Make the trigger."""
    return PlcTrigger(options)
