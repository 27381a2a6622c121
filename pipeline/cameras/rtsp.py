"""A network camera over RTSP, through OpenCV's FFmpeg."""

import os
import threading
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import quote, urlsplit, urlunsplit

import cv2
from pydantic import Field

from pipeline.cameras._capture import Exposures, Opening
from pipeline.cameras._formats import ParameterSets, SplitPictures
from pipeline.clock import NS_PER_MS, Clock
from pipeline.errors import CameraError, ConfigError
from pipeline.plugins import ConfigPath
from pipeline.plugins import Options as BaseOptions
from pipeline.types import Frame, Image

MAX_SECRET_BYTES = 4096


class Options(BaseOptions):
    """Which stream, and how long to wait for it.

    Attributes:
        url: ``rtsp://host[:port]/path``, without user and password.
        user: name to log in with; the password comes from a file or the environment.
        password_file: file that holds the password and nothing else.
        password_env: environment variable that holds it.
        stall_ms: the camera counts as lost after this long without a frame.
        open_ms: time for connecting; a camera sends its first key frame within one or two seconds.
        watch_format: a second session, which is not decoded, notices that the picture's size or
            format changes on the way; without it (for cameras that serve one session alone) such a
            change is scaled away and cannot be noticed.
        gray: frames are (H, W) instead of (H, W, 3).
    """

    url: str
    user: str | None = None
    password_file: ConfigPath | None = None
    password_env: str | None = None
    stall_ms: Annotated[int, Field(ge=100, le=60_000)] = 1000
    open_ms: Annotated[int, Field(ge=100, le=60_000)] = 5000
    watch_format: bool = True
    gray: bool = False


class Rtsp:
    """Shows a network camera's stream.

    OpenCV prefers TCP, so that no packet of a picture is lost on the way. It scales a stream that
    changes its picture size to the first size and says nothing (30 of 30 frames); so the packets
    are read a second time, undecoded. Where the camera closes the stream at such a change, the size
    is compared when it is opened again.
    """

    live = True
    total: int | None = None

    def __init__(self, options: Options, name: str, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._name = name
        self._exposures = Exposures(name, clock, options.gray)
        self._opening = Opening()
        self._shown_url = _checked_url(options.url, name)
        passwords = sum(p is not None for p in (options.password_file, options.password_env))
        if passwords != (0 if options.user is None else 1):
            raise ConfigError(
                f"camera '{name}': a user needs one of password_file and password_env, "
                "a camera without user needs none"
            )

    def frames(self) -> Iterator[Frame]:
        self.close()
        with Opening() as opening, _FormatWatch(self._options.stall_ms) as watch:
            self._opening = opening
            self._connect(opening)
            if self._options.watch_format:
                watch.start(self._login_url(), self._timeouts())
            pictures = SplitPictures()
            asked_ns = self._clock.now_ns()
            while (image := opening.read()) is not None and not self._is_late(asked_ns):
                if watch.fault is not None and not opening.ended:
                    raise CameraError(f"camera '{self._name}': {self._shown_url}: {watch.fault}")
                is_key = opening.get(cv2.CAP_PROP_FRAME_TYPE) == ord("I")
                if pictures.is_whole(opening.get(cv2.CAP_PROP_POS_MSEC), is_key):
                    yield self._exposures.frame(self._checked(image))
                elif pictures.are_split:
                    raise self._split()
                asked_ns = self._clock.now_ns()
            if not opening.ended:
                raise self._lost(asked_ns)

    def close(self) -> None:
        self._opening.end()

    def _connect(self, opening: Opening) -> None:
        began_ns = self._clock.now_ns()
        # Each further decoder thread keeps a picture back.
        settings = self._timeouts() | {cv2.CAP_PROP_N_THREADS: 1}
        if opening.connect(self._login_url(), cv2.CAP_FFMPEG, settings) or opening.ended:
            return
        took_ms = (self._clock.now_ns() - began_ns) // NS_PER_MS
        raise CameraError(
            f"camera '{self._name}': no stream from {self._shown_url} after {took_ms} ms; "
            "check the address, user and password, the cable, and that it sends H.264"
        )

    def _timeouts(self) -> dict[int, int]:
        return {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: self._options.open_ms,
            # Without it a read of a stalled stream blocks for 30 s.
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: self._options.stall_ms,
        }

    def _is_late(self, asked_ns: int) -> bool:
        """Tell whether a read took as long as a stall.

        After the time-out of a hung stream OpenCV hands out, as if nothing had happened, what the
        decoder had kept: one or two pictures, a second late each.
        """
        return self._clock.now_ns() - asked_ns >= self._options.stall_ms * NS_PER_MS

    def _checked(self, image: Image) -> Image:
        height, width = image.shape[:2]
        self._exposures.check_size(width, height)
        return image

    def _split(self) -> CameraError:
        return CameraError(
            f"camera '{self._name}': {self._shown_url} comes as halves of pictures; set its "
            "encoder to one slice per picture, or not to repeat parameter sets for each slice"
        )

    def _lost(self, last_ns: int) -> CameraError:
        silent_ms = (self._clock.now_ns() - last_ns) // NS_PER_MS
        how = "stalled" if silent_ms >= self._options.stall_ms else "closed the stream"
        return CameraError(
            f"camera '{self._name}': {self._shown_url} {how}, no frame for {silent_ms} ms; "
            "check its power and the network"
        )

    def _login_url(self) -> str:
        if self._options.user is None:
            return self._options.url
        parts = urlsplit(self._options.url)
        login = f"{quote(self._options.user, safe='')}:{quote(self._password(), safe='')}"
        return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))

    def _password(self) -> str:
        file, variable = self._options.password_file, self._options.password_env
        if file is not None:
            try:
                with file.open(encoding="utf-8") as stream:
                    return stream.read(MAX_SECRET_BYTES).strip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                raise ConfigError(f"camera '{self._name}': password_file {file}: {why}") from None
        if variable is None or variable not in os.environ:
            raise ConfigError(f"camera '{self._name}': the variable {variable} is not set")
        return os.environ[variable]


