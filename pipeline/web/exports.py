"""Reviewed parts as training data: pictures of the parts with the boxes that people confirmed."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from pipeline.errors import ConfigError
from pipeline.vision.picture import encode_jpeg, read_picture
from pipeline.web import paint
from pipeline.web.board import Board

PARTS_AT_MOST = 5000
IN_MEMORY_BYTES = 16 << 20
PIECE_BYTES = 1 << 16
QUALITY = 95


@dataclass(frozen=True, slots=True)
class Labelled:
    """A part as a person left it.

    Attributes:
        name: of its picture, without suffix.
        size: width and height of its picture, pixels.
        boxes: label and xyxy, pixels of the picture.
    """

    name: str
    size: tuple[int, int]
    boxes: tuple[tuple[str, tuple[float, ...]], ...]


Writes = Callable[[zipfile.ZipFile, list[Labelled], tuple[str, ...]], None]


@dataclass(frozen=True, slots=True)
class Export:
    """An archive, and how many parts it holds."""

    file: IO[bytes]
    parts: int

    def pieces(self) -> Iterator[bytes]:
        """Yield the archive piece by piece, and let go of it."""
        with self.file:
            while piece := self.file.read(PIECE_BYTES):
                yield piece


def export(board: Board, write: Writes) -> Export:
    """Pack the newest reviewed parts that still have their picture."""
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
    labelled = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, review in board.desk.newest_reviews(PARTS_AT_MOST):
            kept = board.ledger.at(number)
            part = _packed(board, archive, kept.values(), review) if kept else None
            if part is not None:
                labelled.append(part)
        write(archive, labelled, board.bundle.manifest.labels)
    file.seek(0)
    return Export(file, len(labelled))


def yolo(archive: zipfile.ZipFile, parts: list[Labelled], labels: tuple[str, ...]) -> None:
    """Write one text file per picture: class, centre and size as shares of the picture."""
    for part in parts:
        width, height = part.size
        lines = [
            f"{labels.index(label)} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
            f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}\n"
            for label, (x0, y0, x1, y1) in part.boxes
        ]
        archive.writestr(f"labels/{part.name}.txt", "".join(lines))
    names = "".join(f"  {i}: {label}\n" for i, label in enumerate(labels))
    archive.writestr("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}")


def coco(archive: zipfile.ZipFile, parts: list[Labelled], labels: tuple[str, ...]) -> None:
    """Write one JSON document for all pictures; boxes are x, y, width, height in pixels."""
    images = [
        {"id": i, "file_name": f"images/{p.name}.jpg", "width": p.size[0], "height": p.size[1]}
        for i, p in enumerate(parts, 1)
    ]
    boxes = [(i, *box) for i, part in enumerate(parts, 1) for box in part.boxes]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": labels.index(label) + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
        }
        for number, (image, label, (x0, y0, x1, y1)) in enumerate(boxes, 1)
    ]
    categories = [{"id": i, "name": label} for i, label in enumerate(labels, 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    archive.writestr("annotations.json", json.dumps(document))


FORMATS: Mapping[str, Writes] = {"yolo": yolo, "coco": coco}


def _packed(
    board: Board, archive: zipfile.ZipFile, record: dict[str, Any], review: dict[str, Any]
) -> Labelled | None:
    file = board.ledger.picture_file(record["image"])
    if file is None or record.get("image_box") is None:
        return None
    try:
        picture = paint.cut_out(read_picture(file), record)
    except ConfigError:
        return None  # damaged on the disk; its record says what it was
    name = str(record["id"])
    archive.writestr(f"images/{name}.jpg", encode_jpeg(picture, QUALITY))
    height, width = picture.shape[:2]
    return Labelled(name, (width, height), _boxes(board, record, review, width, height))


def _boxes(
    board: Board, record: dict[str, Any], review: dict[str, Any], width: int, height: int
) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Return the record's defects without those that are none, and those that were added."""
    if review["verdict"] == "PASS":
        return ()
    right = [d for i, d in enumerate(record["defects"]) if i not in review["wrong"]]
    known = board.bundle.manifest.labels
    boxes = []
    for defect in (*right, *review["added"]):
        x0, y0, x1, y1 = defect["xyxy"]
        inside = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if defect["label"] in known and inside[0] < inside[2] and inside[1] < inside[3]:
            boxes.append((defect["label"], inside))
    return tuple(boxes)
