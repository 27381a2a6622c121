"""Write synthetic data sets and line videos, with their truth, from the bare-board renderer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.synth.board import draw_board
from pipeline.synth.defects import KINDS, Box, Defect, damage
from pipeline.synth.line import BeltScene, BeltSetup
from pipeline.synth.optics import FAMILIES, photograph, random_look
from pipeline.synth.retake import photograph_again
from pipeline.vision.template import Template

Progress = Callable[[int, int], None]  # done, total
LOOKS: Mapping[str, float] = {"binary": 0.5, "grey": 0.25, "colour": 0.25}
DEFECTS_PER_BOARD = (3, 10)  # DeepPCB: 4 to 9 on most boards


def write_dataset(
    out: Path,
    *,
    images: int,
    good_share: float = 0.25,
    seed: int = 0,
    size: int = 640,
    looks: Mapping[str, float] = LOOKS,
    val_share: float = 0.1,
    pairs: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a YOLO data set of drawn boards.

    Args:
        out: a folder that does not exist or is empty.
        images: number of pictures, training and validation together.
        good_share: share of boards without a defect, 0..1.
        seed: the same seed and arguments give the same bytes.
        size: height and width of a picture, pixels.
        looks: weight of each look family (binary, grey, colour).
        val_share: share of pictures for validation, 0..1.
        pairs: each board is laid beside a template of its layout, for models that compare.
        progress: called with (done, total).

    Returns:
        The path of data.yaml.

    Raises:
        ConfigError: an argument out of range, or a folder in use.
    """
    _check_numbers(images, good_share, val_share, size)
    _check_looks(looks)
    written = _SetWriter(out)
    families = sorted(looks)
    weights = np.asarray([looks[name] for name in families], np.float64)
    val_every = round(1 / val_share) if val_share else images + 1
    for index in range(images):
        rng = np.random.default_rng((seed, index))
        part = "val" if index % val_every == val_every - 1 else "train"
        copper = whole = draw_board(rng, size).copper
        defects: tuple[Defect, ...] = ()
        if rng.random() >= good_share:
            copper, defects = damage(copper, int(rng.integers(*DEFECTS_PER_BOARD)), rng)
        look = random_look(rng, str(rng.choice(families, p=weights / weights.sum())))
        picture = photograph(copper, look, rng)
        if pairs:
            picture = Template(photograph_again(whole, look, rng)).beside(picture)
        written.add(part, f"synth_{index:06d}", picture, defects)
        if progress is not None:
            progress(index + 1, images)
    return written.close(
        "images/val" if images >= val_every else "images/train",
        images=images,
        good_share=good_share,
        seed=seed,
        size=size,
        looks=dict(looks),
        val_share=val_share,
        **({"pairs": True} if pairs else {}),
    )


def add_defects_to(
    source: Path,
    out: Path,
    *,
    per_image: int | tuple[int, int] = (4, 6),
    seed: int = 0,
    part: str = "train",
    progress: Progress | None = None,
) -> Path:
    """Add defects to the pictures of a YOLO data set of real, binarised boards.

    Existing labels stay as they are and no new box touches an old one.

    Args:
        source: the data set's folder; its pictures are those that `<part>.txt` lists, where there
            is one, else those in images/<part>.
        out: a folder that does not exist or is empty.
        per_image: number of defects to add, or the lowest and highest number.
        seed: the same seed and arguments give the same bytes.
        part: which part of the source to take.
        progress: called with (done, total).

    Returns:
        The path of data.yaml; its validation part is the source's own.

    Raises:
        ConfigError: an argument out of range, a folder in use, or no picture found.
    """
    low, high = (per_image, per_image) if isinstance(per_image, int) else per_image
    if not 1 <= low <= high:
        raise ConfigError(f"per_image: {per_image} is not a number or a range from 1 upward")
    pictures = _pictures(source, part)
    written = _SetWriter(out)
    for index, path in enumerate(pictures):
        rng = np.random.default_rng((seed, index))
        grey, rows = _read_grey(path), _read_rows(path)
        old = [_yolo_box(row, grey.shape) for row in rows]
        before = grey < 128
        after, defects = damage(before, int(rng.integers(low, high + 1)), rng, avoid=old)
        grey = np.where(after & ~before, 0, np.where(before & ~after, 255, grey)).astype(np.uint8)
        written.add("train", path.stem, grey, defects, rows)
        if progress is not None:
            progress(index + 1, len(pictures))
    listed = source / "val.txt"
    return written.close(
        str((listed if listed.exists() else source / "images/val").resolve()),
        source=source.name,
        part=part,
        images=len(pictures),
        seed=seed,
        per_image=[low, high],
    )


