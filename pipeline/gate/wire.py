"""What station and guard say to each other: JSON, one message a line, over a local socket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict

from pipeline.clock import NS_PER_MS
from pipeline.plc.signals import Timing

SOCKET, LOCK, LOG = "gate.sock", "gate.lock", "gate.log"
MAX_LINE = 64 * 1024

Message: TypeAlias = dict[str, Any]


class NamedOutput(BaseModel):
    """An output of the station file, its options checked and in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    options: dict[str, Any]


class Spec(BaseModel):
    """All that a guard needs to know; a guard with another spec makes room."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    outputs: tuple[NamedOutput, ...]
    triggered: bool
    deadline_ms: int
    ack_ms: int
    plc_silent_ms: int
    station_silent_ms: int
    heartbeat_ms: int

    @property
    def timing(self) -> Timing:
        return Timing(
            deadline_ns=self.deadline_ms * NS_PER_MS,
            ack_ns=self.ack_ms * NS_PER_MS,
            plc_silent_ns=self.plc_silent_ms * NS_PER_MS,
            station_silent_ns=self.station_silent_ms * NS_PER_MS,
            heartbeat_ns=self.heartbeat_ms * NS_PER_MS,
        )


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Give a short name of the folder's socket: a socket's path may have only 107 bytes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def packed(message: Message) -> bytes:
    """Write a message as one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Lines:
    """Cuts what a socket gives into messages."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def receive(self) -> list[Message]:
        """Wait for bytes and return the messages that they complete.

        Raises:
            ConnectionError: the other side is gone or talks nonsense.
        """
        data = self._connection.recv(MAX_LINE)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > MAX_LINE:
            raise ConnectionError("the other side of the gate is gone")
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise ConnectionError(f"the other side of the gate talks nonsense: {error}") from error
