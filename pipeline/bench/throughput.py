"""End to end over raw: the whole station and the bare runtime of the same model, in turns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.bench.broker import broker
from pipeline.bench.figures import Round, in_turns, ratio, spread, timed
from pipeline.bench.line import MeasuredLine
from pipeline.bench.pictures import (
    BOARDS,
    NO_CLIP,
    REJECTS,
    clip,
    played,
    sample,
    share_of_rejects,
)
from pipeline.bench.variant import Bare, Variant, recipe_that_rejects, station_file
from pipeline.bench.work import Loop, Work, bare_of, usual_station
from pipeline.errors import MissingExtra
from pipeline.types import Image

WARM = 4
CLIPS = {"h264_640": (640, 640), "h264_1080": (1920, 1080)}
OF_ALL = "h264_1080"
"""The clip that every variant is measured with: there decoding costs most."""


def end_to_end(work: Work) -> dict[str, Any]:
    """Measure every variant with frames in memory and with H.264 clips.

    Returns:
        By source (``memory_640``, ``h264_640``, ``h264_1080``; of other input sizes ``memory_320``
        and ``h264_1080_320``): ``over_raw`` (throughput of the station as a share of the bare
        runtime's, round by round), ``fps``, ``raw_fps``, ``cpu_ms`` per frame beyond the bare
        runtime's, ``rejects``, ``runtime``; or ``skipped``, why. Of a clip also ``over_ceiling``:
        ``over_raw`` as a share of inference / (inference + decoding), each in CPU time a frame.
    """
    found: dict[str, Any] = {}
    sources = [(v, None) for v in work.variants] + [(work.variant, size) for size in CLIPS.values()]
    sources += [(v, CLIPS[OF_ALL]) for v in work.variants[1:]]
    with broker(work.scratch) as by:
        for number, (variant, size) in enumerate(sources):
            with bare_of(variant) as bare:
                name = _name(bare, size)
                name += f"_{bare.side}" if name in found else ""
                work.note(f"{name}: station and bare runtime in turns")
                found[name] = _source(work, variant, bare, size, by.port)
            work.progress(number + 1, len(sources))
    return {"broker": by.kind, "sources": found}


def against(work: Work) -> dict[str, Any]:
    """Compare two ways to run the station, frames in memory, in turns.

    Returns:
        ``pairs``: by their names ``fps_ratio`` and ``cpu_ratio`` (the second over the first), and
        each one's figures.
    """
    assert work.against is not None
    pair = (work.variant, work.against)
    with broker(work.scratch) as by, bare_of(pair[0]) as one, bare_of(pair[1]) as two:
        lines = [
            MeasuredLine(
                usual_station(v, b, work.folder("against"), by.port), itertools.cycle(b.boards)
            )
            for v, b in zip(pair, (one, two), strict=True)
        ]
        with lines[0] as first, lines[1] as second:
            turns = [max(round(work.turn_s * line.work(5).per_s), 3) for line in (first, second)]
            sides = in_turns(
                [lambda: first.work(turns[0]), lambda: second.work(turns[1])],
                work.rounds,
                work.progress,
            )
    compared = {
        "fps_ratio": ratio([r.per_s for r in sides[1]], [r.per_s for r in sides[0]]).as_dict(),
        "cpu_ratio": ratio([r.cpu_ms for r in sides[1]], [r.cpu_ms for r in sides[0]]).as_dict(),
        "sides": [
            {
                "variant": v.text,
                "runtime": b.name,
                "proved": b.proved,
                "fps": spread([r.per_s for r in rounds], 2).as_dict(),
                "cpu_ms": spread([r.cpu_ms for r in rounds], 3).as_dict(),
            }
            for v, b, rounds in zip(pair, (one, two), sides, strict=True)
        ],
    }
    return {"pairs": {f"{pair[1].text} / {pair[0].text}, {one.bundle.manifest.name}": compared}}


def _name(bare: Bare, size: tuple[int, int] | None) -> str:
    if size is None:
        return f"memory_{bare.side}"
    return next(name for name, known in CLIPS.items() if known == size)


def _source(
    work: Work, variant: Variant, bare: Bare, size: tuple[int, int] | None, port: int
) -> dict[str, Any]:
    if size and bare.template is not None:
        return {"skipped": NO_CLIP}
    try:
        pictures, film = (_pictures(work, bare, size) for _ in range(2))
    except MissingExtra as error:
        return {"skipped": str(error)}
    loop = Loop(bare)
    chosen_on = sample(pictures, work.clip_frames if size else BOARDS)
    recipe = recipe_that_rejects(REJECTS, bare, chosen_on)
    file = station_file(variant, bare, work.folder("line"), port, recipe=recipe)
    with MeasuredLine(file, pictures) as line:
        line.work(WARM)
        slower = min(line.work(WARM).per_s, loop.work(WARM).per_s)
        count = max(round(work.turn_s * slower), WARM)
        station, raw, film_alone = in_turns(
            [
                lambda: line.work(count),
                lambda: loop.work(count),
                lambda: timed(lambda: _skim(film, count), count),
            ],
            work.rounds,
            lambda *_: None,
        )
    beyond = [s.cpu_ms - r.cpu_ms for s, r in zip(station, raw, strict=True)]
    return {
        "over_raw": ratio([s.per_s for s in station], [r.per_s for r in raw]).as_dict(),
        "fps": spread([s.per_s for s in station], 2).as_dict(),
        "raw_fps": spread([r.per_s for r in raw], 2).as_dict(),
        "cpu_ms": spread([s.cpu_ms for s in station], 3).as_dict(),
        "cpu_ms_beyond_raw": spread(beyond, 3).as_dict(),
        **(_of_a_clip(station, raw, film_alone) if size else {}),
        "rejects": share_of_rejects(line.verdicts),
        "frames_per_round": count,
        "runtime": bare.name,
        "proved": bare.proved,
    }


def _pictures(work: Work, bare: Bare, size: tuple[int, int] | None) -> Iterator[Image]:
    if size is None:
        return itertools.cycle(bare.boards)
    return played(clip(work.kept, *size, work.clip_frames))


def _skim(pictures: Iterator[Image], count: int) -> None:
    """Take so many pictures, and do nothing with them."""
    for _ in itertools.islice(pictures, count):
        pass


def _of_a_clip(
    station: Sequence[Round], raw: Sequence[Round], film: Sequence[Round]
) -> dict[str, Any]:
    ceiling = [r.cpu_ms / (r.cpu_ms + f.cpu_ms) for r, f in zip(raw, film, strict=True)]
    share = [s.per_s / r.per_s for s, r in zip(station, raw, strict=True)]
    return {
        "decoding_cpu_ms": spread([f.cpu_ms for f in film], 3).as_dict(),
        "over_ceiling": ratio(share, ceiling).as_dict(),
    }
