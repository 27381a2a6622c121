"""Faults on demand for the demo: what the fault panel asks for happens to the line."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np

from pipeline.cameras import Camera
from pipeline.demo_broker import DemoBroker
from pipeline.errors import CameraError, PublishError
from pipeline.smalldisk import fill
from pipeline.types import Frame

log = logging.getLogger(__name__)

FILE = "faults.json"
OFFERED = "faults-offered.json"
CAMERA, LAMP, BROKER, DISK = "camera", "lamp", "broker", "disk"
LOOK_S = 0.05
DIMMED = 0.35
"""What is left of the light when the lamp is dimmed."""


class Switch(Protocol):
    """Something that can be broken and mended."""

    def turn(self, broken: bool) -> None:
        """Make it so; called again and again, also while it is so already."""


class Trouble:
    """Looks at what is asked for, and makes it so; use it in a ``with`` block.

    Args:
        folder: of the window; the fault panel writes there what it wants, and reads what there is.
        switches: by name of the fault; all are mended in the end.
        missing: faults that cannot be made here, by name, with the reason.
    """

    def __init__(
        self,
        folder: Path,
        switches: Mapping[str, Switch],
        missing: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._switches = dict(switches)
        self._missing = dict(missing or {})
        self._wanted: Mapping[str, bool] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="trouble", daemon=True)

    def has(self, name: str) -> bool:
        """Return whether a fault is wanted now."""
        return bool(self._wanted.get(name))

    def __enter__(self) -> Trouble:
        (self._folder / FILE).unlink(missing_ok=True)
        offered = dict.fromkeys((CAMERA, LAMP, *self._switches), "") | self._missing
        (self._folder / OFFERED).write_text(json.dumps(offered))
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
        while not self._ended.wait(LOOK_S):
            self._wanted = read_wishes(self._folder / FILE)
            for name, switch in self._switches.items():
                switch.turn(self.has(name))
        for switch in self._switches.values():
            switch.turn(False)


def read_wishes(file: Path) -> dict[str, Any]:
    """Return what a file of the panel says; nothing if it cannot be read."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


class BrokerSwitch:
    """Kills a broker and starts it again, on the same port."""

    def __init__(self, broker: DemoBroker) -> None:
        self._broker = broker
        self._is_down = False

    def turn(self, broken: bool) -> None:
        if broken and not self._is_down:
            self._broker.__exit__(None, None, None)
            self._is_down = True
        elif self._is_down and not broken:
            try:
                self._broker.__enter__()
            except PublishError as error:
                log.debug("%s", error)  # its port may be held for a moment; it is tried again
            else:
                self._is_down = False


class DiskSwitch:
    """Fills the disk that a store lies on, and gives the room back.

    Args:
        ballast: file that takes all the room.
    """

    def __init__(self, ballast: Path) -> None:
        self._ballast = ballast
        self._is_full = False

    def turn(self, broken: bool) -> None:
        if broken and not self._is_full:
            fill(self._ballast)
        elif self._is_full and not broken:
            self._ballast.unlink(missing_ok=True)
        self._is_full = broken


class TroubledCamera:
    """A camera that can be unplugged, and over which the lamp can be dimmed."""

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
            yield _dimmed(frame) if self._has(LAMP) else frame

    def close(self) -> None:
        self._camera.close()

    def _check(self) -> None:
        if self._has(CAMERA):
            raise CameraError(f"camera '{self._name}': unplugged; plug it in again")


def _dimmed(frame: Frame) -> Frame:
    image = np.asarray(cv2.convertScaleAbs(frame.image, alpha=DIMMED), np.uint8)
    image.flags.writeable = False
    return replace(frame, image=image)
