"""What each stage of a frame's way costs alone, and all of them together but for the model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.bench.broker import broker
from pipeline.bench.figures import Round, in_turns, spread, timed
from pipeline.bench.growth import drafts_of
from pipeline.bench.line import MeasuredLine
from pipeline.bench.pictures import clip, played
from pipeline.bench.variant import Bare, scripted_twin
from pipeline.bench.work import Work, bare_of, usual_station
from pipeline.detector import MIN_SCORE
from pipeline.errors import MissingExtra
from pipeline.publishers import Address, mqtt
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook, vote
from pipeline.store import Ledger
from pipeline.synth.line import BeltScene
from pipeline.triggers.presence import Options as PresenceOptions
from pipeline.triggers.presence import Presence
from pipeline.types import Decision, Frame
from pipeline.vision import decode
from pipeline.vision.letterbox import Letterbox
from pipeline.vision.picture import encode_jpeg
from pipeline.vision.template import Template

Stage = Callable[[], object]
FULL_HD = (1920, 1080)
SMALLEST_TURN = 3
WARM = 20


def stages(work: Work) -> dict[str, Any]:
    """Time each stage; all of them in turns.

    Returns:
        ``ms`` and ``cpu_ms`` of each stage, per frame or part; ``skipped``: stages that cannot be
        timed here, why; ``besides_model_cpu_ms``: of the whole station per part whose model is a
        script, frames in memory, and of the decoding of a real model's output; ``runtime``.
    """
    with broker(work.scratch) as by, bare_of(work.variant) as bare, ExitStack() as stack:
        skipped: dict[str, str] = {}
        known = {
            **_decoding(work, skipped),
            **_looking(bare),
            **_deciding(bare),
            **stack.enter_context(_telling(work.folder("stages"), by.port)),
        }
        counts = {name: _count(stage, work.turn_s / 4) for name, stage in known.items()}
        sides = [partial(_turn, stage, counts[name]) for name, stage in known.items()]
        rounds = in_turns(sides, work.rounds, work.progress)
        without = _without_model(work, bare, by.port)
    took = dict(zip(known, rounds, strict=True))
    return {
        "ms": {name: spread([r.ms for r in turns]).as_dict() for name, turns in took.items()},
        "cpu_ms": {
            name: spread([r.cpu_ms for r in turns]).as_dict() for name, turns in took.items()
        },
        "skipped": skipped,
        "besides_model_cpu_ms": spread(
            [a.cpu_ms + b.cpu_ms for a, b in zip(without, took["decode_output"], strict=True)]
        ).as_dict(),
        "runtime": bare.name,
    }


def _without_model(work: Work, bare: Bare, port: int) -> list[Round]:
    """Run the whole station on a model that costs nothing and finds what the real one finds."""
    variant = scripted_twin(bare, bare.boards, work.folder("twin"))
    with bare_of(variant) as twin:
        file = usual_station(variant, twin, work.folder("station"), port)
        with MeasuredLine(file, itertools.cycle(bare.boards)) as line:
            count = max(round(work.turn_s * line.work(WARM).per_s), WARM)
            return [line.work(count) for _ in range(work.rounds)]


def _count(stage: Stage, seconds: float) -> int:
    """Warm a stage up; return how often it is done within so many seconds."""
    stage()
    return max(round(seconds * _turn(stage, 2).per_s), SMALLEST_TURN)


def _turn(stage: Stage, count: int) -> Round:
    def repeated() -> None:
        for _ in range(count):
            stage()

    return timed(repeated, count)


def _decoding(work: Work, skipped: dict[str, str]) -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    for name, size in (("decode_h264_640", (640, 640)), ("decode_h264_1080", FULL_HD)):
        try:
            frames = played(clip(work.kept, *size, work.clip_frames))
        except MissingExtra as error:
            skipped[name] = str(error)
            continue
        found[name] = partial(next, frames)
    return found


def _looking(bare: Bare) -> dict[str, Stage]:
    """Return trigger, template, letterbox, inference and the decoding of what it gives."""
    scene = BeltScene(7)
    trigger = Presence(PresenceOptions())
    shown = itertools.cycle([scene.frame(n) for n in range(0, 60, 3)])
    number = itertools.count()
    box = Letterbox(*bare.runtime.input_shape[1:3])
    pictures = itertools.cycle(bare.boards)
    large = scene.frame(30)
    box.window(next(pictures))
    head = decode.decoder(bare.bundle.manifest.decoder)
    outputs = bare.runtime.infer(box.tensor)
    beside: dict[str, Stage] = {}
    if bare.template is not None:
        template = Template(bare.template)
        beside["template"] = lambda: template.beside(next(pictures))
    return {
        "trigger_720p": lambda: trigger.sightings(Frame(next(shown), next(number), 0, "bench")),
        **beside,
        "letterbox": lambda: box.window(next(pictures)),
        "letterbox_720p": lambda: box.fit(large),
        "inference": lambda: bare.runtime.infer(box.tensor),
        "decode_output": lambda: head.read(outputs, MIN_SCORE),
    }


def _deciding(bare: Bare) -> dict[str, Stage]:
    """Return the vote over three views and the rules."""
    manifest = bare.bundle.manifest
    rules = Rulebook(Recipe(name="bench"), manifest.thresholds)
    views = [bare.found(image, rules.least_detection) for image in bare.boards[:3]]

    def decide() -> Decision:
        return rules.decide(vote(views, manifest.labels), len(views), (640.0, 640.0))

    return {"rules": decide, "jpeg_of_a_reject": lambda: encode_jpeg(bare.boards[0], 95)}


@contextmanager
def _telling(folder: Path, port: int) -> Iterator[dict[str, Stage]]:
    """Yield the record's way: into the ledger, one commit each, and to the broker, confirmed."""
    ledger = Ledger(folder, ())
    publisher = mqtt.create(
        mqtt.Options(port=port, catch_up_per_s=100_000), Address(*["bench"] * 5)
    )
    draft = drafts_of("stages")
    records = ledger.append([draft])
    try:
        yield {
            "record": lambda: ledger.append([draft]),
            "publish": lambda: publisher.send(records),
        }
    finally:
        publisher.close()
        ledger.close()
