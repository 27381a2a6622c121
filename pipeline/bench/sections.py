"""The sections of the bench by name, what they gave, and the keys that are promised of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.bench import density, growth, pace, parts, peers, stages, start, throughput
from pipeline.bench.machine import machine
from pipeline.bench.work import Work
from pipeline.errors import ConfigError

Results = dict[str, Any]
RESULTS = "results.json"


FORM = 2
"""Of the results that are kept; it rises with every change of their keys."""


@dataclass(frozen=True, slots=True)
class Section:
    """Something that is measured by itself.

    Attributes:
        says: what, in a few words.
        measure: returns its figures.
        asked: it is measured only where it is asked for: by its name, or by an option.
        gathers: the key of figures that stay beside newer ones of other names; or None.
    """

    says: str
    measure: Callable[[Work], dict[str, Any]]
    asked: bool = False
    gathers: str | None = None


SECTIONS: Mapping[str, Section] = {
    "stages": Section("each stage of a frame's way alone", stages.stages),
    "e2e": Section("the whole station over the bare runtime", throughput.end_to_end),
    "paced": Section("trigger to verdict at a line's pace", pace.paced),
    "burst": Section("trigger to verdict of very many parts", pace.burst, asked=True),
    "start": Section("start to first verdict, and memory", start.start),
    "density": Section("cameras that the machine carries", density.density),
    "parts": Section("CPU time per part on a belt", parts.parts),
    "ledger": Section("the ledger as it grows", growth.growth),
    "against": Section("two configurations in turns", throughput.against, True, "pairs"),
    "peers": Section("the same model and clip in other programs", peers.peers, True, "peers"),
}


def chosen(only: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the sections to measure, in their order.

    Raises:
        ConfigError: there is no section of a name.
    """
    if unknown := sorted({*only, *asked} - set(SECTIONS)):
        raise ConfigError(
            f"bench: there is no section '{unknown[0]}'; there are: {', '.join(SECTIONS)}"
        )
    if only:
        return tuple(name for name in SECTIONS if name in {*only})
    return tuple(n for n, section in SECTIONS.items() if n in asked or not section.asked)


def measured(name: str, work: Work, results: Results) -> Results:
    """Measure a section; return the results with its figures in the place of older ones."""
    began = time.monotonic()
    figures = SECTIONS[name].measure(work)
    earlier = results.get("sections", {}).get(name, {}).get("figures", {})
    if key := SECTIONS[name].gathers:
        figures = {key: {**earlier.get(key, {}), **figures[key]}}
    taken = {
        "figures": figures,
        "seconds": round(time.monotonic() - began, 1),
        "quick": work.quick,
        "machine": machine(),
    }
    sections = {**results.get("sections", {}), name: taken}
    return {**promised(sections), "machine": taken["machine"], "sections": sections}


def read_results(file: Path) -> Results:
    """Return what an earlier run has measured; nothing if there was none.

    Raises:
        ConfigError: the file is not one of these.
    """
    if not file.exists():
        return {}
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: no results of the bench ({error}); remove it") from error
    if not isinstance(results, dict) or not isinstance(results.get("sections", {}), dict):
        raise ConfigError(f"{file}: no results of the bench; remove it")
    if results.pop("form", None) != FORM:
        raise ConfigError(
            f"{file}: what another version of the bench measured; remove it, or keep the new "
            "results elsewhere (--kept)"
        )
    return results


def write_results(results: Results, file: Path) -> None:
    """Write results, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps({**results, "form": FORM}, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def promised(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented, stable keys: plain numbers, medians where there are rounds."""
    figures = {name: taken["figures"] for name, taken in sections.items()}
    found: dict[str, Any] = {}
    for name, keys in _PROMISED.items():
        if name in figures:
            found |= keys(figures[name])
    return found


def _of_e2e(figures: Mapping[str, Any]) -> dict[str, Any]:
    known = {n: s for n, s in figures["sources"].items() if "skipped" not in s}
    return {
        "e2e_over_raw": {n: s["over_raw"]["median"] for n, s in known.items()},
        "e2e_over_ceiling": {
            n: s["over_ceiling"]["median"] for n, s in known.items() if "over_ceiling" in s
        },
        "cpu_ms_beyond_raw": {n: s["cpu_ms_beyond_raw"]["median"] for n, s in known.items()},
    }


def _of_paced(figures: Mapping[str, Any]) -> dict[str, Any]:
    shares = ("p50", "p99", "p999")
    pace = figures["pace"]
    return {
        "trigger_to_verdict_ms": {s: pace["latency_ms"][s] for s in shares},
        "verdict_to_subscriber_ms": {s: pace["to_subscriber_ms"].get(s) for s in shares},
        "lost": pace["lost"],
    }


def _of_start(figures: Mapping[str, Any]) -> dict[str, Any]:
    names = {"onnx": ("onnx",), "openvino": ("openvino cached", "openvino")}
    runtimes = {n: r for n, r in figures["runtimes"].items() if "skipped" not in r}
    found = {k: next((runtimes[n] for n in of if n in runtimes), None) for k, of in names.items()}
    cold = {k: r["first_verdict_s"]["median"] for k, r in found.items() if r}
    first = next(iter(runtimes.values()), None)
    return {"cold_start_s": cold, **({"rss_mb": first["rss_mb"]} if first else {})}


def _of_peers(figures: Mapping[str, Any]) -> dict[str, Any]:
    known = {n: p for n, p in figures["peers"].items() if "skipped" not in p}
    return {
        "peers": {n: p["fps_ratio"]["median"] for n, p in known.items()},
        "peers_cpu_per_part": {n: p["cpu_per_part_ratio"]["median"] for n, p in known.items()},
    }


_PROMISED: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "stages": lambda f: {"cpu_ms_besides_model": f["besides_model_cpu_ms"]["median"]},
    "e2e": _of_e2e,
    "paced": _of_paced,
    "start": _of_start,
    "density": lambda f: {"cameras": f["cameras"]},
    "parts": lambda f: (
        {} if "skipped" in f else {"cpu_ms_per_part": f["cpu_ms_per_part"]["median"]}
    ),
    "against": lambda f: {"against": {n: p["fps_ratio"]["median"] for n, p in f["pairs"].items()}},
    "peers": _of_peers,
}
