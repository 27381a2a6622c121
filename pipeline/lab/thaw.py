"""Makes a bundle's weights trainable again: a checkpoint to start from, where no .pt is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bundle import Bundle
from pipeline.errors import ConfigError
from pipeline.lab import torch_env
from pipeline.lab.graph import Pixels
from pipeline.plugins import vendor
from pipeline.types import Tensor
from pipeline.vision.letterbox import Letterbox
from pipeline.vision.picture import read_picture

PICTURES = 64
"""Pictures on which the statistics are taken that export has folded away."""

RUNTIME = "onnx"


def thawed(
    bundle: Bundle, network: str, pictures: Sequence[Path], out: Path, *, pairs: bool
) -> Path:
    """Write a checkpoint of ultralytics that computes what a bundle's fp32 artefact computes.

    Export folds each normalisation into its convolution. Here it comes back with the mean and the
    spread that the convolution gives on pictures, so that it computes the same, and training goes
    on with statistics that are true.

    Args:
        bundle: one that was exported from such a network, with the classic head.
        network: what ultralytics calls it, such as yolo26n.yaml.
        pictures: what the bundle looks at, some tens of them.
        out: the .pt to write.
        pairs: the new network compares: pictures are pairs (``write_pairs``). Where the bundle
            does not, its eyes for colours look at the grey picture, and it learns the rest.

    Raises:
        ConfigError: the artefact is of another network.
        MissingExtra: the extra ``lab`` is not installed.
    """
    torch: Any = vendor("torch", "lab")
    manifest = bundle.manifest
    file = bundle.checked_file(bundle.artefact_for(RUNTIME))
    tensors = _tensors(file)
    yolo = torch_env.prepare().YOLO(network, task="detect")
    tasks = vendor("ultralytics.nn.tasks", "lab")
    model = tasks.DetectionModel(yolo.model.yaml, nc=len(manifest.labels), verbose=False).float()
    model.names = dict(enumerate(manifest.labels))
    head = model.model[-1]
    if getattr(head, "one2one_cv2", None) is not None:
        head.one2one_cv2 = head.one2one_cv3 = None
    mixed = pairs and not manifest.input.template
    norms = _fill(torch, model, tensors, file, mixed)
    means = {norm: _Moments() for norm in norms}
    hooks = [norm.register_forward_pre_hook(means[norm].see) for norm in norms]
    box = Letterbox(manifest.input.height, manifest.input.width)
    with torch.inference_mode():
        for picture in pictures[:: max(len(pictures) // PICTURES, 1)][:PICTURES]:
            box.window(read_picture(picture))
            model.eval()(torch.from_numpy(Pixels().of(box.tensor)))
    for hook in hooks:
        hook.remove()
    for norm, moments in means.items():
        moments.settle(torch, norm)
    yolo.model = model
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model, "ema": None, "optimizer": None, "epoch": -1, "train_args": {}}, out)
    return out


def _tensors(file: Path) -> dict[str, Tensor]:
    onnx: Any = vendor("onnx", "lab")
    graph = onnx.load(str(file)).graph
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}


def _fill(
    torch: Any, model: Any, tensors: Mapping[str, Tensor], file: Path, mixed: bool
) -> list[Any]:
    """Copy every convolution; return the normalisations, which change nothing yet."""
    norms = []
    owners = dict(model.named_modules())
    for name, module in owners.items():
        if not isinstance(module, torch.nn.Conv2d):
            continue
        weight = _weight_of(tensors, name, mixed)
        bias = tensors.get(f"{name}.bias")
        if weight is None or weight.shape != tuple(module.weight.shape) or bias is None:
            raise ConfigError(f"{file}: no weights here for '{name}'; it is of another network")
        module.weight.data = torch.from_numpy(np.array(weight, np.float32))
        norm = getattr(owners[name.rpartition(".")[0]], "bn", None)
        if norm is None:
            module.bias.data = torch.from_numpy(np.array(bias, np.float32))
            continue
        norm.weight.data.fill_(1.0)
        norm.running_mean.fill_(0.0)
        norm.running_var.fill_(1.0 - norm.eps)
        norm.bias.data = torch.from_numpy(np.array(bias, np.float32))
        norms.append(norm)
    return norms


def _weight_of(tensors: Mapping[str, Tensor], name: str, mixed: bool) -> Tensor | None:
    folded = tensors.get(f"{name}.weight_bgr_255")
    if folded is None:
        return tensors.get(f"{name}.weight")
    weight = folded[:, ::-1] * Pixels().divisor
    if not mixed:
        return np.asarray(weight)
    # Of a pair the first channel, the last for a network of RGB, is the picture itself.
    grey = np.zeros_like(weight)
    grey[:, 2] = weight.sum(axis=1)
    return grey


class _Moments:
    """Mean and mean square of each channel that a normalisation is given."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def see(self, _norm: Any, inputs: tuple[Any, ...]) -> None:
        pixels = inputs[0].double()
        self._count += pixels.numel() // pixels.shape[1]
        self._sum = self._sum + pixels.sum((0, 2, 3))
        self._squares = self._squares + pixels.square().sum((0, 2, 3))

    def settle(self, torch: Any, norm: Any) -> None:
        """Give a normalisation that changes nothing the true statistics, and the inverse scale."""
        mean = self._sum / self._count
        spread = (self._squares / self._count - mean.square()).clamp(min=1e-6)
        norm.bias.data = (norm.bias.data.double() + mean).float()
        norm.weight.data = torch.sqrt(spread + norm.eps).float()
        norm.running_mean.copy_(mean.float())
        norm.running_var.copy_(spread.float())
