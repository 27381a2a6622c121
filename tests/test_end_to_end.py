"""The whole station on a drawn line: what the plant hears is what the ledger holds."""

import threading
from contextlib import ExitStack
from pathlib import Path

import jsonschema
import pytest

from pipeline.assembly import build
from pipeline.clock import SystemClock
from pipeline.config import load
from pipeline.demo import Place, demo, drawn_line
from pipeline.schema import event_schema
from pipeline.shipped import shipped
from pipeline.store import read_records
from pipeline.types import Record
from tests.brokers import ANYONE, Subscriber, free_port, mosquitto, until

BOARDS = 3


def test_a_subscriber_of_the_plant_gets_one_valid_message_per_part(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = free_port()
        stack.enter_context(mosquitto(tmp_path, port, ANYONE))
        subscriber = Subscriber(port, "lineguard/#")
        stack.callback(subscriber.close)
        config = load(
            shipped("configs/demo.yaml"),
            {
                "camera": {"kind": "synthetic", "boards": BOARDS, "seed": 5},
                "store": {"path": str(tmp_path / "store"), "pictures": "all"},
                "publishers": [{"kind": "mqtt", "port": port}],
            },
        )
        tally = build(config, SystemClock()).run()
        until(lambda: "stopped" in subscriber.states(), "the goodbye")
    kept = list(read_records(tmp_path / "store"))
    heard = subscriber.on("inspection")
    assert len(kept) == BOARDS
    assert [h.data["id"] for h in heard] == [record.id for record in kept]
    for message in heard:
        jsonschema.validate(message.data, event_schema())
    assert tally.captured == tally.inspected + sum(tally.dropped.values())
    assert all((tmp_path / "store" / str(record.image)).is_file() for record in kept)


def test_the_demo_shows_every_part_and_compares_it_with_the_truth(tmp_path: Path) -> None:
    arrived: list[str] = []
    done = demo(
        shipped("configs/demo.yaml"),
        Place(tmp_path / "store"),
        drawn_line(boards=BOARDS, seed=5, realtime=False),
        on_start=lambda tally, total: None,
        on_message=lambda event: arrived.append(event["id"]),
    )
    assert arrived == [record.id for record in done.records]
    assert done.truth is not None
    assert (done.truth.parts, done.truth.missed, done.truth.double) == (BOARDS, 0, 0)


def test_a_station_that_is_told_to_stop_brings_home_what_it_has(tmp_path: Path) -> None:
    config = load(
        shipped("configs/demo.yaml"),
        {
            "camera": {"kind": "synthetic", "seed": 5},
            "store": {"path": str(tmp_path / "store")},
        },
    )
    first = threading.Event()
    records: list[Record] = []

    def on_record(record: Record) -> None:
        records.append(record)
        first.set()

    station = build(config, SystemClock(), on_record)
    running = threading.Thread(target=station.run)
    running.start()
    assert first.wait(60), "no part was decided"
    station.stop()
    running.join(60)
    assert not running.is_alive()
    assert [r.id for r in read_records(tmp_path / "store")] == [r.id for r in records]
    books = station.tally
    assert books.captured == books.inspected + sum(books.dropped.values())


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_what_runs_is_named_in_every_record(tmp_path: Path, runtime: str) -> None:
    config = load(
        shipped("configs/demo.yaml"),
        {
            "camera": {"kind": "synthetic", "boards": 1, "seed": 5},
            "model": {"bundle": str(shipped("models/boards-n")), "runtime": {"kind": runtime}},
            "store": {"path": str(tmp_path / "store")},
        },
    )
    build(config, SystemClock()).run()
    (record,) = read_records(tmp_path / "store")
    assert record.runtime.startswith(runtime)
    assert record.config_sha256 == config.sha256
