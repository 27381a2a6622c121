"""Several detectors at work at once, each with one inference request and a share of the cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from pipeline.casework import Looked, looked
from pipeline.types import Box, Detections, Image

BEGUN_PER_WORKER = 2
"""Pictures that wait or are looked at, per worker; whoever brings more waits."""


class LooksAtParts(Protocol):
    """The part of a detector that a worker needs."""

    def detect_at(self, image: Image, box: Box) -> Detections: ...


D = TypeVar("D", bound=LooksAtParts)
R = TypeVar("R")


class Workers(Generic[D]):
    """Looks at as many pictures at once as there are detectors; each is used by one at a time.

    The threads end when nobody refers to it any more.
    """

    def __init__(self, detectors: Sequence[D]) -> None:
        self._count = len(detectors)
        self._free: SimpleQueue[D] = SimpleQueue()
        for detector in detectors:
            self._free.put(detector)
        self._threads = ThreadPoolExecutor(self._count, "worker")
        self._room = threading.BoundedSemaphore(BEGUN_PER_WORKER * self._count)

    def look(self, image: Image, box: Box) -> Future[Looked]:
        """Begin to look at a part; wait if too many have begun."""
        self._room.acquire()
        found = self._threads.submit(self._with_detector, lambda d: looked(d.detect_at, image, box))
        found.add_done_callback(lambda _: self._room.release())
        return found

    def each(self, ask: Callable[[D], None]) -> None:
        """Call with every detector while none of them looks at anything.

        Raises:
            what ``ask`` raised.
        """
        together = threading.Barrier(self._count)

        def alone(detector: D) -> None:
            together.wait()  # so that nobody gets a second one while another is still out
            ask(detector)

        asked = [self._threads.submit(self._with_detector, alone) for _ in range(self._count)]
        for answer in asked:
            answer.result()

    def _with_detector(self, use: Callable[[D], R]) -> R:
        detector = self._free.get()
        try:
            return use(detector)
        finally:
            self._free.put(detector)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shares(workers: int, available: int) -> tuple[int, ...]:
    """Return the threads of each worker, at least one; they sum to the cores where that can be."""
    return tuple(max(1, available // workers + (i < available % workers)) for i in range(workers))
