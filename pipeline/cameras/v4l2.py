"""A USB or built-in camera through Video4Linux.

Only its errors are tested: no such device was at hand.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import cv2
from pydantic import Field

from pipeline.cameras._capture import Exposures, Opening
from pipeline.clock import NS_PER_MS, Clock
from pipeline.errors import CameraError, ConfigError
from pipeline.plugins import Options as BaseOptions
from pipeline.types import Frame

MANUAL_EXPOSURE = 1  # V4L2_EXPOSURE_MANUAL

Side = Annotated[int, Field(ge=16, le=16_384)]


class Options(BaseOptions):
    """Which device, and how it is set; what is None stays as the device has it.

    Attributes:
        device: better a name of /dev/v4l/by-id than /dev/video0, which may change at a restart.
        width, height: pixels.
        fps: frames per second.
        exposure: in the device's unit, mostly 100 us; switches the automatic off.
        fourcc: pixel format; most USB cameras need MJPG for high frame rates.
        gray: frames are (H, W) instead of (H, W, 3).
    """

    device: str = "/dev/video0"
    width: Side | None = None
    height: Side | None = None
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    exposure: Annotated[float, Field(gt=0)] | None = None
    fourcc: Annotated[str, Field(pattern="^[A-Za-z0-9 ]{4}$")] | None = None
    gray: bool = False


class V4l2:
    """Shows a device; a read that fails counts as its loss.

    The driver's frame counter does not reach OpenCV: exposures lost in the driver leave no gap.
    A device that hangs without an error is noticed after OpenCV's 10 s
    (OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT, seconds, changes that).
    """

    live = True
    total: int | None = None

    def __init__(self, options: Options, name: str, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._name = name
        self._exposures = Exposures(name, clock, options.gray)
        self._opening = Opening()

    def frames(self) -> Iterator[Frame]:
        self.close()
        with Opening() as opening:
            self._opening = opening
            self._connect(opening)
            last_ns = self._clock.now_ns()
            while (image := opening.read()) is not None:
                last_ns = self._clock.now_ns()
                self._exposures.check_size(image.shape[1], image.shape[0])
                yield self._exposures.frame(image)
            if not opening.ended:
                silent_ms = (self._clock.now_ns() - last_ns) // NS_PER_MS
                raise CameraError(
                    f"camera '{self._name}': {self._options.device} gives no frames any more, "
                    f"none for {silent_ms} ms; check its cable"
                )

    def close(self) -> None:
        self._opening.end()

    def _connect(self, opening: Opening) -> None:
        device = self._options.device
        self._check_device(Path(device))
        settings = self._settings()
        if not opening.connect(device, cv2.CAP_V4L2, {}) and not opening.ended:
            raise CameraError(
                f"camera '{self._name}': {device} cannot be opened; does another program use it?"
            )
        for setting, value in settings.items():
            opening.set(setting, value)
        for side, setting in (
            ("width", cv2.CAP_PROP_FRAME_WIDTH),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT),
        ):
            asked, got = settings.get(setting), opening.get(setting)
            if asked is not None and asked != got and not opening.ended:
                raise ConfigError(
                    f"camera '{self._name}': {device} gives a {side} of {got:.0f}, not {asked:.0f};"
                    f" see its formats with: v4l2-ctl -d {device} --list-formats-ext"
                )

    def _settings(self) -> dict[int, float]:
        """Return what is to be set, in the order that drivers want: format, size, rate."""
        options = self._options
        wanted = {
            cv2.CAP_PROP_FOURCC: _number_of(options.fourcc) if options.fourcc else None,
            cv2.CAP_PROP_FRAME_WIDTH: options.width,
            cv2.CAP_PROP_FRAME_HEIGHT: options.height,
            cv2.CAP_PROP_FPS: options.fps,
            cv2.CAP_PROP_AUTO_EXPOSURE: MANUAL_EXPOSURE if options.exposure else None,
            cv2.CAP_PROP_EXPOSURE: options.exposure,
        }
        return {setting: float(value) for setting, value in wanted.items() if value is not None}

    def _check_device(self, device: Path) -> None:
        if not device.exists():
            raise CameraError(
                f"camera '{self._name}': there is no {device}; is it plugged in? "
                "See: ls /dev/v4l/by-id"
            )
        if not device.is_char_device():
            raise ConfigError(f"camera '{self._name}': {device} is not a device; check the path")
        if not os.access(device, os.R_OK | os.W_OK):
            raise CameraError(
                f"camera '{self._name}': no permission for {device}; add the user to the group "
                "'video' and log in again"
            )


def _number_of(fourcc: str) -> int:
    return int.from_bytes(fourcc.encode("ascii"), "little")


def create(options: Options, name: str, clock: Clock) -> V4l2:
    """Make the camera."""
    return V4l2(options, name, clock)
