"""How many cameras one machine carries: stations side by side, one more each time, until it fails.

Each camera has a station of its own, in a process of its own, with its own ledger: none can take
another one's memory. Where there are as many as cores or more, each is held on one core, as
``CPUAffinity`` of a systemd unit does it: else the scheduler leaves one of them alone on a core
for seconds and crowds the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import plugins
from pipeline.bench.broker import broker
from pipeline.bench.variant import Bare, Variant
from pipeline.bench.work import Work, bare_of, usual_station
from pipeline.bench.worker import Worker

FPS, DEADLINE_MS = 10.0, 500.0
"""The deadline is the station file's own: gate.deadline_ms."""

MOST = 8
STEP_S = 10.0
PICTURES = 5


def density(work: Work) -> dict[str, Any]:
    """Add cameras until a part is lost or the deadline is missed by more than one in a hundred.

    Returns:
        ``cameras``: how many were carried; ``fps``, ``deadline_ms``; ``steps``: per number of
        cameras ``lost``, ``p99_ms`` (of the worst camera), ``unfair`` (how far the slowest median
        lies above the fastest, a share), ``cpu_share`` of all cores; ``runtime``.
    """
    fps = work.asked.fps or FPS
    deadline_ms = work.asked.deadline_ms or DEADLINE_MS
    most = work.asked.cameras or (2 if work.quick else MOST)
    steps: list[dict[str, Any]] = []
    with broker(work.scratch) as by, bare_of(work.variant) as bare:
        pictures = work.scratch / "lane.npy"
        np.save(pictures, np.stack(bare.boards[:PICTURES]))
        while len(steps) < most:
            count = len(steps) + 1
            work.note(f"{count} cameras at {fps:g} a second")
            steps.append(_step(work, bare, pictures, by.port, count, fps))
            work.progress(count, most)
            if not _carried(steps[-1], deadline_ms):
                break
    carried = [s["cameras"] for s in steps if _carried(s, deadline_ms)]
    return {
        "cameras": max(carried, default=0),
        "fps": fps,
        "deadline_ms": deadline_ms,
        "steps": steps,
        "runtime": bare.name,
    }


def _carried(step: dict[str, Any], deadline_ms: float) -> bool:
    return bool(step["lost"] == 0 and step["p99_ms"] <= deadline_ms)


def _step(
    work: Work, bare: Bare, pictures: Path, port: int, count: int, fps: float
) -> dict[str, Any]:
    variant = _sharing(work.variant, count)
    parts = max(round(fps * (1.0 if work.quick else STEP_S)), 3)
    with ExitStack() as stack:
        lanes = []
        for number in range(count):
            folder = work.folder("lane")
            file = usual_station(variant, bare, folder, port)
            words = [sys.executable, "-m", "pipeline.bench.lane", str(file), str(pictures)]
            words += map(str, cores_of(number, count, sorted(os.sched_getaffinity(0))))
            worker = Worker(f"camera {number + 1}", words, folder / "log")
            lanes.append(stack.enter_context(worker))
        for lane in lanes:
            lane.hear()
        for lane in lanes:
            lane.tell({"count": parts, "fps": fps})
        found = [lane.hear() for lane in lanes]
    medians = [f["latency_ms"]["p50"] for f in found]
    cores = len(os.sched_getaffinity(0))
    return {
        "cameras": count,
        "given": sum(f["given"] for f in found),
        "recorded": sum(f["recorded"] for f in found),
        "lost": sum(f["lost"] for f in found),
        "p50_ms": round(float(np.median(medians)), 2),
        "p99_ms": max(f["latency_ms"]["p99"] for f in found),
        "unfair": round(max(medians) / min(medians) - 1, 3),
        "cpu_share": round(sum(f["cpu_s"] for f in found) / (parts / fps * cores), 3),
    }


def cores_of(number: int, count: int, cores: Sequence[int]) -> tuple[int, ...]:
    """Return on which cores one of so many stations may run; all of them where each has several."""
    return tuple(cores) if count < len(cores) else (cores[number % len(cores)],)


def _sharing(variant: Variant, count: int) -> Variant:
    """Give each station its share of the cores, where its runtime knows threads and none is set."""
    options = plugins.load("runtimes", variant.kind).Options
    if "threads" not in options.model_fields or "threads" in variant.runtime:
        return variant
    threads = max(len(os.sched_getaffinity(0)) // count, 1)
    return Variant(
        variant.text, variant.bundle, {**variant.runtime, "threads": threads}, variant.settings
    )
