"""Reviewed parts as training data: pictures of the parts with the boxes that people confirmed."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from xml.sax.saxutils import quoteattr

from pipeline.vision.picture import encode_jpeg
from pipeline.web import paint, queries
from pipeline.web.access import Refused
from pipeline.web.board import Board, decoded

PARTS_AT_MOST = 5000
IN_MEMORY_BYTES = 16 << 20
QUALITY = 95
PLAIN_NAME = re.compile("[0-9A-Za-z_-]{1,64}")


Boxed = tuple[str, tuple[float, ...]]
"""Label and xyxy, pixels."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A part as a person left it.

    Attributes:
        name: of its picture, without suffix.
        size: width and height of its picture, pixels.
        boxes: label and xyxy, pixels of the picture, as a person left them; None if nobody has
            looked at it yet.
        found: what the station found: label, xyxy and score.
        model: that found it.
    """

    name: str
    size: tuple[int, int]
    boxes: tuple[Boxed, ...] | None
    found: tuple[tuple[str, tuple[float, ...], float], ...]
    model: str


Writes = Callable[[zipfile.ZipFile, list[Labelled], tuple[str, ...]], None]


@dataclass(frozen=True, slots=True)
class Format:
    """How an archive is written.

    Attributes:
        waiting: parts that nobody has reviewed yet are in it too, to be labelled elsewhere.
    """

    write: Writes
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Export:
    """An archive, and how many parts it holds."""

    file: IO[bytes]
    parts: int


def export(board: Board, format: Format) -> Export:
    """Pack the newest reviewed parts that still have their picture."""
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
    labelled = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, review in _chosen(board, format):
            kept = board.ledger.at(number)
            part = _packed(board, archive, kept.values(), review) if kept else None
            if part is not None:
                labelled.append(part)
        format.write(archive, labelled, board.bundle.manifest.labels)
    return Export(file, len(labelled))


def _chosen(board: Board, format: Format) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield numbers of records, with their newest review if there is one."""
    reviewed = board.desk.newest_reviews(PARTS_AT_MOST)
    yield from reviewed
    if format.waiting:
        done, room = {number for number, _ in reviewed}, PARTS_AT_MOST - len(reviewed)
        yield from ((s["number"], None) for s in queries.unreviewed(board.index, done, room))


def yolo(archive: zipfile.ZipFile, parts: list[Labelled], labels: tuple[str, ...]) -> None:
    """Write one text file per picture: class, centre and size as shares of the picture."""
    for part in parts:
        width, height = part.size
        lines = [
            f"{labels.index(label)} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
            f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}\n"
            for label, (x0, y0, x1, y1) in part.boxes or ()
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
    boxes = [(i, *box) for i, part in enumerate(parts, 1) for box in part.boxes or ()]
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


def labelstudio(archive: zipfile.ZipFile, parts: list[Labelled], labels: tuple[str, ...]) -> None:
    """Write tasks for Label Studio: what the station found as predictions, people's as annotations.

    Boxes are shares of the picture in percent. The pictures are looked for in its local storage,
    in a folder ``images``: https://labelstud.io/guide/storage, "Local storage".
    """
    tasks = [
        {
            "data": {"image": f"{LOCAL_FILES}images/{part.name}.jpg", "part": part.name},
            "predictions": [
                {
                    "model_version": part.model,
                    "score": max((score for _, _, score in part.found), default=0.0),
                    "result": [_rectangle(part, *found) for found in part.found],
                }
            ],
            "annotations": []
            if part.boxes is None
            else [{"result": [_rectangle(part, *box) for box in part.boxes]}],
        }
        for part in parts
    ]
    names = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
    archive.writestr("tasks.json", json.dumps(tasks))
    archive.writestr("label_config.xml", _LABEL_CONFIG.format(names=names))


LOCAL_FILES = "/data/local-files/?d="
_LABEL_CONFIG = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <RectangleLabels name="label" toName="image">
{names}  </RectangleLabels>
</View>
"""


def _rectangle(
    part: Labelled, label: str, xyxy: tuple[float, ...], score: float | None = None
) -> dict[str, Any]:
    (width, height), (x0, y0, x1, y1) = part.size, xyxy
    value = {
        "x": 100 * x0 / width,
        "y": 100 * y0 / height,
        "width": 100 * (x1 - x0) / width,
        "height": 100 * (y1 - y0) / height,
        "rotation": 0,
        "rectanglelabels": [label],
    }
    return {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
        **({} if score is None else {"score": score}),
    }


FORMATS: Mapping[str, Format] = {
    "yolo": Format(yolo),
    "coco": Format(coco),
    "labelstudio": Format(labelstudio, waiting=True),
}


def _packed(
    board: Board, archive: zipfile.ZipFile, record: dict[str, Any], review: dict[str, Any] | None
) -> Labelled | None:
    name = str(record["id"])
    if record.get("image_box") is None or not PLAIN_NAME.fullmatch(name):
        return None  # a name with a path in it would be unpacked elsewhere
    try:
        picture = paint.cut_out(decoded(board.stored(record), record), record)
    except Refused:
        return None  # gone, or damaged on the disk; its record says what it was
    archive.writestr(f"images/{name}.jpg", encode_jpeg(picture, QUALITY))
    size, known = (picture.shape[1], picture.shape[0]), board.bundle.manifest.labels
    found = tuple(
        (label, xyxy, defect["score"])
        for defect in record["defects"]
        for label, xyxy in _inside([defect], size, known)
    )
    boxes = None if review is None else _inside(_confirmed(record, review), size, known)
    return Labelled(name, size, boxes, found, str(record["bundle"]))


def _confirmed(record: dict[str, Any], review: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the record's defects without those that are none, and those that were added."""
    if review["verdict"] == "PASS":
        return []
    right = [d for i, d in enumerate(record["defects"]) if i not in review["wrong"]]
    return [*right, *review["added"]]


def _inside(
    defects: list[dict[str, Any]], size: tuple[int, int], known: tuple[str, ...]
) -> tuple[Boxed, ...]:
    """Return the boxes of known labels, cut to the picture."""
    boxes = []
    for defect in defects:
        x0, y0, x1, y1 = defect["xyxy"]
        inside = max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1])
        if defect["label"] in known and inside[0] < inside[2] and inside[1] < inside[3]:
            boxes.append((defect["label"], inside))
    return tuple(boxes)
