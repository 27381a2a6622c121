"""The frozen set of pictures on which artefacts are compared: real ones, drawn ones, and probes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np

from pipeline.bundle import sha256_of
from pipeline.lab.datasets import Dataset, pictures_of, true_boxes
from pipeline.synth.board import draw_board
from pipeline.synth.defects import KINDS, Defect, damage
from pipeline.synth.optics import photograph, random_look
from pipeline.synth.retake import photograph_again
from pipeline.types import Detections, Image
from pipeline.vision.picture import read_picture
from pipeline.vision.template import Template

TINT = (0.55, 0.8, 1.0)
"""Blue, green, red: on a grey board a swap of colours would change nothing."""

DRAWN_SIDE = 640
DEFECTS = (3, 8)

Shown: TypeAlias = "tuple[Image, Detections | None]"


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of the set.

    Attributes:
        name: it is called so in the report.
        sha256: of its bytes, or of what draws it.
        load: reads or draws it: uint8 (H, W, 3), BGR, and the defects that it shows, or None where
            nobody knows.
        judged: its verdict counts; probes are compared in what they show only.
    """

    name: str
    sha256: str
    load: Callable[[], Shown]
    judged: bool = True


@dataclass(frozen=True, slots=True)
class FrozenSet:
    """What artefacts are compared on.

    Attributes:
        samples: in their order.
        sets: name of each source and how many pictures it gave.
    """

    samples: tuple[Sample, ...]
    sets: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return ``count``, ``judged``, ``sha256`` and ``sets`` for the report."""
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(f"{sample.name} {sample.sha256}\n".encode())
        return {
            "count": len(self.samples),
            "judged": sum(sample.judged for sample in self.samples),
            "sha256": digest.hexdigest(),
            "sets": self.sets,
        }


def labelled(dataset: Dataset, part: str) -> tuple[Sample, ...]:
    """Return the pictures of one part of a data set, with their true boxes."""
    return tuple(
        Sample(f"{dataset.name}/{part}/{file.name}", sha256_of(file), partial(_labelled, file))
        for file in dataset.pictures(part)
    )


def good(folder: Path) -> tuple[Sample, ...]:
    """Return the pictures of a folder that show no defect."""
    return tuple(
        Sample(f"{folder.name}/{file.name}", sha256_of(file), partial(_good, file))
        for file in pictures_of(folder)
    )


def drawn(
    labels: Sequence[str], count: int, seed: int = 7, pairs: bool = False
) -> tuple[Sample, ...]:
    """Return drawn boards, every fourth without a defect; the same on every call.

    Their truth is known where the renderer's classes are among the labels.

    Args:
        pairs: each beside a template of its layout, for a model that compares.
    """
    folder = "pairs" if pairs else "drawn"
    names = [f"{folder}/{seed}-{index:03d}" for index in range(count)]
    return tuple(
        Sample(name, name, partial(_drawn, tuple(labels), seed, index, pairs))
        for index, name in enumerate(names)
    )


def probes(samples: Sequence[Sample], size: tuple[int, int], count: int = 12) -> tuple[Sample, ...]:
    """Return pictures made to show a wrong export: coloured, and of another shape than the input.

    Args:
        samples: where they are taken from, evenly.
        size: height and width of the model's input, pixels.
        count: of each kind.
    """
    taken = samples[:: max(len(samples) // count, 1)][:count]
    changed = [
        Sample(f"{kind} {sample.name}", sample.sha256, partial(_changed, sample, change), False)
        for sample in taken
        for kind, change in (("tinted", _tinted), ("wide", _wide))
    ]
    noise = [Sample(f"noise {i}", f"seed {i}", partial(_noise, size, i), False) for i in (1, 2)]
    return (*changed, *noise)


def random_pictures(size: tuple[int, int], count: int = 2, seed: int = 1) -> list[Image]:
    """Return pictures (H, W, 3) of noise at several scales, the same on every call."""
    return [_noise(size, seed + i)[0] for i in range(count)]


def _labelled(file: Path) -> Shown:
    image = read_picture(file)
    height, width = image.shape[:2]
    return image, true_boxes(file, width, height)


def _good(file: Path) -> Shown:
    return read_picture(file), Detections.none()


def _drawn(labels: tuple[str, ...], seed: int, index: int, pairs: bool) -> Shown:
    random = np.random.default_rng((seed, index))
    copper = whole = draw_board(random, DRAWN_SIDE).copper
    defects: tuple[Defect, ...] = ()
    if index % 4:
        copper, defects = damage(copper, int(random.integers(*DEFECTS)), random)
    look = random_look(random, ("binary", "grey", "colour")[index % 3])
    image = np.asarray(photograph(copper, look, random), np.uint8)
    if pairs:
        image = Template(photograph_again(whole, look, random)).beside(image)
    if not set(KINDS) <= set(labels):
        return image, None
    xyxy = np.array([d.xyxy for d in defects], np.float32).reshape(-1, 4)
    label = np.array([labels.index(d.kind) for d in defects], np.int32)
    return image, Detections(xyxy, np.ones(len(defects), np.float32), label)


def _noise(size: tuple[int, int], seed: int) -> Shown:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (size[0] // 16, size[1] // 16, 3), dtype=np.uint8)
    blocks = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    fine = random.integers(0, 64, blocks.shape, dtype=np.uint8)
    return np.asarray(cv2.add(blocks, fine), np.uint8), None


def _changed(sample: Sample, change: Callable[[Image], Image]) -> Shown:
    return change(sample.load()[0]), None


def _tinted(image: Image) -> Image:
    colour = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.asarray((colour * np.array(TINT)).astype(np.uint8))


def _wide(image: Image) -> Image:
    """Return the upper part at twice its size: it must be scaled down, and be padded."""
    upper = np.ascontiguousarray(image[: max(image.shape[0] * 5 // 8, 1)])
    return np.asarray(cv2.resize(upper, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
