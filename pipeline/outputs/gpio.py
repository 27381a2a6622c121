"""Digital lines: the gate's pulse at its due time, and the handshake's signals by wire.

The accept pulse is the default: without it a spring holds the gate on reject, so that a dead
station, a cut wire and a missing verdict all reject.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from pipeline.clock import NS_PER_MS
from pipeline.errors import OutputError
from pipeline.outputs import CarrierOptions
from pipeline.plc.signals import Inputs, Signals
from pipeline.plugins import vendor

PULSES_WAITING = 256
LineNumber = Annotated[int, Field(ge=0, le=1023)]
Shown = Literal[
    "ready", "trigger_ack", "busy", "result_valid", "ok", "ng", "unsure", "inhibit", "run", "beat"
]
Taken = Literal["trigger", "result_ack", "reset"]


class Options(CarrierOptions):
    """Which line does what.

    Attributes:
        listen: whether this carrier leads the handshake; only with a trigger line among ``taken``.
        chip: the device file of the lines; ``double`` keeps them in memory (tests, dry runs).
        gate: line of the gate, or None.
        gate_on: ``pass`` pulses for good parts, so that everything else is rejected; ``reject``
            pulses for all others, and lets pass whatever the station says nothing about.
        transit_ms: from where a part is seen to the gate.
        pulse_ms: width of the pulse.
        shown: signal -> line. ``run`` is the opposite of inhibit (de-energised stops), ``beat``
            toggles with the heartbeat.
        taken: trigger, result_ack, reset -> line.
        active_low: lines that are energised when low.
    """

    listen: bool = False
    chip: str = "/dev/gpiochip0"
    gate: LineNumber | None = None
    gate_on: Literal["pass", "reject"] = "pass"
    transit_ms: Annotated[int, Field(ge=0, le=600_000)] = 0
    pulse_ms: Annotated[int, Field(ge=1, le=60_000)] = 50
    shown: dict[Shown, LineNumber] = Field(default_factory=dict)
    taken: dict[Taken, LineNumber] = Field(default_factory=dict)
    active_low: tuple[LineNumber, ...] = ()

    @model_validator(mode="after")
    def _each_line_does_one_thing(self) -> Options:
        named = [*self.shown.values(), *self.taken.values()]
        named += [] if self.gate is None else [self.gate]
        for line in named:
            if named.count(line) > 1:
                raise ValueError(f"line {line} is named twice; give each signal a line of its own")
        if not named:
            raise ValueError("no line is named; set gate, shown or taken")
        if self.listen and "trigger" not in self.taken:
            raise ValueError("listen asks for a trigger line; add trigger to taken")
        return self


class Lines(Protocol):
    """The lines of one chip."""

    def write(self, values: Mapping[int, bool]) -> None:
        """Energise or release lines."""

    def read(self, line: int) -> bool:
        """Return whether an input is active."""

    def close(self) -> None:
        """Release the lines."""


class DoubleLines:
    """Lines in memory, a double of a chip.

    Attributes:
        values: what was written last, by line; a test sets inputs here.
        broken: every access fails, as if the chip were gone.
    """

    def __init__(self) -> None:
        self.values: dict[int, bool] = {}
        self.broken = False
        self.closed = False

    def write(self, values: Mapping[int, bool]) -> None:
        self._check()
        self.values.update(values)

    def read(self, line: int) -> bool:
        self._check()
        return self.values.get(line, False)

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.broken:
            raise OutputError("gpio double: broken, as was asked for")


class ChipLines:
    """Lines of a chip of the kernel, through libgpiod 2."""

    def __init__(self, options: Options) -> None:
        gpiod = vendor("gpiod", "gpio")
        line = vendor("gpiod.line", "gpio")
        self._active, self._inactive = line.Value.ACTIVE, line.Value.INACTIVE
        outputs = [*options.shown.values(), *([] if options.gate is None else [options.gate])]
        config = {}
        for number in outputs:
            config[number] = gpiod.LineSettings(
                direction=line.Direction.OUTPUT, output_value=self._inactive,
                active_low=number in options.active_low,
            )  # fmt: skip
        for number in options.taken.values():
            config[number] = gpiod.LineSettings(
                direction=line.Direction.INPUT, active_low=number in options.active_low
            )
        try:
            self._request = gpiod.request_lines(options.chip, consumer="lineguard", config=config)
        except (OSError, ValueError) as error:
            raise OutputError(
                f"gpio {options.chip}: its lines cannot be taken ({error}); see gpioinfo"
            ) from error
        self._chip = options.chip

    def write(self, values: Mapping[int, bool]) -> None:
        wanted = {n: self._active if v else self._inactive for n, v in values.items()}
        try:
            self._request.set_values(wanted)
        except OSError as error:
            raise OutputError(f"gpio {self._chip}: {error}; is the chip still there?") from error

    def read(self, line: int) -> bool:
        try:
            return bool(self._request.get_value(line) == self._active)
        except OSError as error:
            raise OutputError(f"gpio {self._chip}: {error}; is the chip still there?") from error

    def close(self) -> None:
        self._request.release()


class GpioCarrier:
    """Shows signals on lines and pulses the gate when a part has come to it."""

    def __init__(self, options: Options, lines: Lines) -> None:
        self._options = options
        self._lines = lines
        self._was_valid = False
        self._pulses: deque[int] = deque(maxlen=PULSES_WAITING)
        self._written: dict[int, bool] = {}
        self._closed = False
        self._beat = 0
        self._show(Signals(), gate=False)

    def exchange(self, signals: Signals, t_ns: int) -> Inputs:
        if signals.result_valid and not self._was_valid:
            self._schedule(signals)
        self._was_valid = signals.result_valid
        if signals.inhibit and self._options.gate_on == "pass":
            self._pulses.clear()  # A part that was good may not be at the gate any more.
        self._show(signals, self._gate_is_due(t_ns))
        return self._read(signals)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._show(Signals(), gate=False)
        self._lines.close()

    def _schedule(self, signals: Signals) -> None:
        if signals.ok == (self._options.gate_on == "pass"):
            self._pulses.append(signals.seen_ns + self._options.transit_ms * NS_PER_MS)

    def _gate_is_due(self, t_ns: int) -> bool:
        """Tell whether a pulse is on; one that is over, be it missed, is dropped."""
        width_ns = self._options.pulse_ms * NS_PER_MS
        while self._pulses and t_ns >= self._pulses[0] + width_ns:
            self._pulses.popleft()
        return bool(self._pulses) and t_ns >= self._pulses[0]

    def _show(self, signals: Signals, gate: bool) -> None:
        wanted = {line: self._value(signals, name) for name, line in self._options.shown.items()}
        if self._options.gate is not None:
            wanted[self._options.gate] = gate
        if changed := {n: v for n, v in wanted.items() if self._written.get(n) != v}:
            self._lines.write(changed)
            self._written.update(changed)

    def _value(self, signals: Signals, name: str) -> bool:
        if name == "run":
            return not signals.inhibit
        return bool(signals.heartbeat & 1) if name == "beat" else bool(getattr(signals, name))

    def _read(self, signals: Signals) -> Inputs:
        """Read the inputs; wires have no heartbeat, and an acknowledge only where there is one."""
        self._beat = (self._beat + 1) % 65536
        read: dict[str, Any] = {n: self._lines.read(i) for n, i in self._options.taken.items()}
        if "result_ack" not in read:
            read["result_ack"] = signals.result_valid
        return Inputs(connected=True, heartbeat=self._beat, **read)


def create(options: Options) -> GpioCarrier:
    """Take the lines.

    Raises:
        OutputError: the chip is not there, or its lines are taken.
    """
    lines = DoubleLines() if options.chip == "double" else ChipLines(options)
    return GpioCarrier(options, lines)
