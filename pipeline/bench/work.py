"""What every section of the bench is given: what to measure, where, how long, and whom to tell."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.bench.figures import ROUNDS, Progress, Round, timed
from pipeline.bench.pictures import CLIP_FRAMES, REJECTS
from pipeline.bench.variant import Bare, Variant, open_bare, recipe_that_rejects, station_file
from pipeline.runtimes import Runtime


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of single sections; where it is None they take numbers of their own.

    Attributes:
        parts, parts_per_min: of ``paced`` and ``burst``.
        cameras: of ``density``, at most; each gives ``fps``, within ``deadline_ms``.
        records: up to so many in ``ledger``.
        clip: of a line, for ``parts``.
        peer: names of the other programs; none asks for all.
        weights: the bundle's checkpoint, which they are given.
        ours: how the station runs beside them.
        environments: of theirs, by name; ``make_envs`` makes those that are not named.
    """

    parts: int | None = None
    parts_per_min: float | None = None
    cameras: int | None = None
    fps: float | None = None
    deadline_ms: float | None = None
    records: int | None = None
    clip: Path | None = None
    peer: tuple[str, ...] = ()
    weights: Path | None = None
    ours: str | None = None
    environments: Mapping[str, str] = field(default_factory=dict)
    make_envs: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """One run of the bench.

    Attributes:
        variants: a first one, which most sections measure, then those of other input sizes.
        against: what the first is compared with, or None.
        scratch: a folder that is empty and deleted afterwards.
        kept: a folder that stays: clips and exports that take long to make.
        quick: everything is short, and says less.
        clip_frames: of the clips that are drawn and encoded.
        progress: told (done, total) of the section at work.
        note: told what the section does now.
        asked: what is asked of single sections.
    """

    variants: tuple[Variant, ...]
    scratch: Path
    kept: Path
    against: Variant | None = None
    quick: bool = False
    clip_frames: int = CLIP_FRAMES
    progress: Progress = lambda done, total: None
    note: Callable[[str], None] = lambda said: None
    asked: Asked = Asked()

    @property
    def variant(self) -> Variant:
        return self.variants[0]

    @property
    def rounds(self) -> int:
        return ROUNDS

    @property
    def turn_s(self) -> float:
        """How long one turn of one side should be, seconds.

        Long enough that waiting for the last part's confirmation hardly counts.
        """
        return 0.15 if self.quick else 5.0

    def told(self, progress: Progress, note: Callable[[str], None]) -> Work:
        """Return the same work with somebody to tell."""
        return replace(self, progress=progress, note=note)

    def folder(self, name: str) -> Path:
        """Return a new folder below ``scratch``."""
        for number in itertools.count():
            path = self.scratch / f"{name}-{number}"
            if not path.exists():
                path.mkdir(parents=True)
                return path
        raise AssertionError


class Loop:
    """The bare runtime at work on boards that lie in its input's memory already."""

    def __init__(self, bare: Bare) -> None:
        self._runtimes = (bare.runtime, *bare.more)
        self._tensors = itertools.cycle([bare.tensor_of(image) for image in bare.boards])

    def work(self, count: int) -> Round:
        """Infer so many pictures, each runtime in a thread of its own where there are several."""
        left = iter(range(count))  # threads share it: each step of an iterator is one

        def loop(runtime: Runtime) -> None:
            for _ in left:
                runtime.infer(next(self._tensors))

        def all_loops() -> None:
            with ThreadPoolExecutor(len(self._runtimes)) as threads:
                list(threads.map(loop, self._runtimes))

        return timed(all_loops, count)


@contextmanager
def bare_of(variant: Variant) -> Iterator[Bare]:
    """Open a variant's bare runtime as long as the ``with`` block."""
    bare = open_bare(variant)
    try:
        yield bare
    finally:
        bare.close()


def usual_station(
    variant: Variant, bare: Bare, scratch: Path, port: int | None, **sections: Any
) -> Path:
    """Write the file of a station that rejects one in ten of the boards in memory."""
    recipe = recipe_that_rejects(REJECTS, bare, bare.boards)
    return station_file(variant, bare, scratch, port, recipe=recipe, **sections)
