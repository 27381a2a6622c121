"""From a part back to its proof: its record, the chain around it, and its picture run again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import StationConfig
from pipeline.errors import ConfigError
from pipeline.judging import judged_alone
from pipeline.model import open_model
from pipeline.store import read_record, read_records
from pipeline.types import Box, Detections, Image, Record, Verdict
from pipeline.vision.draw import annotate, marks_of
from pipeline.vision.picture import read_picture


@dataclass(frozen=True, slots=True)
class Found:
    """A record, and how long the chain is that holds it.

    Attributes:
        record: of the part.
        records: in the ledger; each holds the hash of the one before. None if not looked at.
        after: how many of them came later and so vouch for this one.
    """

    record: Record
    records: int | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Rerun:
    """What the model says of the stored picture now.

    Attributes:
        verdict: of the picture alone, to be compared with the record's ``image_verdict``.
        found: in pixels of the picture.
        box: of the part, pixels of the picture.
        labels: that ``found`` counts.
        picture: uint8 (H, W, 3), BGR, with the findings drawn on it.
    """

    verdict: Verdict
    found: Detections
    box: Box
    labels: tuple[str, ...]
    picture: Image

    def defects(self) -> list[dict[str, Any]]:
        """Return label, score and box of what was found, relative to the part, pixels."""
        inside = self.found.shifted(-self.box.x0, -self.box.y0)
        return [
            {"label": self.labels[label], "score": round(float(score), 4), "xyxy": xyxy}
            for label, score, xyxy in zip(
                inside.label, inside.score, inside.xyxy.round(1).tolist(), strict=True
            )
        ]


def find(store: Path, part: str) -> Found:
    """Walk the whole chain of a store and return the record of a part.

    Args:
        part: id of a record, or ``RUN:PART``, or a part's number in the newest run that has it.

    Raises:
        ConfigError: there is no such part.
        StoreError: there is no ledger, or its chain is broken.
    """
    found: Record | None = None
    count, at = 0, 0
    for count, record in enumerate(read_records(store), 1):
        if part in (record.id, f"{record.run}:{record.part}", str(record.part)):
            found, at = record, count
    if found is None:
        raise ConfigError(
            f"{store}: no part '{part}' in {count} records; name the id of a record, RUN:PART or "
            "the number of a part"
        )
    return Found(found, count, count - at)


def find_alone(store: Path, id: str) -> Found:
    """Return the record of an id, without the others: its own hash is all that is checked.

    Raises:
        ConfigError: there is no such record.
        StoreError: there is no ledger, or the record does not fit its hash.
    """
    record = read_record(store, id)
    if record is None:
        raise ConfigError(f"{store}: no record has the id '{id}'")
    return Found(record)


def stored_picture(store: Path, record: Record) -> Image:
    """Read the picture of a record, after comparing its bytes with the record's hash.

    Raises:
        ConfigError: there is none, it was changed, or it cannot be read.
    """
    if record.image is None:
        raise ConfigError(
            f"part {record.part}: no picture was kept of it; store.pictures says of which parts"
        )
    file = store / record.image
    try:
        kept = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}; it made room for newer ones, see store.keep_pictures_mb"
        ) from error
    if kept != record.image_sha256:
        raise ConfigError(f"{file}: the picture was changed: it does not fit the record's hash")
    return read_picture(file)


def rerun(config: StationConfig, record: Record, image: Image) -> Rerun:
    """Show the stored picture to the model that decided, and judge it by the same rules.

    Args:
        image: uint8 (H, W, 3), BGR.

    Raises:
        ConfigError: the station file names another model or another recipe than the record.
    """
    if record.image_box is None or record.image_verdict is None:
        raise ConfigError(f"part {record.part}: its picture was not judged: {record.reasons[0]}")
    model = open_model(config)
    try:
        _check_same(config, record, model.detector.artefact.sha256)
        box = Box(*record.image_box)
        found = model.detector.detect_at(image, box)
        verdict = judged_alone(
            found.shifted(-box.x0, -box.y0),
            model.detector.labels,
            model.rulebook,
            record.views,
            (box.width, box.height),
        )
    finally:
        model.detector.close()
    caption = f"part {record.part} of {record.run}, run again"
    drawn = annotate(image, marks_of(found, model.detector.labels), verdict, caption)
    return Rerun(verdict, found, box, model.detector.labels, drawn)


def _check_same(config: StationConfig, record: Record, artefact_sha256: str) -> None:
    if artefact_sha256 != record.artefact_sha256:
        raise ConfigError(
            f"part {record.part} was decided by {record.bundle}, model file "
            f"{record.artefact_sha256[:12]}; the station file names {artefact_sha256[:12]}: "
            "name the bundle that decided, with --bundle"
        )
    if config.document.recipe.name != record.recipe:
        raise ConfigError(
            f"part {record.part} was decided with recipe '{record.recipe}'; the station file "
            f"holds '{config.document.recipe.name}'"
        )
