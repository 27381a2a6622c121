"""What tells that a part is there: one file per kind, all behind the Trigger protocol."""

from typing import Literal, Protocol

from pipeline.types import Frame, Sighting


class Trigger(Protocol):
    """Finds the parts that a frame shows.

    A plugin file holds ``class Options(plugins.Options)`` and ``create(options) -> Trigger``.

    Attributes:
        tracks: True if one part shows in many frames and must be followed; False if every
            sighting is a part of its own.
        axis: direction of travel in the picture.
    """

    tracks: bool
    axis: Literal["x", "y"]

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        """Return the parts that the frame shows, in no particular order."""
