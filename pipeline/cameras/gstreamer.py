"""A camera that GStreamer can read, a CSI camera of a Jetson for one: pictures through a pipe.

OpenCV's wheels are built without GStreamer, whose own bindings belong to the system's Python. So
``gst-launch-1.0`` runs as a process of its own and writes bare pictures into a pipe; a plugin of a
vendor that crashes takes that process with it and not the station.

Tested with ``videotestsrc``; ``nvarguscamerasrc`` has not been at hand.
"""

import fcntl
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator
from typing_extensions import Self

from pipeline.cameras._capture import Exposures
from pipeline.clock import Clock
from pipeline.errors import CameraError, ConfigError
from pipeline.plugins import Options as BaseOptions
from pipeline.types import Frame, Image

PROGRAM = "gst-launch-1.0"
F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ, from Python 3.10 on Linux alone
LOOK_S = 0.2
GRACE_S = 2.0
"""A camera's plugin gets so long to let go of its device before its process is killed."""
LINES_KEPT, LINE_BYTES = 20, 2000
PIPE_BYTES = 1 << 20
ROW_BYTES = 4
"""GStreamer lets each row of a picture begin at a multiple of this."""

Side = Annotated[int, Field(ge=16, le=16_384)]


class Options(BaseOptions):
    """What is run, and what it gives.

    Attributes:
        source: elements as ``gst-launch-1.0`` takes them, up to pictures in main memory; conversion
            to BGR and the pipe are put behind it. For a CSI camera on a Jetson:
            ``nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1920,height=1080,
            framerate=30/1 ! nvvidconv ! video/x-raw,format=BGRx``.
        width, height: pixels of its pictures; nothing is scaled.
        gray: frames are (H, W) instead of (H, W, 3).
        stall_ms: the camera counts as lost after this long without a picture.
        open_ms: the same before the first one.
    """

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    width: Side
    height: Side
    gray: bool = False
    stall_ms: Annotated[int, Field(ge=100, le=60_000)] = 1000
    open_ms: Annotated[int, Field(ge=100, le=60_000)] = 10_000

    @field_validator("source")
    @classmethod
    def _can_be_split(cls, source: str) -> str:
        shlex.split(source)  # a quote that is not closed
        return source


class Gstreamer:
    """Shows what a chain of GStreamer elements gives.

    The pipe carries no times and no numbers: a frame is stamped as it arrives, and exposures that
    are lost before the pipe leave no gap.
    """

    live = True
    total: int | None = None

    def __init__(self, options: Options, name: str, clock: Clock) -> None:
        self._options = options
        self._name = name
        self._exposures = Exposures(name, clock, options.gray)
        self._launch: _Launch | None = None

    def frames(self) -> Iterator[Frame]:
        self.close()
        o = self._options
        with _Launch(o, f"camera '{self._name}'") as launch:
            self._launch = launch
            wait_s = o.open_ms / 1000
            while (image := launch.picture(wait_s)) is not None:
                yield self._exposures.frame(image)
                wait_s = o.stall_ms / 1000

    def close(self) -> None:
        if self._launch is not None:
            self._launch.end()


class _Launch:
    """One run of the program; ``end`` may be called from any thread and never waits."""

    def __init__(self, options: Options, where: str) -> None:
        self._shape = (options.height, options.width, 3)
        self._where = where
        self._ended = threading.Event()
        self._said: deque[str] = deque(maxlen=LINES_KEPT)
        self._pipe, write_end = os.pipe()
        with suppress(OSError):  # a wider pipe only saves turns of the processor
            fcntl.fcntl(self._pipe, F_SETPIPE_SZ, PIPE_BYTES)
        try:
            self._process = subprocess.Popen(
                _command(options, write_end, where),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # NVIDIA's plugins talk here: no place for pictures
                stderr=subprocess.STDOUT,
                pass_fds=(write_end,),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def picture(self, wait_s: float) -> Image | None:
        """Return the next picture; None once the run was ended from here.

        Raises:
            CameraError: it gave none within ``wait_s``, or the program ended.
        """
        height, width, channels = self._shape
        row = -(-width * channels // ROW_BYTES) * ROW_BYTES
        data = np.empty((height, row), np.uint8)
        rest = data.reshape(-1).data
        while len(rest):
            count = self._read(rest, wait_s)
            if not count:
                return None
            rest = rest[count:]
        if self._ended.is_set():
            return None
        return data[:, : width * channels].reshape(self._shape)

    def end(self) -> None:
        self._ended.set()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.end()
        os.close(self._pipe)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self, into: memoryview, wait_s: float) -> int:
        """Return how many bytes came; 0 if the run was ended from here."""
        waited_s = 0.0
        while not select.select([self._pipe], [], [], LOOK_S)[0]:
            waited_s += LOOK_S
            if self._ended.is_set():
                return 0
            if waited_s >= wait_s:
                raise CameraError(
                    f"{self._where}: no picture for {waited_s * 1000:.0f} ms; check the camera's "
                    f"cable and driver{self._last_words()}"
                )
        count = os.readv(self._pipe, [into])
        if not count and not self._ended.is_set():
            self._listener.join(GRACE_S)
            raise CameraError(
                f"{self._where}: {PROGRAM} has ended{self._last_words()}; try camera.source with it"
            )
        return count

    def _listen(self) -> None:
        """Take what the program says, so that it never waits for a reader."""
        out = self._process.stdout
        assert out is not None
        with out:
            while line := out.readline(LINE_BYTES):
                self._said.append(line.decode("utf-8", "replace").strip())

    def _last_words(self) -> str:
        """Return its own reason, if it gave one."""
        errors = [line for line in self._said if "ERROR" in line or "WARNING" in line]
        said = errors or [line for line in self._said if line]
        return f" ({said[0][:200]})" if said else ""


def _command(options: Options, pipe: int, where: str) -> list[str]:
    program = shutil.which(PROGRAM)
    if program is None:
        raise ConfigError(
            f"{where}: there is no {PROGRAM}; install it with: apt-get install gstreamer1.0-tools "
            "gstreamer1.0-plugins-base"
        )
    caps = f"video/x-raw,format=BGR,width={options.width},height={options.height}"
    sink = ["fdsink", f"fd={pipe}", "sync=false"]
    return [program, "-q", *shlex.split(options.source), "!", "videoconvert", "!", caps, "!", *sink]


def create(options: Options, name: str, clock: Clock) -> Gstreamer:
    """Make the camera."""
    return Gstreamer(options, name, clock)
