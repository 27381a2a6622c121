"""What many open dashboards cost a station: its p99 latency with and without them, in turns.

    python -m tests.perf.viewers --pairs 9 --seconds 6 --json viewers.json

A station with the demo's real model runs over a drawn belt of small boards, so that there are
enough verdicts for a 99th percentile; its dashboard is a process of its own. Viewers, a process of
their own too, follow live picture and events at the rate that they come, or not at all: one piece
with them, one without, again and again in alternating order, so that whatever else the machine does
falls on both; ``others_cores`` says how much that was, and ``pictures_per_s`` what a viewer
received. The interval of the change comes from drawing pairs anew (bootstrap, 95 %). Exit 1 if the
p99 surely rises by more than --limit, or the dashboard takes more of a core than --core.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import yaml

from pipeline.shipped import shipped
from pipeline.web.ledger import LedgerReader

SETTLE_S = 1.5
FIRST_PARTS = 8
READ_S = 0.01
PICTURE = b"Content-Type: image/jpeg"
DRAWS = 2000
BELT = {"kind": "synthetic", "realtime": True, "board_px": 200, "speed_px": 64, "layout": 33}
"""30 frames a second, as the demo's, and some four boards a second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a piece")
    parser.add_argument("--limit", type=float, default=0.05, help="share by which p99 may rise")
    parser.add_argument("--core", type=float, default=0.15, help="share of a core for all viewers")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.watch:
        _watch(wanted.watch, wanted.viewers)
        return
    figures = measure(wanted.viewers, wanted.pairs, wanted.seconds)
    text = json.dumps(figures, indent=2)
    if wanted.json:
        wanted.json.write_text(text + "\n")
    print(text)  # noqa: T201
    low, core = figures["p99_change_95"][0], figures["dashboard_cores"]["with"]
    sys.exit(1 if low > wanted.limit or core > wanted.core else 0)


@dataclass(frozen=True)
class Piece:
    """What some seconds gave.

    Attributes:
        latency_ms: of the parts that were decided.
        cores: that the dashboard took.
        others: cores that processes took which have nothing to do with it.
        pictures_per_s: that a viewer received; NaN without viewers.
    """

    latency_ms: Sequence[float]
    cores: float
    others: float
    pictures_per_s: float


@dataclass(frozen=True)
class Line:
    """A station and its dashboard at work."""

    url: str
    station: int
    dashboard: int
    ledger: LedgerReader


def measure(viewers: int, pairs: int, seconds: float) -> dict[str, Any]:
    """Measure so many pairs; return percentiles of both sides and by how much they differ."""
    taken: list[dict[bool, Piece]] = []
    with (
        tempfile.TemporaryDirectory(prefix="lineguard-viewers-") as folder,
        _line(Path(folder)) as line,
    ):
        for pair in range(pairs):
            order = (True, False) if pair % 2 else (False, True)
            taken.append({w: _piece(line, viewers if w else 0, seconds) for w in order})
    sides = {w: [pair[w] for pair in taken] for w in (False, True)}
    change = {share: _change(taken, share) for share in (50, 99)}
    return {
        "viewers": viewers,
        "pairs": pairs,
        "parts": _both(lambda w: sum(len(p.latency_ms) for p in sides[w])),
        "p50_ms": _both(lambda w: round(_percentile(sides[w], 50), 2)),
        "p99_ms": _both(lambda w: round(_percentile(sides[w], 99), 2)),
        "p50_change": change[50][0],
        "p50_change_95": change[50][1:],
        "p99_change": change[99][0],
        "p99_change_95": change[99][1:],
        "dashboard_cores": _both(lambda w: round(float(np.mean([p.cores for p in sides[w]])), 3)),
        "others_cores": _both(lambda w: round(float(np.mean([p.others for p in sides[w]])), 3)),
        "pictures_per_s": round(float(np.mean([p.pictures_per_s for p in sides[True]])), 1),
        "cores": os.cpu_count(),
    }


def _both(of: Callable[[bool], Any]) -> dict[str, Any]:
    return {"without": of(False), "with": of(True)}


def _percentile(pieces: Sequence[Piece], share: float) -> float:
    return float(np.percentile(np.concatenate([p.latency_ms for p in pieces]), share))


