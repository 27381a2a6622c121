"""A trigger for cameras that are triggered themselves: each frame is one part."""

from typing import Literal

from pipeline.plugins import Options as BaseOptions
from pipeline.types import Box, Frame, Sighting


class Options(BaseOptions):
    """It needs no settings."""


class EveryFrame:
    """Sees one part, as large as the frame, in every frame."""

    tracks = False
    axis: Literal["x", "y"] = "x"
    fault: str | None = None

    def crossed(self) -> None:
        """Do nothing: no part is followed."""

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        height, width = frame.image.shape[:2]
        return (Sighting(Box(0, 0, width, height)),)


def create(options: Options) -> EveryFrame:
    """Make the trigger."""
    del options
    return EveryFrame()
