"""Adds to a bundle what decides as its fp32 artefact does and is smaller or faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle import Artefact, Bundle, Recheck, sha256_of
from pipeline.errors import ConfigError, MissingExtra
from pipeline.lab import quantize
from pipeline.lab.datasets import Dataset
from pipeline.lab.export import tensors_of
from pipeline.lab.families import Network
from pipeline.lab.litert import float_litert
from pipeline.lab.prove import rewrite
from pipeline.types import Tensor
from pipeline.vision.picture import read_picture

CALIBRATION = 32
"""Training pictures on which the range of activations is measured."""

SOURCE = "fp32"

RECHECK = Recheck(artefact=SOURCE, odds=4.0)
"""How near a threshold an INT8 artefact asks the fp32 one. On 100 defective boards of DeepPCB's val
and 280 good ones, of which 4 (Q/DQ) and 6 (NNCF) flip: 2.7 leaves one of them, 4 none, and asks for
one picture in eleven."""

IN_BF16 = Recheck(artefact=SOURCE, odds=1.5)
"""The same of bf16, which moves the odds by a factor of 1.23 at most on those pictures."""


@dataclass(frozen=True, slots=True)
class Source:
    """What variants are made from.

    Attributes:
        artefact: the fp32 file.
        size: height and width of its input, pixels.
        decoder: that reads what it puts out.
        tensors: training pictures as inputs, for the ranges of activations.
        trained: the network it was exported from, where that is at hand.
    """

    artefact: Path
    size: tuple[int, int]
    decoder: str
    tensors: Sequence[Tensor]
    trained: Network | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to make another artefact.

    Attributes:
        suffix: of its file, after the bundle's name.
        make: (what it is made from, file to write) -> the artefact's file.
        recheck: what looks again where its scores lie near a threshold.
    """

    name: str
    suffix: str
    runtimes: tuple[str, ...]
    precision: str
    make: Callable[[Source, Path], Path]
    recheck: Recheck | None = None


FOR_PROCESSORS = (
    Variant(
        "fp16",
        "fp16.xml",
        ("openvino",),
        "fp16",
        lambda source, out: quantize.half_openvino(source.artefact, out),
    ),
    Variant(
        "bf16",
        "fp32.onnx",
        ("openvino",),
        "bf16",
        lambda source, out: source.artefact,  # bf16 is in the arithmetic, the file the same
        IN_BF16,
    ),
    Variant(
        "int8",
        "int8.onnx",
        ("onnx", "openvino"),
        "int8",
        lambda source, out: quantize.int8_for_processors(source.artefact, out, source.tensors),
        RECHECK,
    ),
    Variant(
        "int8-openvino",
        "int8.xml",
        ("openvino",),
        "int8",
        lambda source, out: quantize.int8_openvino(source.artefact, out, source.tensors),
        RECHECK,
    ),
)
# ONNX Runtime stands in where there is no TensorRT: it shows that the file itself is sound.
FOR_TENSORRT = (
    Variant(
        "fp16-tensorrt",
        "fp16.tensorrt.onnx",
        ("tensorrt", "onnx"),
        "fp16",
        lambda source, out: quantize.half_onnx(source.artefact, out),
    ),
    Variant(
        "int8-tensorrt",
        "int8.tensorrt.onnx",
        ("tensorrt", "onnx"),
        "int8",
        lambda source, out: quantize.int8_for_tensorrt(source.artefact, out, source.tensors),
    ),
)


def _litert(source: Source, out: Path) -> Path:
    if source.trained is None:
        raise MissingExtra("LiteRT is made from the weights (.pt); make it with: lab export")
    return float_litert(source.trained, out, source.size, source.decoder)


FOR_LITERT = (Variant("litert", "fp32.tflite", ("litert",), "fp32", _litert),)

FORMATS = {"tensorrt": FOR_TENSORRT, "litert": FOR_LITERT}
"""What can be asked for beside FOR_PROCESSORS."""


def variants_for(formats: Sequence[str]) -> tuple[Variant, ...]:
    """Return the variants for processors and for the formats that are named beside.

    Raises:
        ConfigError: there is no such format.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"--format: '{name}' is none of: {', '.join(FORMATS)}")
    return (*FOR_PROCESSORS, *(variant for name in formats for variant in FORMATS[name]))


def add_variants(
    bundle: Bundle,
    dataset: Dataset,
    variants: Sequence[Variant] = FOR_PROCESSORS,
    trained: Network | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Bundle, dict[str, str]]:
    """Write variants of a bundle's fp32 artefact beside it; none is proved yet.

    Args:
        dataset: pictures of its training part set the range of activations.
        trained: the network that the fp32 artefact was exported from, or None.

    Returns:
        The bundle, opened again, and what could not be made, why.

    Raises:
        BundleError: the fp32 artefact is missing or damaged.
        ModelError: it cannot be quantised.
    """
    size = (bundle.manifest.input.height, bundle.manifest.input.width)
    source = Source(
        bundle.checked_file(bundle.manifest.artefacts[SOURCE]),
        size,
        bundle.manifest.decoder,
        _calibration(dataset, size),
        trained,
    )
    artefacts = dict(bundle.manifest.artefacts)
    missing: dict[str, str] = {}
    for number, variant in enumerate(variants):
        out = bundle.path / f"{bundle.manifest.name}.{variant.suffix}"
        try:
            made = variant.make(source, out)
        except MissingExtra as error:
            missing[variant.name] = str(error)
        else:
            artefacts[variant.name] = _artefact(made, variant)
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
        recheck=variant.recheck,
    )
