"""Compares artefacts with the reference artefact, picture by picture, up to the verdict."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import Bundle
from pipeline.clock import NS_PER_MS
from pipeline.errors import ModelError
from pipeline.lab.evaluate import Looked, average_precision, recalls, verdicts
from pipeline.lab.pictures import Sample
from pipeline.proof import Flip, Run
from pipeline.quality.intervals import Share
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook, vote
from pipeline.types import Detections, Image, Tensor, Verdict
from pipeline.vision.geometry import iou

SAME_IOU = 0.5
"""A detection and its twin of the same class overlap at least so much."""

NEAR = 0.02
"""A verdict whose deciding score lies so close to a threshold is counted as near it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a run may be from the reference before it is red; a flipped verdict always is.

    Attributes:
        unmatched: share of the detections that count and have no twin.
        iou: mean overlap of twins, at least.
        score: mean difference of twins' scores.
        score_max: largest difference of twins' scores.
        tensor: median over the pictures of the outputs' relative distance.
        map50_95: by how much the mean average precision may fall.
    """

    unmatched: float
    iou: float
    score: float
    score_max: float
    tensor: float
    map50_95: float


# Float runs differ by rounding alone; a quantised one may find a weak defect or lose it, but must
# not drift: each limit is several times what a sound export of boards-n shows (docs/parity.md).
LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(0.0, 0.999, 0.0005, 0.005, 0.001, 0.0005),
    "fp16": Limits(0.005, 0.99, 0.005, 0.05, 0.03, 0.001),
    "bf16": Limits(0.005, 0.985, 0.01, 0.2, 0.01, 0.002),
    "int8": Limits(0.05, 0.92, 0.05, 1.0, 0.10, 0.005),
}


class Looks(Protocol):
    """What of a detector is compared."""

    outputs: tuple[Tensor, ...]
    rechecks: int

    def detect(self, image: Image) -> Detections:
        """Return the defects that a picture shows, in pixels of the picture."""


@dataclass(slots=True)
class _Seen:
    """What one run gave, picture by picture; probes apart from what is judged."""

    looked: list[Looked] = field(default_factory=list)
    probed: list[Detections] = field(default_factory=list)
    tensors: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    rechecks: int = 0
    failure: str | None = None

    @property
    def found(self) -> list[Detections]:
        return [*(item.found for item in self.looked), *self.probed]


@dataclass(frozen=True, slots=True)
class Twins:
    """How the detections of two runs match, one to one, within their class.

    Attributes:
        iou, score: overlap and difference of scores of each pair, float32 (n,).
        unmatched: detections that count and have no twin, of either side.
        of: detections that count.
    """

    iou: NDArray[np.float32]
    score: NDArray[np.float32]
    unmatched: int
    of: int


def compare(
    bundle: Bundle,
    reference: Looks,
    runs: Mapping[str, tuple[Looks, str]],
    samples: Sequence[Sample],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Run]:
    """Let a reference and others look at the same pictures in turns, and compare what they find.

    Args:
        reference: keeps detections from LEAST_SCORE, as the others.
        runs: by a name of the caller's: what looks, and the precision of its weights, which says
            what LIMITS hold; the reference may be among them and looks once only.
        samples: the frozen set.

    Returns:
        By the same names: flips, failures and figures.
    """
    others = {name: looks for name, (looks, _) in runs.items() if looks is not reference}
    asked = {"": reference} | others
    seen: dict[str, _Seen] = {name: _Seen() for name in asked}
    for i, sample in enumerate(samples):
        image, true = sample.load()
        for name, looks in asked.items():
            if seen[name].failure is None:
                _look(looks, sample, image, true, seen[name], reference)
        progress(i + 1, len(samples))
    base = seen[""]
    if base.failure is not None:
        raise ModelError(f"the reference itself fails: {base.failure}")
    judge = _Judge(bundle, base)
    return {name: judge.run(seen.get(name, base), kind) for name, (_, kind) in runs.items()}


def _look(
    looks: Looks,
    sample: Sample,
    image: Image,
    true: Detections | None,
    seen: _Seen,
    reference: Looks,
) -> None:
    """Let one run look at a picture and keep what it finds; a model that fails is a finding."""
    before, cpu, wall = looks.rechecks, time.process_time_ns(), time.perf_counter_ns()
    try:
        found = looks.detect(image)
    except ModelError as error:
        seen.failure = f"{sample.name}: {error}"
        return
    seen.wall_ms.append((time.perf_counter_ns() - wall) / NS_PER_MS)
    seen.cpu_ms.append((time.process_time_ns() - cpu) / NS_PER_MS)
    if sample.judged:
        seen.rechecks += looks.rechecks - before
        height, width = image.shape[:2]
        known = Detections.none() if true is None else true
        seen.looked.append(Looked(Path(sample.name), width, height, known, found))
    else:
        seen.probed.append(found)
    seen.tensors.append(tensor_distance(reference.outputs, looks.outputs))


def tensor_distance(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Return the relative distance (Euclidean) of raw outputs; infinite if their forms differ.

    Each channel is sorted first: a head that lists its detections by score may swap two rows.
    """
    forms = [(a.shape, a.dtype) for a in expected], [(b.shape, b.dtype) for b in got]
    if forms[0] != forms[1]:
        return float("inf")
    one, other = (np.concatenate([_sorted(t) for t in side]) for side in (expected, got))
    norm = float(np.linalg.norm(one)) or 1.0
    return float(np.linalg.norm(one - other)) / norm


