"""One station in a process of its own: ``-m pipeline.bench.lane STATION_FILE PICTURES CORE...``.

Commands come on standard input, a JSON line each: ``{"count": 80, "fps": 10}``; the answer to each
goes to standard output. The first line is an empty answer: the station stands ready.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.figures import percentiles
from pipeline.bench.line import MeasuredLine
from pipeline.errors import LineguardError

WARM_PARTS, WARM_FPS = 3, 1.0


def serve(station: Path, pictures: Path) -> None:
    """Run a station and obey until standard input ends.

    Args:
        pictures: .npy, uint8 (n, H, W, 3).
    """
    images = np.load(pictures, allow_pickle=False)
    images.flags.writeable = False
    with MeasuredLine(station, itertools.cycle(images), live=True) as line:
        line.pace(WARM_PARTS, WARM_FPS)
        _say({})
        for command in map(json.loads, sys.stdin):
            taken = line.pace(command["count"], command["fps"])
            _say(
                {
                    "given": taken.given,
                    "lost": taken.lost,
                    "recorded": taken.recorded,
                    "latency_ms": percentiles(taken.latency_ms),
                    "cpu_s": round(taken.cpu_s, 3),
                }
            )


def _say(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.sched_setaffinity(0, map(int, sys.argv[3:]))
    try:
        serve(Path(sys.argv[1]), Path(sys.argv[2]))
    except LineguardError as error:
        sys.exit(f"lineguard: {error}")
