"""What the core's tests share: a drawn belt, a camera that goes wrong on cue, a simple detector."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest

from pipeline.clock import Clock, ManualClock
from pipeline.errors import ModelError
from pipeline.types import Box, Detections, Frame, Image

HEIGHT, WIDTH = 96, 320
BELT, PART, SPOT = 60, 150, 255
LIMIT_S = 20.0


@dataclass(frozen=True)
class Belt:
    """Parts of one size at one pitch; part ``k`` lies ``k`` pitches behind the first.

    Attributes:
        length, pitch: along the belt, pixels.
        bad: numbers of the parts that carry a spot.
        parts: how many there are.
    """

    length: int = 80
    pitch: int = 140
    bad: frozenset[int] = frozenset()
    parts: int = 3

    def spans(self, way: float, width: int = WIDTH) -> list[tuple[int, float, float]]:
        """Return (number, start, end) of the parts in view, cut, once the front has come so far."""
        found = []
        for k in range(self.parts):
            end = way - k * self.pitch
            if end > 0 and end - self.length < width:
                found.append((k, max(end - self.length, 0.0), min(end, float(width))))
        return found

    def picture(self, way: int) -> Image:
        """Draw the belt, uint8 (96, 320)."""
        image = np.full((HEIGHT, WIDTH), BELT, np.uint8)
        for k, start, end in self.spans(way):
            image[16:80, int(start) : int(end)] = PART
            middle = way - k * self.pitch - self.length // 2
            if k in self.bad and 4 <= middle <= WIDTH - 4:
                image[44:52, middle - 4 : middle + 4] = SPOT
        return image

    def passing(self, speed: int = 20) -> list[Image]:
        """Draw the whole passage: the belt is empty before and after."""
        last = (self.parts - 1) * self.pitch + self.length + WIDTH
        return [self.picture(way) for way in range(0, last + 4 * speed, speed)]


def frames_of(pictures: Sequence[Image], first: int = 0) -> list[Frame]:
    """Number pictures as the exposures of one camera, 10 ms apart."""
    return [Frame(p, first + i, (first + i) * 10_000_000, "top") for i, p in enumerate(pictures)]


class SpotDetector:
    """Finds one dent around the spot of a part.

    Args:
        fail_at: number of the call, from 1, that raises ModelError.
        before: called before every look.
    """

    labels: tuple[str, ...] = ("dent", "scratch")

    def __init__(
        self, fail_at: int | None = None, before: Callable[[], None] = lambda: None
    ) -> None:
        self.calls = 0
        self._fail_at = fail_at
        self._before = before

    def detect_at(self, image: Image, box: Box) -> Detections:
        self._before()
        self.calls += 1
        if self.calls == self._fail_at:
            raise ModelError("the model gave up, as it was told to")
        x0, y0, x1, y1 = (int(v) for v in (box.x0, box.y0, box.x1, box.y1))
        rows, columns = np.nonzero(np.atleast_3d(image[y0:y1, x0:x1]).min(axis=2) == SPOT)
        if len(rows) == 0:
            return Detections.none()
        spot = [x0 + columns.min(), y0 + rows.min(), x0 + columns.max() + 1, y0 + rows.max() + 1]
        return detections((*(float(v) for v in spot), 0.9, 0))


def detections(*rows: tuple[float, ...]) -> Detections:
    """Return detections from rows (x0, y0, x1, y1, score, label)."""
    table: Any = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


@dataclass(frozen=True)
class Lose:
    """So many exposures are lost."""

    count: int


Step: TypeAlias = "Image | Lose | Exception | Callable[[], None]"


class ScriptedCamera:
    """Goes through a script: pictures, lost exposures, errors to raise, things to do or wait for.

    It goes on where it stopped when it is opened again. ``close`` ends it before the next step.
    """

    def __init__(self, script: Sequence[Step], *, live: bool = False) -> None:
        self.live = live
        self.total: int | None = None
        self.opened = 0
        self._steps = iter(script)
        self._seq = 0
        self._closed = threading.Event()

    def rewind(self, script: Sequence[Step]) -> None:
        """Take another script, before the first frame."""
        self._steps = iter(script)

    def frames(self) -> Iterator[Frame]:
        self.opened += 1
        for step in self._steps:
            if self._closed.is_set():
                return
            if isinstance(step, Lose):
                self._seq += step.count
            elif isinstance(step, Exception):
                raise step
            elif callable(step):
                step()
            else:
                yield Frame(step, self._seq, time.monotonic_ns(), "top")
                self._seq += 1

    def close(self) -> None:
        self._closed.set()


def until(holds: Callable[[], bool], what: str = "what was waited for") -> None:
    """Return once something holds; fail after a bounded time."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {LIMIT_S} s"
        time.sleep(0.001)


def manual_clock() -> Clock:
    """Return a clock that moves only when somebody sleeps."""
    return ManualClock()


def without_bf16(openvino: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenVINO compute in f32 alone, as on a processor that knows no bf16."""
    asked = openvino.CompiledModel.get_property

    def answer(compiled: object, name: str) -> object:
        return openvino.Type.f32 if name == "INFERENCE_PRECISION_HINT" else asked(compiled, name)

    monkeypatch.setattr(openvino.CompiledModel, "get_property", answer)
