"""Run a whole station through many scripted inspections at full speed and watch what it holds.

    python -m tests.perf.soak --inspections 1000000

Camera and model are scripted; inspection, rules, ledger (SQLite, synchronous=FULL), hash chain and
the station's threads are the real ones. It reports the slope of the memory, and threads and
descriptors, which must stay constant. Exit 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bundle import Artefact, Threshold
from pipeline.clock import SystemClock
from pipeline.detector import Detector
from pipeline.inspection import Inspector
from pipeline.keeping import DECISIONS_WAITING
from pipeline.outputs.recording import RecordingOutput
from pipeline.recipe import Recipe
from pipeline.records import Identity
from pipeline.rules import Rulebook
from pipeline.runtimes.scripted import Options, ScriptedRuntime
from pipeline.station import Station
from pipeline.store import Ledger
from pipeline.triggers.every_frame import EveryFrame
from pipeline.types import Frame, Inspection, Record
from pipeline.vision.decode import decoder

SIDE = 64
SAMPLES = 200
WARM_SHARE = 0.2
"""Share of the run before memory is judged: caches and the allocator's pools fill first."""

MOST_SLOPE_MB = 1.0
HASH = "0" * 64


class Pictures:
    """Shows one picture again and again, as fast as it is taken."""

    live = False

    def __init__(self, count: int) -> None:
        self.total: int | None = count
        self._image = np.full((SIDE, SIDE, 3), 90, np.uint8)
        self._image.flags.writeable = False
        self._closed = False

    def frames(self) -> Iterator[Frame]:
        for seq in range(self.total or 0):
            if self._closed:
                return
            yield Frame(self._image, seq, time.monotonic_ns(), "soak")

    def close(self) -> None:
        self._closed = True


class Forgetful(RecordingOutput):
    """Takes every command and remembers none: what it kept would look like a leak."""

    def act(self, inspection: Inspection) -> None:
        del inspection


@dataclass
class Held:
    """What the process held each time that so many records were kept."""

    every: int
    until: int
    """Afterwards the camera may have ended, and with it its thread."""
    records: list[int] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    seen: int = 0

    def on_record(self, record: Record) -> None:
        del record
        self.seen += 1
        if self.seen % self.every == 0 and self.seen <= self.until:
            self.records.append(self.seen)
            self.rss_mb.append(_rss_mb())
            self.threads.append(threading.active_count())
            self.descriptors.append(len(list(Path("/proc/self/fd").iterdir())))


def soak(inspections: int, folder: Path) -> dict[str, Any]:
    """Run a station and return the figures."""
    rows = ((8.0, 8.0, 20.0, 20.0, 0.9, 0.0),), ()
    options = Options(script=rows, after="cycle", height=SIDE, width=SIDE, warm_ups=0)
    artefact = Artefact(path="none", sha256=HASH, runtimes=("scripted",), precision="fp32")
    detector = Detector(("dent",), decoder("yolo-e2e"), ScriptedRuntime(options), artefact)
    rules = Rulebook(Recipe(name="soak"), {"dent": Threshold(fail=0.5, unsure=0.3)})
    held = Held(max(inspections // SAMPLES, 1), inspections - 2 * DECISIONS_WAITING)
    station = Station(
        camera=Pictures(inspections),
        inspector=Inspector(EveryFrame(), detector, rules, views=1),
        ledger=Ledger(folder),
        keep_picture=lambda inspection, name: None,
        identity=Identity("soak", "run", "soak", "soak", "none", HASH, HASH, HASH, "scripted"),
        clock=SystemClock(),
        outputs=[Forgetful()],
        on_record=held.on_record,
    )
    began_s = time.monotonic()
    tally = station.run()
    took_s = time.monotonic() - began_s
    warm = int(len(held.records) * WARM_SHARE)
    slope = float(np.polyfit(held.records[warm:], held.rss_mb[warm:], 1)[0]) * 100_000
    return {
        "inspections": sum(tally.verdicts.values()),
        "records": held.seen,
        "verdicts": dict(tally.verdicts),
        "seconds": round(took_s, 1),
        "per_second": round(held.seen / took_s),
        "rss_mb": {"warm": held.rss_mb[warm], "end": held.rss_mb[-1], "most": max(held.rss_mb)},
        "rss_slope_mb_per_100000": round(slope, 3),
        "threads": sorted(set(held.threads[warm:])),
        "descriptors": sorted(set(held.descriptors[warm:])),
        "ledger_mb": round(sum(f.stat().st_size for f in folder.rglob("*")) / 1e6, 1),
    }


def is_well(figures: dict[str, Any], inspections: int) -> bool:
    """Tell whether all were recorded, memory is flat, and threads and descriptors are constant."""
    return bool(
        figures["inspections"] == figures["records"] == inspections
        and figures["rss_slope_mb_per_100000"] < MOST_SLOPE_MB
        and len(figures["threads"]) == 1
        and len(figures["descriptors"]) == 1
    )


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inspections", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="for the ledger; some 1.5 KB per inspection")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lineguard-soak-", dir=given.folder) as folder:
        figures = soak(given.inspections, Path(folder))
    well = is_well(figures, given.inspections)
    sys.stdout.write(json.dumps(figures | {"well": well}, indent=1) + "\n")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
