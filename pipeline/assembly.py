"""From a station file to a station: opens what the file names, and nothing else."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2

from pipeline import plugins, selftest
from pipeline.bundle import Bundle, open_bundle
from pipeline.cameras import Camera
from pipeline.clock import Clock
from pipeline.config import Choice, StationConfig
from pipeline.detector import Detector, open_detector
from pipeline.errors import ModelError
from pipeline.gate.client import Gate, is_guarded
from pipeline.gate.wire import NamedOutput, Spec
from pipeline.inspection import Inspector
from pipeline.intents import Intents, recover
from pipeline.keeping import KeepsPictures
from pipeline.light import Light
from pipeline.live import Watched, Window, live_folder
from pipeline.monitor.figures import ModelFacts
from pipeline.monitor.health import Health
from pipeline.pictures import Pictures
from pipeline.publishers import Address, Publisher
from pipeline.records import Identity, StoredPicture
from pipeline.rules import Rulebook
from pipeline.selftest import Question
from pipeline.signing import Trust, read_trust
from pipeline.station import Inspects, Station
from pipeline.store import Ledger, Outbox, recorded_parts
from pipeline.trial import Bounds, try_model
from pipeline.triggers import AnnouncedTrigger, Trigger
from pipeline.types import Inspection, Record, Verdict
from pipeline.vision.picture import encode_jpeg
from pipeline.watch import Watch
from pipeline.workers import Workers, cores, shares

log = logging.getLogger(__name__)

JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle, and a detector that runs one of its artefacts and has passed the self-test.

    Attributes:
        workers: several such detectors, this one among them, in the throughput mode; else None.
    """

    bundle: Bundle
    detector: Detector
    rulebook: Rulebook
    questions: tuple[Question, ...]
    workers: Workers[Detector] | None = None

    def self_test(self) -> None:
        """Ask the running model for the golden pictures; in the thread that owns the detector.

        Raises:
            ModelError: an answer is not as it should be.
        """
        if self.workers is None:
            selftest.ask(self.detector, self.questions)
        else:
            self.workers.each(lambda detector: selftest.ask(detector, self.questions))


def open_model(config: StationConfig) -> Model:
    """Open the bundle and load the model that the station file names.

    Nothing of it runs here before its signature, every hash, its graph, a first load in a child
    process and the golden pictures were well.

    Raises:
        LineguardError: one of these was not.
    """
    section = config.document.model
    bundle = open_bundle(config.bundle_path, _trust(config))
    bundle.check()
    rulebook = Rulebook(config.document.recipe, bundle.manifest.thresholds)
    kind, (options, *more) = config.runtime.kind, _options_of_workers(config)
    artefact = bundle.name_of(bundle.artefact_for(kind, section.artefact))
    bounds = Bounds(section.trial.memory_mb, section.trial.seconds)
    try_model(bundle, kind, options, artefact, rulebook.least_detection, bounds)
    questions = selftest.questions_of(bundle, artefact)

    def opened(settings: Any) -> Detector:
        detector = open_detector(
            bundle,
            kind,
            settings,
            artefact=artefact,
            min_score=rulebook.least_detection,
            overlap=None if section.tiling is None else section.tiling.overlap_px,
        )
        try:
            selftest.ask(detector, questions)
        except ModelError:
            detector.close()
            raise
        return detector

    detector = opened(options)
    if section.mode == "latency":
        return Model(bundle, detector, rulebook, questions)
    workers = Workers([detector, *(opened(settings) for settings in more)])
    return Model(bundle, detector, rulebook, questions, workers)


def _options_of_workers(config: StationConfig) -> list[Any]:
    """Return the runtime's options for each worker: threads that sum to the cores.

    Where the station file states the threads of one inference, that holds.
    """
    section, options = config.document.model, config.runtime.options
    count = 1 if section.mode == "latency" else section.workers or cores()
    if count == 1 or getattr(options, "threads", None) != 0:
        return [options] * count
    return [options.model_copy(update={"threads": n}) for n in shares(count, cores())]


def _trust(config: StationConfig) -> Trust | None:
    section = config.document.model.trust
    return None if section is None else read_trust(config.trusted_keys, section.unsigned)


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
) -> Station:
    """Make a station that is ready to run.

    Args:
        camera: instead of the one that the file names, or None.
        health: is told how the station is, or None.
        window: is offered every frame; run the station within ``window.on(station)``.

    Raises:
        LineguardError: something that the file names cannot be opened.
    """
    # OpenCV's threads wait spinning, which costs more of the processor than they save of time: the
    # trigger takes 0.9 instead of 1.6 ms of it per frame.
    cv2.setNumThreads(1)
    model = open_model(config)
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
        take=health.take if health else lambda snapshot: None,
    )


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
