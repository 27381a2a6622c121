"""What the peers' processes share: commands in, figures out. Standard library only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

WorksThrough = Callable[[str, int], int]
"""Takes a clip and a number of frames; returns how many it has seen."""


def serve(work: WorksThrough, packages: tuple[str, ...]) -> None:
    """Obey until standard input ends.

    Args:
        packages: whose versions are told.
    """
    say({"versions": _versions(packages)})
    for command in map(json.loads, sys.stdin):
        cpu_s, began = time.process_time(), time.perf_counter()
        frames = work(command["clip"], command["frames"])
        say(
            {
                "frames": frames,
                "seconds": time.perf_counter() - began,
                "cpu_s": time.process_time() - cpu_s,
            }
        )


def say(answer: dict[str, Any]) -> None:
    """Give an answer on a line of its own."""
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
