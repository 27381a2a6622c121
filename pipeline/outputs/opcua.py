"""OPC UA: the handshake as variables of a server, and OPC 40100-1 where its nodeset is given.

Results are read after ``ResultValid`` has risen: it is written last when a result comes, and first
when one goes. The address space is in docs/plc.md.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.errors import ConfigError, OutputError
from pipeline.outputs import CarrierOptions
from pipeline.outputs._loop import LoopThread
from pipeline.outputs._machine_vision import MachineVision
from pipeline.plc.signals import Inputs, Signals
from pipeline.plugins import ConfigPath, vendor

NAMESPACE = "urn:lineguard:handshake"
TURN_S = 0.005
LOOPBACK = ("127.0.0.1", "localhost", "::1")

SHOWN = {
    "Part": "part", "Error": "error", "Missed": "missed", "Overruns": "overruns", "OK": "ok",
    "NG": "ng", "Unsure": "unsure", "ResultValid": "result_valid", "Busy": "busy",
    "TriggerAck": "trigger_ack", "Inhibit": "inhibit", "Ready": "ready", "Heartbeat": "heartbeat",
}  # fmt: skip
"""Variables that the station writes, in this order: ``ResultValid`` after what it vouches for."""

TAKEN = {
    "Part": "part", "Trigger": "trigger", "ResultAck": "result_ack", "Reset": "reset",
    "Heartbeat": "heartbeat",
}  # fmt: skip
"""Variables that the PLC writes."""


class Options(CarrierOptions):
    """Where the server listens, and how clients prove who they are.

    Attributes:
        host: address to listen on; any other than the machine's own asks for a certificate.
        port: TCP port.
        certificate, private_key: of the server, PEM or DER; with them every client must sign and
            encrypt (Basic256Sha256).
        nodeset: the file Opc.Ua.MachineVision.NodeSet2.xml of the OPC Foundation; with it the
            server also shows a VisionSystem of OPC 40100-1.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 4840
    certificate: ConfigPath | None = None
    private_key: ConfigPath | None = None
    nodeset: ConfigPath | None = None

    @model_validator(mode="after")
    def _safe_beyond_this_machine(self) -> Options:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together; name both")
        for file in (self.certificate, self.private_key, self.nodeset):
            if file is not None and not file.is_file():
                raise ValueError(f"{file}: no such file; name one that is there")
        if self.certificate is None and self.host not in LOOPBACK:
            raise ValueError(
                f"host {self.host} can be reached from outside; name certificate and private_key"
            )
        return self


class OpcUaCarrier:
    """Serves the variables from a thread of its own."""

    def __init__(self, options: Options) -> None:
        self._where = f"opcua {options.host}:{options.port}"
        vendor("asyncua", "opcua")
        for name in ("asyncua", "asyncua.server", "asyncua.common"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._signals = Signals()
        self._inputs = Inputs()
        self._failed: str | None = None
        self._ending = False
        self._server: Any = None
        self._vision: MachineVision | None = None
        self._loop = LoopThread(self._where)
        try:
            self._loop.call(self._serve(options))
        except OSError as error:
            self._loop.close()
            raise OutputError(
                f"{self._where}: cannot listen there ({error.strerror}); is the port taken?"
            ) from error
        except ConfigError:
            self._loop.close()
            raise
        self._loop.start(self._pump())

    def exchange(self, signals: Signals, t_ns: int) -> Inputs:
        self._loop.check(t_ns)
        if self._failed is not None:
            raise OutputError(f"{self._where}: {self._failed}")
        self._signals = signals
        return self._inputs

    def close(self) -> None:
        if self._ending:
            return
        self._ending = True
        self._signals = Signals()
        self._loop.call(self._server.stop())
        self._loop.close()

    async def _serve(self, options: Options) -> None:
        ua = vendor("asyncua.ua", "opcua")
        self._server = server = vendor("asyncua", "opcua").Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{options.host}:{options.port}/lineguard")
        server.set_server_name("lineguard")
        await self._secure(options, ua)
        index = await server.register_namespace(NAMESPACE)
        station = await server.nodes.objects.add_object(index, "Lineguard")
        self._shown = await self._folder(station, index, "Outputs", SHOWN, Signals(), ua)
        self._taken = await self._folder(station, index, "Inputs", TAKEN, Inputs(), ua)
        for node, _ in self._taken.values():
            await node.set_writable()
        if options.nodeset is not None:
            self._vision = await MachineVision.install(server, options.nodeset)
        await server.start()

    async def _secure(self, options: Options, ua: Any) -> None:
        if options.certificate is None or options.private_key is None:
            self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
            return
        policy = ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt
        self._server.set_security_policy([policy])
        try:
            await self._server.load_certificate(str(options.certificate))
            await self._server.load_private_key(str(options.private_key))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self._where}: {options.certificate} or {options.private_key} cannot be read "
                f"({error}); name PEM or DER files"
            ) from error

    async def _folder(
        self, parent: Any, index: int, name: str, fields: dict[str, str], first: Any, ua: Any
    ) -> dict[str, tuple[Any, Any]]:
        """Make a folder of variables; return field -> (node, type)."""
        folder = await parent.add_folder(index, name)
        made = {}
        for shown, attribute in fields.items():
            value = getattr(first, attribute)
            kind = ua.VariantType.Boolean if isinstance(value, bool) else ua.VariantType.UInt16
            identifier = ua.NodeId(f"{name}.{shown}", index)
            node = await folder.add_variable(identifier, shown, value, varianttype=kind)
            made[attribute] = (node, kind)
        return made

    async def _pump(self) -> None:
        """Carry both ways until the end; what goes wrong here is told by the next exchange."""
        shown = Signals()
        try:
            while not self._ending:
                self._inputs = self._read()
                signals = self._signals
                await self._show(shown, signals)
                shown = signals
                await asyncio.sleep(TURN_S)
        except Exception as error:  # noqa: BLE001 - the top of a task: the guard goes safe
            self._failed = f"its server failed: {error!r}"

    def _read(self) -> Inputs:
        """Read what the PLC has written; what is no number counts as nothing."""
        read: dict[str, Any] = {}
        for attribute, (node, _) in self._taken.items():
            value = self._server.read_attribute_value(node.nodeid).Value.Value
            read[attribute] = value if isinstance(value, (bool, int)) else 0
        return Inputs(connected=True, **read)

    async def _show(self, before: Signals, now: Signals) -> None:
        changed = [a for a in SHOWN.values() if getattr(before, a) != getattr(now, a)]
        if "result_valid" in changed and not now.result_valid:
            changed.sort(key=lambda attribute: attribute != "result_valid")
        for attribute in changed:
            node, kind = self._shown[attribute]
            value = getattr(now, attribute)
            await node.write_value(value if isinstance(value, bool) else int(value), kind)
        if self._vision is not None:
            await self._vision.show(before, now)


def create(options: Options) -> OpcUaCarrier:
    """Open the server.

    Raises:
        ConfigError: a certificate or the nodeset cannot be read.
        OutputError: the port cannot be opened.
    """
    return OpcUaCarrier(options)
