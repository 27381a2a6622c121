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
        fault: why what the last frame showed cannot be trusted, or None.
    """

    tracks: bool
    axis: Literal["x", "y"]

    @property
    def fault(self) -> str | None:
        """See above."""

    def crossed(self) -> None:
        """Take note that a part was followed whole across half of the view."""

    def sightings(self, frame: Frame) -> tuple[Sighting, ...]:
        """Return the parts that the frame shows, in no particular order."""
