"""From the start of the process to the first verdict, and the memory that a station takes.

What is started is ``lineguard run``, as a service starts it: its bytecode is compiled, as an
installer leaves it, and ledger, gate and broker are included. When the first verdict is there is
read from the gate's journal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.bench.broker import broker
from pipeline.bench.figures import spread
from pipeline.bench.variant import JOURNAL, Variant, read_variant
from pipeline.bench.work import Work, bare_of, usual_station
from pipeline.clock import NS_PER_S
from pipeline.errors import LineguardError
from pipeline.types import Image
from pipeline.vision.picture import encode_jpeg

FEW, MANY, QUICK_MANY = 3, 150, 20
WATCH_S = 0.05
LIMIT_S = 120.0
PICTURES = 5
QUICK_ROUNDS = 2
WARM_SHARE = 0.3


def start(work: Work) -> dict[str, Any]:
    """Start stations of every runtime that is installed, in turns.

    Returns:
        By runtime: ``first_verdict_s``, ``new_bundle_s`` (the same where the model was never loaded
        before, with its trial in a child), and ``rss_mb`` at the end and ``most_mb`` of a longer
        run, ``growth_mb`` of its last two thirds; or ``skipped``, why. OpenVINO is started with its
        cache of compiled models, as it starts every time but the first, and without.
    """
    sides = _sides(work)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    new: dict[str, list[float]] = {name: [] for name in sides}
    skipped: dict[str, str] = {}
    figures: dict[str, Any] = {}
    rounds = QUICK_ROUNDS if work.quick else work.rounds
    with broker(work.scratch) as by:
        for number in range(rounds + 1):  # the first one fills the caches
            for name, variant in sides.items():
                if name in skipped:
                    continue
                try:
                    seconds, _ = _run(work, variant, by.port, FEW)
                    if number:
                        taken[name].append(seconds)
                        new[name].append(_run(work, variant, by.port, FEW, is_new=True)[0])
                except LineguardError as error:
                    skipped[name] = str(error)
            work.progress(number + 1, rounds + 2)
        for name, variant in sides.items():
            if name not in skipped:
                many = QUICK_MANY if work.quick else MANY
                figures[name] = _run(work, variant, by.port, many)[1]
                figures[name]["first_verdict_s"] = spread(taken[name], 3).as_dict()
                figures[name]["new_bundle_s"] = spread(new[name], 3).as_dict()
        work.progress(rounds + 2, rounds + 2)
    return {"runtimes": figures | {name: {"skipped": why} for name, why in skipped.items()}}


def _sides(work: Work) -> dict[str, Variant]:
    bundle, cache = work.variant.bundle, work.folder("cache")
    sides = {work.variant.text: work.variant}
    for text in ("onnx", "openvino", f"openvino:cache_dir={cache}"):
        name = text.replace(f":cache_dir={cache}", " cached")
        sides.setdefault(name, read_variant(text, bundle))
    return sides


def _run(
    work: Work, variant: Variant, port: int, count: int, *, is_new: bool = False
) -> tuple[float, dict[str, Any]]:
    """Run a station over so many pictures; return seconds to the first verdict, and its memory.

    Args:
        is_new: it finds no receipt of a trial of its model.
    """
    folder = work.folder("start")
    with bare_of(variant) as bare:
        pictures = _pictures(folder, bare.boards, count)
        camera = {"kind": "images", "path": str(pictures)}
        file = usual_station(variant, bare, folder, port, camera=camera)
    receipts = work.folder("new") if is_new else work.scratch / "receipts"
    return _watched(file, folder, count, _environment(work.scratch / "bytecode", receipts))


def _environment(bytecode: Path, receipts: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(bytecode), "CACHE_DIRECTORY": str(receipts)}


def _pictures(folder: Path, boards: Sequence[Image], count: int) -> Path:
    place = folder / "pictures"
    place.mkdir()
    for number in range(count):
        file = place / f"{number:06d}.jpg"
        if number < PICTURES:
            file.write_bytes(encode_jpeg(boards[number], 95))
        else:
            os.link(place / f"{number % PICTURES:06d}.jpg", file)
    return place


def _watched(
    file: Path, folder: Path, count: int, environment: dict[str, str]
) -> tuple[float, dict[str, Any]]:
    log = folder / "log"
    began_ns = time.monotonic_ns()
    with log.open("wb") as said:
        words = [sys.executable, "-m", "pipeline", "run", str(file)]
        station = subprocess.Popen(words, stdout=said, stderr=said, env=environment)
        held: list[tuple[int, float]] = []
        while station.poll() is None:
            if time.monotonic_ns() - began_ns > LIMIT_S * NS_PER_S:
                station.kill()
            held.append((time.monotonic_ns(), _memory_mb(station.pid)))
            time.sleep(WATCH_S)
    acted = _commands(folder / JOURNAL)
    if station.returncode != 0 or len(acted) != count:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise LineguardError(f"bench: 'run' gave {len(acted)} of {count} verdicts: {last[-1:]}")
    warm_ns = acted[round(len(acted) * WARM_SHARE)]
    at_work = [mb for t, mb in held if warm_ns <= t <= acted[-1]] or [held[-2][1]]
    return (acted[0] - began_ns) / NS_PER_S, {
        "rss_mb": at_work[-1],
        "most_mb": max(mb for _, mb in held),
        "growth_mb": round(at_work[-1] - at_work[0], 1),
        "parts": count,
    }


def _commands(journal: Path) -> list[int]:
    """Return when the gate got its commands, monotonic ns."""
    if not journal.exists():
        return []
    rows = map(json.loads, journal.read_text(encoding="utf-8").splitlines())
    return [row["t_ns"] for row in rows if "part" in row]


def _memory_mb(pid: int) -> float:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]
    except (OSError, IndexError):
        return 0.0
    return round(int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
