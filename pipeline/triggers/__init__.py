"""What tells that a part is there: one file per kind, all behind the Trigger protocol."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pipeline.types import Box, Decision, Frame, Sighting


@dataclass(frozen=True, slots=True)
class Unseen:
    """A part that was announced, but that no frame will show.

    Attributes:
        part: its number, where whoever triggered it has given it one.
        frame: number of the exposure that should have shown it, where that is known.
        decision: what the line got for it already, or None if nobody has decided it yet.
        box: where it would have been, pixels.
    """

    part: int | None = None
    frame: int | None = None
    decision: Decision | None = None
    box: Box = Box(0, 0, 0, 0)  # noqa: RUF009 - it is frozen


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

    def unseen(self, frame: Frame | None) -> tuple[Unseen, ...]:
        """Return, once each, the parts that neither this frame nor a later one will show.

        Args:
            frame: the frame whose sightings were just asked for, or None where frames end.
        """


@runtime_checkable
class AnnouncedTrigger(Trigger, Protocol):
    """A trigger whose parts are announced from outside the pictures, by the line's PLC."""

    def announce(self, number: int, t_ns: int, decision: Decision | None) -> None:
        """Take a trigger: its number, its monotonic time, and the decision if it has one."""
