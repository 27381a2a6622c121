"""Trains a detector with ultralytics, as fast as this machine allows; keeps what it came from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.bundle import sha256_of
from pipeline.errors import ConfigError
from pipeline.lab import torch_env
from pipeline.lab.datasets import label_file, read_dataset

# Effective batch = batch: ultralytics otherwise saves gradients up to 64 pictures, which leaves a
# small data set with 14 steps an epoch.
_FIXED: dict[str, Any] = {"workers": 0, "plots": False, "verbose": False, "exist_ok": True}


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
    """Read a training recipe: ``model`` (an ultralytics YAML name), ``settings``, ``bundle``.

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
    data: Path,
    out: Path,
    *,
    hours: float | None = None,
    epochs: int | None = None,
    resume: bool = False,
    device: str = "cpu",
    on_epoch: Callable[[int, int, dict[str, float]], None] = lambda epoch, of, figures: None,
) -> Trained:
    """Train a detector.

    Args:
        recipe: as ``read_recipe`` returns it.
        data: data.yaml of a YOLO data set.
        out: folder of the run; checkpoints are kept there after every epoch.
        hours: stop after this time, the learning rate ending its way by then; or None.
        epochs: instead of the recipe's.
        resume: go on from the last checkpoint in ``out``.
        device: ``cpu``, or the number of a CUDA device.
        on_epoch: told (epoch, of, figures) after each epoch.

    Raises:
        MissingExtra: the lab extra is not installed.
        ConfigError: there is no checkpoint to resume from, or the data set is none.
    """
    dataset = read_dataset(data)
    ultralytics = torch_env.prepare()
    last = out / "weights" / "last.pt"
    if resume and not last.is_file():
        raise ConfigError(f"{last}: no checkpoint to resume from; start without --resume")
    model = ultralytics.YOLO(str(last) if resume else recipe["model"])
    for event, act in _callbacks(device, on_epoch).items():
        model.add_callback(event, act)
    settings = dict(recipe["settings"]) | _FIXED
    settings |= {"epochs": epochs} if epochs else {}
    settings |= {"time": hours} if hours else {}
    batch = settings.get("batch", 8)
    model.train(
        data=str(data.resolve()),
        device=device,
        nbs=batch,
        resume=resume,
        project=str(out.resolve().parent),
        name=out.name,
        **settings,
    )
    made_with = {
        "recipe": recipe,
        "data_sha256": data_hash(dataset.pictures("train")),
        "pictures": len(dataset.pictures("train")),
        "hours_asked": hours,
    }
    (out / "made_with.json").write_text(json.dumps(made_with, indent=1), encoding="utf-8")
    return Trained(last, made_with)


def data_hash(pictures: tuple[Path, ...]) -> str:
    """Return one hash over the bytes of all pictures and their labels, in order of name."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(picture.name.encode())
        digest.update(sha256_of(picture).encode())
        labels = label_file(picture)
        digest.update(sha256_of(labels).encode() if labels.is_file() else b"none")
    return digest.hexdigest()


def _callbacks(
    device: str, on_epoch: Callable[[int, int, dict[str, float]], None]
) -> dict[str, Callable[[Any], None]]:
    def start(trainer: Any) -> None:
        if device == "cpu":
            _use_the_processor_well(trainer)

    def end(trainer: Any) -> None:
        on_epoch(trainer.epoch + 1, trainer.epochs, dict(trainer.metrics))

    return {"on_train_start": start, "on_fit_epoch_end": end}


def _use_the_processor_well(trainer: Any) -> None:
    """Use all cores, channels_last and bfloat16: 3.05 times the default (docs/training.md).

    Ultralytics falls back to cores - 1 threads and refuses bfloat16 on processors.
    """
    import torch
    from ultralytics.engine import trainer as engine

    torch.set_num_threads(os.cpu_count() or 1)
    trainer.model.to(memory_format=torch.channels_last)
    engine.autocast = lambda *args, **kwargs: torch.autocast("cpu", torch.bfloat16)
