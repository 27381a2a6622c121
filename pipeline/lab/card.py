"""Writes the model card of a bundle from its manifest: nothing in it is written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.bundle import Bundle
from pipeline.proof import Report

CARD = "README.md"
PRECISIONS = ("ap33", "ap50", "ap50_95")


def card(bundle: Bundle) -> str:
    """Return the card as Markdown."""
    m = bundle.manifest
    parts = [
        f"# {m.name} {m.version}",
        f"Finds {', '.join(m.labels)} in pictures of {m.input.width} x {m.input.height} pixels"
        f"{', each beside the template of its part' if m.input.template else ''}. "
        f"Licence of the weights: {m.licence}. Decoder: `{m.decoder}`.",
        _table(
            "Files",
            ("artefact", "file", "MB", "precision", "runtimes"),
            [
                (name, a.path, f"{bundle.size_of(a) / 1e6:.1f}", a.precision, ", ".join(a.runtimes))
                for name, a in m.artefacts.items()
            ],
        ),
        _table(
            "Thresholds, chosen without the test part",
            ("label", "fail", "unsure"),
            [(label, t.fail, t.unsure) for label, t in m.thresholds.items()],
        ),
        _table(
            "Trained on",
            ("data", "source", "licence"),
            [(d.get("name"), d.get("source"), d.get("licence")) for d in m.data],
        ),
        *[_metrics(name, figures) for name, figures in m.metrics.items()],
        *([] if m.parity is None else [_parity(bundle.report())]),
        _table("Made with", ("what", "value"), sorted(_flat(m.made_with))),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(name: str, figures: dict[str, Any]) -> str:
    rows = [
        (label, *(_number(row[name]) for name in PRECISIONS), _share(row["recall"]))
        for label, row in figures["per_class"].items()
    ]
    rows.append(("all", *(_number(figures[f"m{name}"]) for name in PRECISIONS), ""))
    shares = [
        (key.replace("_", " "), _share(figures[key]))
        for key in ("escapes", "overkill", "false_alarms", "unsure")
    ]
    if (weakest := figures["weakest"]) is not None:
        shares.insert(0, (f"recall of the weakest class, {weakest['label']}", _share(weakest)))
    return (
        _table(
            f"Measured on {name} with {figures['runtime']}",
            ("class", "AP33", "AP50", "AP50-95", "recall at the fail score"),
            rows,
        )
        + "\n\n"
        + _rows(("at these thresholds", "share, 95 % interval"), shares)
    )


def _parity(report: Report) -> str:
    """Return how far each artefact is from the reference, and how fast, measured in one run."""
    rows = [
        (
            name,
            run,
            len(found.flips),
            "{count} of {of}".format(**found.figures["boxes"]["unmatched"]),
            f"{found.figures['boxes']['score_mean']:.4f}",
            _signed(found.figures.get("map50_95_lost")),
            f"{found.figures['latency']['ms_median']:.1f}",
            f"{speed_up(found.figures):.2f}",
            twice(found.figures),
        )
        for name, checked in report.artefacts.items()
        for run, found in checked.runs.items()
        if found.figures
    ]
    head = (
        "artefact",
        "on",
        "flips",
        "no twin",
        "score off",
        "mAP50-95",
        "ms",
        "speed-up",
        "twice",
    )
    sets = ", ".join(f"{count} of {name}" for name, count in report.pictures["sets"].items())
    parts = [
        _table("Parity with the reference", head, rows),
        f"Reference: {report.reference['artefact']} on {report.reference['run']}. "
        f"Pictures: {sets}. Flips are pictures whose verdict differs; times are medians of "
        f"window, runtime and decoder, in turns, on {report.made_with['machine']}; speed-up is of "
        "the whole set, with what was looked at twice.",
    ]
    if report.withdrawn:
        parts.append(_rows(("does not ship", "why"), list(report.withdrawn.items())))
    return "\n\n".join(parts)


def speed_up(figures: Mapping[str, Any]) -> float:
    """Return a run's speed-up on the whole set; of a report before that was kept, the median's."""
    latency = figures["latency"]
    return float(latency.get("speed_up_total", latency["speed_up_median"]))


def twice(figures: Mapping[str, Any]) -> str:
    """Return how many pictures of a run were looked at twice, in words."""
    return "{count} of {of}".format(**figures["rechecked"]) if "rechecked" in figures else "-"


def _signed(lost: float | None) -> str:
    return "-" if lost is None else f"{-lost + 0.0:+.4f}"


def _flat(values: dict[Any, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        inner = dict(enumerate(value, 1)) if isinstance(value, list) else value
        if isinstance(inner, dict):
            rows += _flat(inner, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def _table(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    return f"## {title}\n\n{_rows(head, rows)}"


def _rows(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(share: dict[str, Any]) -> str:
    if not share["of"]:
        return "-"
    low, high = share["interval"]
    return f"{share['count']} of {share['of']}: {share['share']:.2%} ({low:.2%} to {high:.2%})"
