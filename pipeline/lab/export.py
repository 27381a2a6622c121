"""From trained weights to a bundle: exported, baked, compared with torch, and only then written."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import ValidationError

from pipeline.bundle import MANIFEST, Artefact, Input, Manifest, Threshold, sha256_of
from pipeline.errors import ConfigError, ModelError
from pipeline.lab.families import ULTRALYTICS, Network, family
from pipeline.lab.graph import bake_input
from pipeline.lab.pictures import random_pictures
from pipeline.lab.versions import versions
from pipeline.plugins import vendor
from pipeline.runtimes import onnx as onnx_runtime
from pipeline.types import Detections, Image, Tensor
from pipeline.vision.decode import decoder
from pipeline.vision.geometry import iou
from pipeline.vision.letterbox import Letterbox

OPSET = 17
"""ONNX Runtime 1.17 and TensorRT 8.6 to 11 read it."""

RUNTIMES = ("onnx", "openvino")
MAX_BOX_PX = 0.05
MAX_SCORE = 0.001
LOOK_FROM = 0.01
"""Detections with a lower score are not compared: they never come near a verdict."""

_KEPT_METADATA = ("author", "license", "names", "task", "version")


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the artefact is from torch.

    Attributes:
        pictures: how many were compared.
        detections: how many they showed.
        box_px: largest difference of a box's side, pixels of the input.
        score: largest difference of a score.
    """

    pictures: int
    detections: int
    box_px: float
    score: float

    @property
    def is_good(self) -> bool:
        return self.box_px <= MAX_BOX_PX and self.score <= MAX_SCORE

    def __str__(self) -> str:
        return (
            f"{self.detections} detections in {self.pictures} pictures differ by at most "
            f"{self.box_px:.2g} px and {self.score:.2g} in score"
        )


def export_bundle(
    weights: Path,
    out: Path,
    *,
    name: str,
    version: str,
    labels: Sequence[str],
    size: tuple[int, int],
    enlarge: bool = False,
    template: bool = False,
    thresholds: Mapping[str, Threshold],
    family_name: str = ULTRALYTICS,
    head: str = "yolo-e2e",
    licence: str | None = None,
    pictures: Sequence[Path] = (),
    data: Sequence[Mapping[str, str]] = (),
    metrics: Mapping[str, Any] | None = None,
    made_with: Mapping[str, Any] | None = None,
) -> Parity:
    """Write the bundle of a trained detector.

    Args:
        weights: checkpoint (.pt), with the labels in the same order.
        out: folder of the bundle; made if need be.
        name, version: of the bundle.
        labels: class names.
        size: height and width of the input, pixels; multiples of 32.
        enlarge: smaller pictures fill the input, as in training.
        template: the model compares: its pictures are pairs.
        thresholds: per label.
        family_name: of the network, as a recipe says it.
        head: which of the network's heads, by the decoder that reads it: one of the family's HEADS.
        licence: of the weights, where the library that trained them states none.
        pictures: real pictures to compare on, beside random ones.
        data: names, sources and licences of what it was trained on.
        metrics: what was measured, by name of the set.
        made_with: what else to keep: seed, hash of the data set.

    Returns:
        How far the written artefact, in ONNX Runtime, is from torch.

    Raises:
        ConfigError: weights, labels or another argument are wrong.
        ModelError: artefact and torch differ by more than MAX_BOX_PX or MAX_SCORE.
        MissingExtra: torch, the family's library, onnx or ONNX Runtime is not installed.
    """
    kind = family(family_name)
    if head not in kind.HEADS:
        raise ConfigError(f"bundle.decoder: '{head}' is none of: {', '.join(kind.HEADS)}")
    trained = kind.load(weights, labels)
    onnx = vendor("onnx", "lab")
    samples = [*random_pictures(size), *_read(pictures)]
    reference = _torch_answers(trained, samples, size, head)
    with tempfile.TemporaryDirectory(prefix="lineguard-export-") as scratch:
        plain = onnx.load(trained.onnx(Path(scratch), size, head, OPSET))
        baked = Path(scratch) / f"{name}.fp32.onnx"
        onnx.save(_without_diary(bake_input(plain, trained.pixels)), baked)
        parity = compare(reference, _onnx_answers(baked, samples, size, head))
        if not parity.is_good:
            raise ModelError(f"{weights}: the exported model differs from torch: {parity}")
        manifest = _manifest(
            name=name,
            version=version,
            decoder=head,
            labels=tuple(labels),
            input=Input(height=size[0], width=size[1], enlarge=enlarge, template=template),
            thresholds=dict(thresholds),
            artefacts={"fp32": _artefact(baked)},
            licence=_licence(plain) or licence or "unknown",
            data=tuple(dict(entry) for entry in data),
            metrics=dict(metrics or {}),
            made_with={
                **versions(),
                "weights_sha256": sha256_of(weights),
                **(made_with or {}),
            },
        )
        write_bundle(out, manifest, [baked])
    return parity


