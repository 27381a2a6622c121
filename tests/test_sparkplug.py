"""A SCADA host of Sparkplug 3.0 sees each part once, and knows at any time whether we live.

Tests are named after the identifiers of the specification's test kit. Payloads are read by
protobuf's own library, from the message description in the specification.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from pipeline import schema
from pipeline.errors import ConfigError, PublishError
from pipeline.publishers import Address
from pipeline.publishers.sparkplug import Options, SparkplugPublisher, create
from pipeline.publishers.sparkplug.node import METRICS, Node
from pipeline.publishers.sparkplug.payload import Metric, Type, commands, encode
from pipeline.schema import EXAMPLE
from pipeline.types import Record
from tests.brokers import ANYONE, HOST, free_port, mosquitto, until

protobuf = pytest.importorskip("google.protobuf")
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: E402

ADDRESS = Address("acme", "north", "smt", "line-2", "aoi-1")
NODE = "spBv1.0/north-line-2/{}/aoi-1"
HOST_STATE = "spBv1.0/STATE/scada"


def described() -> Any:
    """Return protobuf's class of the payload, from the specification's field numbers."""
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug.proto", package="spb")
    label, kinds = descriptor_pb2.FieldDescriptorProto, descriptor_pb2.FieldDescriptorProto
    metric = file.message_type.add(name="Metric")
    payload = file.message_type.add(name="Payload")

    def field(of: Any, name: str, number: int, kind: int, label: int, **more: Any) -> None:
        of.field.add(name=name, number=number, type=kind, label=label, **more)

    for name, number, kind in (
        ("name", 1, kinds.TYPE_STRING), ("alias", 2, kinds.TYPE_UINT64),
        ("timestamp", 3, kinds.TYPE_UINT64), ("datatype", 4, kinds.TYPE_UINT32),
        ("is_historical", 5, kinds.TYPE_BOOL), ("is_null", 7, kinds.TYPE_BOOL),
        ("int_value", 10, kinds.TYPE_UINT32), ("long_value", 11, kinds.TYPE_UINT64),
        ("double_value", 13, kinds.TYPE_DOUBLE), ("boolean_value", 14, kinds.TYPE_BOOL),
        ("string_value", 15, kinds.TYPE_STRING),
    ):  # fmt: skip
        field(metric, name, number, kind, label.LABEL_OPTIONAL)
    field(payload, "timestamp", 1, kinds.TYPE_UINT64, label.LABEL_OPTIONAL)
    field(payload, "metrics", 2, kinds.TYPE_MESSAGE, label.LABEL_REPEATED, type_name=".spb.Metric")
    field(payload, "seq", 3, kinds.TYPE_UINT64, label.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("spb.Payload"))


Payload = described()


def value(metric: Any) -> Any:
    """Return what a metric says; where it names its type, what it says is of that type."""
    if metric.is_null:
        return None
    held = {4: "long_value", 10: "double_value", 11: "boolean_value", 12: "string_value"}
    (name,) = [name for name in held.values() if metric.HasField(name)]
    assert not metric.HasField("datatype") or held[metric.datatype] == name
    return getattr(metric, name)


@dataclass(frozen=True)
class Seen:
    """A message as the host saw it."""

    verb: str
    qos: int
    retained: bool
    payload: Any

    @property
    def values(self) -> dict[str, Any]:
        return {metric.name: value(metric) for metric in self.payload.metrics}


class Plant:
    """A host application with a connection of its own."""

    def __init__(self, port: int) -> None:
        self.seen: list[Seen] = []
        self._listening = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("spBv1.0/north-line-2/#", 1)
        self._client.on_subscribe = self._is_listening
        self._client.on_message = self._hear
        self._client.connect(HOST, port)
        self._client.loop_start()
        until(lambda: self._listening, "the host's subscription")

    def _is_listening(self, *_: Any) -> None:
        self._listening = True

    def _hear(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        del client, userdata
        verb = message.topic.split("/")[2]
        if verb == "NCMD":
            return
        assert message.topic == NODE.format(verb)
        payload = Payload.FromString(bytes(message.payload))
        self.seen.append(Seen(verb, message.qos, message.retain, payload))

    def on(self, verb: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.verb == verb]

    def wait_for(self, verb: str, count: int) -> list[Seen]:
        until(lambda: len(self.on(verb)) >= count, f"{count} {verb}")
        return self.on(verb)

    def command(self, name: str, metric_type: Type, asked: Any, retain: bool = False) -> None:
        payload = encode([Metric(name, metric_type, asked, 1)], 1, None)
        self._client.publish(NODE.format("NCMD"), payload, 1, retain=retain)

    def says(self, online: str, time_ms: int) -> None:
        text = f'{{"online": {online}, "timestamp": {time_ms}}}'
        self._client.publish(HOST_STATE, text, 1, retain=True)

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, 1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def records(count: int, seconds: float = 60.0) -> tuple[Record, ...]:
    """Return records that were decided so many seconds from now."""
    at = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return tuple(
        replace(EXAMPLE, id=f"{n:08d}-0000-7000-8000-000000000000", part=n, seq=n, time=stamp)
        for n in range(1, count + 1)
    )


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def port(tmp_path: Path, stack: ExitStack) -> int:
    number = free_port()
    stack.enter_context(mosquitto(tmp_path, number, ANYONE))
    return number


@pytest.fixture
def plant(port: int, stack: ExitStack) -> Plant:
    host = Plant(port)
    stack.callback(host.close)
    return host


Station = Callable[..., SparkplugPublisher]


@pytest.fixture
def station(port: int, stack: ExitStack) -> Station:
    def made(**options: Any) -> SparkplugPublisher:
        publisher = create(Options(port=port, **options), ADDRESS)
        stack.callback(publisher.close)
        return publisher

    return made


def offer(publisher: SparkplugPublisher, offered: tuple[Record, ...]) -> None:
    """Send until it is taken, as the station does."""
    deadline = time.monotonic() + 60
    while True:
        try:
            assert publisher.send(offered) == tuple(record.id for record in offered)
            return
        except PublishError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


# -- birth --------------------------------------------------------------------------------------


def test_topics_nbirth_mqtt_and_seq_num(plant: Plant, station: Station) -> None:
    station()
    (birth,) = plant.wait_for("NBIRTH", 1)
    assert (birth.qos, birth.retained, birth.payload.seq) == (0, False, 0)
    assert abs(birth.payload.timestamp / 1000 - time.time()) < 3600


def test_topics_nbirth_metrics_and_rebirth_metric(plant: Plant, station: Station) -> None:
    publisher = station()
    publisher.state({"state": "ready", "ready": True, "faults": {}})
    offer(publisher, records(1))
    publisher.state({"state": "ready", "ready": True, "faults": {}})
    plant.command("Node Control/Rebirth", Type.BOOLEAN, True)
    birth = plant.wait_for("NBIRTH", 2)[-1]
    assert set(birth.values) == {"bdSeq", "Node Control/Rebirth", *METRICS}
    assert birth.values["Node Control/Rebirth"] is False
    assert birth.values["Part/Verdict"] == EXAMPLE.verdict.value
    assert birth.values["Station/Ready"] is True
    assert {m.datatype for m in birth.payload.metrics} == {4, 10, 11, 12}


def test_topics_nbirth_bdseq_increment_and_matching_of_the_will(
    tmp_path: Path, stack: ExitStack
) -> None:
    number = free_port()
    with mosquitto(tmp_path, number, ANYONE):
        publisher = create(Options(port=number), ADDRESS)
        stack.callback(publisher.close)
        offer(publisher, records(1))
    stack.enter_context(mosquitto(tmp_path, number, ANYONE))
    plant = Plant(number)
    stack.callback(plant.close)
    plant.command("Node Control/Rebirth", Type.BOOLEAN, True)
    until(lambda: not publisher.trouble, "the second session")
    plant.command("Node Control/Rebirth", Type.BOOLEAN, True)
    born = plant.wait_for("NBIRTH", 1)[0].values["bdSeq"]
    assert born >= 1
    publisher.close()
    died = plant.wait_for("NDEATH", 1)[0]
    assert died.values == {"bdSeq": plant.on("NBIRTH")[-1].values["bdSeq"]}
    assert not died.payload.HasField("seq")


def test_message_flow_edge_node_birth_publish_will_message_qos(
    tmp_path: Path, stack: ExitStack
) -> None:
    number = free_port()
    stack.enter_context(mosquitto(tmp_path, number, ANYONE))
    plant = Plant(number)
    stack.callback(plant.close)
    first = create(Options(port=number, client_id="same"), ADDRESS)
    stack.callback(first.close)
    birth = plant.wait_for("NBIRTH", 1)[0]
    # Another client of the same name: the broker throws the first out, and publishes its will.
    rival = paho.Client(CallbackAPIVersion.VERSION2, "same")
    rival.connect(HOST, number)
    death = plant.wait_for("NDEATH", 1)[0]
    rival.disconnect()
    assert (death.qos, death.retained) == (1, False)
    assert death.values["bdSeq"] == birth.values["bdSeq"]


# -- data ---------------------------------------------------------------------------------------


def test_topics_ndata_mqtt_and_seq_num_go_on_from_the_birth(plant: Plant, station: Station) -> None:
    offer(station(), records(300))
    data = plant.wait_for("NDATA", 300)
    assert {(seen.qos, seen.retained) for seen in data} == {(0, False)}
    assert [seen.payload.seq for seen in data] == [(n + 1) % 256 for n in range(300)]
    assert [seen.values["Part/Number"] for seen in data] == list(range(1, 301))


def test_payloads_metric_datatype_not_req(plant: Plant, station: Station) -> None:
    offer(station(), records(1))
    (data,) = plant.wait_for("NDATA", 1)
    assert not any(metric.HasField("datatype") for metric in data.payload.metrics)


def test_operational_behavior_data_publish_nbirth_change(plant: Plant, station: Station) -> None:
    offer(station(), records(2))
    first, second = plant.wait_for("NDATA", 2)
    assert first.values["Part/Verdict"] == EXAMPLE.verdict.value
    assert "Part/Verdict" not in second.values
    assert set(second.values) == {"Part/Id", "Part/Number", "Part/Record"}


def test_the_whole_record_comes_with_it_and_its_chain_can_be_proved(
    plant: Plant, station: Station
) -> None:
    (record,) = records(1)
    offer(station(), (record,))
    text = plant.wait_for("NDATA", 1)[0].values["Part/Record"]
    assert schema.decode(text.encode()) == record
    assert text.encode() == schema.encode(record)


def test_what_was_decided_before_the_birth_is_historical(plant: Plant, station: Station) -> None:
    offer(station(), records(2, seconds=-3600))
    for seen in plant.wait_for("NDATA", 2):
        assert all(metric.is_historical for metric in seen.payload.metrics)
        assert seen.values["Part/Verdict"] == EXAMPLE.verdict.value


def test_a_state_is_told_when_it_changes(plant: Plant, station: Station) -> None:
    publisher = station()
    plant.wait_for("NBIRTH", 1)
    until(lambda: publisher.trouble == "", "the session")
    for _ in range(2):
        publisher.state({"state": "not ready", "ready": False, "faults": {"camera": "unplugged"}})
    publisher.state({"state": "ready", "ready": True, "faults": {}})
    first, second = plant.wait_for("NDATA", 2)
    assert first.values["Station/Faults"] == '{"camera": "unplugged"}'
    assert second.values["Station/Ready"] is True
    assert len(plant.on("NDATA")) == 2


# -- commands -----------------------------------------------------------------------------------


def test_operational_behavior_data_commands_rebirth_action(plant: Plant, station: Station) -> None:
    publisher = station()
    offer(publisher, records(3))
    plant.command("Node Control/Rebirth", Type.BOOLEAN, True)
    first, second = plant.wait_for("NBIRTH", 2)
    assert first.values["bdSeq"] == second.values["bdSeq"]
    assert second.payload.seq == 0
    offer(publisher, records(5)[3:])
    assert plant.wait_for("NDATA", 5)[3].payload.seq == 1


@pytest.mark.parametrize(
    ("name", "kind", "asked", "retain"),
    [
        ("Node Control/Rebirth", Type.BOOLEAN, False, False),
        ("Node Control/Rebirth", Type.BOOLEAN, True, True),
        ("Node Control/Reboot", Type.BOOLEAN, True, False),
    ],
)
def test_another_command_does_nothing(
    plant: Plant, station: Station, name: str, kind: Type, asked: bool, retain: bool
) -> None:
    if retain:
        plant.command(name, kind, asked, retain)
    publisher = station()
    plant.wait_for("NBIRTH", 1)
    plant.command(name, kind, asked if not retain else False)
    plant.publish(NODE.format("NCMD"), b"\xff\xff\xff")
    offer(publisher, records(1))
    plant.wait_for("NDATA", 1)
    assert len(plant.on("NBIRTH")) == 1


@given(st.binary(max_size=200))
def test_any_bytes_as_a_command_are_read_or_refused(data: bytes) -> None:
    try:
        commands(data)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_a_command_without_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="65536 are taken"):
        commands(b"\x12\x00" * 40_000)
    with pytest.raises(ConfigError, match="1000 are taken"):
        commands(b"\x12\x00" * 2_000)


# -- the primary host ---------------------------------------------------------------------------


def test_message_flow_edge_node_birth_publish_phid_wait(plant: Plant, station: Station) -> None:
    publisher = station(primary_host="scada")
    until(lambda: "is not online" in publisher.trouble, "the waiting")
    with pytest.raises(PublishError, match="the host 'scada' is not online"):
        publisher.send(records(1))
    assert plant.seen == []
    plant.says("true", 1000)
    plant.wait_for("NBIRTH", 1)
    offer(publisher, records(1))
    plant.wait_for("NDATA", 1)


def test_message_flow_edge_node_birth_publish_phid_offline(plant: Plant, station: Station) -> None:
    plant.says("true", 1000)
    publisher = station(primary_host="scada")
    born = plant.wait_for("NBIRTH", 1)[0]
    plant.says("false", 2000)
    death = plant.wait_for("NDEATH", 1)[0]
    assert death.values["bdSeq"] == born.values["bdSeq"]
    until(lambda: "scada" in publisher.trouble, "the reason")
    with pytest.raises(PublishError):
        publisher.send(records(1))
    plant.says("true", 3000)
    again = plant.wait_for("NBIRTH", 2)[1]
    assert again.values["bdSeq"] == born.values["bdSeq"] + 1


def test_older_news_of_the_host_is_not_heeded(plant: Plant, station: Station) -> None:
    plant.says("true", 5000)
    publisher = station(primary_host="scada")
    plant.wait_for("NBIRTH", 1)
    plant.says("false", 4000)
    plant.publish(HOST_STATE, b"OFFLINE")
    offer(publisher, records(1))
    plant.wait_for("NDATA", 1)
    assert plant.on("NDEATH") == []


# -- the wire -----------------------------------------------------------------------------------


@given(
    st.text(max_size=40), st.text(max_size=200), st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False), st.booleans(), st.integers(0, 2**62), st.integers(0, 255),
)  # fmt: skip
def test_protobuf_reads_what_is_written(
    name: str, text: str, number: int, real: float, flag: bool, time_ms: int, seq: int
) -> None:
    written = [
        Metric(name, Type.STRING, text, time_ms),
        Metric(name, Type.INT64, number, time_ms, historical=True),
        Metric(name, Type.DOUBLE, real, time_ms),
        Metric(name, Type.BOOLEAN, flag, time_ms),
        Metric(name, Type.STRING, None, time_ms),
    ]
    read = Payload.FromString(encode(written, time_ms, seq))
    assert (read.timestamp, read.seq) == (time_ms, seq)
    values = [value(metric) for metric in read.metrics]
    assert values == [text, number % 2**64, real, flag, None]
    assert [(m.name, m.timestamp) for m in read.metrics] == [(name, time_ms)] * 5
    assert [m.is_historical for m in read.metrics] == [False, True, False, False, False]


def test_numbers_of_connections_go_round_after_255() -> None:
    node = Node()
    seen = [Payload.FromString(node.connecting(1)).metrics[0].long_value for _ in range(257)]
    assert seen == [*range(256), 0]


def test_a_record_that_was_the_last_already_says_nothing_new() -> None:
    node = Node()
    node.connecting(1)
    node.birth(1)
    (record,) = records(1)
    assert node.part(record, 2) is not None
    assert node.part(record, 3) is None
