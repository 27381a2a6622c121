"""Faults on demand for the demo: what the fault panel asks for happens to the line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from pipeline.cameras import Camera
from pipeline.errors import CameraError, PublishError
from pipeline.publishers._broker import DemoBroker
from pipeline.types import Frame

FILE = "faults.json"
LOOK_S = 0.05


class Trouble:
    """Looks at what is asked for, and makes it so; use it in a ``with`` block.

    Args:
        file: JSON, name of the fault to whether it is wanted; the fault panel writes it.
        broker: killed and started again, on the same port, as ``broker`` asks.
    """

    def __init__(self, file: Path, broker: DemoBroker) -> None:
        self._file = file
        self._broker = broker
        self._wanted: Mapping[str, bool] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="trouble", daemon=True)

    def has(self, name: str) -> bool:
        """Return whether a fault is wanted now."""
        return bool(self._wanted.get(name))

    def __enter__(self) -> Trouble:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        is_down = False
        while not self._ended.wait(LOOK_S):
            self._wanted = self._read()
            if self.has("broker") != is_down:
                is_down = _switched(self._broker, is_down)
        if is_down:
            _switched(self._broker, is_down)

    def _read(self) -> Mapping[str, bool]:
        try:
            return dict(json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return {}


class TroubledCamera:
    """A camera that can be unplugged."""

    def __init__(self, camera: Camera, has: Callable[[str], bool], name: str) -> None:
        self.live = camera.live
        self.total = camera.total
        self._camera = camera
        self._has = has
        self._name = name

    def frames(self) -> Iterator[Frame]:
        self._check()
        for frame in self._camera.frames():
            self._check()
            yield frame

    def close(self) -> None:
        self._camera.close()

    def _check(self) -> None:
        if self._has("camera"):
            raise CameraError(f"camera '{self._name}': unplugged; plug it in again")


def _switched(broker: DemoBroker, is_down: bool) -> bool:
    """Kill a broker or start it again; return whether it is down now."""
    if not is_down:
        broker.__exit__(None, None, None)
        return True
    try:
        broker.__enter__()
    except PublishError:
        return True  # its port may be held for a moment; the next look tries again
    return False
