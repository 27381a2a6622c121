"""What many open dashboards cost a station: its p99 latency with and without them, in pairs.

    python -m tests.perf.viewers --pairs 6 --seconds 12

A station with the demo's real model runs over a fast drawn belt; its dashboard is a process of its
own. Viewers, a
process of their own too, follow live picture and events at the rate that they come, or not at all:
one piece with them, one without, again and again in alternating order, so that whatever else the
machine does falls on both. Prints one JSON object; exit 1 if p99 rises by more than --limit.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import yaml

from pipeline.shipped import shipped
from pipeline.web.ledger import LedgerReader

SETTLE_S = 2.0
FIRST_PARTS = 5
READ_S = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a piece")
    parser.add_argument("--limit", type=float, default=0.05, help="share by which p99 may rise")
    parser.add_argument("--speed-px", type=int, default=60, help="of the belt, from frame to frame")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.watch:
        _watch(wanted.watch, wanted.viewers)
        return
    figures = measure(wanted.viewers, wanted.pairs, wanted.seconds, wanted.speed_px)
    print(json.dumps(figures, indent=2))  # noqa: T201
    sys.exit(1 if figures["p99_change"] > wanted.limit else 0)


def measure(viewers: int, pairs: int, seconds: float, speed_px: int) -> dict[str, Any]:
    """Measure so many pairs; return percentiles of both sides and by how much they differ."""
    sides: dict[bool, list[float]] = {False: [], True: []}
    of_pairs: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="lineguard-viewers-") as folder,
        _line(Path(folder), speed_px) as (url, ledger),
    ):
        for pair in range(pairs):
            middle = {}
            for watched in (pair % 2 == 0, pair % 2 == 1):
                got = _piece(url, ledger, viewers if watched else 0, seconds)
                sides[watched] += got
                middle[watched] = median(got)
            of_pairs.append(middle[True] / middle[False] - 1)
    p50, p99 = ({w: _percentile(sides[w], share) for w in (False, True)} for share in (0.5, 0.99))
    return {
        "viewers": viewers,
        "parts": {"without": len(sides[False]), "with": len(sides[True])},
        "p50_ms": {"without": p50[False], "with": p50[True]},
        "p99_ms": {"without": p99[False], "with": p99[True]},
        "p50_change": round(p50[True] / p50[False] - 1, 4),
        "p99_change": round(p99[True] / p99[False] - 1, 4),
        "p50_change_median_of_pairs": round(median(of_pairs), 4),
        "cores": os.cpu_count(),
    }


@contextmanager
def _line(folder: Path, speed_px: int) -> Iterator[tuple[str, LedgerReader]]:
    """Run a station and its dashboard; yield the dashboard's address and the ledger."""
    document = yaml.safe_load(shipped("configs/demo.yaml").read_text())
    document["camera"] = {"kind": "synthetic", "realtime": True, "speed_px": speed_px}
    document["model"]["bundle"] = str(shipped("models/boards-n").resolve())
    document["store"] = {"path": str(folder / "store"), "pictures": "all"}
    file = folder / "station.yaml"
    file.write_text(yaml.safe_dump(document))
    with ExitStack() as stack:
        _process(stack, "run", str(file))
        dashboard = _process(stack, "web", str(file), "--port", "0")
        assert dashboard.stdout is not None
        url = dashboard.stdout.readline().split()[1]
        ledger = LedgerReader(folder / "store")
        while ledger.last_number() < FIRST_PARTS:
            time.sleep(0.1)
        yield url, ledger


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


def _piece(url: str, ledger: LedgerReader, viewers: int, seconds: float) -> list[float]:
    """Return the latencies, ms, of the parts that were decided in a piece."""
    words = ["-m", "tests.perf.viewers", "--watch", url, "--viewers", str(viewers)]
    watching = subprocess.Popen([sys.executable, *words]) if viewers else None
    try:
        time.sleep(SETTLE_S)
        first = ledger.last_number()
        time.sleep(seconds)
        return [float(kept.values()["latency_ms"]) for kept in ledger.after(first, 100_000)]
    finally:
        if watching is not None:
            watching.terminate()
            watching.wait()


def _watch(url: str, viewers: int) -> None:
    """Follow live picture and events without end, each viewer as a browser tab would.

    People sit at other machines: what reading and dropping costs here must not count, so this
    process has only the time that nobody else wants.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    host, port = urlsplit(url).hostname, urlsplit(url).port
    ready = selectors.DefaultSelector()
    for path in ("live.mjpg", "events") * viewers:
        stream = socket.create_connection((host, port))
        stream.sendall(f"GET /api/v1/{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        ready.register(stream, selectors.EVENT_READ)
    room = bytearray(1 << 20)
    while True:
        for key, _ in ready.select():
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.recv_into(room)
        time.sleep(READ_S)


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[math.ceil(share * len(ordered)) - 1], 2)


if __name__ == "__main__":
    main()
