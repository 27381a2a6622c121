"""Pictures for people: the live frame with its parts, a stored part, a small one for lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from pipeline.live import Glimpse
from pipeline.types import Box, Defect, Image, Verdict
from pipeline.vision.draw import Mark, annotate, marks_of_defects, outline
from pipeline.vision.picture import encode_jpeg

LIVE_QUALITY = 80
THUMB_PX = 320
EDGE_PX = 2


def paint_live(glimpse: Glimpse) -> bytes:
    """Return a frame as JPEG, with each part's outline, verdict and defects."""
    picture = glimpse.image
    width = picture.shape[1]
    for part in glimpse.header["parts"]:
        verdict = Verdict(part["verdict"]) if part["verdict"] else None
        whole = _whole(part, width / glimpse.header["scale"])
        marks = [_mark(d, whole, glimpse.header["scale"]) for d in part["defects"]]
        if verdict is not Verdict.PASS:
            picture = annotate(picture, [m for m in marks if m.xyxy[2] > 0 and m.xyxy[0] < width])
        box = _scaled(Box(*part["box"]), glimpse.header["scale"])
        said = verdict.value if verdict else "looking"
        picture = outline(picture, box, f"{said}  #{part['id']}", verdict)
    return encode_jpeg(np.ascontiguousarray(picture), LIVE_QUALITY)


def cut_out(picture: Image, record: Mapping[str, Any]) -> Image:
    """Return the part alone, or the whole picture where its place is not known."""
    box = record.get("image_box")
    if box is None:
        return picture
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = (round(v) for v in box)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    return picture[y0:y1, x0:x1] if x1 > x0 and y1 > y0 else picture


def thumbnail(picture: Image, record: Mapping[str, Any]) -> Image:
    """Return a part with its defects marked, no side longer than 320 pixels."""
    part = cut_out(picture, record)
    scale = min(1.0, THUMB_PX / max(part.shape[:2]))
    size = max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1)
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    marks = [Mark(tuple(v * scale for v in d["xyxy"]), "") for d in record["defects"]]
    return annotate(small, marks, texts=False)


def _mark(defect: Mapping[str, Any], part: Box, scale: float) -> Mark:
    found = Defect(defect["label"], defect["score"], tuple(defect["xyxy"]), defect["votes"])
    (mark,) = marks_of_defects([found], part, ())
    return Mark(tuple(v * scale for v in mark.xyxy), defect["label"])  # type: ignore[arg-type]


def _whole(part: Mapping[str, Any], frame_width: float) -> Box:
    """Return the part's whole box: where an edge of the frame cuts it, the other side holds."""
    x0, y0, x1, _ = part["box"]
    width, height = part["size"]
    if x1 - x0 < width - EDGE_PX and x0 <= EDGE_PX < frame_width - x1:
        x0 = x1 - width
    return Box(x0, y0, x0 + width, y0 + height)


def _scaled(box: Box, scale: float) -> Box:
    return Box(box.x0 * scale, box.y0 * scale, box.x1 * scale, box.y1 * scale)
