"""What the cameras share: numbered, stamped, sealed frames, and a capture that others may end."""

import threading
from collections.abc import Mapping
from types import TracebackType

import cv2
import numpy as np

from pipeline.clock import Clock
from pipeline.errors import CameraError
from pipeline.types import Frame, Image


class Exposures:
    """Makes the frames of one camera; the numbers rise over its reopenings."""

    def __init__(self, name: str, clock: Clock, gray: bool = False) -> None:
        self.name = name
        self.next_seq = 0
        self._clock = clock
        self._gray = gray
        self._size: tuple[int, int] | None = None

    def frame(self, image: Image) -> Frame:
        """Number and stamp a picture that nobody else writes to.

        Args:
            image: uint8 (H, W, 3) BGR or (H, W).

        Returns:
            The frame, read-only; (H, W) if the camera is gray.
        """
        t_ns = self._clock.now_ns()
        if self._gray and image.ndim == 3:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        image = np.ascontiguousarray(image)
        image.flags.writeable = False
        frame = Frame(image, self.next_seq, t_ns, self.name)
        self.next_seq += 1
        return frame

    def lose(self, count: int) -> None:
        """Leave a gap in the numbers: that many exposures are lost."""
        self.next_seq += count

    def check_size(self, width: int, height: int) -> None:
        """Compare with the first size that was told.

        Raises:
            CameraError: the size changed, so positions and sizes in pixels no longer hold.
        """
        if self._size is None:
            self._size = (width, height)
        if self._size != (width, height):
            raise CameraError(
                f"camera '{self.name}': the picture is now {width} x {height}, it was "
                f"{self._size[0]} x {self._size[1]}; set it back, or restart the station"
            )


class Pace:
    """Waits from frame to frame; who falls a frame behind is not hurried afterwards."""

    def __init__(self, clock: Clock, interval_ns: int) -> None:
        self._clock = clock
        self._interval_ns = interval_ns
        self._due_ns = clock.now_ns()

    def wait(self) -> None:
        """Return when the next frame is due; at once if the interval is 0."""
        if not self._interval_ns:
            return
        self._clock.sleep_until(self._due_ns)
        now_ns = self._clock.now_ns()
        is_late = now_ns - self._due_ns > self._interval_ns
        self._due_ns = (now_ns if is_late else self._due_ns) + self._interval_ns


class Opening:
    """One opening of a camera, from the first frame that is asked for until it is ended.

    ``end`` may be called from any thread and never waits: where a read is under way, the reader
    lets go of the device as soon as the read returns.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._capture: cv2.VideoCapture | None = None

    def __enter__(self) -> "Opening":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def connect(self, source: str, backend: int, settings: Mapping[int, int]) -> bool:
        """Open a device or file with OpenCV; return whether that worked."""
        flat = [number for pair in settings.items() for number in pair]
        capture = cv2.VideoCapture(source, backend, flat)
        with self._lock:
            if self._capture is not None:
                self._capture.release()
            self._capture = capture
            self._let_go_if_ended()
            return bool(capture.isOpened())

    def read(self) -> Image | None:
        """Return the next picture or packet, or None if there is none or the opening was ended."""
        with self._lock:
            self._let_go_if_ended()
            if self._capture is None:
                return None
            done, image = self._capture.read()
            self._let_go_if_ended()
            # After a failed read OpenCV may still hand out a picture.
            return image if done and self._capture is not None else None

    def get(self, setting: int) -> float:
        """Return a setting of the device, 0 if it has none or the opening was ended."""
        with self._lock:
            return 0.0 if self._capture is None else float(self._capture.get(setting))

    def set(self, setting: int, value: float) -> None:
        with self._lock:
            if self._capture is not None:
                self._capture.set(setting, value)

    def end(self) -> None:
        self._ended.set()
        if self._lock.acquire(blocking=False):
            self._let_go_if_ended()
            self._lock.release()

    def _let_go_if_ended(self) -> None:
        if self._ended.is_set() and self._capture is not None:
            self._capture.release()
            self._capture = None
