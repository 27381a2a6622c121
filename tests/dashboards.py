"""A store with records and pictures, and a real dashboard over it on 127.0.0.1."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from pipeline.clock import SystemClock
from pipeline.config import StationConfig, load
from pipeline.live import View, Window
from pipeline.pictures import Pictures
from pipeline.records import Link, uuid7
from pipeline.schema import EXAMPLE
from pipeline.shipped import shipped
from pipeline.station import Tally
from pipeline.store import Ledger
from pipeline.types import DefectRow, Record, Verdict
from pipeline.vision.picture import encode_jpeg
from pipeline.web.board import Board
from pipeline.web.server import Address, prepare
from tests.doubles import until

RUN, NEXT_RUN = "0123456789ab", "ba9876543210"
START = datetime(2026, 1, 5, 6, 0, tzinfo=timezone.utc)
ALL: Any = {"PASS": Verdict.PASS, "FAIL": Verdict.FAIL, "UNSURE": Verdict.UNSURE}
PART_PX = 160


@dataclass
class Reported:
    """Stands for a station in front of a window."""

    state: str = "ready"
    faults: Any = None
    tally: Any = None

    def __post_init__(self) -> None:
        self.faults = self.faults or {}
        self.tally = self.tally or Tally()


def config_in(folder: Path, **sections: Any) -> StationConfig:
    """Return the demo's station file with its store and its window in a folder."""
    store = {"path": str(folder / "store"), "pictures": "all"}
    return load(
        shipped("configs/demo.yaml"),
        {"store": store, "live": {"path": str(folder / "live")}, **sections},
    )


def record(number: int, verdict: str = "PASS", labels: Sequence[str] = (), **other: Any) -> Any:
    """Return a draft of record ``number``: a part every two seconds."""
    time = START + timedelta(seconds=2 * number)
    defects = tuple(
        DefectRow(label, 0.6 - 0.02 * i, (20.0 + 30 * i, 40.0, 40.0 + 30 * i, 60.0), 3)
        for i, label in enumerate(labels)
    )
    made = replace(
        EXAMPLE,
        id=str(uuid7(time)),
        station="demo",
        part=number,
        time=time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        verdict=ALL[verdict],
        reasons=tuple(f"{d.label} {d.score:.2f} at (20, 40), 20 px" for d in defects),
        defects=defects,
        views=3,
        first_frame=40 * number,
        last_frame=40 * number + 30,
        image_box=(10.0, 10.0, 10.0 + PART_PX, 10.0 + PART_PX),
        **{"run": RUN, "image": None, "image_sha256": None} | other,
    )

    def draft(link: Link) -> Record:
        return replace(made, seq=link.seq, previous_sha256=link.previous_sha256)

    return draft


def fill(config: StationConfig, drafts: Sequence[Any]) -> tuple[Record, ...]:
    """Write records into the store of a station file."""
    ledger = Ledger(config.store_path)
    try:
        return ledger.append(drafts)
    finally:
        ledger.close()


def mixed(count: int) -> list[Any]:
    """Return drafts: of ten parts one fails with a short, one is unsure of an open."""
    kinds = {3: ("FAIL", ("short",)), 7: ("UNSURE", ("open",))}
    return [record(n, *kinds.get(n % 10, ("PASS",))) for n in range(1, count + 1)]


def pictured(
    config: StationConfig,
    number: int,
    verdict: str,
    labels: Sequence[str],
    data: bytes | None = None,
) -> Any:
    """Return a draft whose picture, or what ``data`` puts in its place, lies in the store."""
    image = np.full((200, 240, 3), 60, np.uint8)
    image[10 : 10 + PART_PX, 10 : 10 + PART_PX] = (60, 140, 90)
    pictures = Pictures(config.store_path, 1 << 30)
    kept = pictures.keep(f"2026/{number:08d}", data or encode_jpeg(image))
    return record(number, verdict, labels, image=kept.path, image_sha256=kept.sha256)


@contextmanager
def dashboard(
    config: StationConfig, *, board: Board | None = None, address: Address | None = None, **of: Any
) -> Iterator[httpx.Client]:
    """Serve a dashboard in a thread, with all records folded in; yield a client of it."""
    board = board or Board(config, **of)
    serving = prepare(board, address or Address(port=0))
    thread = threading.Thread(target=serving.run, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=serving.url, timeout=20, verify=False) as client:
            until(partial(_is_up, client, board), "the dashboard's start")
            yield client
    finally:
        serving.stop()
        thread.join(20)


@contextmanager
def showing(config: StationConfig, station: Reported) -> Iterator[Window]:
    """Show a station in the window of a station file."""
    window = Window(Path(str(config.document.live.path)), SystemClock())
    window.about = {"station": "demo", "run": RUN, "receivers": ["mqtt"]}
    with window.on(station):
        view = View(Path(str(config.document.live.path)), os.getuid())
        until(lambda: (view.state() or {}).get("state") == station.state, "the station's state")
        yield window


def token(client: httpx.Client) -> dict[str, str]:
    """Return the headers that a request must carry to change something."""
    return {"x-csrf-token": client.get("/api/v1/me").json()["token"]}


def _is_up(client: httpx.Client, board: Board) -> bool:
    try:
        client.get("/healthz")
    except httpx.HTTPError:
        return False
    return board.index.folded[0] == board.ledger.last_number()
