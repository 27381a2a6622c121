"""From an inspection in memory to the record that is stored and published."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pipeline.clock import NS_PER_MS
from pipeline.types import RECORD_SCHEMA, Box, DefectRow, Inspection, Record, Stages

GENESIS = "0" * 64
"""Stands for the hash of the record before the first one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is the same in every record of one start of a station."""

    station: str
    run: str
    camera: str
    recipe: str
    bundle: str
    bundle_sha256: str
    artefact_sha256: str
    config_sha256: str
    runtime: str


@dataclass(frozen=True, slots=True)
class Link:
    """Where a record stands in the ledger's chain: its number in the run and the hash before it."""

    seq: int
    previous_sha256: str


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture that lies in the store: path relative to it, and the hash of its bytes."""

    path: str
    sha256: str


def record_of(
    inspection: Inspection,
    identity: Identity,
    link: Link,
    time: datetime,
    picture: StoredPicture | None,
) -> Record:
    """Write down one decision."""
    part = inspection.part
    return Record(
        schema=RECORD_SCHEMA,
        id=str(uuid7(time)),
        station=identity.station,
        run=identity.run,
        seq=link.seq,
        part=part.id,
        time=time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        verdict=inspection.decision.verdict,
        reasons=inspection.decision.reasons,
        defects=tuple(DefectRow(d.label, d.score, d.xyxy, d.votes) for d in inspection.defects),
        views=inspection.views,
        first_frame=part.first_frame,
        last_frame=part.last_frame,
        box=_rounded(part.box),
        camera=identity.camera,
        recipe=identity.recipe,
        bundle=identity.bundle,
        bundle_sha256=identity.bundle_sha256,
        artefact_sha256=identity.artefact_sha256,
        config_sha256=identity.config_sha256,
        runtime=identity.runtime,
        latency_ms=_latency_ms(inspection.stamps),
        image=picture.path if picture else None,
        image_sha256=picture.sha256 if picture else None,
        image_box=_rounded(inspection.picture_box) if picture and inspection.picture_box else None,
        image_verdict=inspection.picture_verdict if picture else None,
        previous_sha256=link.previous_sha256,
        stages_ms=_stages(inspection),
    )


def uuid7(time: datetime) -> UUID:
    """Return a UUID of version 7 (RFC 9562, section 5.7): milliseconds, then random bits."""
    milliseconds = int(time.timestamp() * 1000) & ((1 << 48) - 1)
    chance = secrets.randbits(74)  # one call of the system
    high = milliseconds << 80 | 0x7 << 76 | (chance >> 62) << 64
    return UUID(int=high | 0b10 << 62 | chance & ((1 << 62) - 1))


def _latency_ms(stamps: Mapping[str, int]) -> float:
    return _ms(stamps["acted"] - stamps["exposed"])


def _stages(inspection: Inspection) -> Stages | None:
    stamps, spent = inspection.stamps, inspection.spent_ns
    if not spent:
        return None
    record_ns = stamps["written"] - stamps["decided"]
    return Stages(**{name: _ms(ns) for name, ns in spent.items()}, record=_ms(record_ns))


def _ms(ns: int) -> float:
    return round(ns / NS_PER_MS, 3)


def _rounded(box: Box) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box.as_list()
    return x0, y0, x1, y1
