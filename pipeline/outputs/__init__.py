"""What a verdict moves: one file per kind of output, all behind the Output protocol."""

from typing import Protocol

from pipeline.types import Inspection


class Output(Protocol):
    """A reject gate, a light, a PLC.

    A plugin file holds ``class Options(plugins.Options)`` and ``create(options, clock) -> Output``.
    """

    def act(self, inspection: Inspection) -> None:
        """Take the verdict and return at once; UNSURE is treated as FAIL.

        Raises:
            OutputError: the command did not reach the device.
        """

    def ready(self, is_ready: bool) -> None:
        """Tell the line whether verdicts can be trusted; False must let no part through as good.

        Any thread of the station may call it.

        Raises:
            OutputError: the line could not be told.
        """

    def close(self) -> None:
        """Go to the safe position and let go of the device; may be called twice."""
