"""From a station file to a station: opens what the file names, and nothing else."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path

import cv2

from pipeline import plugins
from pipeline.cameras import Camera
from pipeline.clock import Clock
from pipeline.config import Choice, StationConfig
from pipeline.gate.client import Gate, is_guarded
from pipeline.gate.wire import NamedOutput, Spec
from pipeline.inspection import Inspector
from pipeline.intents import Intents, recover
from pipeline.keeping import KeepsPictures
from pipeline.light import Light
from pipeline.live import Watched, Window, live_folder
from pipeline.model import Model, open_model
from pipeline.monitor.figures import ModelFacts
from pipeline.monitor.health import Health
from pipeline.pictures import Pictures
from pipeline.publishers import Address, Publisher
from pipeline.records import Identity, StoredPicture
from pipeline.station import Inspects, Station
from pipeline.store import Ledger, Outbox, recorded_parts
from pipeline.triggers import AnnouncedTrigger, Trigger
from pipeline.types import Inspection, Record, Verdict
from pipeline.vision.picture import encode_jpeg
from pipeline.watch import Watch

log = logging.getLogger(__name__)

JPEG_QUALITY = 95
GATHER_MS = 30
"""Of the throughput mode, where a verdict may take longer: two to four records in a commit."""


def open_camera(config: StationConfig, clock: Clock) -> Camera:
    """Make the camera that the station file names; it opens when frames are asked for."""
    plugin = plugins.load("cameras", config.camera.kind)
    camera: Camera = plugin.create(config.camera.options, config.document.station.name, clock)
    return camera


def make_inspector(config: StationConfig, model: Model, clock: Clock | None = None) -> Inspector:
    """Make the straight function from frame to verdict that station, replay and tests share.

    Args:
        clock: tells it where the time goes; None leaves that out.
    """
    parts = config.document.parts
    trigger = plugins.load("triggers", config.trigger.kind).create(config.trigger.options)
    return Inspector(
        trigger,
        model.detector,
        model.rulebook,
        views=parts.views,
        lost_after_frames=parts.lost_after_frames,
        decide_at=parts.decide_at,
        sure_by=parts.sure_by,
        half_turns=parts.half_turns,
        light=Light(config.document.recipe.brightness, learns=trigger.tracks),
        look=None if model.workers is None else model.workers.look,
        now_ns=None if clock is None else clock.now_ns,
    )


def build(
    config: StationConfig,
    clock: Clock,
    on_record: Callable[[Record], None] = lambda record: None,
    camera: Camera | None = None,
    health: Health | None = None,
    window: Window | None = None,
    model: Model | None = None,
) -> Station:
    """Make a station that is ready to run.

    Args:
        camera: instead of the one that the file names, or None.
        health: is told how the station is, or None.
        window: is offered every frame; run the station within ``window.on(station)``.
        model: of this station file, where it is open already.

    Raises:
        LineguardError: something that the file names cannot be opened.
    """
    # OpenCV's threads wait spinning, which costs more of the processor than they save of time: the
    # trigger takes 0.9 instead of 1.6 ms of it per frame.
    cv2.setNumThreads(1)
    model = model or open_model(config)
    inspector, identity = make_inspector(config, model, clock), identity_of(config, model)
    camera = camera or open_camera(config, clock)
    receivers = _receivers(config)
    store = config.document.store
    ledger = Ledger(config.store_path, tuple(receivers), store.reserve_mb << 20)
    intents = _open_intents(config, inspector.trigger, ledger)
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

    looking: Inspects = inspector
    if window is not None:
        named = {"receivers": sorted(receivers), "camera_kind": config.camera.kind}
        window.about = {**asdict(identity), **named}
        looking = Watched(inspector, window)
    station = Station(
        camera=camera,
        inspector=looking,
        ledger=ledger,
        keep_picture=_picture_keeper(config),
        identity=identity,
        clock=clock,
        watch=_watch(config, model, identity, inspector.follows, health),
        outputs=[*([gate] if gate else []), *outputs],
        outboxes={
            name: (publisher, Outbox(config.store_path, name))
            for name, publisher in receivers.items()
        },
        on_record=kept,
        # With a guard the verdict is what the line got by its deadline, so that is recorded; until
        # then the guard holds it, whatever happens to the station, and the intents, if the power is
        # cut.
        record_first=store.commit == "before_act" and gate is None,
        gather_ms=_gather_ms(config),
        intents=intents,
    )
    if gate is not None:
        gate.watch(station.fail, partial(station.note, "line"))
    return station


def _watch(
    config: StationConfig, model: Model, identity: Identity, follows: bool, health: Health | None
) -> Watch:
    section, trust = config.document.health, config.document.model.trust
    stall_ms = section.camera_stall_ms
    notices = {}
    if trust is not None and model.bundle.signed_by is None:
        notices["model"] = "the bundle is not signed; model.trust.unsigned allows it"
    return Watch(
        # A camera that is triggered by the parts gives no frame while none comes.
        stall_s=stall_ms / 1000 if stall_ms else None if follows else math.inf,
        frozen_s=section.frozen_ms / 1000,
        self_test=model.self_test,
        self_test_at=config.document.model.self_test_at,
        notices=notices,
        model=ModelFacts(
            bundle=identity.bundle,
            sha256=identity.bundle_sha256,
            runtime=identity.runtime,
            signed_by=model.bundle.signed_by,
            golden_pictures=len(model.questions),
        ),
        rechecks=lambda: model.rechecks,
        take=health.take if health else lambda snapshot: None,
    )


def _gather_ms(config: StationConfig) -> int:
    asked = config.document.store.gather_ms
    if asked is not None:
        return asked
    return GATHER_MS if config.document.model.mode == "throughput" else 0


def _is_guarded(choice: Choice) -> bool:
    return getattr(choice.options, "guarded", False)


def _open_intents(config: StationConfig, trigger: Trigger, ledger: Ledger) -> Intents | None:
    """Open the intents, if a guard is told before the record is; record what they still hold.

    A guard that outlived a killed station knows better what the line got of announced triggers, and
    tells it.
    """
    if not any(_is_guarded(c) for c in config.outputs):
        return None
    if not (isinstance(trigger, AnnouncedTrigger) and is_guarded(config.store_path)):
        count = recover(config.store_path, ledger)
        if count:
            log.warning("%d parts were commanded before the machine stopped; now recorded", count)
    return Intents(config.store_path)


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


def open_window(config: StationConfig, clock: Clock) -> Window:
    """Make the window through which other processes see the station.

    Raises:
        ConfigError: its folder cannot be written, or belongs to another user.
    """
    live = config.document.live
    return Window(live_path(config), clock, fps=live.fps, width=live.width)


def live_path(config: StationConfig) -> Path:
    """Return the folder in which the station of this file shows itself."""
    path = config.document.live.path
    return live_folder(config.store_path, None if path is None else config.base / path)


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
