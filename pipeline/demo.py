"""The whole product on one machine: drawn line, real model, broker, and a subscriber of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.assembly import build, live_path, open_camera, open_window
from pipeline.cameras.synthetic import Synthetic
from pipeline.clock import SystemClock
from pipeline.config import StationConfig, load
from pipeline.demo_broker import DemoBroker
from pipeline.errors import ConfigError, LineguardError, PublishError
from pipeline.lines import Lines
from pipeline.live import live_folder
from pipeline.plugins import vendor
from pipeline.quality.truth import Comparison, TruePart, compare
from pipeline.quality.truthfile import FILE as TRUTH_FILE
from pipeline.quality.truthfile import line_of
from pipeline.replay import Replay
from pipeline.smalldisk import small_disk
from pipeline.station import STOPPED, Station
from pipeline.trouble import (
    BROKER,
    DISK,
    BrokerSwitch,
    DiskSwitch,
    Switch,
    Trouble,
    TroubledCamera,
)
from pipeline.types import Record

LAST_MESSAGE_S = 5.0
PRODUCT = 33
"""Layout of the boards that pass: a line makes one product, and its recipe was tried on it, with
boards of other seeds, before it was released. Mixed layouts are what the model's card speaks of."""
DISK_MB, PICTURES_MB, RESERVE_MB = 128, 80, 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where the demo keeps its records.

    Attributes:
        store: folder of the ledger.
        ballast: file that may take all the room of its disk, or None.
        reason: why there is none.
    """

    store: Path
    ballast: Path | None = None
    reason: str = ""


@contextmanager
def scratch_place() -> Iterator[Place]:
    """Yield a place that is gone afterwards; on a small disk of its own where that can be made."""
    with tempfile.TemporaryDirectory(prefix="lineguard-demo-") as folder, ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(Path(folder) / "disk", DISK_MB))
            place = Place(disk / "store", disk / "ballast")
        except ConfigError as error:
            place = Place(Path(folder) / "store", None, str(error))
        place.store.mkdir()
        yield place
        shutil.rmtree(live_folder(place.store), ignore_errors=True)


def drawn_line(
    *, boards: int | None, seed: int, realtime: bool, layout: int | None = PRODUCT
) -> dict[str, Any]:
    """Return the camera section of a drawn line.

    Args:
        boards: how many pass; None is endless.
        layout: of the product that is made; None gives each board a layout of its own.
    """
    return {
        "kind": "synthetic",
        "boards": boards,
        "seed": seed,
        "realtime": realtime,
        "layout": layout,
    }


def demo(
    file: Path,
    place: Place,
    camera: Mapping[str, Any],
    *,
    words: str = "Drawn boards",
    videos: Path | None = None,
    on_start: Callable[[Station, int | None], None],
    on_message: Callable[[dict[str, Any]], None],
    on_change: Callable[[str, Replay], None] = lambda words, done: None,
) -> Replay:
    """Run the demo line to its end, and then every other line that was chosen on the page.

    Args:
        file: the station file.
        place: where the records go.
        camera: section of the station file that shows the line.
        words: what that line is called on the page.
        videos: a folder whose videos may be chosen on the page, or None.
        on_start: told each station, which it may stop, and the number of frames if that is known.
        on_message: called with each inspection that a subscriber got from the broker.
        on_change: told of a line that ended because another was chosen, and what it gave.

    Returns:
        The records of the last line, beside the truth if that is known: of a drawn one.
    """
    with DemoBroker() as broker:
        config = _config(file, place, camera, broker)
        inbox, live = _Inbox(on_message), live_path(config)
        open_window(config, SystemClock())  # makes its folder: lines and faults are told there
        with (
            _subscriber(broker.host, broker.port, inbox),
            _trouble(live, broker, place) as trouble,
            Lines(live, camera, words, videos) as lines,
        ):

            def begin(station: Station, total: int | None) -> None:
                on_start(station, total)
                lines.runs(station.stop)

            while True:
                said = lines.words
                try:
                    config = _config(file, place, lines.section, broker)
                    done = _run(config, trouble, begin)
                except LineguardError as error:
                    if not lines.fall_back(error):
                        raise
                    continue
                inbox.wait_for(done.records)
                if not lines.advance():
                    return done
                on_change(said, done)


def _run(
    config: StationConfig, trouble: Trouble, on_start: Callable[[Station, int | None], None]
) -> Replay:
    """Run one line until it ends or is ended."""
    clock, records = SystemClock(), list[Record]()
    source: Any = open_camera(config, clock)
    drawn = config.camera.kind == "synthetic"
    window = open_window(config, clock)
    teller = _TruthTeller(live_path(config) / TRUTH_FILE, source if drawn else None)

    def keep(record: Record) -> None:
        records.append(record)
        teller.tell(record)

    troubled = TroubledCamera(source, trouble.has, config.document.station.name)
    station = build(config, clock, keep, troubled, window=window)
    on_start(station, source.total)
    with window.on(station):
        tally = station.run()
    return Replay(tuple(records), tally, _compared(records, source.truth) if drawn else None)


def _config(
    file: Path, place: Place, camera: Mapping[str, Any], broker: DemoBroker
) -> StationConfig:
    store: dict[str, Any] = {"path": str(place.store.resolve()), "pictures": "all"}
    if place.ballast is not None:
        store |= {"keep_pictures_mb": PICTURES_MB, "reserve_mb": RESERVE_MB}
    receiver = {"kind": "mqtt", "host": broker.host, "port": broker.port}
    return load(file, {"camera": dict(camera), "store": store, "publishers": [receiver]})


def _trouble(live: Path, broker: DemoBroker, place: Place) -> Trouble:
    switches: dict[str, Switch] = {BROKER: BrokerSwitch(broker)}
    if place.ballast is None:
        return Trouble(live, switches, {DISK: place.reason})
    return Trouble(live, switches | {DISK: DiskSwitch(place.ballast)})


def _compared(records: Sequence[Record], rows: Sequence[Mapping[str, Any]]) -> Comparison:
    truth = tuple(TruePart(row["index"], row["good"], row["centre_frame"]) for row in rows)
    return compare(*_settled(records, truth))


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
    """Writes down what is true of the parts, for whoever shows it beside the verdicts.

    Each line names its run: what an earlier demo wrote stays, its records may still be shown.

    Args:
        camera: of a drawn line, or None: of any other line nothing is known.
    """

    def __init__(self, file: Path, camera: Synthetic | None) -> None:
        self._file = file
        self._camera = camera
        self._next = 0

    def tell(self, record: Record) -> None:
        """Write of every board up to the one that a record is of."""
        if self._camera is None:
            return
        with self._file.open("a", encoding="utf-8") as stream:
            while self._camera.boards is None or self._next < self._camera.boards:
                row = self._camera.truth_of(self._next)
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

    def wait_for(self, records: Sequence[Record]) -> None:
        """Return once a message of each of them came, or after a bounded time."""
        wanted = {record.id for record in records}
        with self._changed:
            self._changed.wait_for(lambda: wanted <= self._ids, LAST_MESSAGE_S)


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
