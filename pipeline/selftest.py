"""Ask the model for pictures whose answer is known: a model that answers otherwise must not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.bundle import Bundle, GoldenRow
from pipeline.detector import Detector
from pipeline.errors import BundleError, ConfigError, ModelError
from pipeline.types import Detections, Image
from pipeline.vision.geometry import iou
from pipeline.vision.picture import decode_picture

LEAST_SCORE = 0.2
"""Weaker findings are not written down: the noise of another processor moves them most."""

TOLERANCE = 0.02
"""How far a score may differ. ONNX Runtime and OpenVINO differ by some 1e-3 in fp32 (measured)."""

LEAST_IOU = 0.9
MAX_GOLDEN_PIXELS = 4_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """A golden picture in memory, with the answer that one artefact must give."""

    name: str
    image: Image
    expect: tuple[GoldenRow, ...]


def questions_of(bundle: Bundle, artefact: str) -> tuple[Question, ...]:
    """Read the golden pictures that have an answer of this artefact.

    Raises:
        BundleError: a picture is damaged, or an answer names a label that the bundle lacks.
    """
    found = []
    for golden in bundle.manifest.golden:
        if artefact not in golden.expect:
            continue
        expect = golden.expect[artefact]
        if strange := {row.label for row in expect} - set(bundle.manifest.labels):
            raise BundleError(
                f"{bundle.path / golden.path}: its answer names the label '{min(strange)}', "
                "which the manifest does not; write the answers anew: lineguard models golden"
            )
        try:
            image = decode_picture(bundle.golden_bytes(golden), golden.path, MAX_GOLDEN_PIXELS)
        except ConfigError as error:
            raise BundleError(f"bundle '{bundle.manifest.name}': {error}") from error
        found.append(Question(golden.path, image, expect))
    return tuple(found)


def ask(detector: Detector, questions: Sequence[Question]) -> None:
    """Compare what the model finds in golden pictures with what it must find.

    Raises:
        ModelError: an answer differs by more than TOLERANCE, or a box by less than LEAST_IOU.
    """
    # The rules may have no use for weak findings, and then the detector drops them.
    least = max(LEAST_SCORE, detector.min_score) + TOLERANCE
    for question in questions:
        found = rows_of(detector.detect(question.image), detector.labels)
        if why := _difference(question.expect, found, least):
            raise ModelError(
                f"self-test: golden picture {question.name}: {why}; this model must not run: "
                "restore the bundle, or check the runtime and its driver"
            )


def rows_of(found: Detections, labels: Sequence[str]) -> tuple[GoldenRow, ...]:
    """Return detections of at least LEAST_SCORE as they are written down."""
    return tuple(
        GoldenRow(
            label=labels[label],
            score=round(float(score), 4),
            xyxy=tuple(round(float(v), 2) for v in xyxy),  # type: ignore[arg-type]
        )
        for xyxy, score, label in zip(found.xyxy, found.score, found.label, strict=True)
        if score >= LEAST_SCORE
    )


def _difference(expect: Sequence[GoldenRow], found: Sequence[GoldenRow], least: float) -> str:
    """Return what differs from score ``least`` on, or nothing; every row is used once."""
    left = list(found)
    for row in expect:
        twin = next((other for other in left if _is_same(row, other)), None)
        if twin is not None:
            left.remove(twin)
        elif row.score >= least:
            return f"'{row.label}' of score {row.score:.3f} was not found as it should be"
    new = next((row for row in left if row.score >= least), None)
    return f"'{new.label}' of score {new.score:.3f} should not be there" if new else ""


def _is_same(a: GoldenRow, b: GoldenRow) -> bool:
    if a.label != b.label or abs(a.score - b.score) > TOLERANCE:
        return False
    boxes = [np.array([row.xyxy], np.float32) for row in (a, b)]
    return float(iou(boxes[0], boxes[1])[0, 0]) >= LEAST_IOU
