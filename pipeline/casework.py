"""What is known of a part in view while its pictures are looked at, one by one or at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from pipeline.errors import ViewError
from pipeline.types import Box, Decision, Defect, Detections, Image, Part

Look: TypeAlias = "Callable[[Image, Box], Future[Looked]]"
"""Begins to look at the part at a box, pixels of the image; what it gives is in such pixels too."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found in a picture, and how long that took, ns."""

    found: Detections
    took_ns: int


@dataclass(frozen=True, slots=True)
class InView:
    """A part as the newest frame shows it.

    Attributes:
        part: as last seen.
        size: width and height of the whole part, pixels; an edge of the frame may cut its box.
        decision: None until it is decided.
        defects: what was found, strongest first; empty until it is decided.
    """

    part: Part
    size: tuple[float, float]
    decision: Decision | None = None
    defects: tuple[Defect, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A picture of a part that is being looked at.

    Attributes:
        turned: it is looked at after half a turn; image and box are those before it.
    """

    image: Image
    box: Box
    found: Future[Looked]
    turned: bool = False


@dataclass(slots=True)
class Case:
    """What is known of a part in view.

    Attributes:
        views: what was found per picture, in the order of the exposures, relative to the part.
        begun: pictures that are being looked at, in the same order.
        picture, picture_box, picture_view: the view that shows most, and which one it is. It is
            never one that was turned: whoever runs it again sees what the station saw.
        next_view_px: way along the belt after which the next view is taken, from where it was
            first whole.
        places: places on its way where a view was due, taken or not.
        sure: its verdict would stay the same; it is looked at no more.
        is_closed: its verdict is due; its pictures are with whoever settles it.
        decided: what was said of it, once that is known.
        last_box: where it was when the newest picture was taken, pixels of the frame.
        doubt: why what was seen of it cannot be trusted.
        failure: what the model failed with.
        look_ns: how long looking at its pictures has taken, all together.
    """

    part: Part
    views: list[Detections] = field(default_factory=list)
    begun: deque[View] = field(default_factory=deque)
    picture: Image | None = None
    picture_box: Box | None = None
    picture_view: int = -1
    next_view_px: float = 0.0
    places: int = 0
    sure: bool = False
    is_closed: bool = False
    decided: InView | None = None
    last_box: Box | None = None
    doubt: str | None = None
    failure: BaseException | None = None
    look_ns: int = 0
    _strongest: float = -1.0

    def take_in(self, *, wait: bool) -> bool:
        """Take in what was found meanwhile; tell whether nothing is missing any more.

        Args:
            wait: for all that has begun.
        """
        while self.begun and (wait or self.begun[0].found.done()):
            view = self.begun.popleft()
            error = view.found.exception()
            if error is None:
                self._add(view)
            elif isinstance(error, ViewError):
                self.doubt = self.doubt or str(error)
                if self.picture is None and not view.turned:  # to be looked at by a person
                    self.picture, self.picture_box = view.image, view.box
            else:
                self.failure = self.failure or error
                self.doubt = self.doubt or f"the model failed: {error}"
        return not self.begun

    def _add(self, view: View) -> None:
        looked = view.found.result()
        found = looked.found
        self.look_ns += looked.took_ns
        if view.turned:
            found = found.turned(view.image.shape[1], view.image.shape[0])
        self.views.append(found.shifted(-view.box.x0, -view.box.y0))
        strongest = float(found.score.max()) if len(found) else 0.0
        if strongest > self._strongest and not view.turned:
            self._strongest, self.picture, self.picture_box = strongest, view.image, view.box
            self.picture_view = len(self.views) - 1


def at_once(detect_at: Callable[[Image, Box], Detections]) -> Look:
    """Look at a picture before going on: one inference at a time has all cores."""

    def look(image: Image, box: Box) -> Future[Looked]:
        found: Future[Looked] = Future()
        try:
            found.set_result(looked(detect_at, image, box))
        except ViewError as error:  # the part's own; what the model fails with stops the line
            found.set_exception(error)
        return found

    return look


def looked(detect_at: Callable[[Image, Box], Detections], image: Image, box: Box) -> Looked:
    """Look at a picture, and take the time: for the record alone, no decision depends on it."""
    begun_ns = time.monotonic_ns()
    found = detect_at(image, box)
    return Looked(found, time.monotonic_ns() - begun_ns)
