"""A camera that plays a video file: for replays, demos and evaluations."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import cv2
from pydantic import Field

from pipeline.cameras._capture import Exposures, Opening, Pace
from pipeline.cameras._container import Promise, promise_of
from pipeline.cameras._formats import ParameterSets
from pipeline.clock import NS_PER_S, Clock
from pipeline.errors import CameraError, ConfigError
from pipeline.plugins import ConfigPath
from pipeline.plugins import Options as BaseOptions
from pipeline.types import Frame
from pipeline.vision.picture import MAX_PIXELS

SLACK_S = 1.0  # sound may go on after the last picture, and the stored duration is of both
SLACK_SHARE = 0.02


class Options(BaseOptions):
    """Which clip, and how it is played.

    Attributes:
        path: mp4, mov, mkv, webm, avi, ts or mpg.
        realtime: wait between frames as the clip's frame rate says; the source still waits for
            whoever is slower.
        loop: begin again at the end.
        fps: frame rate for ``realtime``; None takes the one of the file.
        max_pixels: a larger picture is refused.
        gray: frames are (H, W) instead of (H, W, 3).
        threads: of the decoder; 0 takes one per core, which costs a sixth more of the processor
            and decodes one clip sooner.
    """

    path: ConfigPath
    realtime: bool = False
    loop: bool = False
    fps: Annotated[float, Field(gt=0, le=10_000)] | None = None
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    gray: bool = False
    threads: Annotated[int, Field(ge=0, le=64)] = 1


class Video:
    """Plays one file, never silently short.

    A file that gives fewer frames than it promises raises a CameraError after the last one. What
    is promised is exact for mp4, mov and avi; for mkv and webm the stored duration is compared,
    within a second; for MPEG streams and trimmed or fragmented mp4 nothing is known. Damage that
    the decoder conceals (200 flipped bytes in a 1 MB clip: 933 of 933 frames) cannot be seen here.
    """

    live = False

    def __init__(self, options: Options, name: str, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._exposures = Exposures(name, clock, options.gray)
        self._opening = Opening()
        self.total: int | None = None
        if not options.loop:
            with suppress(ConfigError):
                self.total = promise_of(options.path).frames

    def frames(self) -> Iterator[Frame]:
        self.close()
        promise = promise_of(self._options.path)
        with Opening() as opening, _FormatWatch(self._options.path) as watch:
            self._opening = opening
            self._connect(opening)
            yield from self._played(opening, watch, promise)
            while self._options.loop and not opening.ended:
                self._connect(opening)
                yield from self._played(opening, watch, promise)

    def close(self) -> None:
        self._opening.end()

    def _connect(self, opening: Opening) -> None:
        file = self._options.path
        settings = {cv2.CAP_PROP_N_THREADS: self._options.threads} if self._options.threads else {}
        if not opening.connect(str(file), cv2.CAP_FFMPEG, settings) and not opening.ended:
            raise ConfigError(f"{file}: the video is damaged or cut off; copy the file again")
        width, height = (
            int(opening.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > self._options.max_pixels:
            raise ConfigError(
                f"{file}: {width} x {height} pixels are more than the limit of "
                f"{self._options.max_pixels}; scale it down or raise max_pixels"
            )

    def _played(self, opening: Opening, watch: "_FormatWatch", promise: Promise) -> Iterator[Frame]:
        pace = Pace(self._clock, self._interval_ns(opening))
        given, reached_s = 0, 0.0
        length_s = _length_s(opening) if promise.timed else None
        while (image := opening.read()) is not None:
            self._check_format(watch, given)
            reached_s = opening.get(cv2.CAP_PROP_POS_MSEC) / 1000
            pace.wait()
            if opening.ended:
                return
            yield self._exposures.frame(image)
            given += 1
        if not opening.ended:
            self._check_end(promise, given, reached_s, length_s)
            watch.rewind()

    def _interval_ns(self, opening: Opening) -> int:
        if not self._options.realtime:
            return 0
        fps = self._options.fps or opening.get(cv2.CAP_PROP_FPS)
        if opening.ended:
            return 0
        if not (math.isfinite(fps) and 0 < fps <= 10_000):
            raise ConfigError(f"{self._options.path}: no frame rate in the file; set camera.fps")
        return round(NS_PER_S / fps)

    def _check_format(self, watch: "_FormatWatch", given: int) -> None:
        if watch.changed():
            raise CameraError(
                f"camera '{self._exposures.name}': {self._options.path}: the picture's format "
                f"changes at frame {given}; split the clip there"
            )

    def _check_end(
        self, promise: Promise, given: int, reached_s: float, length_s: float | None
    ) -> None:
        file = self._options.path
        if given == 0:
            raise ConfigError(f"{file}: no frame of it can be decoded; convert it to H.264 mp4")
        where = f"camera '{self._exposures.name}': {file}: the video is damaged or cut off"
        if given < (promise.frames or 0):
            raise CameraError(
                f"{where}: {given} of {promise.frames} frames came; copy the file again"
            )
        if length_s is not None and reached_s + SLACK_S < length_s * (1 - SLACK_SHARE):
            raise CameraError(
                f"{where}: it ends at {reached_s:.1f} s of {length_s:.1f} s, after {given} frames; "
                "copy the file again"
            )


class _FormatWatch:
    """Sees that a stream changes its format midway, which OpenCV hides by scaling (60 of 60 frames
    came in the first size): reads the packets a second time, undecoded, and compares their
    parameter sets. That costs 5-24 us a frame.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._packets = Opening()
        self._sets: ParameterSets | None = None
        self.rewind()

    def __enter__(self) -> "_FormatWatch":
        return self

    def __exit__(self, *_: object) -> None:
        self._packets.end()

    def rewind(self) -> None:
        """Begin again at the first packet."""
        self._packets.end()
        self._packets = Opening()
        self._packets.connect(str(self._file), cv2.CAP_FFMPEG, {cv2.CAP_PROP_FORMAT: -1})
        if self._sets is None:
            self._sets = ParameterSets(int(self._packets.get(cv2.CAP_PROP_FOURCC)))

    def changed(self) -> bool:
        """Read one packet; tell whether it brings other parameter sets than those before."""
        packet = self._packets.read()
        return packet is not None and self._sets is not None and self._sets.changed(packet)


def _length_s(opening: Opening) -> float | None:
    """Return the duration that OpenCV made its frame count from."""
    count, fps = opening.get(cv2.CAP_PROP_FRAME_COUNT), opening.get(cv2.CAP_PROP_FPS)
    return count / fps if count > 0 and fps > 0 else None


def create(options: Options, name: str, clock: Clock) -> Video:
    """Make the camera."""
    return Video(options, name, clock)
