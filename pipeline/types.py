"""The things that move through the station: frozen data, arrays with stated shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""uint8, (H, W, 3) in BGR order or (H, W)."""

Tensor: TypeAlias = NDArray[Any]
"""What a runtime takes and gives; shape and dtype are the model's."""

RECORD_SCHEMA = 2


class Verdict(str, Enum):
    """What is said of a part. Outputs act on UNSURE as on FAIL; people see the difference."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNSURE = "UNSURE"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; the right and lower edges are outside it."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def as_list(self) -> list[float]:
        return [round(v, 2) for v in (self.x0, self.y0, self.x1, self.y1)]

    def shifted(self, dx: float, dy: float) -> Box:
        return Box(self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy)

    def turned(self, width: int, height: int) -> Box:
        """Return the rectangle as it lies once a picture of that size has made half a turn."""
        return Box(width - self.x1, height - self.y1, width - self.x0, height - self.y0)


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure.

    Attributes:
        image: uint8 (H, W, 3) BGR or (H, W), read-only.
        seq: number of the exposure; a gap is a lost exposure.
        t_ns: monotonic time of the exposure.
        camera: name of the camera.
    """

    image: Image
    seq: int
    t_ns: int
    camera: str


@dataclass(frozen=True, slots=True)
class Detections:
    """Defects found in one picture, as a struct of arrays of equal length n.

    Attributes:
        xyxy: float32 (n, 4), pixels of the picture they were found in.
        score: float32 (n,), 0..1.
        label: int32 (n,), index into the bundle's labels.
    """

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    label: NDArray[np.int32]

    @staticmethod
    def none() -> Detections:
        return Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
        )

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, pick: NDArray[Any]) -> Detections:
        """Return the rows that a mask or an index array picks."""
        return Detections(self.xyxy[pick], self.score[pick], self.label[pick])

    def shifted(self, dx: float, dy: float) -> Detections:
        """Return the same defects in a coordinate system whose origin lies at (-dx, -dy)."""
        if len(self) == 0:
            return self
        return Detections(
            self.xyxy + np.array([dx, dy, dx, dy], np.float32), self.score, self.label
        )

    def turned(self, width: int, height: int) -> Detections:
        """Return the same defects as they lie once a picture of that size has made half a turn."""
        ends = np.array([width, height, width, height], np.float32)
        return Detections(ends - self.xyxy[:, [2, 3, 0, 1]], self.score, self.label)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A part as one frame shows it.

    Attributes:
        box: where it is, pixels of the frame.
        whole: False while an edge of the frame cuts it.
        part: its number, where whoever triggered it has given it one.
    """

    box: Box
    whole: bool = True
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One physical piece on its way through the view.

    Attributes:
        id: counts up from 1 within a run, in the order of appearance.
        seen_ns: monotonic time of the frame that first showed it.
        first_frame, last_frame: sequence numbers of the frames that showed it.
        box: where it was last seen, pixels of the frame.
    """

    id: int
    seen_ns: int
    first_frame: int
    last_frame: int
    box: Box


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect of a part, voted over the views of it.

    Attributes:
        label: class name.
        score: mean score over the views, 0..1; a view that does not show it counts as 0.
        xyxy: pixels relative to the part's upper left corner.
        votes: views that show it.
    """

    label: str
    score: float
    xyxy: tuple[float, float, float, float]
    votes: int

    @property
    def size_px(self) -> float:
        """Return the longer side of the box, pixels."""
        return max(self.xyxy[2] - self.xyxy[0], self.xyxy[3] - self.xyxy[1])


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and why; PASS needs no reason."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the station knows of a part the moment it is decided; lives in memory only.

    Attributes:
        part: the part.
        decision: verdict and reasons.
        defects: what was found, strongest first.
        views: how many pictures of it were looked at.
        picture: the view that shows the decision best, or None if there was no view.
        picture_box: the part within ``picture``, pixels.
        picture_verdict: what the rules say of ``picture`` alone.
        stamps: monotonic time per stage, ns: ``exposed`` (of the frame that led to the decision);
            the station adds ``acted``. Where the inspector can tell the time there is also
            ``decided``, and the station adds ``written``.
        spent_ns: where the time before the decision went: ``wait``, ``trigger``, ``look``,
            ``rules`` (see ``Stages``); empty where no frame led to it, or nobody tells the time.
    """

    part: Part
    decision: Decision
    defects: tuple[Defect, ...]
    views: int
    picture: Image | None
    picture_box: Box | None
    picture_verdict: Verdict | None = None
    stamps: Mapping[str, int] = field(default_factory=dict)
    spent_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DefectRow:
    """A defect as it is stored and published; ``xyxy`` is relative to the part, pixels."""

    label: str
    score: float
    xyxy: tuple[float, float, float, float]
    votes: int


@dataclass(frozen=True, slots=True)
class Stages:
    """Where the time of a part went, milliseconds.

    Attributes:
        wait: from the exposure that led to the decision until that frame was taken up: the way
            out of the camera, and the frames before it.
        trigger: finding and following the parts in that frame.
        look: the model, over all pictures of the part; those that earlier frames gave included.
        rules: voting over the pictures, and the rules.
        record: from the verdict to the writing of the record: the keeping of the picture, and the
            records before it. What the disk takes to commit it, the record cannot know.
    """

    wait: float
    trigger: float
    look: float
    rules: float
    record: float


@dataclass(frozen=True, slots=True)
class Record:
    """One decision as it is stored and published: flat, JSON, versioned.

    Attributes:
        schema: version of this layout.
        id: UUID, version 7; the key by which consumers de-duplicate.
        station: name of the station.
        run: names the start of the station that decided it.
        seq: counts up from 1 within a run without a gap.
        part: number of the part within the run.
        time: UTC, RFC 3339.
        verdict: PASS, FAIL or UNSURE.
        reasons: why it is not PASS.
        defects: what was found, strongest first.
        views: pictures that were looked at.
        first_frame, last_frame: exposures that showed the part.
        box: where it was last seen, pixels of the frame (x0, y0, x1, y1).
        camera: name of the camera.
        recipe: name of the recipe.
        bundle: name of the model bundle.
        bundle_sha256: hash of the bundle's manifest.
        artefact_sha256: hash of the model file that ran.
        config_sha256: hash of the configuration.
        runtime: name of the runtime and where it ran.
        latency_ms: from the exposure that led to the decision, to the reject command; where the
            command waits for the record (the default), to the writing of the record.
        image: path of the stored picture relative to the store, or None.
        image_sha256: hash of that file, or None.
        image_box: the part within that picture, pixels (x0, y0, x1, y1), or None.
        image_verdict: what the rules say of that picture alone, or None; the verdict of a part
            is voted over all its views.
        previous_sha256: hash of the record before, which chains them.
        stages_ms: where the time went; left out where no frame led to the decision.
    """

    schema: int
    id: str
    station: str
    run: str
    seq: int
    part: int
    time: str
    verdict: Verdict
    reasons: tuple[str, ...]
    defects: tuple[DefectRow, ...]
    views: int
    first_frame: int
    last_frame: int
    box: tuple[float, float, float, float]
    camera: str
    recipe: str
    bundle: str
    bundle_sha256: str
    artefact_sha256: str
    config_sha256: str
    runtime: str
    latency_ms: float
    image: str | None
    image_sha256: str | None
    image_box: tuple[float, float, float, float] | None
    image_verdict: Verdict | None
    previous_sha256: str
    stages_ms: Stages | None = None