def write_bundle(out: Path, manifest: Manifest, files: Iterable[Path]) -> None:
    """Copy model files into a bundle's folder, then its manifest: it names no missing one."""
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, out / file.name)
    text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
    (out / MANIFEST).write_text(text, encoding="utf-8")


def compare(reference: Sequence[Detections], answers: Sequence[Detections]) -> Parity:
    """Compare two models' detections of the same pictures, each with its twin.

    A detection of at least LOOK_FROM without a twin of its label counts as infinitely far.
    """
    box_px = score = 0.0
    detections = 0
    for a, b in zip(reference, answers, strict=True):
        detections += int((a.score >= LOOK_FROM).sum())
        for this, other in ((a, b), (b, a)):
            box, points = _distance(this[this.score >= LOOK_FROM], other)
            box_px, score = max(box_px, box), max(score, points)
    return Parity(len(reference), detections, box_px, score)


def _distance(these: Detections, others: Detections) -> tuple[float, float]:
    """Return the largest differences of sides, px, and of scores between rows and their twins."""
    if len(these) == 0:
        return 0.0, 0.0
    if len(others) == 0:
        return float("inf"), float("inf")
    # The twin is the row most alike in place and score: two rows may share a place.
    likeness = iou(these.xyxy, others.xyxy) - np.abs(these.score[:, None] - others.score[None])
    likeness[these.label[:, None] != others.label[None]] = -np.inf
    twin = likeness.argmax(axis=1)
    if np.isinf(likeness.max(axis=1)).any():
        return float("inf"), float("inf")
    box = np.abs(these.xyxy - others.xyxy[twin]).max()
    return float(box), float(np.abs(these.score - others.score[twin]).max())


def _read(pictures: Sequence[Path]) -> list[Image]:
    read = []
    for file in pictures:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise ConfigError(f"{file}: this is no readable picture")
        read.append(np.asarray(image, np.uint8))
    return read


def _torch_answers(
    trained: Network, samples: Sequence[Image], size: tuple[int, int], head: str
) -> list[Detections]:
    torch = vendor("torch", "lab")
    module = trained.module(head)
    answers = []
    with torch.no_grad():
        for tensor in tensors_of(samples, size):
            answers.append(_decoded(module(torch.from_numpy(trained.pixels.of(tensor))), head))
    return answers


def _onnx_answers(
    file: Path, samples: Sequence[Image], size: tuple[int, int], head: str
) -> list[Detections]:
    runtime = onnx_runtime.create(onnx_runtime.Options(), file)
    try:
        return [_decoded(runtime.infer(tensor)[0], head) for tensor in tensors_of(samples, size)]
    finally:
        runtime.close()


def tensors_of(samples: Sequence[Image], size: tuple[int, int]) -> Iterable[Tensor]:
    """Yield the model's input for each picture, made by the station's own letterbox."""
    box = Letterbox(*size)
    for sample in samples:
        box.window(sample)
        yield box.tensor.copy()


def _decoded(output: Any, head: str) -> Detections:
    return decoder(head).read((np.asarray(output),), 0.0)


def _artefact(file: Path) -> Artefact:
    return Artefact(path=file.name, sha256=sha256_of(file), runtimes=RUNTIMES, precision="fp32")


def _without_diary(model: Any) -> Any:
    """Drop the date and the paths of the training machine: equal weights give equal bytes."""
    kept = [entry for entry in model.metadata_props if entry.key in _KEPT_METADATA]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model


def _licence(model: Any) -> str | None:
    said: dict[str, str] = {entry.key: entry.value for entry in model.metadata_props}
    return said.get("license")


def _manifest(**values: Any) -> Manifest:
    try:
        return Manifest(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise ConfigError(f"{where}: {first['msg']}") from error
