"""From trained weights to a bundle that can ship: exported, measured, described."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import sealing
from pipeline.bundle import Bundle, Threshold, open_bundle
from pipeline.detector import open_detector
from pipeline.errors import ConfigError
from pipeline.lab import card, thresholds
from pipeline.lab.datasets import Dataset, read_dataset
from pipeline.lab.evaluate import LEAST_SCORE, evaluate, look
from pipeline.lab.export import Parity, export_bundle
from pipeline.lab.prove import frozen_set, keep, prove, rewrite, without_red
from pipeline.lab.synth import write_dataset
from pipeline.lab.train import read_recipe
from pipeline.lab.variants import FOR_PROCESSORS, Variant, add_variants
from pipeline.plugins import load
from pipeline.proof import Report
from pipeline.synth.defects import KINDS

RUNTIME = "onnx"
GOLDEN, GOLDEN_SEED = 4, 21
COMPARED = 8
"""Validation pictures on which the artefact is compared with torch."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a release measured."""

    torch: Parity
    metrics: dict[str, Any]
    parity: Report


def release(
    weights: Path,
    recipe: Path,
    data: Path,
    out: Path,
    good: Path | None = None,
    variants: Sequence[Variant] = FOR_PROCESSORS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Release:
    """Write a bundle: thresholds chosen on the data set's val, figures measured on its test.

    Args:
        weights: checkpoint (.pt); ``made_with.json`` of the run is taken up if it lies beside.
        recipe: the training recipe; its ``bundle`` section names the bundle and its data.
        good: folder of defect-free pictures, or None.
        variants: smaller artefacts to make; those ship that decide as the fp32 one does.

    Raises:
        ConfigError: the recipe has no bundle section, or an argument is wrong.
        ModelError: the artefact does not give what torch gives.
    """
    page = read_recipe(recipe).get("bundle")
    if not isinstance(page, dict):
        raise ConfigError(f"{recipe}: the recipe has no section 'bundle' with name, version, size")
    dataset = read_dataset(data)
    parity = export_bundle(
        weights,
        out,
        name=page["name"],
        version=page["version"],
        labels=dataset.labels,
        size=tuple(page["size"]),
        data=page.get("data", ()),
        thresholds={label: Threshold(fail=0.5, unsure=0.3) for label in dataset.labels},
        pictures=dataset.pictures("val")[:COMPARED],
        made_with=_made_with(weights),
    )
    _choose_thresholds(out, dataset.pictures("val"), progress)
    bundle = open_bundle(out)
    detector = open_detector(
        bundle,
        RUNTIME,
        load("runtimes", RUNTIME).Options(),
        min_score=LEAST_SCORE,
        unproved=True,
    )
    figures = evaluate(bundle, dataset, "test", detector, good, progress)
    metrics = {figures["set"]: figures | {"runtime": detector.runtime.name}}
    bundle = rewrite(bundle, metrics=metrics)
    report = with_variants(bundle, dataset, good, variants, progress)
    return Release(parity, metrics, report)


def with_variants(
    bundle: Bundle,
    dataset: Dataset,
    good: Path | None = None,
    variants: Sequence[Variant] = FOR_PROCESSORS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Add variants to a bundle, prove all, keep what is green, and write the card.

    Raises:
        ConfigError: an argument is wrong.
        ModelError: the reference fails, or cannot be quantised.
    """
    bundle, missing = add_variants(bundle, dataset, variants)
    report = prove(bundle, frozen_set(bundle, dataset, good), progress=progress)
    report = report.model_copy(update={"withdrawn": missing})
    manifest, report = without_red(bundle.manifest, report)
    bundle = keep(rewrite(bundle, artefacts=manifest.artefacts), report)
    (bundle.path / card.CARD).write_text(card.card(bundle), encoding="utf-8")
    _seal(bundle)
    return report


def _seal(bundle: Bundle) -> None:
    """Add golden pictures, where boards show what the model knows, and a hash for every file.

    They are drawn: pictures of a data set may not be passed on.
    """
    if bundle.manifest.labels == KINDS:
        size = max(bundle.manifest.input.height, bundle.manifest.input.width)
        with tempfile.TemporaryDirectory(prefix="lineguard-golden-") as scratch:
            drawn = write_dataset(
                Path(scratch, "drawn"),
                images=GOLDEN,
                good_share=0.0,
                seed=GOLDEN_SEED,
                size=size,
                looks={"binary": 1.0},
                val_share=0.0,
            )
            sealing.add_golden(bundle.path, read_dataset(drawn).pictures("train"))
    sealing.seal(bundle.path)


def _choose_thresholds(
    out: Path, pictures: tuple[Path, ...], progress: Callable[[int, int], None]
) -> None:
    bundle = open_bundle(out)
    detector = open_detector(
        bundle, RUNTIME, load("runtimes", RUNTIME).Options(), min_score=LEAST_SCORE, unproved=True
    )
    looked = look(pictures, detector, progress)
    chosen = thresholds.choose(looked, bundle.manifest.labels)
    rewrite(bundle, thresholds=chosen)


def _made_with(weights: Path) -> dict[str, Any]:
    file = weights.parent.parent / "made_with.json"
    made = dict(json.loads(file.read_text())) if file.is_file() else {}
    made.get("recipe", {}).pop("bundle", None)  # the manifest says it already
    return made
