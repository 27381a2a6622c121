"""How good a bundle is, measured through the station's own detector and rules."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bundle import Bundle
from pipeline.detector import Detector
from pipeline.errors import ConfigError
from pipeline.lab.datasets import Dataset, pictures_of, true_boxes
from pipeline.plugins import vendor
from pipeline.quality.intervals import Share
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook, vote
from pipeline.types import Detections, Verdict
from pipeline.vision.geometry import iou
from pipeline.vision.picture import read_picture

LEAST_SCORE = 0.001
"""The detector keeps everything above it: average precision needs the whole curve."""

MATCH_IOU = 0.5

PAPER_IOU = 0.33
"""Overlap from which DeepPCB's paper counts a defect as found; its own detector reads 0.986."""

_OVERLAPS = (PAPER_IOU, *(0.5 + 0.05 * i for i in range(10)))

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Looked:
    """One picture: its size, what is there and what was found, pixels."""

    picture: Path
    width: int
    height: int
    true: Detections
    found: Detections


def look(
    pictures: Sequence[Path], detector: Detector, progress: Progress = lambda done, total: None
) -> tuple[Looked, ...]:
    """Run a detector over pictures."""
    looked = []
    for i, file in enumerate(pictures):
        image = read_picture(file)
        height, width = image.shape[:2]
        true = true_boxes(file, width, height)
        looked.append(Looked(file, width, height, true, detector.detect(image)))
        progress(i + 1, len(pictures))
    return tuple(looked)


def check_labels(bundle: Bundle, dataset: Dataset) -> None:
    """Refuse to compare a model with a data set of other classes.

    Raises:
        ConfigError: the labels or their order differ.
    """
    if bundle.manifest.labels != dataset.labels:
        raise ConfigError(
            f"{dataset.file}: its classes {list(dataset.labels)} are not those of bundle "
            f"'{bundle.manifest.name}' {list(bundle.manifest.labels)}"
        )


def average_precision(looked: Sequence[Looked], labels: Sequence[str]) -> dict[str, Any]:
    """Return COCO's average precision (101 points), over all classes and for each.

    Returns:
        ``map33`` (at PAPER_IOU), ``map50``, ``map50_95``, and ``per_class``: label -> ``ap33``,
        ``ap50``, ``ap50_95``.
    """
    coco = vendor("faster_coco_eval", "eval")
    truth, found = _coco_truth(looked, labels), _coco_results(looked)
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = coco.COCO(truth)
        results = annotations.loadRes(found) if found else coco.COCO({**truth, "annotations": []})
        evaluation = coco.COCOeval_faster(annotations, results, iouType="bbox")
        evaluation.params.maxDets = [1, 10, 300]
        evaluation.params.iouThrs = np.array(_OVERLAPS)
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU 11, recall 101, class, area 4, detections 3); -1 where a class has no true box.
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    means: dict[str, Callable[[Any], float | None]] = {
        "ap33": lambda p: _mean(p[0]),
        "ap50": lambda p: _mean(p[1]),
        "ap50_95": lambda p: _mean(p[1:]),
    }
    per_class = {
        label: {name: mean(precision[:, :, i]) for name, mean in means.items()}
        for i, label in enumerate(labels)
    }
    return {f"m{name}": mean(precision) for name, mean in means.items()} | {"per_class": per_class}


def recalls(
    looked: Sequence[Looked], rulebook: Rulebook, labels: Sequence[str]
) -> dict[str, Share]:
    """Return, per class, how many true defects are found at the score from which a part fails."""
    hit, of = np.zeros(len(labels), int), np.zeros(len(labels), int)
    fail = np.array([rulebook.band(label).fail for label in labels])
    for item in looked:
        strong = item.found[item.found.score >= fail[item.found.label]]
        overlap = iou(item.true.xyxy, strong.xyxy) >= MATCH_IOU
        same = item.true.label[:, None] == strong.label[None, :]
        np.add.at(of, item.true.label, 1)
        np.add.at(hit, item.true.label, (overlap & same).any(axis=1))
    return {label: Share(int(hit[i]), int(of[i])) for i, label in enumerate(labels)}


