"""A window into a running station for other processes: the newest frame and the state, as files.

The files lie in memory (tmpfs) and are replaced as a whole, so a reader never sees half of one and
nobody waits for anybody. The station writes whether or not somebody reads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from pipeline.casework import InView
from pipeline.clock import NS_PER_MS, NS_PER_S, Clock
from pipeline.errors import ConfigError
from pipeline.judging import in_view
from pipeline.station import Inspects
from pipeline.tally import Tally
from pipeline.types import Frame, Image, Inspection

log = logging.getLogger(__name__)

STATE = "state.json"
FRAME = "frame.bin"
BEAT_MS = 100
MAX_HEADER_BYTES = 1 << 20
MAX_FRAME_BYTES = 64 << 20
LATENCIES = 1000
_NUMBER_BYTES = 4


class Reports(Protocol):
    """What the window asks a station."""

    @property
    def state(self) -> str: ...

    @property
    def faults(self) -> dict[str, str]: ...

    @property
    def tally(self) -> Tally: ...


@dataclass(frozen=True, slots=True)
class Glimpse:
    """A frame as the station showed it.

    Attributes:
        image: uint8 (h, w, 3) BGR or (h, w), scaled down.
        header: ``seq``, ``t_ns`` (monotonic), ``scale`` (of ``image`` to the frame) and ``parts``.
    """

    image: Image
    header: dict[str, Any]


def live_folder(store: Path, path: Path | None = None) -> Path:
    """Return where the station of a store shows itself: in memory, or where ``path`` says.

    The name follows from the store, so the station and its readers agree without being told.
    """
    if path is not None:
        return path
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() else Path(tempfile.gettempdir())
    key = hashlib.sha256(os.fsencode(store.resolve())).hexdigest()[:16]
    return base / f"lineguard-{key}"


class Window:
    """The writing side; a thread of its own scales and writes, at a bounded rate.

    Args:
        folder: where the files go; made if it is not there, readable by owner and group.
        fps: frames per second that are shown at most.
        width: pixels that a shown frame is wide at most.
    """

    def __init__(self, folder: Path, clock: Clock, *, fps: float = 30.0, width: int = 640) -> None:
        self.about: Mapping[str, Any] = {}
        self._folder = _own_folder(folder)
        self._clock = clock
        # A tenth less, so that a camera of the same rate does not fall into every other frame.
        self._interval_ns = int(0.9 * NS_PER_S / fps)
        self._width = width
        self._next_ns = 0
        self._newest: tuple[Frame, tuple[InView, ...]] | None = None
        self._frame_ns: int | None = None
        self._changed = threading.Condition()
        self._ended = False

    def offer(self, frame: Frame, parts: Sequence[InView]) -> None:
        """Take note of a frame and what is known of the parts in it; returns at once."""
        self._frame_ns = frame.t_ns
        if frame.t_ns < self._next_ns:
            return
        self._next_ns = frame.t_ns + self._interval_ns
        with self._changed:
            self._newest = frame, tuple(parts)
            self._changed.notify()

    @contextmanager
    def on(self, station: Reports) -> Iterator[None]:
        """Show a station while the ``with`` block runs; the last state stays to be read."""
        thread = threading.Thread(target=self._show, args=(station,), name="window", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()
            thread.join()

    def _show(self, station: Reports) -> None:
        told: tuple[Any, ...] = ()
        told_ns = 0
        while not self._ended:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._ended, BEAT_MS / 1000)
                newest, self._newest = self._newest, None
            if newest is not None:
                self._write(FRAME, *_packed(newest[0], newest[1], self._width))
            now_ns, now = self._clock.now_ns(), (station.state, station.faults)
            if now != told or now_ns - told_ns >= BEAT_MS * NS_PER_MS:
                told, told_ns = now, now_ns
                self._tell(station)
        self._tell(station)
        (self._folder / FRAME).unlink(missing_ok=True)

    def _tell(self, station: Reports) -> None:
        self._write(STATE, json.dumps(self._state(station)).encode())

    def _state(self, station: Reports) -> dict[str, Any]:
        tally = station.tally
        state = station.state
        recent = sorted(list(tally.latency_ms)[-LATENCIES:])
        return {
            "state": state,
            "ready": state in ("ready", "degraded"),
            "faults": station.faults,
            "written_ns": self._clock.now_ns(),
            "frame_ns": self._frame_ns,
            "time": self._clock.wall().isoformat(),
            "pid": os.getpid(),
            "frames": {
                "captured": tally.captured,
                "inspected": tally.inspected,
                "dropped": dict(tally.dropped),
                "lost_exposures": tally.lost_exposures,
                "reopened": tally.reopened,
            },
            "verdicts": dict(tally.verdicts),
            "latency_ms": {
                "p50": recent[len(recent) // 2] if recent else None,
                "p99": recent[int(len(recent) * 0.99)] if recent else None,
            },
            **self.about,
        }

    def _write(self, name: str, *pieces: bytes | memoryview) -> None:
        """Replace a file; a window that cannot be written must not stop the station."""
        fresh = self._folder / f"{name}.new"
        try:
            with fresh.open("wb", buffering=0) as stream:
                for piece in pieces:
                    stream.write(piece)
            fresh.replace(self._folder / name)
        except OSError as error:
            log.debug("%s: %s", fresh, error)


class Watched:
    """An inspector whose frames are offered to a window."""

    def __init__(self, inspector: Inspects, window: Window) -> None:
        self._inspector = inspector
        self._window = window

    @property
    def fault(self) -> str | None:
        """Why what is seen now cannot be trusted, or None."""
        return self._inspector.fault

    def inspect(self, frame: Frame) -> tuple[Inspection, ...]:
        done = self._inspector.inspect(frame)
        followed = self._inspector.in_view()
        known = {view.part.id for view in followed}
        single = (in_view(d) for d in done if d.part.last_frame == frame.seq)
        self._window.offer(frame, (*followed, *(v for v in single if v.part.id not in known)))
        return done

    @property
    def owes(self) -> bool:
        """Whether a verdict is due whose pictures are still looked at."""
        return self._inspector.owes

    def settle(self) -> tuple[Inspection, ...]:
        return self._inspector.settle()

    def give_up(self, reason: str, t_ns: int) -> tuple[Inspection, ...]:
        return self._inspector.give_up(reason, t_ns)

    def finish(self, t_ns: int) -> tuple[Inspection, ...]:
        return self._inspector.finish(t_ns)

    def in_view(self) -> tuple[InView, ...]:
        return self._inspector.in_view()


class View:
    """The reading side: what a station shows now, or None.

    Args:
        folder: of the window.
        owner: user id that must own it, so that nobody else can show a station that is not there.
    """

    def __init__(self, folder: Path, owner: int) -> None:
        self._folder = folder
        self._owner = owner
        self._frame_id: tuple[int, int] | None = None

    def state(self) -> dict[str, Any] | None:
        """Return the state that was written last."""
        data = self._read(STATE, MAX_HEADER_BYTES)
        with suppress(ValueError):
            return dict(json.loads(data)) if data else None
        return None

    def next_frame(self) -> Glimpse | None:
        """Return the newest frame, or None if there is no newer one than at the last call."""
        with suppress(OSError):
            found = (self._folder / FRAME).stat()
            here = found.st_mtime_ns, found.st_ino
            if here != self._frame_id:
                self._frame_id = here
                data = self._read(FRAME, MAX_FRAME_BYTES)
                return _unpacked(data) if data else None
        return None

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            with (self._folder / name).open("rb") as stream:
                if os.fstat(stream.fileno()).st_uid != self._owner:
                    return None
                return stream.read(limit)
        except OSError:
            return None


def _packed(frame: Frame, parts: Sequence[InView], width: int) -> tuple[bytes, bytes, memoryview]:
    """Return length of the header, the header, and the pixels."""
    image = frame.image
    scale = min(1.0, width / image.shape[1])
    if scale < 1:
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        # INTER_AREA takes four times as long of a 1080p frame: 4.2 against 1.0 ms of a core.
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    header = {
        "shape": image.shape,
        "seq": frame.seq,
        "t_ns": frame.t_ns,
        "scale": scale,
        "parts": [_part(view) for view in parts],
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(_NUMBER_BYTES, "big"), text, np.ascontiguousarray(image).data


def _part(view: InView) -> dict[str, Any]:
    return {
        "id": view.part.id,
        "box": view.part.box.as_list(),
        "size": view.size,
        "verdict": view.decision.verdict.value if view.decision else None,
        "reasons": view.decision.reasons if view.decision else (),
        "defects": [asdict(defect) for defect in view.defects],
    }


def _unpacked(data: bytes) -> Glimpse | None:
    length = int.from_bytes(data[:_NUMBER_BYTES], "big")
    start = _NUMBER_BYTES + length
    try:
        header = json.loads(data[_NUMBER_BYTES:start])
        image = np.frombuffer(data, np.uint8, offset=start).reshape(header["shape"])
    except (ValueError, KeyError, TypeError):
        return None
    return Glimpse(image, header)


def _own_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise ConfigError(
            f"live.path: {folder}: {error.strerror}; name a folder in memory that the station "
            "may write"
        ) from error
    if folder.is_symlink() or owner != os.geteuid():
        raise ConfigError(
            f"live.path: {folder}: belongs to another user; remove it, or set live.path"
        )
    return folder
