"""From a station file to a station: opens what the file names, and nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from pipeline import plugins
from pipeline.bundle import Bundle, open_bundle
from pipeline.cameras import Camera
from pipeline.clock import Clock
from pipeline.config import Choice, StationConfig
from pipeline.detector import Detector, open_detector
from pipeline.gate.client import Gate
from pipeline.gate.wire import NamedOutput, Spec
from pipeline.inspection import Inspector
from pipeline.publishers import Address, Publisher
from pipeline.records import Identity, StoredPicture
from pipeline.rules import Rulebook
from pipeline.station import KeepsPictures, Station
from pipeline.store import Ledger, Outbox, Pictures, recorded_parts
from pipeline.triggers import AnnouncedTrigger, Trigger
from pipeline.types import Inspection, Record, Verdict
from pipeline.vision.picture import encode_jpeg

JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle, and a detector that runs one of its artefacts."""

    bundle: Bundle
    detector: Detector
    rulebook: Rulebook


def open_model(config: StationConfig) -> Model:
    """Open the bundle and load the model that the station file names."""
    bundle = open_bundle(config.bundle_path)
    rulebook = Rulebook(config.document.recipe, bundle.manifest.thresholds)
    detector = open_detector(
        bundle,
        config.runtime.kind,
        config.runtime.options,
        artefact=config.document.model.artefact,
        min_score=rulebook.least_detection,
    )
    return Model(bundle, detector, rulebook)


def open_camera(config: StationConfig, clock: Clock) -> Camera:
    """Make the camera that the station file names; it opens when frames are asked for."""
    plugin = plugins.load("cameras", config.camera.kind)
    camera: Camera = plugin.create(config.camera.options, config.document.station.name, clock)
    return camera


def make_inspector(config: StationConfig, model: Model) -> Inspector:
    """Make the straight function from frame to verdict that station, replay and tests share."""
    parts = config.document.parts
    trigger = plugins.load("triggers", config.trigger.kind).create(config.trigger.options)
    return Inspector(
        trigger,
        model.detector,
        model.rulebook,
        views=parts.views,
        lost_after_frames=parts.lost_after_frames,
        decide_at=parts.decide_at,
    )


def build(
    config: StationConfig,
    clock: Clock,
    on_record: Callable[[Record], None] = lambda record: None,
    camera: Camera | None = None,
) -> Station:
    """Make a station that is ready to run.

    Args:
        camera: instead of the one that the file names, or None.

    Raises:
        LineguardError: something that the file names cannot be opened.
    """
    model = open_model(config)
    camera = camera or open_camera(config, clock)
    receivers = _receivers(config)
    ledger = Ledger(config.store_path, tuple(receivers))
    inspector = make_inspector(config, model)
    identity = identity_of(config, model)
    gate = _open_gate(config, inspector.trigger, identity.run)
    outputs = [
        plugins.load("outputs", c.kind).create(c.options, clock)
        for c in config.outputs
        if not _is_guarded(c)
    ]

    def kept(record: Record) -> None:
        if gate is not None:
            gate.recorded(record.part)
        on_record(record)

    station = Station(
        camera=camera,
        inspector=inspector,
        ledger=ledger,
        keep_picture=_picture_keeper(config),
        identity=identity,
        clock=clock,
        outputs=[*([gate] if gate else []), *outputs],
        outboxes={
            name: (publisher, Outbox(config.store_path, name))
            for name, publisher in receivers.items()
        },
        on_record=kept,
    )
    if gate is not None:
        gate.watch(station.fail, partial(station.note, "line"))
    return station


def _is_guarded(choice: Choice) -> bool:
    return getattr(choice.options, "guarded", False)


def _open_gate(config: StationConfig, trigger: Trigger, run: str) -> Gate | None:
    """Find or start the guard, if the file names an output that it must own."""
    guarded = [c for c in config.outputs if _is_guarded(c)]
    if not guarded:
        return None
    outputs = [NamedOutput(kind=c.kind, options=c.options.model_dump(mode="json")) for c in guarded]
    announced = isinstance(trigger, AnnouncedTrigger)
    spec = Spec(outputs=tuple(outputs), triggered=announced, **config.document.gate.model_dump())
    if not isinstance(trigger, AnnouncedTrigger):
        return Gate(spec, config.store_path, run)

    @lru_cache(maxsize=4)
    def recorded(earlier: str) -> frozenset[int]:
        return recorded_parts(config.store_path, earlier)

    def was_recorded(earlier: str, part: int) -> bool:
        return part in recorded(earlier)

    return Gate(spec, config.store_path, run, trigger.announce, was_recorded)


def identity_of(config: StationConfig, model: Model) -> Identity:
    """Return what stands in every record of one start."""
    return Identity(
        station=config.document.station.name,
        run=secrets.token_hex(6),
        camera=config.camera.kind,
        recipe=config.document.recipe.name,
        bundle=f"{model.bundle.manifest.name} {model.bundle.manifest.version}",
        bundle_sha256=model.bundle.sha256,
        artefact_sha256=model.detector.artefact.sha256,
        config_sha256=config.sha256,
        runtime=f"{model.detector.runtime.name}/{model.detector.artefact.precision}",
    )


def _receivers(config: StationConfig) -> dict[str, Publisher]:
    s = config.document.station
    address = Address(s.enterprise, s.site, s.area, s.line, s.name)
    made: dict[str, Publisher] = {}
    for i, choice in enumerate(config.publishers):
        name = choice.kind if choice.kind not in made else f"{choice.kind}-{i}"
        made[name] = plugins.load("publishers", choice.kind).create(choice.options, address)
    return made


def _picture_keeper(config: StationConfig) -> KeepsPictures:
    store = config.document.store
    pictures = Pictures(config.store_path, store.keep_pictures_mb << 20)

    def keep(inspection: Inspection, name: str) -> StoredPicture | None:
        wanted = store.pictures == "all" or (
            store.pictures == "rejects" and inspection.decision.verdict is not Verdict.PASS
        )
        if not wanted or inspection.picture is None:
            return None
        return pictures.keep(name, encode_jpeg(inspection.picture, JPEG_QUALITY))

    return keep
