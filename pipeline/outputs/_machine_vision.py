"""A VisionSystem of OPC 40100-1 (Machine Vision, part 1): its state machine and its results.

The types come from the OPC Foundation's own nodeset file. Read-only for clients: state changes are
the station's, so the methods Halt and Reset answer that they are not executable.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from pipeline.errors import ConfigError
from pipeline.plc.signals import Code, Signals
from pipeline.plugins import vendor

NAMESPACE = "http://opcfoundation.org/UA/MachineVision"
RESULTS_KEPT = 100
COMPLETED = 1
"""ResultState of a result that is complete (OPC 40100-1, ResultStateDataType)."""
NOT_FOUND = -1
AT_FAULT = (Code.STATION_LOST, Code.PLC_SILENT, Code.NO_RESULT_ACK)


def state_of(signals: Signals) -> str:
    """Return the name of the VisionStateMachine's state."""
    if not signals.inhibit:
        return "Operational"
    return "Error" if signals.error in AT_FAULT else "Preoperational"


class MachineVision:
    """Keeps a VisionSystem's nodes as the signals say."""

    def __init__(self, ua: Any, index: int, system: Any, machine: Any) -> None:
        self._ua = ua
        self._index = index
        self._system = system
        self._machine = machine
        self._states: dict[str, Any] = {}
        self._last: Any = None
        self._ready_event: Any = None
        self._state_event: Any = None
        self._count = 0
        self._results: OrderedDict[str, Any] = OrderedDict()

    @staticmethod
    async def install(server: Any, nodeset: Path) -> MachineVision:
        """Import the nodeset and make a VisionSystem of it.

        Raises:
            ConfigError: the file is not the nodeset of OPC 40100-1.
        """
        ua = vendor("asyncua.ua", "opcua")
        try:
            await server.import_xml(str(nodeset))
            index = await server.get_namespace_index(NAMESPACE)
        except (OSError, ParseError, ValueError, ua.UaError) as error:
            raise ConfigError(
                f"{nodeset}: not the nodeset of OPC 40100-1 ({' '.join(str(error).split())}); "
                "take Opc.Ua.MachineVision.NodeSet2.xml of the OPC Foundation"
            ) from error
        await _define_heirs(server.get_node(ua.ObjectIds.Structure), index, None, ua)
        await server.load_data_type_definitions()
        kinds = server.nodes.base_object_type
        kind = await kinds.get_child([f"{index}:VisionSystemType"])
        system = await server.nodes.objects.add_object(
            index, "VisionSystem", kind.nodeid, instantiate_optional=False
        )
        machine = await system.get_child([f"{index}:VisionStateMachine"])
        made = MachineVision(ua, index, system, machine)
        await made._complete(server)
        return made

    async def _complete(self, server: Any) -> None:
        i, ua = self._index, self._ua
        for name in ("Preoperational", "Halted", "Error", "Operational"):
            self._states[name] = (await self._machine.get_child([f"{i}:{name}"])).nodeid
        management_type = await server.nodes.base_object_type.get_child(
            [f"{i}:ResultManagementType"]
        )
        management = await self._system.add_object(
            i, "ResultManagement", management_type.nodeid, instantiate_optional=False
        )
        for name, answer in (
            ("GetResultById", self._by_id),
            ("GetResultComponentsById", self._components_by_id),
            ("GetResultListFiltered", self._listed),
        ):
            server.link_method(await management.get_child([f"{i}:{name}"]), answer)
        results = await management.add_folder(i, "Results")
        empty = ua.Variant(ua.ResultDataType(), ua.VariantType.ExtensionObject)
        self._last = await results.add_variable(
            i, "LastResult", empty, datatype=ua.ResultDataType.data_type
        )
        events = server.nodes.base_event_type
        self._ready_event = await server.get_event_generator(
            await events.get_child([f"{i}:ResultReadyEventType"]), self._system
        )
        await self._enter(state_of(Signals()))

    async def show(self, before: Signals, now: Signals) -> None:
        """Follow a change of the signals."""
        if state_of(now) != state_of(before):
            await self._enter(state_of(now))
        if now.result_valid and not before.result_valid:
            await self._add(now)

    async def _enter(self, state: str) -> None:
        ua = self._ua
        current = await self._machine.get_child(["0:CurrentState"])
        await current.write_value(ua.LocalizedText(state))
        await (await current.get_child(["0:Id"])).write_value(self._states[state])

    async def _add(self, shown: Signals) -> None:
        ua = self._ua
        self._count += 1
        verdict = "PASS" if shown.ok else "UNSURE" if shown.unsure else "FAIL"
        result = ua.ResultDataType(
            ResultId=ua.ResultIdDataType(Id=str(self._count)),
            HasTransferableDataOnFile=False,
            IsPartial=False,
            IsSimulated=False,
            ResultState=COMPLETED,
            PartId=ua.PartIdDataType(Id=str(shown.part)),
            CreationTime=datetime.now(timezone.utc),
            ResultContent=[ua.Variant(verdict, ua.VariantType.String)],
        )
        self._results[result.ResultId.Id] = result
        while len(self._results) > RESULTS_KEPT:
            self._results.popitem(last=False)
        await self._last.write_value(ua.Variant(result, ua.VariantType.ExtensionObject))
        event = self._ready_event.event
        for name in ("ResultId", "IsPartial", "IsSimulated", "ResultState", "PartId"):
            setattr(event, name, getattr(result, name))
        event.CreationTime, event.ResultContent = result.CreationTime, result.ResultContent
        await self._ready_event.trigger(message=f"part {shown.part}: {verdict}")

    # -- methods ------------------------------------------------------------------------------

    def _by_id(self, parent: Any, wanted: Any, timeout: Any) -> list[Any]:
        """Answer GetResultById: handle, result, error."""
        del parent, timeout
        ua = self._ua
        found = self._results.get(wanted.Value.Id)
        result = found or ua.ResultDataType()
        return [
            ua.Variant(0, ua.VariantType.UInt32),
            ua.Variant(result, ua.VariantType.ExtensionObject),
            ua.Variant(0 if found else NOT_FOUND, ua.VariantType.Int32),
        ]

    def _components_by_id(self, parent: Any, wanted: Any, timeout: Any) -> list[Any]:
        """Answer GetResultComponentsById: the result's fields one by one."""
        del parent, timeout
        ua, kinds = self._ua, self._ua.VariantType
        found = self._results.get(wanted.Value.Id)
        r = found or ua.ResultDataType()
        return [
            ua.Variant(False, kinds.Boolean), ua.Variant(0, kinds.UInt32),
            ua.Variant(r.IsPartial, kinds.Boolean), ua.Variant(bool(r.IsSimulated), kinds.Boolean),
            ua.Variant(int(r.ResultState), kinds.Int32),
            *(ua.Variant(getattr(r, name)) for name in (
                "MeasId", "PartId", "ExternalRecipeId", "InternalRecipeId", "ProductId",
                "ExternalConfigurationId", "InternalConfigurationId", "JobId")),
            ua.Variant(r.CreationTime, kinds.DateTime), ua.Variant(r.ProcessingTimes),
            ua.Variant(r.ResultContent or [], kinds.Variant, is_array=True),
            ua.Variant(0 if found else NOT_FOUND, kinds.Int32),
        ]  # fmt: skip

    def _listed(self, parent: Any, state: Any, meas: Any, part: Any, *rest: Any) -> list[Any]:
        """Answer GetResultListFiltered by part and state; other filters match everything."""
        del parent, meas
        ua, kinds = self._ua, self._ua.VariantType
        most, start = int(rest[6].Value or 0), int(rest[7].Value or 0)
        part_id = getattr(part.Value, "Id", "") or ""
        matching = [
            r for r in self._results.values()
            if part_id in ("", r.PartId.Id) and int(state.Value or 0) in (0, r.ResultState)
        ]  # fmt: skip
        page = matching[start : start + most if most else None]
        return [
            ua.Variant(start + len(page) >= len(matching), kinds.Boolean),
            ua.Variant(len(page), kinds.UInt32),
            ua.Variant(0, kinds.UInt32),
            ua.Variant(page, kinds.ExtensionObject, is_array=True),
            ua.Variant(0, kinds.Int32),
        ]


async def _define_heirs(node: Any, index: int, inherited: Any, ua: Any) -> None:
    """Give data types that add no field to their parent's the parent's definition.

    The nodeset leaves it out (of ConfigurationIdDataType, for one), and a client that learns the
    types from the server then cannot read a result.
    """
    for heir in await node.get_children(refs=ua.ObjectIds.HasSubtype):
        defined = inherited
        if heir.nodeid.NamespaceIndex == index:
            defined = await heir.read_data_type_definition()
            if defined is None and inherited is not None:
                (encoding, *_) = await heir.get_referenced_nodes(refs=ua.ObjectIds.HasEncoding)
                defined = replace(inherited, DefaultEncodingId=encoding.nodeid)
                await heir.write_data_type_definition(defined)
        await _define_heirs(heir, index, defined, ua)
