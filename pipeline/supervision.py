"""Tells whoever supervises the station that it works: systemd's watchdog, and a health file.

A sign of life is given only while the station's own books move (frames, or attempts to reopen the
camera): a timer that ran beside a hung station would keep it alive for ever.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self

from pipeline.clock import NS_PER_S, Clock
from pipeline.errors import ConfigError
from pipeline.station import Tally

log = logging.getLogger(__name__)

BEAT_S = 1.0


class Supervised(Protocol):
    """What is asked of a station."""

    @property
    def faults(self) -> dict[str, str]: ...

    @property
    def tally(self) -> Tally: ...


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send one message to the service manager (sd_notify(3)); return whether there is one."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # a socket without a file
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        link.connect(address)
        link.sendall(message.encode())
    return True


class Supervision:
    """Reports on a station from entering to leaving.

    Args:
        station: whose books and faults are told.
        health: file that is replaced with every beat, or None. Keys: ``faults``, ``frames``,
            ``written_ns`` and ``frame_ns`` (monotonic; when it was written, when the last frame
            was seen).
        environment: where systemd says how to reach it.
    """

    def __init__(
        self,
        station: Supervised,
        clock: Clock,
        health: Path | None = None,
        environment: Mapping[str, str] = os.environ,
        beat_s: float = BEAT_S,
    ) -> None:
        self._station = station
        self._clock = clock
        self._health = health
        self._environment = environment
        self._beat_s = beat_s
        self._books = (0, 0, 0)
        self._frame_ns = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervision", daemon=True)

    def __enter__(self) -> Self:
        if self._health is not None:
            self._write(self._health)  # a folder that cannot be written is told before the start
        notify("READY=1", self._environment)
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
        notify("STOPPING=1", self._environment)
        if self._health is not None:
            self._health.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._ended.wait(self._beat_s):
            try:
                self._beat()
            except (OSError, ConfigError) as error:
                log.warning("supervision: %s", error)

    def _beat(self) -> None:
        tally = self._station.tally
        books = (tally.captured, tally.inspected, tally.reopened)
        if books[0] != self._books[0]:
            self._frame_ns = self._clock.now_ns()
        if books != self._books:
            notify(f"WATCHDOG=1\nSTATUS={self._status(books[1])}", self._environment)
        self._books = books
        if self._health is not None:
            self._write(self._health)

    def _status(self, inspected: int) -> str:
        faults = "; ".join(self._station.faults.values()) or "no fault"
        return f"{inspected} frames inspected; {faults}".replace("\n", " ")

    def _write(self, file: Path) -> None:
        said: dict[str, Any] = {
            "faults": self._station.faults,
            "frames": self._books[1],
            "written_ns": self._clock.now_ns(),
            "frame_ns": self._frame_ns,
        }
        part = file.with_name(file.name + ".part")
        try:
            part.write_text(json.dumps(said), encoding="utf-8")
            part.replace(file)
        except OSError as error:
            raise ConfigError(
                f"{file}: {error.strerror}; --health needs a folder that the station may write"
            ) from error


def judge(file: Path, now_ns: int, silent_s: float = 10.0) -> str | None:
    """Return what is wrong with a station by its health file, or None while it is well.

    A receiver that is away is no fault of the station: its records wait in the ledger.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        faults = {k: v for k, v in said["faults"].items() if not k.startswith("publisher ")}
        written_ns, frame_ns = int(said["written_ns"]), int(said["frame_ns"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{file}: no health file of a station ({error}); is it running?"
    for what, since_ns in (("the station has said nothing", written_ns), ("no frame", frame_ns)):
        if now_ns - since_ns > silent_s * NS_PER_S:
            return f"{what} for more than {silent_s:.0f} s"
    return "; ".join(f"{part}: {why}" for part, why in faults.items()) or None