def _sorted(tensor: Tensor) -> NDArray[np.float64]:
    longest = int(np.argmax(tensor.shape))
    return np.sort(tensor.astype(np.float64), axis=longest).ravel()


def twins(these: Detections, others: Detections, from_score: float) -> Twins:
    """Match the detections of two runs of one picture.

    Args:
        these, others: with all scores from half of ``from_score`` on.
        from_score: a detection of at least this score counts: it must have a twin, which may be
            weaker by half.
    """
    a = these[these.score >= from_score / 2]
    b = others[others.score >= from_score / 2]
    overlap = iou(a.xyxy, b.xyxy)
    far = np.abs(a.score[:, None] - b.score[None, :])
    fits = (overlap >= SAME_IOU) & (a.label[:, None] == b.label[None, :])
    rows, columns = _one_to_one(np.where(fits, overlap - far, -np.inf))
    counts = np.maximum(a.score[rows], b.score[columns]) >= from_score
    single = [
        int((side.score[np.setdiff1d(np.arange(len(side)), taken)] >= from_score).sum())
        for side, taken in ((a, rows), (b, columns))
    ]
    return Twins(
        iou=overlap[rows, columns][counts],
        score=far[rows, columns][counts],
        unmatched=sum(single),
        of=int(counts.sum()) + sum(single),
    )


