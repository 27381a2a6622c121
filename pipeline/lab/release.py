"""From trained weights to a bundle that can ship: exported, measured, described."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from pipeline.lab.families import ULTRALYTICS, Network, family
from pipeline.lab.prove import frozen_set, keep, prove, rewrite, without_red
from pipeline.lab.synth import write_dataset
from pipeline.lab.train import MADE_WITH, read_recipe
from pipeline.lab.variants import FOR_PROCESSORS, Variant, add_variants
from pipeline.plugins import load
from pipeline.proof import Report
from pipeline.synth.defects import KINDS

RUNTIME = "onnx"
GOLDEN, GOLDEN_SEED = 4, 21
JUDGED, JUDGED_SEED = 120, 77
"""Drawn boards, half of them good, on which thresholds are chosen beside val: it holds no good
ones."""

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
    """Write a bundle: thresholds chosen on val and drawn boards, figures measured on test.

    Args:
        weights: checkpoint (.pt); ``made_with.json`` of the run is taken up if it lies beside.
        recipe: the training recipe; its ``bundle`` section names the bundle and its data.
        good: folder of defect-free pictures, or None.
        variants: smaller artefacts to make; those ship that decide as the fp32 one does.

    Raises:
        ConfigError: the recipe has no bundle section, or an argument is wrong.
        ModelError: the artefact does not give what torch gives.
    """
    read = read_recipe(recipe)
    page, named = read.get("bundle"), read.get("family", ULTRALYTICS)
    if not isinstance(page, dict):
        raise ConfigError(f"{recipe}: the recipe has no section 'bundle' with name, version, size")
    dataset = read_dataset(data)
    parity = export_bundle(
        weights,
        out,
        name=page["name"],
        version=page["version"],
        family_name=named,
        head=page.get("decoder", "yolo-e2e"),
        licence=page.get("licence"),
        labels=dataset.labels,
        size=tuple(page["size"]),
        enlarge=page.get("enlarge", False),
        template=page.get("template", False),
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
    trained = family(named).load(weights, dataset.labels)
    report = with_variants(bundle, dataset, good, variants, trained, progress)
    return Release(parity, metrics, report)


def with_variants(
    bundle: Bundle,
    dataset: Dataset,
    good: Path | None = None,
    variants: Sequence[Variant] = FOR_PROCESSORS,
    trained: Network | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Add variants to a bundle, prove all, keep what is green, and write the card.

    Args:
        trained: the network the bundle was exported from; some variants need it.

    Raises:
        ConfigError: an argument is wrong.
        ModelError: the reference fails, or cannot be quantised.
    """
    bundle, missing = add_variants(bundle, dataset, variants, trained)
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
        with _drawn(bundle, GOLDEN, 0.0, GOLDEN_SEED) as boards:
            sealing.add_golden(bundle.path, boards)
    sealing.seal(bundle.path)


@contextmanager
def _drawn(bundle: Bundle, images: int, good_share: float, seed: int) -> Iterator[tuple[Path, ...]]:
    """Draw black and white boards of the input's size, for as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="lineguard-drawn-") as scratch:
        drawn = write_dataset(
            Path(scratch, "drawn"),
            images=images,
            good_share=good_share,
            seed=seed,
            size=max(bundle.manifest.input.height, bundle.manifest.input.width),
            looks={"binary": 1.0},
            val_share=0.0,
            pairs=bundle.manifest.input.template,
        )
        yield read_dataset(drawn).pictures("train")


def _choose_thresholds(
    out: Path, pictures: tuple[Path, ...], progress: Callable[[int, int], None]
) -> None:
    bundle = open_bundle(out)
    detector = open_detector(
        bundle, RUNTIME, load("runtimes", RUNTIME).Options(), min_score=LEAST_SCORE, unproved=True
    )
    looked = look(pictures, detector, progress)
    if bundle.manifest.labels == KINDS:
        with _drawn(bundle, JUDGED, 0.5, JUDGED_SEED) as boards:
            looked += look(boards, detector, progress)
    chosen = thresholds.choose(looked, bundle.manifest.labels)
    rewrite(bundle, thresholds=chosen)


def _made_with(weights: Path) -> dict[str, Any]:
    file = weights.parent.parent / MADE_WITH
    made = dict(json.loads(file.read_text())) if file.is_file() else {}
    made.get("recipe", {}).pop("bundle", None)  # the manifest says it already
    return made
