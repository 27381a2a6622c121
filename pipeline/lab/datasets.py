"""YOLO data sets as they lie on the disk: the list of pictures of a part, and their true boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.errors import ConfigError
from pipeline.types import Detections

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A YOLO data set.

    Attributes:
        file: its data.yaml.
        name: of the folder that holds its pictures.
        labels: class names in order.
        parts: what each part (train, val, test) names: a folder or a list of pictures.
    """

    file: Path
    name: str
    labels: tuple[str, ...]
    parts: dict[str, Path]

    def pictures(self, part: str) -> tuple[Path, ...]:
        """Return the pictures of a part, sorted.

        Raises:
            ConfigError: the part is not named, or names nothing.
        """
        if part not in self.parts:
            raise ConfigError(f"{self.file}: no part '{part}'; it has: {', '.join(self.parts)}")
        place = self.parts[part]
        if place.is_dir():
            return pictures_of(place)
        if not place.is_file():
            raise ConfigError(f"{self.file}: {part}: {place} is neither a folder nor a list")
        base = place.parent
        return tuple(
            sorted(base / row.strip() for row in place.read_text().splitlines() if row.strip())
        )


def read_dataset(file: Path) -> Dataset:
    """Read a data.yaml: ``names``, ``train``, ``val`` and ``test``, relative to its ``path``.

    Raises:
        ConfigError: the file is not there or not a data set.
    """
    try:
        page: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        names = page["names"]
        labels = tuple(names[i] for i in range(len(names)))
        base = file.resolve().parent / str(page.get("path", "."))
        parts = {p: base / str(page[p]) for p in ("train", "val", "test") if page.get(p)}
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name the data.yaml of a data set") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: not a YOLO data set: {error!r}") from error
    return Dataset(file, base.resolve().name, labels, parts)


def pictures_of(folder: Path) -> tuple[Path, ...]:
    """Return the pictures under a folder, sorted.

    Raises:
        ConfigError: there is none.
    """
    found = sorted(f for f in folder.rglob("*") if f.suffix.lower() in PICTURES)
    if not found:
        raise ConfigError(f"{folder}: no pictures here ({', '.join(PICTURES)})")
    return tuple(found)


def label_file(picture: Path) -> Path:
    """Return where the boxes of a picture stand: ``images`` becomes ``labels``, the suffix .txt."""
    parts = list(picture.parts)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def true_boxes(picture: Path, width: int, height: int) -> Detections:
    """Read the true boxes of a picture, score 1; a picture without a label file has none.

    Raises:
        ConfigError: a row is not ``label cx cy w h``, shares of the picture.
    """
    file = label_file(picture)
    if not file.is_file():
        return Detections.none()
    try:
        rows = [
            [float(v) for v in row.split()] for row in file.read_text().splitlines() if row.strip()
        ]
        table = np.array(rows, np.float32).reshape(len(rows), 5)
    except ValueError as error:
        raise ConfigError(f"{file}: not rows of 'label cx cy w h': {error}") from error
    centre, size = table[:, 1:3], table[:, 3:5]
    scale = np.array([width, height] * 2, np.float32)
    xyxy = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * scale
    return Detections(
        xyxy.astype(np.float32), np.ones(len(rows), np.float32), table[:, 0].astype(np.int32)
    )
