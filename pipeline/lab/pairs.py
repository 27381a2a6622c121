"""Writes data sets for models that compare: each picture beside the template of its board."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ModelError, ViewError
from pipeline.lab.datasets import Dataset, label_file, pictures_of, read_dataset, true_boxes
from pipeline.synth.healing import healed
from pipeline.synth.retake import retaken
from pipeline.types import Image
from pipeline.vision.picture import read_picture
from pipeline.vision.template import Template

Progress = Callable[[int, int], None]  # done, total
Mask = NDArray[np.bool_]

GOOD = "good.yaml"
"""Data set of the healed boards, beside data.yaml: what a model must not see in them."""


@dataclass(frozen=True, slots=True)
class Written:
    """What ``write_pairs`` wrote.

    Attributes:
        data: data.yaml of the labelled pairs.
        good: data.yaml of pairs whose board was healed, or None.
    """

    data: Path
    good: Path | None


def write_pairs(
    source: Path,
    out: Path,
    *,
    template: Path | None = None,
    good: bool = False,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Write a YOLO data set whose pictures are pairs: picture, template, difference.

    Args:
        source: data.yaml of single pictures.
        out: a folder that does not exist or is empty.
        template: the template of all, or a folder of one per picture, by the picture's name
            without its suffix; pictures that have none there are left out. None: the labelled
            defects of the picture are healed and the board is taken anew; black and white boards
            with the box margins of DeepPCB only.
        good: write each healed board beside its template, too, as one without a defect.
        seed: the same seed and arguments give the same bytes.
        progress: called with (done, total).

    Raises:
        ConfigError: a folder in use, no template at all, or one that does not fit.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; name a new folder or remove it")
    dataset = read_dataset(source)
    templates = _templates(template)
    todo = [
        (part, file, templates.get(file.stem, templates.get("")))
        for part in dataset.parts
        for file in dataset.pictures(part)
        if template is None or {file.stem, ""} & templates.keys()
    ]
    if not todo:
        raise ConfigError(f"{template}: no template here that a picture of {source} has")
    for index, (part, file, beside) in enumerate(todo):
        rng = np.random.default_rng((seed, index))
        try:
            _write_pair(dataset, part, file, beside, out, good, rng)
        except (ModelError, ViewError) as error:
            raise ConfigError(f"{file}: {error}") from error
        progress(index + 1, len(todo))
    parts = sorted({part for part, _, _ in todo})
    data = _write_page(out / "data.yaml", dataset, {part: f"images/{part}" for part in parts})
    free = {part: f"good/{part}" for part in parts}
    return Written(data, _write_page(out / GOOD, dataset, free) if good else None)


def _templates(template: Path | None) -> Mapping[str, Path]:
    """Return templates by the stem of the picture that they belong to; "" is for all."""
    if template is None:
        return {}
    if template.is_file():
        return {"": template}
    return {file.stem: file for file in pictures_of(template)}


def _write_pair(
    dataset: Dataset,
    part: str,
    file: Path,
    template: Path | None,
    out: Path,
    good: bool,
    rng: np.random.Generator,
) -> None:
    image = read_picture(file)
    free = _healed(image, dataset, file) if good or template is None else None
    if template is not None:
        laid = Template(read_picture(template))
    else:
        assert free is not None
        laid = Template(_black_on_white(retaken(free, rng)))
    picture = out / "images" / part / f"{file.stem}.png"
    _write(picture, laid.beside(image))
    label = label_file(picture)
    label.parent.mkdir(parents=True, exist_ok=True)
    if label_file(file).is_file():
        shutil.copyfile(label_file(file), label)
    if good and free is not None:
        _write(out / "good" / part / f"{file.stem}.png", laid.beside(_black_on_white(free)))


def _healed(image: Image, dataset: Dataset, file: Path) -> Mask:
    grey = image if image.ndim == 2 else image.min(axis=2)
    height, width = grey.shape
    true = true_boxes(file, width, height)
    boxes = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in true.xyxy]
    kinds = [dataset.labels[label] for label in true.label]
    return healed(np.asarray(grey < 128), zip(kinds, boxes, strict=True))


def _black_on_white(copper: Mask) -> Image:
    return np.where(copper, 0, 255).astype(np.uint8)


def _write(picture: Path, image: Image) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(picture), image):
        raise ConfigError(f"{picture}: cannot be written; is the disk full?")


def _write_page(file: Path, dataset: Dataset, parts: Mapping[str, str]) -> Path:
    page = {"path": str(file.parent.resolve()), **parts, "names": dict(enumerate(dataset.labels))}
    file.write_text(yaml.safe_dump(page, sort_keys=False), encoding="utf-8")
    return file