class _FormatWatch:
    """Reads a stream's packets in a session and a thread of its own.

    Attributes:
        fault: what it noticed, or None.
    """

    def __init__(self, stall_ms: int) -> None:
        self.fault: str | None = None
        self._packets = Opening()
        self._left = threading.Event()
        # A camera that is lost ends both sessions: the one that shows pictures says so first.
        self._patience_s = stall_ms / 1000 + 0.5

    def __enter__(self) -> "_FormatWatch":
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._packets.end()

    def start(self, url: str, timeouts: dict[int, int]) -> None:
        """Begin to watch, and return at once."""
        settings = timeouts | {cv2.CAP_PROP_FORMAT: -1}
        threading.Thread(
            target=self._run, args=(url, settings), name="rtsp-format", daemon=True
        ).start()

    def _run(self, url: str, settings: dict[int, int]) -> None:
        if not self._packets.connect(url, cv2.CAP_FFMPEG, settings):
            self._lost(
                "its second session, which watches the picture's format, is refused; allow the "
                "camera two sessions, or set watch_format to false"
            )
            return
        sets = ParameterSets(int(self._packets.get(cv2.CAP_PROP_FOURCC)))
        while (packet := self._packets.read()) is not None:
            if sets.changed(packet):
                self.fault = "the picture's size or format changed; set it back"
                return
        self._lost("the second session, which watches the picture's format, has ended")

    def _lost(self, reason: str) -> None:
        if not self._left.wait(self._patience_s):
            self.fault = reason


def _checked_url(url: str, name: str) -> str:
    """Return a URL that holds no secret; an error does not show it, since it might hold one."""
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("rtsp", "rtsps") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ConfigError(f"camera '{name}': the url is not of the form rtsp://host[:port]/path")
    if "@" in parts.netloc:
        raise ConfigError(
            f"camera '{name}': the url holds a user or password; use user and password_file"
        )
    return url


def create(options: Options, name: str, clock: Clock) -> Rtsp:
    """Make the camera; it connects when frames are asked for.

    Raises:
        ConfigError: the url is not an RTSP address, or holds a password.
    """
    return Rtsp(options, name, clock)
