"""YOLOX (Apache-2.0), trained with libreyolo (MIT): a recipe states the licence of the weights."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bundle import Bundle
from pipeline.errors import ConfigError
from pipeline.lab import torch_env
from pipeline.lab.families import Job, check_labels, check_there, mean
from pipeline.lab.graph import Pixels
from pipeline.lab.mixture import EpochDraw, members, turned
from pipeline.plugins import vendor

HEADS = ("yolox",)
EXTRA = "lab-permissive"
MODELS = ("yolox-n", "yolox-t", "yolox-s", "yolox-m", "yolox-l", "yolox-x")

_FIXED: dict[str, Any] = {"workers": 0, "exist_ok": True, "eval_interval": 0, "save_period": 0}


def train(job: Job) -> None:
    """Train; see Family."""
    if job.hours is not None:
        raise ConfigError("--hours: the family yolox trains by epochs; use --epochs")
    if job.teacher is not None:
        raise ConfigError("--teacher: the family yolox learns from data alone; leave it out")
    size = _size_of(job.recipe["model"])
    torch = torch_env.prepare_torch(EXTRA)
    model = _yolox(size, len(job.labels), job.last if job.resume else job.start)
    model.names = dict(enumerate(job.labels))
    settings = _settings(job)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(job.seed)
    trainer = _trainer(torch, job)(
        model=model.model,
        wrapper_model=model,
        size=size,
        num_classes=len(job.labels),
        data=str(job.data.resolve()),
        device=job.device,
        project=str(job.out.resolve().parent),
        name=job.out.name,
        callbacks=lambda event: job.on_epoch(
            event.epoch, event.total_epochs, dict(event.train_loss_items)
        ),
        **settings,
    )
    if job.resume:
        trainer.setup()
        trainer.resume(str(job.last))
    trainer.train()


def load(weights: Path, labels: Sequence[str]) -> Trained:
    """Load a checkpoint; see Family."""
    _, known, model = _opened(weights)
    check_labels(weights, known, labels)
    return Trained(model)


def average(weights: Sequence[Path], out: Path) -> None:
    """Average checkpoints; see Family."""
    opened = {file: _opened(file) for file in weights}
    page, first, _ = opened[weights[0]]
    for file, (_, known, _) in opened.items():
        check_labels(file, known, first)
    tensors = mean({file: model.state_dict() for file, (_, _, model) in opened.items()})
    torch_env.prepare_torch(EXTRA).save({**page, "model": tensors}, out)


def thaw(job: Job, bundle: Bundle, out: Path) -> Path:
    """Refuse: nobody has asked yet for a bundle of this family to go on from; see Family."""
    raise ConfigError(
        f"--start {bundle.path}: the family yolox starts from a checkpoint (.pt), not from a bundle"
    )


def _opened(weights: Path) -> tuple[dict[str, Any], list[str], Any]:
    """Return a checkpoint's page, its labels and its network."""
    check_there(weights)
    torch = torch_env.prepare_torch(EXTRA)
    try:
        # Checkpoints are pickles: only tensors and plain values are built from them.
        page = torch.load(weights, map_location="cpu", weights_only=True)
        size, names = page["size"], page["names"]
        known = [names[i] for i in sorted(names)]
        model = _yolox(size, len(known), None)
        model.model.load_state_dict(page["model"])
    except torch_env.UNREADABLE as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"{weights}: no checkpoint of a YOLOX detector: {said}") from error
    return page, known, model.model


class Trained:
    """A detector of libreyolo; see Network."""

    pixels = Pixels(rgb=False, white=255.0)

    def __init__(self, model: Any) -> None:
        self._model = model

    def module(self, head: str, form: str | None = None) -> Any:
        del head, form  # it has one, which is the same for all
        self._model.head.export = True  # boxes in pixels, all in one tensor
        return self._model.float().eval()

    def onnx(self, folder: Path, size: tuple[int, int], head: str, opset: int) -> Path:
        torch, onnx = vendor("torch", EXTRA), vendor("onnx", EXTRA)
        plain, slim = folder / "plain.onnx", folder / "slim.onnx"
        torch.onnx.export(
            self.module(head),
            (torch.zeros(1, 3, *size),),
            str(plain),
            input_names=["images"],
            output_names=["output0"],
            opset_version=opset,
            dynamo=False,
        )
        onnx.save(vendor("onnxslim", EXTRA).slim(onnx.load(plain)), slim)
        return slim


def _settings(job: Job) -> dict[str, Any]:
    settings = dict(job.recipe["settings"])
    config = vendor("libreyolo.training.config", EXTRA).YOLOXConfig
    unknown = set(settings) - {field.name for field in dataclasses.fields(config)}
    if unknown:
        raise ConfigError(f"settings: libreyolo knows no {', '.join(sorted(unknown))}")
    settings |= _FIXED
    return settings | ({"epochs": job.epochs} if job.epochs else {})


def _size_of(name: str) -> str:
    if name not in MODELS:
        raise ConfigError(f"model: '{name}' is none of: {', '.join(MODELS)}")
    return name.removeprefix("yolox-")


def _yolox(size: str, classes: int, weights: Path | None) -> Any:
    kind = vendor("libreyolo.models.yolox.model", EXTRA).LibreYOLOX
    start = None if weights is None else str(weights)
    return kind(model_path=start, size=size, nb_classes=classes, device="cpu")


def _trainer(torch: Any, job: Job) -> type[Any]:
    """Return libreyolo's trainer, reading the pictures in this mixture, fast on a processor."""
    base: Any = vendor("libreyolo.models.yolox.trainer", EXTRA).YOLOXTrainer
    loader: Any = vendor("libreyolo.data.dataset", EXTRA).create_dataloader
    on_processor = job.device == "cpu"

    class Trainer(base):  # type: ignore[misc]
        def on_setup(self) -> None:
            super().on_setup()
            if on_processor:
                torch.set_num_threads(len(os.sched_getaffinity(0)))
                self.model.to(memory_format=torch.channels_last)

        def create_transforms(self) -> Any:
            inner, mosaic = super().create_transforms()
            return Turned(inner, job.transpose), mosaic

        def _setup_data(self) -> Any:
            dataset = super()._setup_data()
            if job.counts is not None:
                files = [str(file) for file in dataset.dataset.img_files]
                draw = EpochDraw(members(files, job.pictures), job.counts, job.seed)
                self.train_loader = loader(
                    dataset, self.config.batch, num_workers=0, pin_memory=False, sampler=draw
                )
            return dataset

        def on_forward(self, imgs: Any, targets: Any, polygons: Any = None) -> Any:
            if not on_processor:
                return super().on_forward(imgs, targets, polygons)
            # Boxes run to the input's size: in bfloat16 they would have steps of 4 px.
            with torch.autocast("cpu", torch.bfloat16):
                features = self.model.backbone(imgs)
            return self.model.head([f.float() for f in features], labels=targets, imgs=imgs)

    return Trainer


class Turned:
    """Mirrors a square picture and its boxes at the diagonal before it is augmented further.

    Args:
        inner: libreyolo's transform: (image, rows of x0, y0, x1, y1, label, size) -> the same.
        share: of pictures that are mirrored, 0..1.
    """

    def __init__(self, inner: Any, share: float) -> None:
        self._inner = inner
        self._share = share

    def __call__(self, image: Any, targets: Any, size: tuple[int, int]) -> Any:
        if turned(image.shape, self._share):
            image = np.ascontiguousarray(image.transpose(1, 0, 2))
            targets = targets[:, [1, 0, 3, 2, *range(4, targets.shape[1])]]
        return self._inner(image, targets, size)