def verdicts(looked: Sequence[Looked], rulebook: Rulebook, labels: Sequence[str]) -> list[Verdict]:
    """Return the verdict that the station would give to each picture as a part of its own."""
    judged = []
    for item in looked:
        found = item.found[item.found.score >= rulebook.least_detection]
        size = (float(item.width), float(item.height))
        judged.append(rulebook.decide(vote([found], labels), 1, size).verdict)
    return judged


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    part: str,
    detector: Detector,
    good: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a bundle on a data set.

    Args:
        part: train, val or test.
        detector: of the bundle, with ``min_score=LEAST_SCORE``.
        good: folder of defect-free pictures, or None.

    Returns:
        The figures under the documented, stable keys of ``lab evaluate --json``.

    Raises:
        ConfigError: data set and bundle do not fit.
    """
    check_labels(bundle, dataset)
    labels = bundle.manifest.labels
    rulebook = Rulebook(Recipe(name="evaluate"), bundle.manifest.thresholds)
    looked = look(dataset.pictures(part), detector, progress)
    free = look(pictures_of(good), detector, progress) if good else ()
    figures = average_precision(looked, labels)
    recalled = recalls(looked, rulebook, labels)
    for label, share in recalled.items():
        figures["per_class"][label]["recall"] = share.as_dict()
    judged = list(zip(looked, verdicts(looked, rulebook, labels), strict=True))
    bad = [verdict for item, verdict in judged if len(item.true)]
    fine = [verdict for item, verdict in judged if not len(item.true)]
    fine += verdicts(free, rulebook, labels)
    alarms = Share(len(fine) - fine.count(Verdict.PASS), len(fine))
    return {
        "set": f"{dataset.name}/{part}",
        "pictures": len(looked) + len(free),
        **figures,
        "weakest": _weakest(recalled),
        "escapes": Share(bad.count(Verdict.PASS), len(bad)).as_dict(),
        "overkill": Share(fine.count(Verdict.FAIL), len(fine)).as_dict(),
        "false_alarms": alarms.as_dict(),
        "false_alarm_rate": alarms.value,
        "unsure": Share((bad + fine).count(Verdict.UNSURE), len(bad) + len(fine)).as_dict(),
    }


def _weakest(recalled: Mapping[str, Share]) -> dict[str, Any] | None:
    """Return the class of which most is missed at the fail score: ``label`` and its recall."""
    known = {label: share for label, share in recalled.items() if share.value is not None}
    if not known:
        return None
    label = min(known, key=lambda name: known[name].value or 0.0)
    return {"label": label, **known[label].as_dict()}


def _coco_truth(looked: Sequence[Looked], labels: Sequence[str]) -> dict[str, Any]:
    boxes = [
        {
            "id": 0,
            "image_id": i,
            "category_id": int(label),
            "iscrowd": 0,
            "bbox": box,
            "area": box[2] * box[3],
        }
        for i, item in enumerate(looked)
        for box, label in zip(_xywh(item.true), item.true.label, strict=True)
    ]
    for number, box in enumerate(boxes, 1):
        box["id"] = number
    return {
        "info": {},
        "images": [{"id": i, "width": x.width, "height": x.height} for i, x in enumerate(looked)],
        "categories": [{"id": i, "name": label} for i, label in enumerate(labels)],
        "annotations": boxes,
    }


def _coco_results(looked: Sequence[Looked]) -> list[dict[str, Any]]:
    return [
        {"image_id": i, "category_id": int(label), "bbox": box, "score": float(score)}
        for i, item in enumerate(looked)
        for box, label, score in zip(
            _xywh(item.found), item.found.label, item.found.score, strict=True
        )
    ]


def _xywh(found: Detections) -> list[list[float]]:
    corner, far = found.xyxy[:, :2], found.xyxy[:, 2:]
    rows: list[list[float]] = np.concatenate([corner, far - corner], axis=1).tolist()
    return rows


def _mean(precision: Any) -> float | None:
    known = precision[precision > -1]
    return round(float(known.mean()), 5) if known.size else None
