"""What one part costs on a belt where it is in view for tens of frames, and a few are looked at."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from pipeline.assembly import build, open_camera
from pipeline.bench.broker import Broker, broker
from pipeline.bench.figures import Round, spread
from pipeline.bench.pictures import NO_CLIP, clip
from pipeline.bench.variant import Variant, measurable
from pipeline.bench.work import Work, bare_of
from pipeline.bundle import open_bundle
from pipeline.clock import SystemClock
from pipeline.config import StationConfig, load
from pipeline.replay import source_section
from pipeline.shipped import shipped
from pipeline.types import Record

CLIP = "videos/boards-line.mp4"
STATION = "configs/boards-line.yaml"
DRAWN = (1280, 720)


def parts(work: Work) -> dict[str, Any]:
    """Replay a clip of a line through the whole station, several times.

    Returns:
        ``cpu_ms_per_part``, ``fps``, ``parts``, ``frames``, ``verdicts`` (of the first replay),
        ``same_every_time``, ``clip``; figures of the replay alone, not of loading the model. Or
        ``skipped``, why.
    """
    if open_bundle(work.variant.bundle).manifest.input.template:
        return {"skipped": NO_CLIP}
    file = line_clip(work)
    rounds = 2 if work.quick else work.rounds
    taken: list[Round] = []
    said: list[tuple[str, ...]] = []
    frames = 0
    with broker(work.scratch) as by:
        for number in range(rounds):
            took, records, frames = replayed(work, work.variant, file, by)
            taken.append(took)
            said.append(tuple(r.verdict.value for r in records))
            work.progress(number + 1, rounds)
    return {
        "cpu_ms_per_part": spread([r.cpu_ms for r in taken], 1).as_dict(),
        "fps": spread([frames / r.seconds for r in taken], 1).as_dict(),
        "parts": taken[0].count,
        "frames": frames,
        "verdicts": {v: said[0].count(v) for v in sorted(set(said[0]))},
        "same_every_time": len(set(said)) == 1,
        "clip": file.name,
        "runtime": records[0].runtime if records else "",
    }


def line_clip(work: Work) -> Path:
    """Return the clip that was named, else the shared one of boards on a belt, else a drawn one."""
    if work.asked.clip is not None:
        return work.asked.clip
    folder = os.environ.get("LINEGUARD_DATA")
    file = Path(folder or Path(__file__).resolve().parents[2].parent / "shared" / "data") / CLIP
    return file if file.exists() else clip(work.kept, *DRAWN, frames=600)


def replayed(
    work: Work, variant: Variant, file: Path, by: Broker
) -> tuple[Round, tuple[Record, ...], int]:
    """Play a clip through the station of boards-line; return what it took, by part."""
    records: list[Record] = []
    config = _config(work, variant, file, by)
    clock = SystemClock()
    station = build(config, clock, records.append, open_camera(config, clock))
    cpu_s, began = time.process_time(), time.perf_counter()
    tally = station.run()
    took = Round(max(len(records), 1), time.perf_counter() - began, time.process_time() - cpu_s)
    return took, tuple(records), tally.captured


def _config(work: Work, variant: Variant, file: Path, by: Broker) -> StationConfig:
    folder = work.folder("parts")
    with bare_of(variant) as bare:
        bundle = measurable(bare, work.scratch)
    sections: dict[str, Any] = {
        "camera": source_section(file, realtime=False),
        "model": {"bundle": str(bundle.resolve()), "runtime": dict(variant.runtime)},
        "store": {"path": str(folder / "store"), "pictures": "rejects"},
        "outputs": [{"kind": "journal", "path": str(folder / "gate.jsonl")}],
        "publishers": [{"kind": "mqtt", "port": by.port}],
    }
    page = shipped(STATION)
    whole = load(page, sections).document.model_dump(mode="json", exclude_defaults=True)
    for section, values in variant.settings.items():
        sections[section] = {**whole.get(section, {}), **sections.get(section, {}), **values}
    return load(page, sections)
