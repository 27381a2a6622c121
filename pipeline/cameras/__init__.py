"""Where frames come from: one file per kind of camera, all behind the Camera protocol."""

from collections.abc import Iterator
from typing import Protocol

from pipeline.types import Frame


class Camera(Protocol):
    """A source of frames.

    A plugin file holds ``class Options(plugins.Options)`` and
    ``create(options, name, clock) -> Camera``. Opening happens in ``frames()``, so that the
    capture loop can reopen a lost camera by asking again; ``seq`` goes on rising over reopenings.

    Attributes:
        live: True if frames come whether or not they are taken (a free-running camera may lose
            its oldest frame, counted); False if the source waits (a file).
        total: number of frames it will give, or None if that is not known.
    """

    live: bool
    total: int | None

    def frames(self) -> Iterator[Frame]:
        """Yield frames, uint8 and read-only, with rising ``seq``; end when the source ends.

        Raises:
            ConfigError: what a person named is not there or is not what it claims to be.
            CameraError: the device was lost, stalled, or ended before it should.
        """

    def close(self) -> None:
        """Let go of the device; may be called twice and from another thread."""
