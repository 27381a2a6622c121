"""Modbus TCP: the station serves holding registers, the PLC reads and writes them.

The register map is in docs/plc.md. Every request is answered from one snapshot of the signals, so
that a block that is read in one request never mixes two results.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any

from pydantic import Field

from pipeline.errors import OutputError
from pipeline.outputs import CarrierOptions
from pipeline.outputs._loop import LoopThread
from pipeline.plc.signals import Inputs, Signals
from pipeline.plugins import vendor

COMMAND, PLC_HEARTBEAT, PLC_PART = 0, 1, 2
WRITTEN = 3
"""Number of registers that the PLC writes, from address 0."""
STATUS = 16
"""Address of the first register that the station writes."""
MAP_VERSION = 1
READ, WRITE = (3, 4), (6, 16)
"""Function codes that are served; others are refused."""


class Options(CarrierOptions):
    """Where the server listens. Modbus has no log-in: keep it on the machine's own network.

    Attributes:
        host: address to listen on.
        port: TCP port; 502 is the usual one and needs a privilege.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1502


def registers_of(signals: Signals) -> list[int]:
    """Return what the station shows from address 16 on, 7 registers."""
    bits = (
        signals.ready, signals.trigger_ack, signals.busy, signals.result_valid,
        signals.ok, signals.ng, signals.unsure, signals.inhibit,
    )  # fmt: skip
    return [
        sum(bit << i for i, bit in enumerate(bits)),
        signals.part,
        int(signals.error),
        signals.missed,
        signals.overruns,
        signals.heartbeat,
        MAP_VERSION,
    ]


def inputs_of(registers: list[int], connected: bool) -> Inputs:
    """Return what the PLC's registers from address 0 say."""
    command = registers[COMMAND]
    return Inputs(
        connected=connected,
        trigger=bool(command & 1),
        result_ack=bool(command & 2),
        reset=bool(command & 4),
        heartbeat=registers[PLC_HEARTBEAT],
        part=registers[PLC_PART],
    )


class ModbusCarrier:
    """Serves the registers from a thread of its own."""

    def __init__(self, options: Options) -> None:
        self._where = f"modbus {options.host}:{options.port}"
        self._refused = vendor("pymodbus.constants", "modbus").ExcCodes.ILLEGAL_FUNCTION
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self._written = [0] * WRITTEN
        self._shown = registers_of(Signals())
        self._clients = 0
        self._server: Any = None
        self._closed = False
        self._loop = LoopThread(self._where)
        try:
            self._loop.call(self._serve(options))
        except (OSError, RuntimeError) as error:
            self._loop.close()
            raise OutputError(
                f"{self._where}: cannot listen there; is the port taken, or the address not here?"
            ) from error

    def exchange(self, signals: Signals, t_ns: int) -> Inputs:
        self._loop.check(t_ns)
        self._shown = registers_of(signals)
        return inputs_of(self._written, self._clients > 0)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._shown = registers_of(Signals())
        self._loop.call(self._server.shutdown())
        self._loop.close()

    async def _serve(self, options: Options) -> None:
        server = vendor("pymodbus.server", "modbus")
        simulator = vendor("pymodbus.simulator", "modbus")
        kind = simulator.DataType.REGISTERS
        blank = [
            simulator.SimData(0, count=WRITTEN, datatype=kind),
            simulator.SimData(STATUS, count=len(self._shown), datatype=kind, readonly=True),
        ]
        device = simulator.SimDevice(0, simdata=blank, action=self._asked)
        self._server = server.ModbusTcpServer(
            device, address=(options.host, options.port), trace_connect=self._connected
        )
        await self._server.serve_forever(background=True)

    async def _asked(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> Any:
        """Answer a request from the snapshot, or take what it writes."""
        del count
        if function not in READ + WRITE:
            return self._refused
        if values is not None:
            written = list(self._written)
            written[address : address + len(values)] = [int(v) for v in values]
            self._written = written[:WRITTEN]
        at = STATUS - start
        registers[at : at + len(self._shown)] = self._shown
        return None

    def _connected(self, is_connected: bool) -> None:
        self._clients += 1 if is_connected else -1


def create(options: Options) -> ModbusCarrier:
    """Open the server.

    Raises:
        OutputError: the port cannot be opened.
    """
    return ModbusCarrier(options)
