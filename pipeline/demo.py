"""The whole product on one machine: drawn line, real model, broker, and a subscriber of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.assembly import build, live_path, open_camera, open_window
from pipeline.clock import SystemClock
from pipeline.config import load
from pipeline.errors import PublishError
from pipeline.plugins import vendor
from pipeline.publishers._broker import DemoBroker
from pipeline.quality.truth import TruePart, compare
from pipeline.quality.truthfile import FILE as TRUTH_FILE
from pipeline.quality.truthfile import line_of
from pipeline.replay import Replay
from pipeline.station import STOPPED, Station
from pipeline.trouble import FILE as FAULTS_FILE
from pipeline.trouble import Trouble, TroubledCamera
from pipeline.types import Record

LAST_MESSAGE_S = 5.0


def demo(
    file: Path,
    store: Path,
    *,
    boards: int | None,
    seed: int,
    realtime: bool,
    on_start: Callable[[Station, int | None], None],
    on_message: Callable[[dict[str, Any]], None],
) -> Replay:
    """Run the demo line to its end.

    Args:
        file: the station file.
        store: where the records go.
        boards: number of boards that pass; None is endless.
        seed: of the line; the same seed shows the same boards.
        realtime: at the pace of a belt, or as fast as it goes.
        on_start: told the station, which it may stop, and the number of frames if that is known.
        on_message: called with each inspection that a subscriber got from the broker.

    Returns:
        The records beside the truth of the line.
    """
    with DemoBroker() as broker:
        config = load(
            file,
            {
                "camera": {
                    "kind": "synthetic",
                    "boards": boards,
                    "seed": seed,
                    "realtime": realtime,
                },
                "store": {"path": str(store.resolve()), "pictures": "all"},
                "publishers": [{"kind": "mqtt", "host": broker.host, "port": broker.port}],
            },
        )
        clock = SystemClock()
        camera: Any = open_camera(config, clock)
        inbox = _Inbox(on_message)
        window, live = open_window(config, clock), live_path(config)
        (live / FAULTS_FILE).unlink(missing_ok=True)
        with (
            _subscriber(broker.host, broker.port, inbox),
            Trouble(live / FAULTS_FILE, broker) as trouble,
        ):
            records: list[Record] = []
            teller = _TruthTeller(live / TRUTH_FILE, camera.truth_of, boards)

            def keep(record: Record) -> None:
                records.append(record)
                teller.tell(record)

            troubled = TroubledCamera(camera, trouble.has, config.document.station.name)
            station = build(config, clock, keep, troubled, window=window)
            on_start(station, camera.total)
            with window.on(station):
                tally = station.run()
            inbox.wait_for(len(records))
        truth = tuple(
            TruePart(row["index"], row["good"], row["centre_frame"]) for row in camera.truth
        )
        return Replay(tuple(records), tally, compare(*_settled(records, truth)))


def _settled(
    records: Sequence[Record], truth: Sequence[TruePart]
) -> tuple[tuple[Record, ...], tuple[TruePart, ...]]:
    """Leave out the boards that had not passed, or were in view, when the line was stopped."""
    cut = [r for r in records if r.reasons == (STOPPED,)]
    if not cut:
        return tuple(records), tuple(truth)
    end = min(r.first_frame for r in cut)
    kept = tuple(r for r in records if r not in cut)
    seen = max((r.last_frame for r in kept), default=0)
    in_view = [
        p for p in truth if any(r.first_frame <= p.centre_frame <= r.last_frame + 1 for r in cut)
    ]
    passed = tuple(p for p in truth if p.centre_frame <= max(seen, end) and p not in in_view)
    return kept, passed


class _TruthTeller:
    """Writes down what is true of the boards, for whoever shows it beside the verdicts."""

    def __init__(
        self, file: Path, truth_of: Callable[[int], Mapping[str, Any]], boards: int | None
    ) -> None:
        self._file = file
        self._truth_of = truth_of
        self._boards = boards
        self._next = 0
        self._file.unlink(missing_ok=True)

    def tell(self, record: Record) -> None:
        """Write of every board up to the one that a record is of."""
        with self._file.open("a", encoding="utf-8") as stream:
            while self._boards is None or self._next < self._boards:
                row = self._truth_of(self._next)
                if row["centre_frame"] > record.last_frame + 1:
                    return
                stream.write(line_of(record.run, row))
                self._next += 1


class _Inbox:
    """Counts the messages that arrive, so that the last one is waited for."""

    def __init__(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        self._on_message = on_message
        self._ids: set[str] = set()
        self._changed = threading.Condition()

    def take(self, event: dict[str, Any]) -> None:
        self._on_message(event)
        with self._changed:
            self._ids.add(event["id"])
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Return once ``count`` different messages came, or after a bounded time."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ids) >= count, LAST_MESSAGE_S)


@contextmanager
def _subscriber(host: str, port: int, inbox: _Inbox) -> Iterator[None]:
    """Subscribe to every inspection, as any system of the plant would."""
    mqtt = vendor("paho.mqtt.client", "demo")
    # A name of its own, and back sooner than the station sends again: it outlives a broker's death.
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id="lineguard-demo", protocol=mqtt.MQTTv5
    )
    client.reconnect_delay_set(min_delay=0.1, max_delay=0.2)
    client.on_connect = lambda client, *_: client.subscribe("lineguard/v1/#", qos=1)

    def arrived(client: Any, userdata: Any, message: Any) -> None:
        if message.topic.endswith("/inspection"):
            inbox.take(json.loads(message.payload))

    client.on_message = arrived
    try:
        client.connect(host, port, keepalive=15, clean_start=True)
    except OSError as error:
        raise PublishError(f"demo broker on {host}:{port}: {error}") from error
    client.loop_start()
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()
