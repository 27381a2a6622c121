"""What a verdict moves: one file per kind of output.

The station sees one protocol, Output. A kind that shows signals to the line (a PLC, digital lines)
is a Carrier: carriers run in the guard, a process of its own, and together they are one Output.
"""

from typing import ClassVar, Protocol

from pipeline.plc.signals import Inputs, Signals
from pipeline.plugins import Options
from pipeline.types import Decision, Inspection


class Output(Protocol):
    """A reject gate, a light, a PLC.

    A plugin file holds ``class Options(plugins.Options)`` and ``create(options, clock) -> Output``.
    """

    def act(self, inspection: Inspection) -> Decision | None:
        """Take the verdict and return at once; UNSURE is treated as FAIL.

        Returns:
            What the line got instead, because the verdict came too late; None if it was taken.

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


class Carrier(Protocol):
    """Carries signals to the line and back.

    A plugin file holds ``class Options(CarrierOptions)`` and ``create(options) -> Carrier``, which
    opens it.
    """

    def exchange(self, signals: Signals, t_ns: int) -> Inputs:
        """Show signals and return what the line shows; called every few milliseconds.

        Raises:
            OutputError: the device does not answer; nothing is known of the line.
        """

    def close(self) -> None:
        """Show the safe state and let go of the device; may be called twice."""


class CarrierOptions(Options):
    """Base of the options of a carrier.

    Attributes:
        guarded: it runs in the guard.
        listen: whether this carrier's inputs count; exactly one PLC may lead the handshake.
    """

    guarded: ClassVar[bool] = True
    listen: bool = True
