"""Writes data sets for models that compare: each picture beside the template of its board."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ModelError, ViewError
from pipeline.lab.datasets import Dataset, label_file, pictures_of, read_dataset, true_boxes
from pipeline.synth.defects import LEAST_CHANGE_PX
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


@dataclass(frozen=True, slots=True)
class _Pair:
    """A picture beside its template, its label rows, and the same board healed, or None."""

    image: Image
    rows: Sequence[str]
    good: Image | None


def write_pairs(
    source: Path,
    out: Path,
    *,
    template: Path | None = None,
    retake: bool = False,
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
        retake: the templates given are taken anew, too; a labelled defect that its template shows
            as well is none then. It teaches a model to look at differences alone.
        good: write each board without its defects, too: healed, or mended with what its template
            shows in their place.
        seed: the same seed and arguments give the same bytes.
        progress: called with (done, total).

    Raises:
        ConfigError: a folder in use, no template at all, or one that does not fit.
    """
    if retake and template is None:
        raise ConfigError("--retake: name the templates that are to be taken anew, with --template")
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
            pair = _paired(dataset, file, beside, retake, good, rng)
        except (ModelError, ViewError) as error:
            raise ConfigError(f"{file}: {error}") from error
        name = f"{part}/{file.stem}.png"
        _write(out / "images" / name, pair.image)
        label = label_file(out / "images" / name)
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(f"{row}\n" for row in pair.rows), encoding="utf-8")
        if pair.good is not None:
            _write(out / "good" / name, pair.good)
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


def _paired(
    dataset: Dataset,
    file: Path,
    beside: Path | None,
    retake: bool,
    good: bool,
    rng: np.random.Generator,
) -> _Pair:
    image = read_picture(file)
    rows = _rows_of(file)
    if beside is None:
        free = _healed(image, dataset, file)
        template = Template(_black_on_white(retaken(free, rng)))
        pair, whole = template.beside(image), _black_on_white(free)
    elif retake:
        copper = _copper(read_picture(beside))
        rows = _rows_that_differ(rows, file, _copper(image), copper)
        template = Template(_black_on_white(retaken(copper, rng)))
        pair, whole = template.beside(image), _black_on_white(copper)
    else:
        template = Template(read_picture(beside))
        pair = template.beside(image)
        whole = _mended(pair, file)
    return _Pair(pair, rows, template.beside(whole) if good else None)


def _mended(pair: Image, file: Path) -> Image:
    """Return the picture of a pair with what its template shows in place of each defect."""
    whole = pair[..., 0].copy()
    height, width = whole.shape
    for x0, y0, x1, y1 in true_boxes(file, width, height).xyxy.clip(0).astype(int):
        whole[y0:y1, x0:x1] = pair[y0:y1, x0:x1, 1]
    return np.asarray(whole, np.uint8)


def _rows_of(file: Path) -> list[str]:
    label = label_file(file)
    return label.read_text(encoding="utf-8").splitlines() if label.is_file() else []


def _rows_that_differ(rows: Sequence[str], file: Path, board: Mask, template: Mask) -> list[str]:
    """Return the rows of the label file in whose boxes the board is not as its template is."""
    height, width = board.shape
    boxes = true_boxes(file, width, height).xyxy.clip(0).astype(int)
    kept = []
    for row, (x0, y0, x1, y1) in zip((r for r in rows if r.strip()), boxes, strict=True):
        there = np.s_[y0:y1, x0:x1]
        if np.count_nonzero(board[there] != template[there]) >= LEAST_CHANGE_PX:
            kept.append(row)
    return kept


def _healed(image: Image, dataset: Dataset, file: Path) -> Mask:
    copper = _copper(image)
    height, width = copper.shape
    true = true_boxes(file, width, height)
    boxes = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in true.xyxy]
    kinds = [dataset.labels[label] for label in true.label]
    return healed(copper, zip(kinds, boxes, strict=True))


def _copper(image: Image) -> Mask:
    grey = image if image.ndim == 2 else image.min(axis=2)
    return np.asarray(grey < 128, np.bool_)


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
