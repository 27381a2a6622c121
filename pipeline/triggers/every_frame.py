"""A trigger for cameras that are triggered themselves: each frame is one part."""

from typing import Literal

from pipeline.plugins import Options as BaseOptions
from pipeline.triggers import Unseen
from pipeline.types import Box, Frame, Sighting


class Options(BaseOptions):
    """It needs no settings."""


class EveryFrame:
    """Sees one part, as large as the frame, in every frame."""

    tracks = False
    axis: Literal["x", "y"] = "x"
    fault: str | None = None

    def __init__(self) -> None:
        self._next_seq: int | None = None

    def crossed(self) -> None:
        """Do nothing: no part is followed."""

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        height, width = frame.image.shape[:2]
        return (Sighting(Box(0, 0, width, height)),)

    def unseen(self, frame: Frame | None) -> tuple[Unseen, ...]:
        """Return a part for each exposure that did not come here: each of them was one."""
        if frame is None:
            return ()
        height, width = frame.image.shape[:2]
        lost = range(self._next_seq or frame.seq, frame.seq)
        self._next_seq = frame.seq + 1
        return tuple(Unseen(frame=seq, box=Box(0, 0, width, height)) for seq in lost)


def create(options: Options) -> EveryFrame:
    """Make the trigger."""
    del options
    return EveryFrame()
