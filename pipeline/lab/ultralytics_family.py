"""Networks of ultralytics (AGPL-3.0): trained as fast as this machine allows, exported to ONNX."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.bundle import Bundle
from pipeline.errors import ConfigError
from pipeline.lab import mixture, torch_env
from pipeline.lab.families import Job, check_labels, check_there, mean
from pipeline.lab.graph import Pixels
from pipeline.lab.thaw import thawed
from pipeline.plugins import vendor

_NMS: dict[str, bool | None] = {"yolo-e2e": False, "yolo": None}
"""What the option ``nms`` must be for the head that a decoder reads: the one that lists each defect
once, or the classic one, whose doubles the decoder drops."""

HEADS = tuple(_NMS)

AVERAGED_STEPS = 1000
"""Steps over which the weights that are kept are averaged, at most."""

# Effective batch = batch: ultralytics otherwise saves gradients up to 64 pictures, which leaves a
# small data set with 14 steps an epoch.
_FIXED: dict[str, Any] = {"workers": 0, "plots": False, "verbose": False, "exist_ok": True}


def train(job: Job) -> None:
    """Train; see Family."""
    if job.teacher is not None:
        load(job.teacher, job.labels)  # refuses what cannot teach
    ultralytics = torch_env.prepare()
    model = ultralytics.YOLO(str(job.last if job.resume else job.start or job.recipe["model"]))
    for event, act in _callbacks(job).items():
        model.add_callback(event, act)
    model.train(
        trainer=mixture.trainer(job.pictures, job.counts, job.transpose, job.seed),
        data=str(job.data),
        device=job.device,
        resume=job.resume,
        project=str(job.out.resolve().parent),
        name=job.out.name,
        **_settings(job),
    )


def load(weights: Path, labels: Sequence[str]) -> Trained:
    """Load a checkpoint; see Family."""
    model = _opened(weights)
    check_labels(weights, _labels_of(model), labels)
    return Trained(weights, model)


def average(weights: Sequence[Path], out: Path) -> None:
    """Average checkpoints; see Family."""
    models = {file: _opened(file) for file in weights}
    first = models[weights[0]]
    for file, model in models.items():
        check_labels(file, _labels_of(model), _labels_of(first))
    first.model.float().load_state_dict(mean({f: m.model.state_dict() for f, m in models.items()}))
    first.ckpt = {**first.ckpt, "ema": None, "optimizer": None}  # else those would be read
    first.save(str(out))


def thaw(job: Job, bundle: Bundle, out: Path) -> Path:
    """Make a bundle's weights trainable again; see Family."""
    pairs = bool(job.recipe.get("bundle", {}).get("template", False))
    return thawed(bundle, job.recipe["model"], job.pictures[0], out, pairs=pairs)


def _opened(weights: Path) -> Any:
    check_there(weights)
    ultralytics = torch_env.prepare()
    try:
        return ultralytics.YOLO(str(weights), task="detect")
    except torch_env.UNREADABLE as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"{weights}: no checkpoint of an ultralytics detector: {said}") from error


def _labels_of(model: Any) -> list[str]:
    return [model.names[i] for i in sorted(model.names)]


class Trained:
    """A detector of ultralytics; see Network."""

    pixels = Pixels(rgb=True, white=1.0)

    def __init__(self, weights: Path, model: Any) -> None:
        self._weights = weights
        self._model = model

    def module(self, head: str, form: str | None = None) -> Any:
        torch: Any = vendor("torch", "lab")
        network = self._model.model.float().eval()
        if head == "yolo-e2e" and getattr(network.model[-1], "one2one_cv2", None) is None:
            raise ConfigError(
                f"{self._weights}: they have no head that lists each defect once; export them with "
                "bundle.decoder: yolo, or train a network of end2end: true with yolo-e2e"
            )
        network.end2end = head == "yolo-e2e"
        for module in network.modules():
            if form is not None and hasattr(module, "export"):
                module.export, module.format = True, form

        class FirstOutput(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, pixels: Any) -> Any:
                output = self.network(pixels)
                return output[0] if isinstance(output, tuple) else output

        return FirstOutput().eval()

    def onnx(self, folder: Path, size: tuple[int, int], head: str, opset: int) -> Path:
        copy = folder / f"weights{self._weights.suffix}"  # it writes beside the checkpoint
        shutil.copyfile(self._weights, copy)
        model = torch_env.prepare().YOLO(str(copy), task="detect")
        file = model.export(
            format="onnx",
            imgsz=list(size),
            nms=_NMS[head],
            opset=opset,
            simplify=True,
            device="cpu",
        )
        return Path(file)


