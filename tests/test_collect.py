"""The collector keeps every record once, and a station keeps each until the collector says so."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from pipeline import schema
from pipeline.clock import ManualClock
from pipeline.collect import Collector, Options, SqliteArchive
from pipeline.collect.arrival import Arrival, read_arrival, source_of
from pipeline.collect.sqlite import account
from pipeline.errors import ConfigError, PublishError
from pipeline.publishers import Address
from pipeline.publishers.mqtt import MqttPublisher
from pipeline.publishers.mqtt import Options as BrokerOptions
from pipeline.publishers.mqtt.pace import Pace
from pipeline.receipts import Receipt, read_receipt
from pipeline.schema import EXAMPLE, canonical, event
from pipeline.types import Record
from tests.brokers import HOST, Subscriber, free_port, running, until

ADDRESS = Address("acme", "north", "smt", "line-2", "aoi-1")
SOURCE = ADDRESS.path
BASE = f"lineguard/v1/{SOURCE}"


def chained(count: int, run: str = "run-1") -> tuple[Record, ...]:
    made: list[Record] = []
    for n in range(count):
        before = schema.sha256(made[-1]) if made else "0" * 64
        id_ = f"{n:08d}-0000-7000-8000-{run[-1] * 12}"
        made.append(
            replace(EXAMPLE, id=id_, run=run, seq=n + 1, part=n + 1, previous_sha256=before)
        )
    return tuple(made)


def arrivals(records: Sequence[Record]) -> list[Arrival]:
    return [Arrival(SOURCE, r, schema.encode(r), schema.sha256(r)) for r in records]


# --- what arrives


def test_an_event_arrives_as_the_record_it_was() -> None:
    arrival = read_arrival(SOURCE, canonical(event(EXAMPLE, ADDRESS)))
    assert (arrival.record, arrival.sha256) == (EXAMPLE, schema.sha256(EXAMPLE))


EVENT = event(EXAMPLE, ADDRESS)
NO_EVENTS: dict[str, bytes] = {
    "nothing": b"",
    "no json": b"\xff\xfe",
    "no object": b"[]",
    "too deep": b"[" * 100_000,
    "too large": b" " * (1 << 20),
    "of another station": json.dumps({**EVENT, "source": "/acme/north/smt/line-2/aoi-2"}).encode(),
    "another id": json.dumps({**EVENT, "id": "another"}).encode(),
    "another type": json.dumps({**EVENT, "type": "io.other.v1"}).encode(),
    "no record": json.dumps({**EVENT, "data": {}}).encode(),
    "not a number": json.dumps(EVENT).replace("38.412", "NaN").encode(),
    "a number written otherwise": json.dumps(EVENT).replace('"views": 5', '"views": 5.0').encode(),
}


@pytest.mark.parametrize("what", NO_EVENTS)
def test_what_is_no_event_is_a_config_error_of_one_line(what: str) -> None:
    with pytest.raises(ConfigError, match=r"^not an? ") as said:
        read_arrival(SOURCE, NO_EVENTS[what])
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    "topic",
    ["", "lineguard/v1/a/b/inspection", f"{BASE}/state", f"other/v1/{SOURCE}/inspection"],
)
def test_another_topic_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match="no topic of a station"):
        source_of(topic, "lineguard")


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_a_receipt_of_any_bytes_is_read_or_refused(payload: bytes) -> None:
    try:
        read_receipt(payload)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_a_receipt_survives_its_journey() -> None:
    receipt = Receipt(run="run-1", first=3, through=9)
    assert read_receipt(receipt.as_json()) == receipt
    assert json.loads(receipt.as_json()) == {"run": "run-1", "from": 3, "through": 9}
    assert [receipt.covers("run-1", n) for n in (2, 3, 9, 10)] == [False, True, True, False]
    assert not receipt.covers("run-2", 5)


# --- over a broker


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(params=["demo", "mosquitto"])
def port(request: pytest.FixtureRequest, tmp_path: Path, stack: ExitStack) -> int:
    number = free_port()
    stack.enter_context(running(request.param, tmp_path, number))
    return number


@contextmanager
def collecting(port: int, file: Path) -> Iterator[Collector]:
    archive = SqliteArchive(file)
    collector = Collector(Options("plant", BrokerOptions(port=port)), archive)
    thread = threading.Thread(target=collector.run, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.stop()
        thread.join(10)
        assert not thread.is_alive(), "the collector hangs"
        archive.close()


def station_at(stack: ExitStack, port: int, **options: Any) -> MqttPublisher:
    publisher = MqttPublisher(BrokerOptions(port=port, collector="plant", **options), ADDRESS)
    stack.callback(publisher.close)
    return publisher


def deliver(publisher: MqttPublisher, records: Sequence[Record]) -> None:
    """Offer records as the station does, until the last one is confirmed."""
    left = {record.id: record for record in records}

    def all_confirmed() -> bool:
        try:
            for id_ in publisher.send(tuple(left.values())[:64]) if left else ():
                del left[id_]
        except PublishError:
            return False
        return not left

    until(all_confirmed, "the receipts")


def test_records_are_confirmed_once_the_collector_has_them(
    port: int, tmp_path: Path, stack: ExitStack
) -> None:
    file = tmp_path / "plant.sqlite"
    publisher = station_at(stack, port)
    with collecting(port, file) as collector:
        deliver(publisher, chained(300))
        assert collector.counts.new == 300
    (station,) = account(file)
    assert (station.source, station.records, station.missing) == (SOURCE, 300, 0)


def test_what_the_broker_confirms_alone_is_not_delivered(
    port: int, tmp_path: Path, stack: ExitStack
) -> None:
    listener = Subscriber(port, "lineguard/#")
    stack.callback(listener.close)
    publisher = station_at(stack, port, confirm_s=0.3)
    for _ in range(3):
        with pytest.raises(PublishError, match="collector 'plant' has not acknowledged"):
            publisher.send(chained(5))
    until(lambda: len(listener.on("inspection")) >= 7, "the repetitions")
    ids = [heard.data["id"] for heard in listener.on("inspection")]
    assert ids == [*(r.id for r in chained(5)), ids[0], ids[0]], "only the oldest is repeated"
    with collecting(port, tmp_path / "plant.sqlite"):
        deliver(publisher, chained(5))
    assert account(tmp_path / "plant.sqlite")[0].records == 5


def test_a_collector_that_comes_back_goes_on_where_it_was(
    port: int, tmp_path: Path, stack: ExitStack
) -> None:
    file = tmp_path / "plant.sqlite"
    records = chained(60)
    publisher = station_at(stack, port, confirm_s=0.3)
    with collecting(port, file):
        deliver(publisher, records[:20])
    with pytest.raises(PublishError):
        publisher.send(records[20:40])
    with collecting(port, file) as collector:
        deliver(publisher, records[20:])
        assert collector.counts.new == 40
    assert (account(file)[0].records, account(file)[0].unchained) == (60, 0)


def test_a_station_that_starts_again_delivers_what_has_no_receipt(
    port: int, tmp_path: Path, stack: ExitStack
) -> None:
    file = tmp_path / "plant.sqlite"
    with collecting(port, file) as collector:
        deliver(station_at(stack, port), chained(10))
        stack.close()
    with ExitStack() as again:
        number = free_port()
        again.enter_context(running("mosquitto", tmp_path, number))
        with collecting(number, file) as collector:
            deliver(station_at(again, number), chained(10))
            # A receipt for one tells of all, and may come before the others are counted.
            assert collector.counts.new == 0
            assert 1 <= collector.counts.repeated <= 10
    assert account(file)[0].records == 10


def test_a_record_set_aside_stops_none_that_follow(
    port: int, tmp_path: Path, stack: ExitStack
) -> None:
    """Its number is missing at the collector, and the range behind it is acknowledged as well."""
    one, two, three = chained(3)
    large = replace(two, reasons=("x" * 3000,))
    publisher = station_at(stack, port, max_payload_bytes=3000)
    with collecting(port, tmp_path / "plant.sqlite"):
        deliver(publisher, [one, large, three])
    assert account(tmp_path / "plant.sqlite")[0].missing == 1


def test_what_is_no_event_becomes_a_dead_letter_and_stops_nothing(
    port: int, tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    stranger.connect(HOST, port)
    stranger.loop_start()
    stack.callback(stranger.loop_stop)
    with collecting(port, tmp_path / "plant.sqlite") as collector:
        deliver(station_at(stack, port), chained(1))
        stranger.publish(f"{BASE}/inspection", b"{}", qos=1)
        stranger.publish(f"{BASE}/inspection", canonical({**EVENT, "source": "/x"}), qos=1)
        until(lambda: collector.counts.dead_letters == 2, "the dead letters")
        deliver(station_at(stack, port), chained(2))
    assert "dead letters of the archive" in caplog.text


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"run":"run-1","from":0,"through":99}'])
def test_a_receipt_that_is_none_confirms_nothing(
    port: int, stack: ExitStack, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = station_at(stack, port, confirm_s=0.3)
    with pytest.raises(PublishError):
        publisher.send(chained(1))
    stranger = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    stranger.connect(HOST, port)
    stranger.loop_start()
    stack.callback(stranger.loop_stop)
    stranger.publish(f"{BASE}/ack/plant", payload, qos=1)
    until(lambda: "not a receipt" in caplog.text, "the refusal")
    with pytest.raises(PublishError):
        publisher.send(chained(1))


# --- the pace of a backlog


def test_a_backlog_leaves_at_its_rate() -> None:
    clock = ManualClock()
    pace = Pace(100, clock)
    for _ in range(10):
        pace.wait(50)
    assert clock.now_ns() == 4_500_000_000


def test_a_part_now_and_then_does_not_wait() -> None:
    clock = ManualClock()
    pace = Pace(100, clock)
    for _ in range(10):
        before = clock.now_ns()
        pace.wait(1)
        assert clock.now_ns() == before
        clock.advance(1_000_000_000)
