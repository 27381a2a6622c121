"""What the measured station looks at: drawn boards in memory, and clips of them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.cameras.video import Options, create
from pipeline.clock import SystemClock
from pipeline.errors import MissingExtra
from pipeline.synth.line import BeltScene, BeltSetup
from pipeline.synth.optics import BINARY
from pipeline.types import Image

BOARDS = 20
REJECTS = 0.1
"""One part in ten is rejected: many for a line, so that keeping their pictures is paid for."""

SAMPLES = 60
CLIP_FRAMES = 240
CLIP_SPEED_PX = 20
SMALLEST = 160
"""The side of the smallest board that is drawn, pixels."""


LAYOUT = 3
"""Of all boards that are measured beside a template."""

NO_CLIP = "each board of the clip has a layout of its own, and this model compares with one"


def setup(width: int, height: int, board: int, layout: int | None = None) -> BeltSetup:
    """Return the belt whose boards are measured with; of one layout, or each of its own."""
    return BeltSetup(
        width=width,
        height=height,
        board_px=board,
        belt_px_per_frame=CLIP_SPEED_PX,
        good_share=1 - REJECTS,
        variety=BOARDS,
        layout=layout,
        look=BINARY,
    )


@lru_cache(maxsize=4)
def boards(side: int, *, alike: bool = False) -> tuple[Image, ...]:
    """Return boards that fill a picture of ``side`` pixels, uint8 (side, side, 3), read-only.

    Args:
        alike: they are of one layout, ``template``'s.
    """
    return _drawn(side, _belt(side, LAYOUT if alike else None), BOARDS)


@lru_cache(maxsize=4)
def template(side: int) -> Image:
    """Return a board without a defect, of the layout of those that are alike."""
    return _drawn(side, replace(_belt(side, LAYOUT), good_share=1.0), 1)[0]


def _belt(side: int, layout: int | None) -> BeltSetup:
    drawn = max(side, SMALLEST)
    return setup(drawn, drawn, drawn, layout)


def _drawn(side: int, belt: BeltSetup, count: int) -> tuple[Image, ...]:
    scene = BeltScene(7, belt)
    found = []
    for index in range(count):
        image = np.ascontiguousarray(scene.frame(scene.centre_frame(index))[:side, :side])
        image.flags.writeable = False
        found.append(image)
    return tuple(found)


def clip(folder: Path, width: int, height: int, frames: int) -> Path:
    """Return a clip of boards on a belt as H.264; it is drawn the first time, in a process of its
    own: the encoder's libraries do not come into this one.

    Raises:
        MissingExtra: there is no encoder on this machine.
    """
    file = folder / f"boards-{width}x{height}-{frames}.mp4"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pipeline.bench.clip", str(file), *map(str, (width, height))]
    done = subprocess.run([*words, str(frames)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise MissingExtra(
            f"no H.264 clip of {width} x {height}: {said}; "
            "install an encoder with: pip install 'lineguard[bench]'"
        )
    return file


def played(file: Path) -> Iterator[Image]:
    """Yield a clip's frames again and again, decoded as the station's camera decodes them."""
    video = create(Options(path=file, loop=True), "bench", SystemClock())
    return (frame.image for frame in video.frames())


def sample(pictures: Iterator[Image], frames: int) -> tuple[Image, ...]:
    """Return some of the first frames, equally far apart: enough to choose a recipe on."""
    every = max(frames // SAMPLES, 1)
    return tuple(itertools.islice(pictures, 0, min(frames, SAMPLES * every), every))


def share_of_rejects(verdicts: Sequence[str]) -> float:
    """Return how many of the parts were not passed, 0..1."""
    return round(sum(v != "PASS" for v in verdicts) / max(len(verdicts), 1), 3)