def _settings(job: Job) -> dict[str, Any]:
    settings = dict(job.recipe["settings"]) | _FIXED
    settings |= {"epochs": job.epochs} if job.epochs else {}
    settings |= {"time": job.hours} if job.hours else {}
    settings |= {"distill_model": str(job.teacher)} if job.teacher else {}
    return settings | {"nbs": settings.get("batch", 8)}


def _callbacks(job: Job) -> dict[str, Callable[[Any], None]]:
    def start(trainer: Any) -> None:
        if job.recipe.get("bundle", {}).get("decoder") == "yolo":
            _train_the_classic_head_alone(trainer)
        loss = getattr(trainer.model, "criterion", None)  # that of a run that goes on has a state
        trainer.model.criterion = _measured_in_float(loss or trainer.model.init_criterion())
        trainer.ema.decay = _kept_share
        if job.device == "cpu":
            _use_the_processor_well(trainer)

    def end(trainer: Any) -> None:
        job.on_epoch(trainer.epoch + 1, trainer.epochs, dict(trainer.metrics))

    return {"on_train_start": start, "on_fit_epoch_end": end}


def _kept_share(step: int) -> float:
    """Return how much of the weights' running mean stays at a step: it reaches over the last half.

    The default ramp is made for hundreds of epochs: after 28 epochs of 130 steps the mean would
    be of the last six steps.
    """
    return 1 - 1 / (1 + min(step / 2, AVERAGED_STEPS))


def _train_the_classic_head_alone(trainer: Any) -> None:
    """Drop the head that lists each defect once, where a network has it: a fifth of a step's time.

    It reads the body and teaches it nothing, and the longer a run lasts the more its loss outweighs
    the classic head's.
    """
    for model in (trainer.model, trainer.ema.ema):
        network = getattr(model, "student_model", model)
        network.model[-1].one2one_cv2 = network.model[-1].one2one_cv3 = None
        network.criterion = None  # one of both heads, in a run that goes on


def _use_the_processor_well(trainer: Any) -> None:
    """Use the process's cores, channels_last and bfloat16: 3.05 times the default.

    Ultralytics falls back to cores - 1 threads and refuses bfloat16 on processors. More threads
    than cores (a process that is pinned to some) would train at a tenth of the speed.
    """
    import torch
    from ultralytics.engine import trainer as engine

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    trainer.model.to(memory_format=torch.channels_last)
    engine.autocast = lambda *args, **kwargs: torch.autocast("cpu", torch.bfloat16)


def _measured_in_float(loss: Any) -> Callable[[Any, Any], Any]:
    """Return a loss that is given what the head found as float tensors.

    It lays the boxes on the picture in the type of the head's output: a coordinate beyond 512 px
    has steps of 4 px in bfloat16 (0.5 px in a GPU's half floats), and the overlaps that weigh what
    is learnt are rounded so.
    """

    def measured(found: Any, batch: Any) -> Any:
        return loss(_in_float(found), batch)

    if hasattr(loss, "update"):  # of one whose parts change their weight from epoch to epoch
        measured.update = loss.update  # type: ignore[attr-defined]
    return measured


def _in_float(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _in_float(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(_in_float(value) for value in found)
    return found.float() if hasattr(found, "float") else found
