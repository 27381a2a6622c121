"""Adds to a bundle what decides as its fp32 artefact does and is smaller or faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle import Artefact, Bundle, sha256_of
from pipeline.errors import MissingExtra
from pipeline.lab import quantize
from pipeline.lab.datasets import Dataset
from pipeline.lab.export import tensors_of
from pipeline.lab.prove import rewrite
from pipeline.types import Tensor
from pipeline.vision.picture import read_picture

CALIBRATION = 32
"""Training pictures on which the range of activations is measured."""

SOURCE = "fp32"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to make a smaller artefact.

    Attributes:
        suffix: of its file, after the bundle's name.
        make: (fp32 file, file to write, calibration tensors) -> the file written.
    """

    name: str
    suffix: str
    runtimes: tuple[str, ...]
    precision: str
    make: Callable[[Path, Path, Sequence[Tensor]], Path]


FOR_PROCESSORS = (
    Variant(
        "fp16",
        "fp16.xml",
        ("openvino",),
        "fp16",
        lambda source, out, tensors: quantize.half_openvino(source, out),
    ),
    Variant("int8", "int8.onnx", ("onnx", "openvino"), "int8", quantize.int8_for_processors),
    Variant("int8-openvino", "int8.xml", ("openvino",), "int8", quantize.int8_openvino),
)
# ONNX Runtime stands in where there is no TensorRT: it shows that the file itself is sound.
FOR_TENSORRT = (
    Variant(
        "fp16-tensorrt",
        "fp16.tensorrt.onnx",
        ("tensorrt", "onnx"),
        "fp16",
        lambda source, out, tensors: quantize.half_onnx(source, out),
    ),
    Variant(
        "int8-tensorrt",
        "int8.tensorrt.onnx",
        ("tensorrt", "onnx"),
        "int8",
        quantize.int8_for_tensorrt,
    ),
)


def add_variants(
    bundle: Bundle,
    dataset: Dataset,
    variants: Sequence[Variant] = FOR_PROCESSORS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Bundle, dict[str, str]]:
    """Write variants of a bundle's fp32 artefact beside it; none is proved yet.

    Args:
        dataset: pictures of its training part set the range of activations.

    Returns:
        The bundle, opened again, and what could not be made, why.

    Raises:
        BundleError: the fp32 artefact is missing or damaged.
        ModelError: it cannot be quantised.
    """
    source = bundle.checked_file(bundle.manifest.artefacts[SOURCE])
    size = (bundle.manifest.input.height, bundle.manifest.input.width)
    tensors = _calibration(dataset, size)
    artefacts = dict(bundle.manifest.artefacts)
    missing: dict[str, str] = {}
    for number, variant in enumerate(variants):
        out = bundle.path / f"{bundle.manifest.name}.{variant.suffix}"
        try:
            variant.make(source, out, tensors)
        except MissingExtra as error:
            missing[variant.name] = str(error)
        else:
            artefacts[variant.name] = _artefact(out, variant)
        progress(number + 1, len(variants))
    return rewrite(bundle, artefacts=artefacts), missing


def _calibration(dataset: Dataset, size: tuple[int, int]) -> list[Tensor]:
    pictures = dataset.pictures("train")
    taken = pictures[:: max(len(pictures) // CALIBRATION, 1)][:CALIBRATION]
    return list(tensors_of([read_picture(file) for file in taken], size))


def _artefact(file: Path, variant: Variant) -> Artefact:
    weights = file.with_suffix(".bin") if file.suffix == ".xml" else None
    return Artefact(
        path=file.name,
        sha256=sha256_of(file),
        weights_sha256=None if weights is None else sha256_of(weights),
        runtimes=variant.runtimes,
        precision=variant.precision,
    )