def _change(taken: Sequence[dict[bool, Piece]], share: float) -> tuple[float, float, float]:
    """Return by which share a percentile is higher with viewers, and a 95 % interval of that."""

    def of(pairs: Sequence[dict[bool, Piece]]) -> float:
        return _percentile([p[True] for p in pairs], share) / _percentile(
            [p[False] for p in pairs], share
        )

    chance = np.random.default_rng(0)
    drawn = [
        of([taken[i] for i in chance.integers(0, len(taken), len(taken))]) for _ in range(DRAWS)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return round(of(taken) - 1, 4), round(float(low) - 1, 4), round(float(high) - 1, 4)


@contextmanager
def _line(folder: Path) -> Iterator[Line]:
    """Run a station and its dashboard."""
    document = yaml.safe_load(shipped("configs/demo.yaml").read_text())
    document["camera"] = BELT
    document["parts"] = {"views": 1}
    document["model"]["bundle"] = str(shipped("models/boards-n").resolve())
    document["store"] = {"path": str(folder / "store"), "pictures": "all"}
    file = folder / "station.yaml"
    file.write_text(yaml.safe_dump(document))
    with ExitStack() as stack:
        station = _process(stack, "run", str(file))
        dashboard = _process(stack, "web", str(file), "--port", "0")
        assert dashboard.stdout is not None
        url = dashboard.stdout.readline().split()[1]
        ledger = LedgerReader(folder / "store")
        while ledger.last_number() < FIRST_PARTS:
            time.sleep(0.1)
        yield Line(url, station.pid, dashboard.pid, ledger)


def _process(stack: ExitStack, command: str, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", command, *words],
        stdout=subprocess.PIPE if command == "web" else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    stack.callback(process.wait, 60)
    stack.callback(process.terminate)
    return process


def _piece(line: Line, viewers: int, seconds: float) -> Piece:
    """Let a piece of time pass, with or without viewers."""
    with _watching(line.url, viewers) as watching:
        time.sleep(SETTLE_S)
        ours = [line.dashboard, line.station, os.getpid(), *([watching.pid] if watching else [])]
        first, began_s = line.ledger.last_number(), time.monotonic()
        before, all_before_s = [_cpu_s(process) for process in ours], _cpu_of_all_s()
        time.sleep(seconds)
        spent = [_cpu_s(process) - s for process, s in zip(ours, before, strict=True)]
        all_s, took_s = _cpu_of_all_s() - all_before_s, time.monotonic() - began_s
        kept = line.ledger.after(first, 100_000)
        latency_ms = [float(k.values()["latency_ms"]) for k in kept]
        seen = _ended(watching) if watching else float("nan")
        return Piece(latency_ms, spent[0] / took_s, (all_s - sum(spent)) / took_s, seen)


@contextmanager
def _watching(url: str, viewers: int) -> Iterator[subprocess.Popen[str] | None]:
    """Run so many viewers, if any."""
    if not viewers:
        yield None
        return
    words = ["-m", "tests.perf.viewers", "--watch", url, "--viewers", str(viewers)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _ended(watching: subprocess.Popen[str]) -> float:
    """End the viewers; return how many pictures each received per second."""
    watching.terminate()
    return float(watching.communicate(timeout=30)[0])


def _cpu_s(process: int) -> float:
    """Return the processor's time that a process has taken, seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu_of_all_s() -> float:
    """Return the time that all processors have worked, seconds: all but idle, waiting, stolen."""
    user, nice, system, _, _, irq, softirq = map(
        int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _watch(url: str, viewers: int) -> None:
    """Follow live picture and events without end, each viewer as a browser tab would.

    People sit at other machines: what reading and dropping costs here must not count, so this
    process has only the time that nobody else wants.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    host, port = urlsplit(url).hostname, urlsplit(url).port
    ready = selectors.DefaultSelector()
    for path in ("live.mjpg", "events") * viewers:
        stream = socket.create_connection((host, port))
        stream.sendall(f"GET /api/v1/{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        ready.register(stream, selectors.EVENT_READ, bytearray())
    room, pictures, began_s = bytearray(1 << 20), 0, time.monotonic()
    try:
        while True:
            for key, _ in ready.select():
                assert isinstance(key.fileobj, socket.socket)
                got = key.data + room[: key.fileobj.recv_into(room)]
                pictures += got.count(PICTURE)
                key.data[:] = got[-len(PICTURE) + 1 :]  # what may be the beginning of one
            time.sleep(READ_S)
    finally:
        print(pictures / viewers / (time.monotonic() - began_s))  # noqa: T201


if __name__ == "__main__":
    main()