def write_line_video(
    out: Path,
    *,
    boards: int,
    seed: int = 0,
    fps: int = 30,
    setup: BeltSetup | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a clip of boards that pass the camera, its truth and its geometry.

    Args:
        out: the .mp4 to write; `.truth.jsonl` and `.json` go beside it.
        boards: number of boards on the belt.
        seed: the same seed and arguments give the same frames.
        fps: frames per second of the clip.
        setup: the belt; its number of boards is replaced by `boards`.
        progress: called with (done, total).

    Returns:
        The path of the truth file.

    Raises:
        ConfigError: an argument out of range, or a file that exists.
    """
    if boards < 1 or fps < 1:
        raise ConfigError(f"boards: {boards}, fps: {fps}; both start at 1")
    if out.suffix != ".mp4" or out.exists():
        raise ConfigError(f"{out}: name a new file that ends in .mp4")
    scene = BeltScene(seed, replace(setup or BeltSetup(), boards=boards, variety=boards))
    out.parent.mkdir(parents=True, exist_ok=True)
    total = _write_frames(out, scene, fps, progress)
    truth = [scene.truth(index) for index in range(boards)]
    _write_jsonl(out.with_suffix(".truth.jsonl"), truth)
    geometry = {
        **scene.geometry(),
        "fps": fps,
        "frames": total,
        "boards": boards,
        "good": sum(row["good"] for row in truth),
        "seed": seed,
        "look": asdict(scene.setup.look),
    }
    _write_json(out.with_suffix(".json"), geometry)
    return out.with_suffix(".truth.jsonl")


class _SetWriter:
    """A YOLO data set being written into a folder of its own."""

    def __init__(self, out: Path) -> None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"{out}: exists and is not empty; name a new folder or remove it")
        out.mkdir(parents=True, exist_ok=True)
        self.out = out
        self.sizes: list[dict[str, Any]] = []

    def add(
        self,
        part: str,
        name: str,
        image: NDArray[np.uint8],
        defects: Sequence[Defect],
        rows: Sequence[str] = (),
    ) -> None:
        """Write a picture and its labels, after the rows that it had before."""
        picture = self.out / "images" / part / f"{name}.png"
        label = self.out / "labels" / part / f"{name}.txt"
        for path in (picture, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(picture), image):
            raise ConfigError(f"{picture}: cannot be written; is the disk full?")
        rows = [*rows, *(_yolo_row(defect, image.shape) for defect in defects)]
        label.write_text("".join(f"{row}\n" for row in rows))
        at = picture.relative_to(self.out).as_posix()
        self.sizes += [
            {"image": at, "class": d.kind, "xyxy": list(d.xyxy), "size_px": d.size_px}
            for d in defects
        ]

    def close(self, val: str, **parameters: Any) -> Path:
        """Write what describes the set; return the path of data.yaml."""
        counts = Counter(row["class"] for row in self.sizes)
        parameters["defects"] = {kind: counts[kind] for kind in KINDS}
        _write_jsonl(self.out / "sizes.jsonl", self.sizes)
        _write_json(self.out / "synth.json", parameters)
        names = "".join(f"  {index}: {kind}\n" for index, kind in enumerate(KINDS))
        path = self.out / "data.yaml"
        text = f"path: {self.out.resolve()}\ntrain: images/train\nval: {val}\nnames:\n{names}"
        path.write_text(text)
        return path


def _write_frames(out: Path, scene: BeltScene, fps: int, progress: Progress | None) -> int:
    size = (scene.setup.width, scene.setup.height)
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise ConfigError(f"{out}: this OpenCV cannot write mp4 video")
    total = scene.frame_count or 0
    for number in range(total):
        writer.write(scene.frame(number))
        if progress is not None:
            progress(number + 1, total)
    writer.release()
    return total


def _check_numbers(images: int, good_share: float, val_share: float, size: int) -> None:
    if images < 1:
        raise ConfigError(f"images: {images} is less than 1")
    if not 0 <= good_share <= 1:
        raise ConfigError(f"good_share: {good_share} is not within 0..1")
    if not 0 <= val_share <= 0.5:
        raise ConfigError(f"val_share: {val_share} is not within 0..0.5")
    if size < 160:
        raise ConfigError(f"size: {size} px leaves no room for a board; 160 is the least")


def _check_looks(looks: Mapping[str, float]) -> None:
    if unknown := sorted(set(looks) - set(FAMILIES)):
        raise ConfigError(f"looks: no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    if not looks or min(looks.values()) < 0 or sum(looks.values()) <= 0:
        raise ConfigError("looks: give at least one family a weight above 0")


def _pictures(source: Path, part: str) -> list[Path]:
    listed = source / f"{part}.txt"
    if listed.exists():
        found = [source / row.strip() for row in listed.read_text().splitlines() if row.strip()]
    else:
        folder = source / "images" / part
        found = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".png", ".bmp"))
    if not found:
        raise ConfigError(f"{source}: no picture in {part}.txt or images/{part}")
    return found


def _read_grey(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ConfigError(f"{path}: cannot be read as a picture")
    return np.asarray(image, np.uint8)


def _read_rows(picture: Path) -> list[str]:
    label = _label_file(picture)
    return [row for row in label.read_text().splitlines() if row] if label.exists() else []


def _label_file(picture: Path) -> Path:
    return picture.parent.parent.parent / "labels" / picture.parent.name / f"{picture.stem}.txt"


def _yolo_row(defect: Defect, shape: tuple[int, ...]) -> str:
    height, width = shape[:2]
    x0, y0, x1, y1 = defect.xyxy
    centre = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
    extent = ((x1 - x0) / width, (y1 - y0) / height)
    return f"{KINDS.index(defect.kind)} " + " ".join(f"{v:.6f}" for v in (*centre, *extent))


def _yolo_box(row: str, shape: tuple[int, ...]) -> Box:
    height, width = shape[:2]
    _, x, y, w, h = (float(value) for value in row.split())
    return (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
