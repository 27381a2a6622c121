"""From what a network puts out to detections: one function per kind of head, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipeline.errors import BundleError, ModelError
from pipeline.types import Detections, Tensor
from pipeline.vision.geometry import iou

Outputs = tuple[Tensor, ...]

NMS_IOU = 0.5
"""Boxes of one class that overlap more than this show the same defect."""

VOTE_IOU = 0.65
"""Boxes of one class that overlap a kept one so much have a say in where its edges lie."""

MAX_CANDIDATES = 1000
"""Boxes that suppression looks at, strongest first: a broken model must not stall the line."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Reads the outputs of one kind of head.

    Attributes:
        read: (outputs, min_score) -> detections in pixels of the input, score >= min_score;
            raises ModelError if the outputs are not what the head can give.
        classes: outputs -> number of classes, or None where the head does not show it.
    """

    read: Callable[[Outputs, float], Detections]
    classes: Callable[[Outputs], int | None]


def decoder(name: str) -> Decoder:
    """Return the decoder that a manifest names.

    Raises:
        BundleError: there is no such decoder.
    """
    if name not in _DECODERS:
        known = ", ".join(sorted(_DECODERS))
        raise BundleError(f"there is no decoder '{name}'; the manifest must name one of: {known}")
    return _DECODERS[name]


def _read_e2e(outputs: Outputs, min_score: float) -> Detections:
    """Read float32 (1, n, 6): x0, y0, x1, y1, score, label; the head has dropped doubles itself."""
    rows = _one_finite(outputs, "(1, n, 6)", lambda s: s[2] == 6)
    _check_scores(rows[:, 4])
    rows = rows[rows[:, 4] >= min_score]
    return Detections(
        np.ascontiguousarray(rows[:, :4]),
        np.ascontiguousarray(rows[:, 4]),
        np.rint(rows[:, 5]).astype(np.int32),
    )


def _read_raw(outputs: Outputs, min_score: float) -> Detections:
    """Read float32 (1, 4 + classes, n): cx, cy, w, h and a score per class; drop doubles."""
    rows = _one_finite(outputs, "(1, 4 + classes, n)", lambda s: s[1] > 4)
    return _strongest(rows[:4], rows[4:], min_score, _corners)


def _read_raw_xyxy(outputs: Outputs, min_score: float) -> Detections:
    """Read float32 (1, 4 + classes, n): x0, y0, x1, y1 and a score per class; drop doubles."""
    rows = _one_finite(outputs, "(1, 4 + classes, n)", lambda s: s[1] > 4)
    return _strongest(rows[:4], rows[4:], min_score)


def _read_yolox(outputs: Outputs, min_score: float) -> Detections:
    """Read float32 (1, n, 5 + classes): cx, cy, w, h, whether anything is there, and what.

    The score of a class is the product of both.
    """
    rows = _one_finite(outputs, "(1, n, 5 + classes)", lambda s: s[2] > 5).T
    _check_scores(rows[4])
    _check_scores(rows[5:].max(axis=0))
    return _strongest(rows[:4], rows[4] * rows[5:], min_score, _corners)


def _corners(boxes: Tensor) -> Tensor:
    """Return (4, n) of cx, cy, w, h as x0, y0, x1, y1."""
    half = boxes[2:4] / 2
    return np.concatenate([boxes[:2] - half, boxes[:2] + half])


def _strongest(
    boxes: Tensor,
    scores: Tensor,
    min_score: float,
    corners: Callable[[Tensor], Tensor] = lambda boxes: boxes,
) -> Detections:
    """Return what is found, the strongest class of each box, without doubles.

    Args:
        boxes: (4, n).
        scores: (classes, n).
        corners: makes x0, y0, x1, y1 of boxes.
    """
    best = scores.max(axis=0)
    _check_scores(best)
    candidates = np.flatnonzero(best >= min_score)
    if len(candidates) == 0:  # as on most parts
        return Detections.none()
    if len(candidates) > MAX_CANDIDATES:
        strongest = np.argpartition(-best[candidates], MAX_CANDIDATES)[:MAX_CANDIDATES]
        candidates = candidates[strongest]
    score, label = best[candidates], scores[:, candidates].argmax(axis=0).astype(np.int32)
    xyxy = np.ascontiguousarray(corners(boxes[:, candidates]).T)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    kept = _without_doubles(xywh, score, label)
    return Detections(_voted(kept, xyxy, score, label), score[kept], label[kept])


def _voted(kept: Tensor, xyxy: Any, score: Any, label: Any) -> Any:
    """Return (kept, 4): each kept box as the mean of those that show its defect, by their scores.

    Several cells of the network see one defect; the strongest has not the best edges. Box voting of
    Gidaris and Komodakis, "Object detection via a multi-region and semantic segmentation-aware CNN
    model", ICCV 2015, section 5.
    """
    same = label[kept][:, None] == label[None, :]
    weights = np.where(same & (iou(xyxy[kept], xyxy) >= VOTE_IOU), score, np.float32(0))
    total = weights.sum(axis=1, keepdims=True)  # 0 where a box has no area or its score is 0
    return np.divide(weights @ xyxy, total, out=xyxy[kept], where=total > 0)


def _without_doubles(xywh: Any, score: Any, label: Any) -> Tensor:
    """Return the indices that non-maximum suppression within each class keeps, strongest first."""
    # 0.13 ms for 120 candidates, 1.3 ms in numpy. Its own score limit excludes equality: disarmed.
    kept = cv2.dnn.NMSBoxesBatched(xywh, score, label, -1.0, NMS_IOU)
    return np.asarray(kept, np.intp).reshape(-1)


def _one_finite(outputs: Outputs, form: str, fits: Callable[[tuple[int, ...]], bool]) -> Tensor:
    """Return the only output without its first axis.

    A comparison with NaN is false: an unchecked NaN score would read as "no defect".
    """
    tensor = outputs[0] if len(outputs) == 1 else np.zeros(0)
    if tensor.ndim != 3 or tensor.shape[0] != 1 or not fits(tensor.shape):
        shapes = [output.shape for output in outputs]
        raise ModelError(f"the model's output has the shape {shapes}, its decoder reads [{form}]")
    if tensor.dtype != np.float32:
        raise ModelError(f"the model's output is {tensor.dtype}, its decoder reads float32")
    if not np.isfinite(tensor).all():
        raise ModelError("the model's output holds NaN or infinite values; no verdict is possible")
    return np.asarray(tensor[0])


def _check_scores(score: Tensor) -> None:
    if len(score) and not (score.min() >= -1e-3 and score.max() <= 1 + 1e-3):
        raise ModelError(
            f"the model's scores run from {score.min():.3g} to {score.max():.3g}, not 0 to 1; "
            "does the manifest name the right decoder?"
        )


_DECODERS = {
    "yolo": Decoder(_read_raw, lambda outputs: int(outputs[0].shape[1]) - 4),
    "yolo-e2e": Decoder(_read_e2e, lambda outputs: None),
    "yolo-xyxy": Decoder(_read_raw_xyxy, lambda outputs: int(outputs[0].shape[1]) - 4),
    "yolox": Decoder(_read_yolox, lambda outputs: int(outputs[0].shape[2]) - 5),
}
