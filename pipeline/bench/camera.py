"""A camera that shows pictures when it is told to: as fast as they are taken, or at a pace."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from pipeline.clock import NS_PER_S, SystemClock
from pipeline.types import Frame, Image


class GatedCamera:
    """Gives frames in turns; see the Camera protocol.

    A frame of a paced turn is stamped with the moment at which it was due, so that whatever holds
    the camera up counts as the station's delay.

    Args:
        pictures: endless; asked for in the capture thread.
        live: its frames are lost where the station is too slow.

    Attributes:
        exposed_ns: monotonic time of each exposure, by its number.
    """

    def __init__(self, pictures: Iterator[Image], live: bool) -> None:
        self.live = live
        self.total: int | None = None
        self.exposed_ns: list[int] = []
        self._pictures = pictures
        self._turns: deque[tuple[int, int]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._clock = SystemClock()

    def give(self, count: int, fps: float | None = None) -> None:
        """Order so many frames, at a pace or, with None, as fast as they are taken."""
        with self._changed:
            self._turns.append((count, round(NS_PER_S / fps) if fps else 0))
            self._changed.notify_all()

    def frames(self) -> Iterator[Frame]:
        while (turn := self._next_turn()) is not None:
            count, interval_ns = turn
            due_ns = self._clock.now_ns()
            for _ in range(count):
                if self._ended:
                    return
                image = next(self._pictures)
                due_ns = due_ns + interval_ns if interval_ns else self._clock.now_ns()
                self._clock.sleep_until(due_ns)
                seq = len(self.exposed_ns)
                self.exposed_ns.append(due_ns)
                yield Frame(image, seq, due_ns, "bench")

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _next_turn(self) -> tuple[int, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._turns or self._ended)
            return None if self._ended else self._turns.popleft()
