"""Records as lines of a file, one event a line; for a shipper that reads files, and for trials."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, PublishError
from pipeline.plugins import ConfigPath
from pipeline.plugins import Options as BaseOptions
from pipeline.publishers import Address
from pipeline.schema import event_bytes
from pipeline.types import Record


class Options(BaseOptions):
    """Where the lines go.

    Attributes:
        path: the file; it is appended to, and made if it is not there.
    """

    path: ConfigPath


class FilePublisher:
    """Appends events; a record is confirmed once the disk has it. The file holds records only."""

    trouble = ""

    def __init__(self, path: Path, address: Address) -> None:
        self._path = path
        self._address = address

    def send(self, records: Sequence[Record]) -> tuple[str, ...]:
        lines = b"".join(event_bytes(record, self._address) + b"\n" for record in records)
        try:
            with self._path.open("a+b", buffering=0) as file:
                _append(file.fileno(), lines)
        except OSError as error:
            raise PublishError(
                f"{self._path}: {error.strerror}; make room or mend the path, records are kept"
            ) from error
        return tuple(record.id for record in records)

    def state(self, state: Mapping[str, Any]) -> None:
        del state

    def close(self) -> None:
        """There is nothing to let go: the file is open during ``send`` only."""


def create(options: Options, address: Address) -> FilePublisher:
    """Make a publisher that appends to a file.

    Raises:
        ConfigError: the file cannot be written.
    """
    if options.path.exists() and not options.path.is_file():
        raise ConfigError(f"{options.path}: not a regular file; name one, or a new one")
    try:
        options.path.open("ab").close()
    except OSError as error:
        raise ConfigError(
            f"{options.path}: {error.strerror}; name a file in a folder that the station may write"
        ) from error
    return FilePublisher(options.path, address)


def _append(file: int, lines: bytes) -> None:
    """Write all of it or nothing; half a line that a power cut left stays a line of its own."""
    end = os.lseek(file, 0, os.SEEK_END)
    if end and os.pread(file, 1, end - 1) != b"\n":
        lines = b"\n" + lines
    try:
        written = os.write(file, lines)
        while written < len(lines):
            written += os.write(file, lines[written:])
        os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, end)
        raise