def _one_to_one(likeness: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair rows and columns, the likest first, each once; -inf never."""
    rows, columns = [], []
    left = likeness.copy()
    for _ in range(min(left.shape)):
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        if left[row, column] == -np.inf:
            break
        rows.append(row)
        columns.append(column)
        left[row, :] = left[:, column] = -np.inf
    return np.array(rows, np.intp), np.array(columns, np.intp)


class _Judge:
    """Compares what runs saw with what the reference saw."""

    def __init__(self, bundle: Bundle, base: _Seen) -> None:
        self._labels = bundle.manifest.labels
        self._rulebook = Rulebook(Recipe(name="parity"), bundle.manifest.thresholds)
        self._base = base
        self._verdicts = verdicts(base.looked, self._rulebook, self._labels)
        self._excess = _excesses(base.looked, self._rulebook, self._labels)
        self._has_truth = any(len(item.true) for item in base.looked)
        self._recalls = recalls(base.looked, self._rulebook, self._labels)
        self._precision = self._average_precision(base)

    def run(self, seen: _Seen, precision: str) -> Run:
        if seen.failure is not None:
            return Run(ok=False, failures=(f"it failed: {seen.failure}",))
        judged = verdicts(seen.looked, self._rulebook, self._labels)
        flips = tuple(
            Flip(picture=str(item.picture), reference=a.value, got=b.value)
            for item, a, b in zip(seen.looked, self._verdicts, judged, strict=True)
            if a is not b
        )
        figures = self._figures(seen, judged)
        said = failures(figures, LIMITS.get(precision, LIMITS["fp32"]))
        return Run(ok=not (flips or said), flips=flips, failures=said, figures=figures)

    def _figures(self, seen: _Seen, judged: Sequence[Verdict]) -> dict[str, Any]:
        strong = self._rulebook.least_score
        matched = [twins(a, b, strong) for a, b in zip(self._base.found, seen.found, strict=True)]
        overlap = np.concatenate([m.iou for m in matched])
        score = np.concatenate([m.score for m in matched])
        excess = _excesses(seen.looked, self._rulebook, self._labels)
        return {
            "tensors": {
                "median": _round(float(np.median(seen.tensors))),
                "max": _round(max(seen.tensors)),
            },
            "boxes": {
                "unmatched": Share(
                    sum(m.unmatched for m in matched), sum(m.of for m in matched)
                ).as_dict(),
                "iou_mean": _round(_mean(overlap, 1.0)),
                "iou_min": _round(float(overlap.min(initial=1.0))),
                "score_mean": _round(_mean(score, 0.0)),
                "score_max": _round(float(score.max(initial=0.0))),
            },
            "verdicts": {v.value: judged.count(v) for v in Verdict},
            "unsure_of_reference": self._verdicts.count(Verdict.UNSURE),
            "rechecked": Share(seen.rechecks, len(seen.looked)).as_dict(),
            "margin": self._margin(excess),
            **self._against_truth(seen),
            "latency": self._latency(seen),
        }

    def _margin(self, excess: NDArray[np.float64]) -> dict[str, Any]:
        """Say how near the verdicts are to another one, and how far the scores have moved."""
        margin = _margins(excess)
        return {
            "least": _round(float(margin.min(initial=np.inf))) if len(margin) else None,
            "near": Share(int((margin < NEAR).sum()), len(margin)).as_dict(),
            "moved_max": _round(float(np.abs(excess - self._excess).max(initial=0.0))),
        }

    def _against_truth(self, seen: _Seen) -> dict[str, Any]:
        if not self._has_truth:
            return {}
        found = recalls(seen.looked, self._rulebook, self._labels)
        precision = self._average_precision(seen)
        return {
            "recall": {
                label: {**share.as_dict(), "lost": self._recalls[label].count - share.count}
                for label, share in found.items()
            },
            "map50": precision["map50"],
            "map50_95": precision["map50_95"],
            "map50_95_lost": _round(
                (self._precision["map50_95"] or 0) - (precision["map50_95"] or 0)
            ),
        }

    def _average_precision(self, seen: _Seen) -> dict[str, Any]:
        return average_precision(seen.looked, self._labels) if self._has_truth else {}

    def _latency(self, seen: _Seen) -> dict[str, float]:
        """Times of window, runtime and decoder; the speed-ups are of the same run, in turns.

        The total counts the pictures that were looked at twice; the median does not show them.
        """
        ratios = [b / a for a, b in zip(seen.wall_ms, self._base.wall_ms, strict=True) if a > 0]
        return {
            "ms_median": round(statistics.median(seen.wall_ms), 2),
            "cpu_ms_median": round(statistics.median(seen.cpu_ms), 2),
            "speed_up_median": round(statistics.median(ratios), 3),
            "speed_up_total": round(sum(self._base.wall_ms) / (sum(seen.wall_ms) or 1.0), 3),
        }


def _excesses(
    looked: Sequence[Looked], rulebook: Rulebook, labels: Sequence[str]
) -> NDArray[np.float64]:
    """Return by how much each picture's scores exceed unsure and fail at best, float64 (n, 2)."""
    rows = []
    for item in looked:
        found = item.found[item.found.score >= rulebook.least_detection]
        bands = [(d.score, rulebook.band(d.label)) for d in vote([found], labels)]
        nothing = -rulebook.least_score
        rows.append(
            (
                max([s - b.unsure for s, b in bands], default=nothing),
                max([s - b.fail for s, b in bands], default=nothing),
            )
        )
    return np.array(rows, np.float64).reshape(-1, 2)


def _margins(excess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the change of a score that would change each verdict, float64 (n,)."""
    unsure, fail = excess[:, 0], excess[:, 1]
    margin = np.where(fail >= 0, fail, np.where(unsure >= 0, np.minimum(unsure, -fail), -unsure))
    return np.asarray(margin, np.float64)


def failures(figures: Mapping[str, Any], limits: Limits) -> tuple[str, ...]:
    """Return what of a run's figures is beyond its limit, a line each."""
    boxes, tensors = figures["boxes"], figures["tensors"]
    unmatched = boxes["unmatched"]["share"] or 0.0
    said = []
    if tensors["median"] > limits.tensor:
        said.append(f"its outputs are {tensors['median']:.2g} off; {limits.tensor} is allowed")
    if unmatched > limits.unmatched:
        said.append(
            f"{boxes['unmatched']['count']} of {boxes['unmatched']['of']} detections have no twin; "
            f"{limits.unmatched:.1%} are allowed"
        )
    if boxes["iou_mean"] < limits.iou:
        said.append(f"boxes overlap by {boxes['iou_mean']:.4f}; at least {limits.iou} is asked")
    if boxes["score_mean"] > limits.score:
        said.append(f"scores differ by {boxes['score_mean']:.2g}; {limits.score} is allowed")
    if boxes["score_max"] > limits.score_max:
        said.append(f"a score differs by {boxes['score_max']:.2g}; {limits.score_max} is allowed")
    if (lost := figures.get("map50_95_lost", 0.0)) > limits.map50_95:
        said.append(f"mAP50-95 falls by {lost:.4f}; {limits.map50_95} is allowed")
    for label, share in figures.get("recall", {}).items():
        # Net of those it finds in addition; what chance alone could explain is not held against it.
        if share["of"] and (share["count"] + share["lost"]) / share["of"] > share["interval"][1]:
            said.append(f"'{label}': {share['lost']} of {share['of']} defects are lost")
    return tuple(said)


def _mean(values: NDArray[np.float32], nothing: float) -> float:
    return float(values.mean()) if len(values) else nothing


def _round(value: float) -> float:
    """Return six digits after the point; an infinite distance as a number that JSON knows."""
    return round(min(value, 1e9), 6)
