"""The trigger finds parts by image alone: on drawn belts of all kinds, and on real clips."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.bundle import Threshold
from pipeline.errors import ConfigError
from pipeline.inspection import Inspector
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook
from pipeline.tracking import BeltTracker
from pipeline.triggers.presence import Options, Presence, create
from pipeline.types import Frame, Image, Inspection, Sighting
from tests.doubles import Belt, SpotDetector

HEIGHT, WIDTH = 160, 480
CELL = 8
BELT = Belt(120, 200, parts=5)


@dataclass(frozen=True)
class Look:
    """How a belt looks.

    Attributes:
        belt, part: grey levels.
        noise: standard deviation of the camera's noise, grey levels.
        texture: depth of the belt's own stripes, which run along it and stand still.
        lamp: change of the light at half time, grey levels.
        flat: False gives the parts a pattern.
        speed: travel per frame, pixels.
        start: where the front of the first part stands at the start.
        falloff: share of the light that the far end of the view lacks.
    """

    belt: int = 60
    part: int = 150
    noise: float = 0.0
    texture: int = 0
    lamp: int = 0
    flat: bool = True
    speed: int = 16
    start: int = 0
    colour: bool = False
    width: int = WIDTH
    falloff: float = 0.0

    @property
    def ways(self) -> list[int]:
        return list(range(self.start, 4 * BELT.pitch + BELT.length + self.width + 80, self.speed))

    def pictures(self) -> Iterator[Image]:
        """Draw the passage, uint8 (160, width), or (160, width, 3)."""
        random = np.random.default_rng(7)
        for i, way in enumerate(self.ways):
            scene = np.full((HEIGHT, self.width), float(self.belt))
            scene[::8] += self.texture
            for _, start, end in BELT.spans(way, self.width):
                scene[32:128, int(start) : int(end)] = self.part
                if not self.flat:
                    scene[40:120:16, int(start) : int(end)] += 40
            scene *= np.linspace(1, 1 - self.falloff, self.width)
            scene += self.lamp if i > len(self.ways) // 2 else 0
            scene += random.normal(0, self.noise, scene.shape) if self.noise else 0
            image = np.clip(scene, 0, 255).astype(np.uint8)
            yield np.asarray(np.repeat(image[..., None], 3, 2)) if self.colour else image


LOOKS = {
    "bright parts": Look(),
    "dark parts": Look(belt=150, part=40),
    "dark parts that are nearly as dark as the belt": Look(belt=60, part=50),
    "nearly as dark, with noise": Look(belt=60, part=48, noise=3),
    "noise": Look(noise=8),
    "colour": Look(colour=True),
    "texture": Look(texture=30),
    "texture and noise": Look(texture=30, noise=4),
    "parts with a pattern": Look(flat=False),
    "the lamp is turned up": Look(lamp=40),
    "the lamp is turned down": Look(lamp=-30, noise=2),
    "the lamp flickers by less than the contrast": Look(lamp=5),
    "light that falls off, and a part before the belt is known": Look(
        belt=90, falloff=0.125, noise=2, start=-30
    ),
    "a slow belt": Look(speed=4),
    "a fast belt": Look(speed=80),
    "a patterned part in view at the start": Look(start=200, flat=False),
    "two patterned parts in view at the start": Look(start=360, flat=False),
    "a width that is no multiple of the cell": Look(width=WIDTH + 5),
}


def frame(image: Image, seq: int = 0) -> Frame:
    return Frame(image, seq, seq * 1000, "top")


def turned(image: Image, axis: str) -> Image:
    return image if axis == "x" else np.ascontiguousarray(image.swapaxes(0, 1))


def assert_found(sightings: tuple[Sighting, ...], look: Look, way: int, axis: str) -> None:
    """Compare with what was drawn; a part of less than two cells may be missed."""
    drawn = [s[1:] for s in BELT.spans(way, look.width) if s[2] - s[1] >= 4 * CELL]
    spans = sorted((s.box.x0, s.box.x1) if axis == "x" else (s.box.y0, s.box.y1) for s in sightings)
    seen = [s for s in spans if s[1] - s[0] >= 4 * CELL]
    assert len(seen) == len(drawn), f"way {way}: drawn {drawn}, seen {seen}"
    for here, there in zip(sorted(drawn), seen, strict=True):
        assert np.abs(np.subtract(here, there)).max() <= CELL, f"way {way}: {here} seen at {there}"


@pytest.mark.parametrize(
    ("name", "axis"),
    [*((name, "x") for name in LOOKS), ("dark parts", "y"), ("colour", "y"), ("texture", "y")],
)
def test_every_part_is_seen_where_it_is_and_followed_as_one(name: str, axis: str) -> None:
    look = LOOKS[name]
    trigger = Presence(Options(axis="x" if axis == "x" else "y"))
    tracker = BeltTracker(trigger.axis, 3)
    parts: set[int] = set()
    for seq, (way, picture) in enumerate(zip(look.ways, look.pictures(), strict=True)):
        shot = frame(turned(picture, axis), seq)
        sightings = trigger.sightings(shot)
        if seq != len(look.ways) // 2 + 1:
            assert_found(sightings, look, way, axis)
        parts |= {t.part.id for t in tracker.follow(shot, sightings).present if t.entered}
    assert len(parts) == BELT.parts


@pytest.mark.parametrize(("start", "whole"), [(100, False), (240, True), (470, True), (560, False)])
def test_a_part_is_whole_while_no_edge_cuts_it(start: int, whole: bool) -> None:
    trigger = Presence(Options())
    trigger.sightings(frame(next(Look().pictures())))
    found = trigger.sightings(frame(next(Look(start=start).pictures())))
    last = max(found, key=lambda s: s.box.x1)
    assert last.whole is whole


def test_a_part_that_is_cut_reaches_to_the_edge_of_the_frame() -> None:
    trigger = Presence(Options())
    empty, cut = Look(width=WIDTH + 5), Look(width=WIDTH + 5, start=WIDTH + 60)
    trigger.sightings(frame(next(empty.pictures())))
    last = max(trigger.sightings(frame(next(cut.pictures()))), key=lambda s: s.box.x1)
    assert (last.box.x1, last.whole) == (WIDTH + 5, False)


def test_only_the_lane_is_looked_at() -> None:
    empty, part = np.full((160, 320), 60, np.uint8), np.full((160, 320), 60, np.uint8)
    part[4:28, 100:200] = 200
    trigger = Presence(Options(lane=(0.25, 1.0)))
    trigger.sightings(frame(empty))
    assert trigger.sightings(frame(part)) == ()


def test_a_gap_in_a_part_is_joined_and_a_speck_is_no_part() -> None:
    empty, scene = np.full((160, 800), 60, np.uint8), np.full((160, 800), 60, np.uint8)
    scene[40:120, 200:280] = scene[40:120, 288:400] = 150
    scene[40:120, 600:616] = 150
    trigger = Presence(Options())
    trigger.sightings(frame(empty))
    (part,) = trigger.sightings(frame(scene))
    assert (part.box.x0, part.box.x1) == (200, 400)


def test_parts_that_cover_most_of_the_view_at_once_are_not_taken_for_the_lamp() -> None:
    empty, full = np.full((160, 480), 60, np.uint8), np.full((160, 480), 60, np.uint8)
    full[:, 40:420] = 150
    trigger = Presence(Options())
    for _ in range(3):
        trigger.sightings(frame(empty))
    (part,) = trigger.sightings(frame(full))
    assert (part.box.x0, part.box.x1) == (40, 420)


@pytest.mark.parametrize("size", [(8, 8), (15, 9), (8, 900)])
def test_tiny_pictures_are_taken(size: tuple[int, int]) -> None:
    trigger = Presence(Options())
    for level in (10, 200, 10):
        trigger.sightings(frame(np.full(size, level, np.uint8)))


def test_a_picture_smaller_than_a_cell_is_refused() -> None:
    with pytest.raises(ConfigError, match="900 x 7 pixels is smaller than a cell of 8"):
        Presence(Options()).sightings(frame(np.zeros((7, 900), np.uint8)))


@pytest.mark.parametrize(
    "options",
    [
        {"cell_px": 0}, {"contrast": 0.0}, {"fill": 0.0}, {"fill": float("nan")},
        {"lane": (0.8, 0.1)}, {"lane": (0.5, 0.5)}, {"lane": (0.0, 1.1)}, {"join": -0.1},
        {"min_length": 2.0}, {"axis": "z"}, {"speed": 3},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options(**options)


# --- real clips


def inspected(clip: Path, options: Options, **settings: Any) -> list[Inspection]:
    """Send a clip through trigger, tracker and a detector that finds nothing."""
    thresholds = {label: Threshold(fail=0.5, unsure=0.3) for label in SpotDetector.labels}
    rules = Rulebook(Recipe(name="any"), thresholds)
    inspector = Inspector(create(options), SpotDetector(), rules, **settings)
    done: list[Inspection] = []
    capture, seq = cv2.VideoCapture(str(clip)), 0
    while (answer := capture.read())[0]:
        done += inspector.inspect(frame(np.asarray(answer[1], np.uint8), seq))
        seq += 1
    assert seq > 0, f"{clip} cannot be decoded here"
    return [*done, *inspector.finish(seq)]


@pytest.mark.data
def test_a_line_of_boards_gives_each_board_once_and_in_order(data_dir: Path) -> None:
    clip = data_dir / "videos" / "boards-line.mp4"
    truth = [json.loads(line) for line in clip.with_suffix(".truth.jsonl").open()]
    done = inspected(clip, Options())
    assert len(done) == len(truth) == 24
    for board, inspection in zip(truth, done, strict=True):
        part = inspection.part
        assert part.first_frame < board["centre_frame"] < part.last_frame
        assert inspection.views == 5


@pytest.mark.data
def test_real_parts_on_a_belt_whose_light_steps_twice(data_dir: Path) -> None:
    clip = data_dir / "videos" / "belt_two_parts.mp4"
    truth = json.loads((data_dir / "videos" / "VIDEOS.json").read_text())[clip.name]["truth"]
    done = inspected(clip, Options(lane=(0.1, 0.8), contrast=40.0), decide_at=0.5)
    assert len(done) == truth["parts_that_cross_it"] == 4
    for (_, first, last), inspection in zip(truth["frames_on_it"], done, strict=True):
        assert first - 5 <= inspection.part.last_frame <= last + 5
        assert inspection.views > 0


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    ["bottling_line", "bolt_on_belt", "produce_on_belt", "bottle_presence", "belt_running_blur"],
)
def test_any_clip_runs_through(data_dir: Path, name: str) -> None:
    done = inspected(data_dir / "videos" / f"{name}.mp4", Options())
    ids = [i.part.id for i in done]
    assert len(ids) == len(set(ids)), "a part was decided twice"
