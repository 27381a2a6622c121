"""Trains a detector as a recipe says, and keeps what it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.bundle import open_bundle, sha256_of
from pipeline.errors import ConfigError
from pipeline.lab import mixture
from pipeline.lab.datasets import Dataset, label_file, read_dataset
from pipeline.lab.families import ULTRALYTICS, Job, family

MADE_WITH = "made_with.json"
"""In the folder of a run: what its weights were made with."""

THAWED = "start.pt"
"""Among the weights of a run that began with those of a bundle."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run left.

    Attributes:
        weights: the last checkpoint's averaged weights (.pt).
        made_with: recipe, data set hash, versions; goes into the bundle's manifest.
    """

    weights: Path
    made_with: dict[str, Any]


def read_recipe(file: Path) -> dict[str, Any]:
    """Read a training recipe.

    Keys: ``family`` (the library that trains; ultralytics if it is missing), ``model`` (what that
    library calls the network) and ``settings`` (of that library), ``bundle``, ``epoch_mix``
    (pictures of each data set in one epoch) and ``transpose`` (share of pictures that are mirrored
    at the diagonal).

    Raises:
        ConfigError: the file is not there or lacks a key.
    """
    try:
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: not a readable training recipe: {error}") from error
    missing = {"model", "settings"} - set(recipe if isinstance(recipe, dict) else {})
    if missing:
        raise ConfigError(f"{file}: the recipe lacks: {', '.join(sorted(missing))}")
    return dict(recipe)


def train(
    recipe: dict[str, Any],
    data: Sequence[Path],
    out: Path,
    *,
    hours: float | None = None,
    epochs: int | None = None,
    start: Path | None = None,
    teacher: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    on_epoch: Callable[[int, int, dict[str, float]], None] = lambda epoch, of, figures: None,
) -> Trained:
    """Train a detector.

    Args:
        recipe: as ``read_recipe`` returns it.
        data: data.yaml of the YOLO data sets, one or more; the first one's val is used.
        out: folder of the run; checkpoints are kept there after every epoch.
        hours: stop after this time, the learning rate ending its way by then; or None.
        epochs: instead of the recipe's.
        start: weights (.pt), or a bundle of the same network, to start from instead of random ones.
        teacher: weights (.pt) of a larger network of the same classes, whose features are learnt
            as well (distillation).
        resume: go on from the last checkpoint in ``out``.
        device: ``cpu``, or the number of a CUDA device.
        on_epoch: told (epoch, of, figures) after each epoch.

    Raises:
        MissingExtra: the library of the recipe's family is not installed.
        ConfigError: there is nothing to resume or start from, a data set is none, the data sets do
            not fit each other or the recipe, or the family cannot do what is asked.
    """
    sets = [read_dataset(file) for file in data]
    pictures = [dataset.pictures("train") for dataset in sets]
    counts = mixture.shares(recipe, len(sets))
    last = out / "weights" / "last.pt"
    if resume and not last.is_file():
        raise ConfigError(f"{last}: no checkpoint to resume from; start without --resume")
    for given, use in ((start, "start"), (teacher, "learn")):
        if given is not None and not given.exists():
            raise ConfigError(f"{given}: no weights to {use} from")
    chosen = family(recipe.get("family", ULTRALYTICS))
    job = Job(
        recipe=recipe,
        data=_written(sets, pictures, out),
        pictures=pictures,
        counts=counts,
        labels=sets[0].labels,
        out=out,
        last=last,
        hours=hours,
        epochs=epochs,
        start=start,
        teacher=teacher,
        resume=resume,
        device=device,
        on_epoch=on_epoch,
    )
    if start is not None and start.is_dir():
        start = chosen.thaw(job, open_bundle(start), out / "weights" / THAWED)
        job = replace(job, start=start)
    chosen.train(job)
    made_with = {
        "recipe": recipe,
        "data_sha256": data_hash([file for part in pictures for file in part]),
        "pictures": [len(part) for part in pictures],
        "hours_asked": hours,
        "started_from_sha256": sha256_of(start) if start else None,
        "teacher_sha256": sha256_of(teacher) if teacher else None,
    }
    (out / MADE_WITH).write_text(json.dumps(made_with, indent=1), encoding="utf-8")
    return Trained(last, made_with)


def _written(sets: Sequence[Dataset], pictures: Sequence[Sequence[Path]], out: Path) -> Path:
    """Write the one data set that all of them make, beside the run; return its data.yaml."""
    first = sets[0]
    first.pictures("val")  # named, and not empty
    for other in sets[1:]:
        if other.labels != first.labels:
            raise ConfigError(
                f"{other.file}: its classes {', '.join(other.labels)} are not those of "
                f"{first.file}: {', '.join(first.labels)}"
            )
    out.mkdir(parents=True, exist_ok=True)
    listed = out / "train.txt"
    listed.write_text("".join(f"{file}\n" for part in pictures for file in part), encoding="utf-8")
    page = {
        "path": str(out.resolve()),
        "train": listed.name,
        "val": str(first.parts["val"].resolve()),
        "names": dict(enumerate(first.labels)),
    }
    file = out / "data.yaml"
    file.write_text(yaml.safe_dump(page), encoding="utf-8")
    return file


def data_hash(pictures: Sequence[Path]) -> str:
    """Return one hash over the bytes of all pictures and their labels, in order of name."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(picture.name.encode())
        digest.update(sha256_of(picture).encode())
        labels = label_file(picture)
        digest.update(sha256_of(labels).encode() if labels.is_file() else b"none")
    return digest.hexdigest()
