"""How much of the bare runtime's speed the detector keeps, measured side by side in one run."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.clock import NS_PER_MS
from pipeline.detector import Detector
from pipeline.synth.line import BeltScene
from pipeline.types import Box, Image

ROUNDS = 5


def bench(
    detector: Detector,
    pictures: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Time the runtime alone, and window + runtime + decode, in turns on the same drawn boards.

    Args:
        pictures: per round and side; there are ROUNDS rounds.

    Returns:
        ``raw_ms`` and ``detect_ms`` (``median``, ``min``, ``max`` of the rounds, per picture),
        ``detect_over_raw`` (throughput of the detector as a share of the bare runtime's, median
        of the rounds), ``runtime``, ``machine``.
    """
    image, box = _board()
    tensor = np.ascontiguousarray(np.zeros(detector.runtime.input_shape, np.uint8))
    raw, whole = [], []
    for number in range(ROUNDS):
        raw.append(_per_call(lambda: detector.runtime.infer(tensor), pictures))
        whole.append(_per_call(lambda: detector.detect_at(image, box), pictures))
        progress(number + 1, ROUNDS)
    return {
        "raw_ms": _spread(raw),
        "detect_ms": _spread(whole),
        "detect_over_raw": round(
            statistics.median(r / w for r, w in zip(raw, whole, strict=True)), 4
        ),
        "runtime": detector.runtime.name,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


def _board() -> tuple[Image, Box]:
    """Return a frame of the drawn line with a board in its middle, and where it lies."""
    scene = BeltScene()
    number = scene.centre_frame(0)
    placed = next(p for p in scene.visible(number) if p.index == 0)
    return scene.frame(number), Box(*(float(v) for v in placed.xyxy))


def _per_call(call: Callable[[], object], times: int) -> float:
    started = time.perf_counter_ns()
    for _ in range(times):
        call()
    return (time.perf_counter_ns() - started) / times / NS_PER_MS


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }
