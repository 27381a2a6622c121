"""A recording through a whole station: the same code as on the line, its figures, its records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.assembly import build, open_camera
from pipeline.clock import SystemClock
from pipeline.config import StationConfig, load
from pipeline.errors import ConfigError
from pipeline.quality.truth import Comparison, TruePart, compare
from pipeline.tally import Tally
from pipeline.types import Record, Verdict

VIDEO_SUFFIXES = (".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm")


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay gave.

    Attributes:
        cpu_s: time of the processor, all threads, from the first frame to the last record; the
            model was loaded before. None if it was not measured.
    """

    records: tuple[Record, ...]
    tally: Tally
    truth: Comparison | None = None
    cpu_s: float | None = None

    @property
    def cpu_ms_per_part(self) -> float | None:
        """Return what one part costs the processor, ms; None without parts or measurement."""
        if self.cpu_s is None or not self.records:
            return None
        return round(self.cpu_s * 1000 / len(self.records), 1)

    def figures(self) -> dict[str, Any]:
        """Return the figures under the documented, stable keys of ``--json``."""
        verdicts = [r.verdict for r in self.records]
        return {
            "parts": len(self.records),
            "pass": verdicts.count(Verdict.PASS),
            "fail": verdicts.count(Verdict.FAIL),
            "unsure": verdicts.count(Verdict.UNSURE),
            "frames": frames(self.tally),
            "latency_ms": latency(self.tally.latency_ms),
            "cpu_ms_per_part": self.cpu_ms_per_part,
            **(_against_truth(self.truth) if self.truth else {}),
        }


def frames(tally: Tally) -> dict[str, int]:
    """Return the frame balance: captured = inspected + dropped."""
    return {
        "captured": tally.captured,
        "inspected": tally.inspected,
        "dropped": sum(tally.dropped.values()),
        "lost_exposures": tally.lost_exposures,
    }


def latency(values_ms: Sequence[float]) -> dict[str, float | None]:
    """Return the 50th and 99th percentile (nearest rank), milliseconds."""
    ordered = sorted(values_ms)
    return {
        f"p{share}": round(ordered[math.ceil(share / 100 * len(ordered)) - 1], 2)
        if ordered
        else None
        for share in (50, 99)
    }


def source_section(source: Path, *, realtime: bool) -> dict[str, Any]:
    """Return the camera section that plays a video file or a folder of pictures.

    Raises:
        ConfigError: there is nothing of that name.
    """
    if not source.exists():
        raise ConfigError(f"{source}: no such file or folder; name a video or a folder of pictures")
    path = str(source.resolve())
    if source.is_dir() or source.suffix.lower() not in VIDEO_SUFFIXES:
        return {"kind": "images", "path": path}
    return {"kind": "video", "path": path, "realtime": realtime}


def load_for_replay(
    file: Path,
    source: Path | None,
    store: Path,
    *,
    realtime: bool,
    runtime: str | None = None,
    mode: str | None = None,
) -> StationConfig:
    """Read a station file for a replay: its model, recipe and trigger, but no line to act upon.

    Args:
        source: video or folder instead of the file's camera, or None.
        store: where the records go.
        runtime: kind of runtime instead of the file's, or None.
        mode: latency or throughput instead of the file's, or None.
    """
    overrides: dict[str, Any] = {"publishers": [], "outputs": []}
    if source is not None:
        overrides["camera"] = source_section(source, realtime=realtime)
    overrides["store"] = {"path": str(store.resolve()), "pictures": "none"}
    config = load(file, overrides)
    other: dict[str, Any] = {}
    if runtime is not None:
        other = {"runtime": {"kind": runtime}, "artefact": None}
    if mode is not None:
        other["mode"] = mode
    if not other:
        return config
    return load(file, overrides | {"model": config.document.model.model_dump() | other})


def replay(
    config: StationConfig,
    truth: Sequence[TruePart] | None = None,
    on_start: Callable[[Tally, int | None], None] = lambda tally, total: None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Replay:
    """Run the recording that ``config`` names as camera to its end.

    Args:
        on_start: told the books that the station keeps, and the number of frames if known.
        on_record: called with each record once it is in the ledger.

    Raises:
        LineguardError: the recording or the station failed.
    """
    clock = SystemClock()
    records: list[Record] = []

    def keep(record: Record) -> None:
        records.append(record)
        on_record(record)

    camera = open_camera(config, clock)
    station = build(config, clock, keep, camera)
    on_start(station.tally, camera.total)
    started_s = time.process_time()
    tally = station.run()
    cpu_s = time.process_time() - started_s
    compared = compare(records, truth) if truth is not None else None
    return Replay(tuple(records), tally, compared, cpu_s)


def _against_truth(truth: Comparison) -> dict[str, Any]:
    return {
        "true_parts": truth.parts,
        "missed": truth.missed,
        "double": truth.double,
        "phantom": truth.phantom,
        "escapes": truth.escapes.count,
        "overkill": truth.overkill.count,
        "escape_rate": truth.escapes.as_dict(),
        "overkill_rate": truth.overkill.as_dict(),
        "rejected_good_rate": truth.rejected_good.as_dict(),
    }
