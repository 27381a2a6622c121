"""From the trigger to the verdict, and on to a subscriber, at the pace of a line."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.bench.broker import broker, process
from pipeline.bench.figures import percentiles
from pipeline.bench.line import MeasuredLine, Paced
from pipeline.bench.listener import READY, arrivals
from pipeline.bench.variant import Bare, scripted_twin
from pipeline.bench.work import Loop, Work, bare_of, usual_station
from pipeline.clock import NS_PER_MS
from pipeline.errors import PublishError
from pipeline.store import read_records

PARTS_PER_MIN = 600
PARTS, HOGGED_PARTS, QUICK_PARTS = 900, 250, 40
BURST_PER_MIN, BURST_PARTS = 12_000, 100_000
WARM_PARTS, WARM_FPS = 4, 2.0
ARRIVAL_S = 10.0
INFERENCES = 30
_HOG = "while True: pass"


def paced(work: Work) -> dict[str, Any]:
    """Show parts at a steady pace to the whole station; then again beside a process that spins.

    Returns:
        ``pace`` and ``beside_a_hog``, each with ``latency_ms`` and ``to_subscriber_ms`` (p50, p99,
        p999, max), ``parts``, ``lost`` (rejected unseen), ``silent`` (without a verdict),
        ``cpu_ms_per_part``; ``inference_ms`` (median of the bare runtime, before and after),
        ``p99_over_inference``; ``certificate``: one line; ``runtime``.
    """
    per_min = work.asked.parts_per_min or PARTS_PER_MIN
    count = work.asked.parts or (QUICK_PARTS if work.quick else PARTS)
    hogged = min(count, QUICK_PARTS if work.quick else HOGGED_PARTS)
    with (
        broker(work.scratch) as by,
        bare_of(work.variant) as bare,
        _listening(work, by.port) as file,
    ):
        before_ms = _inference_ms(bare)
        station = usual_station(work.variant, bare, work.folder("paced"), by.port)
        with MeasuredLine(station, itertools.cycle(bare.boards), live=True) as line:
            # Slowly: what is lost before the first frame was looked at is nobody's part.
            line.pace(WARM_PARTS, WARM_FPS)
            work.note(f"{count} parts, {per_min:.0f} a minute")
            steady = _turn(work, line, count, per_min)
            heard = _heard(file, steady)
            with _hog(work.scratch):
                work.note(f"{hogged} parts beside a process that takes a core")
                beside = line.pace(hogged, per_min / 60)
        after_ms = _inference_ms(bare)
        all_heard = _heard(file, beside)
        chained = sum(1 for _ in read_records(line.store))
    steady_figures = _figures(steady, heard)
    inference_ms = max(round(statistics.median([before_ms, after_ms]), 3), 0.001)
    return {
        "pace": steady_figures | {"parts_per_min": per_min},
        "beside_a_hog": _figures(beside, all_heard),
        "inference_ms": inference_ms,
        "p99_over_inference": round(steady_figures["latency_ms"]["p99"] / inference_ms, 2),
        "chained_records": chained,
        "certificate": certificate(steady, steady_figures, per_min),
        "runtime": bare.name,
        "broker": by.kind,
    }


def burst(work: Work) -> dict[str, Any]:
    """Show very many parts to the whole station, as closely as it follows, the model a script.

    So the slowest of a thousand, which is the business of ledger, disk, broker and scheduler, is
    known from a hundred of its kind, and not from one.

    Returns:
        As ``pace`` of ``paced``, and ``certificate``, ``chained_records``.
    """
    per_min = work.asked.parts_per_min or BURST_PER_MIN
    count = work.asked.parts or (QUICK_PARTS if work.quick else BURST_PARTS)
    with broker(work.scratch) as by, _listening(work, by.port) as file:
        with bare_of(work.variant) as real:
            variant = scripted_twin(real, real.boards, work.folder("twin"))
        with bare_of(variant) as bare:
            station = usual_station(variant, bare, work.folder("burst"), by.port)
            with MeasuredLine(station, itertools.cycle(bare.boards), live=True) as line:
                line.pace(WARM_PARTS, WARM_FPS)
                work.note(f"{count:,} parts, {per_min:,.0f} a minute")
                taken = _turn(work, line, count, per_min)
                heard = _heard(file, taken)
            chained = sum(1 for _ in read_records(line.store))
    figures = _figures(taken, heard)
    return {
        "pace": figures | {"parts_per_min": per_min},
        "chained_records": chained,
        "certificate": certificate(taken, figures, per_min),
        "runtime": bare.name,
    }


def certificate(taken: Paced, figures: Mapping[str, Any], per_min: float) -> str:
    """Say in one line what was shown."""
    latency = figures["latency_ms"]
    return (
        f"{per_min:.0f} parts/min, p99 {latency['p99']:.1f} ms, p99.9 {latency['p999']:.1f} ms, "
        f"{taken.lost} lost over {taken.given:,}, {taken.silent} without a verdict"
    )


def _turn(work: Work, line: MeasuredLine, count: int, per_min: float) -> Paced:
    """Show the parts in pieces, so that somebody who waits sees where it is."""
    piece = max(round(per_min / 60 * 5), 1)
    taken: list[Paced] = []
    while (done := sum(t.given for t in taken)) < count:
        taken.append(line.pace(min(piece, count - done), per_min / 60))
        work.progress(done + taken[-1].given, count)
    return Paced(
        given=sum(t.given for t in taken),
        lost=sum(t.lost for t in taken),
        silent=sum(t.silent for t in taken),
        recorded=sum(t.recorded for t in taken),
        latency_ms=tuple(v for t in taken for v in t.latency_ms),
        decided_ns={k: v for t in taken for k, v in t.decided_ns.items()},
        cpu_s=sum(t.cpu_s for t in taken),
    )


def _figures(taken: Paced, heard: Mapping[str, float]) -> dict[str, Any]:
    return {
        "parts": taken.given,
        "recorded": taken.recorded,
        "lost": taken.lost,
        "silent": taken.silent,
        "heard": len(heard),
        "latency_ms": percentiles(taken.latency_ms),
        "to_subscriber_ms": percentiles(list(heard.values())),
        "cpu_ms_per_part": round(taken.cpu_s / taken.given * 1e3, 3),
    }


def _inference_ms(bare: Bare) -> float:
    loop = Loop(bare)
    loop.work(2)
    return statistics.median(loop.work(1).ms for _ in range(INFERENCES))


@contextlib.contextmanager
def _listening(work: Work, port: int) -> Iterator[Path]:
    """Subscribe in a process of its own; yield the file of its arrivals."""
    file = work.folder("heard") / "arrivals"
    words = [sys.executable, "-m", "pipeline.bench.listener", str(port), str(file)]
    with process(words, work.scratch / "listener.log"):
        deadline = time.monotonic() + ARRIVAL_S
        while READY not in arrivals(file):
            if time.monotonic() > deadline:
                raise PublishError("bench: the subscriber did not subscribe")
            time.sleep(0.02)
        yield file


def _heard(file: Path, taken: Paced) -> dict[str, float]:
    """Return how long each verdict took to the subscriber, ms, once all have come."""
    deadline = time.monotonic() + ARRIVAL_S
    while True:
        came = arrivals(file)
        found = {i: (came[i] - t) / NS_PER_MS for i, t in taken.decided_ns.items() if i in came}
        if len(found) == len(taken.decided_ns) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@contextlib.contextmanager
def _hog(scratch: Path) -> Iterator[None]:
    with process([sys.executable, "-c", _HOG], scratch / "hog.log"):
        yield
