"""A real OPC UA client drives the handshake with a running station; the companion model too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.outputs.opcua import NAMESPACE, SHOWN, TAKEN
from pipeline.plc.signals import Code, Inputs, Signals
from pipeline.types import Verdict
from tests.plc_lines import DrivenPlc, free_port, running, station_page

sync = pytest.importorskip("asyncua.sync", reason="needs lineguard[opcua]")
ua = pytest.importorskip("asyncua.ua", reason="needs lineguard[opcua]")
MV = "http://opcfoundation.org/UA/MachineVision"


class UaPlc:
    """Connects as soon as there is a server; afterwards reads and writes the variables."""

    def __init__(self, port: int) -> None:
        self._url = f"opc.tcp://127.0.0.1:{port}/lineguard"
        self.client: Any = None

    def _connected(self) -> bool:
        if self.client is None:
            client = sync.Client(self._url, timeout=4)
            try:
                client.connect()
            except (OSError, TimeoutError):
                client.tloop.stop()
                return False
            self.client = client
            index = client.get_namespace_index(NAMESPACE)
            self._out = [client.get_node(f"ns={index};s=Outputs.{name}") for name in SHOWN]
            self._in = [client.get_node(f"ns={index};s=Inputs.{name}") for name in TAKEN]
        return True

    def read(self) -> Signals | None:
        if not self._connected():
            return None
        values = dict(zip(SHOWN.values(), self.client.read_values(self._out), strict=True))
        return Signals(**values | {"error": Code(values["error"])})

    def write(self, out: Inputs) -> None:
        if self.client is None:
            return
        values = [getattr(out, attribute) for attribute in TAKEN.values()]
        kinds = [
            ua.VariantType.Boolean if isinstance(v, bool) else ua.VariantType.UInt16 for v in values
        ]
        self.client.write_values(
            self._in, [ua.DataValue(ua.Variant(v, k)) for v, k in zip(values, kinds, strict=True)]
        )

    def close(self) -> None:
        if self.client is not None:
            self.client.disconnect()


@contextmanager
def a_plc(port: int) -> Iterator[tuple[UaPlc, DrivenPlc]]:
    carried = UaPlc(port)
    try:
        yield carried, DrivenPlc(carried.read, carried.write)
    finally:
        carried.close()


@pytest.fixture(scope="session")
def nodeset(data_dir: Path) -> Path:
    """Return the OPC Foundation's nodeset of Machine Vision; it is not in this repository."""
    named = os.environ.get("LINEGUARD_NODESET")
    file = Path(named) if named else data_dir / "opcua" / "Opc.Ua.MachineVision.NodeSet2.xml"
    if not file.is_file():
        pytest.skip(f"no nodeset of OPC 40100-1 at {file}; set LINEGUARD_NODESET to where it lies")
    return file


def test_an_opc_ua_client_drives_the_whole_handshake(tmp_path: Path) -> None:
    port = free_port()
    with (
        running(tmp_path, station_page({"kind": "opcua", "port": port})) as station,
        a_plc(port) as (_, plc),
    ):
        plc.until(lambda: plc.done >= 10, "ten parts")
        plc.plc.passed[:], plc.plc.rejected[:] = plc.plc.passed[:5], plc.plc.rejected[:5]
        assert (plc.plc.passed, plc.plc.rejected) == ([1, 3, 5, 7, 9], [2, 4, 6, 8, 10])
        station.stop()
        verdicts = [r.verdict for r in station.records]
        assert verdicts[:10] == [Verdict.PASS, Verdict.FAIL] * 5


def test_the_companion_model_shows_state_and_results(tmp_path: Path, nodeset: Path) -> None:
    port = free_port()
    page = station_page(
        {"kind": "opcua", "port": port, "nodeset": str(nodeset)},
        gate={"plc_silent_ms": 60_000, "deadline_ms": 2000},  # it stands still while we look around
    )
    with running(tmp_path, page), a_plc(port) as (carried, plc):
        plc.until(lambda: plc.done >= 2, "two parts")
        client = carried.client
        client.load_data_type_definitions()
        i = client.get_namespace_index(MV)
        system = client.nodes.objects.get_child([f"{i}:VisionSystem"])
        kind = client.get_node(system.read_type_definition())
        assert kind.read_browse_name().Name == "VisionSystemType"
        state = system.get_child([f"{i}:VisionStateMachine", "0:CurrentState"])
        assert state.read_value().Text == "Operational"
        management = system.get_child([f"{i}:ResultManagement"])
        last = management.get_child([f"{i}:Results", f"{i}:LastResult"]).read_value()
        assert last.ResultContent[0].Value in ("PASS", "FAIL")
        wanted = ua.ResultIdDataType(Id="2")
        method = management.get_child([f"{i}:GetResultById"])
        _, result, error = management.call_method(
            method, wanted, ua.Variant(0, ua.VariantType.Int32)
        )
        assert (error, result.PartId.Id, result.ResultContent[0].Value) == (0, "2", "FAIL")
