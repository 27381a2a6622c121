"""What waits to be looked at: frames, and what came between them; which may be lost, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.clock import NS_PER_MS
from pipeline.handoff import Handoff
from pipeline.types import Frame

FRAMES_WAITING, FRAMES_MOST = 4, 32
FRAME_WAITS_NS = 100 * NS_PER_MS
"""Of more than FRAMES_WAITING a live camera's oldest frame is dropped once it has waited so long,
or FRAMES_MOST wait. At 200 parts a second four frames are 20 ms, and a scheduler leaves a thread
alone that long."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands among the frames where the camera was away."""

    reason: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Stands among the frames where the model is to be tested."""


Item: TypeAlias = Frame | Gap | SelfTest


class Frames(Handoff[Item]):
    """Passes frames on, in order; a live camera's may be lost, but not the first one.

    Only from the first frame's number on is it known which parts were not seen.
    """

    def __init__(self, is_live: bool, now_ns: Callable[[], int]) -> None:
        super().__init__(FRAMES_WAITING, self._may_be_lost, self._is_fresh, FRAMES_MOST)
        self._is_live = is_live
        self._now_ns = now_ns
        self._first_seq: int | None = None

    def put(self, item: Item) -> Item | None:
        if self._first_seq is None and isinstance(item, Frame):
            self._first_seq = item.seq
        return super().put(item)

    def _may_be_lost(self, item: Item) -> bool:
        return self._is_live and isinstance(item, Frame) and item.seq != self._first_seq

    def _is_fresh(self, item: Item) -> bool:
        return isinstance(item, Frame) and self._now_ns() - item.t_ns < FRAME_WAITS_NS
