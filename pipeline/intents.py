"""What the line is about to be told, on the disk before it is told: a guard acts before the record.

The file is a ring of lines, each a checksum and the record as it would be without its picture. The
next start of the station makes records of those that a power cut left without one.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline import schema
from pipeline.database import store_errors
from pipeline.errors import ConfigError, DiskFull
from pipeline.records import Link
from pipeline.store import Ledger, recorded_parts
from pipeline.types import Record

log = logging.getLogger(__name__)

FILE = "intents"
RING_BYTES = 4 << 20
"""Room for some three thousand parts; it is taken once, so that a full disk does not matter."""

LAST = 8192
"""Records to look among for those that were written: more than the ring holds."""

RECOVERED = (
    "recovered after the machine stopped: commanded, but what the line took of it was not recorded"
)


class Intents:
    """Holds what was said to the line and is not in the ledger yet; any thread may call it.

    It forgets what the file held: ``recover`` comes first.

    Args:
        folder: of the store; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[int, tuple[int, int]] = {}
        self._end = 0
        self._lock = threading.Lock()
        with store_errors(folder):
            self._stream = os.open(folder / FILE, os.O_CREAT | os.O_WRONLY, 0o600)
            _write(self._stream, bytes(RING_BYTES), 0)
            os.fsync(self._stream)

    def note(self, records: Sequence[Record]) -> None:
        """Write down what the line will be told; return once it is on the disk.

        Raises:
            DiskFull: too many wait for the ledger.
            StoreError: it could not be written.
        """
        if not records:
            return
        lines = [_line(record) for record in records]
        # The first line break ends what an older turn of the ring has left there.
        size = 1 + sum(map(len, lines))
        with self._lock, store_errors(self._folder):
            begin = self._end if self._end + size <= RING_BYTES else 0
            end = begin + size
            if any(begin < there[1] and there[0] < end for there in self._open.values()):
                raise DiskFull(
                    f"{self._folder / FILE}: {len(self._open)} parts wait for the ledger"
                )
            _write(self._stream, b"\n" + b"".join(lines), begin)
            self._end = end
            self._open |= dict.fromkeys((record.part for record in records), (begin, end))

    def recorded(self, part: int) -> None:
        """Forget a part: the ledger has it."""
        with self._lock:
            self._open.pop(part, None)

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        with self._lock:
            if self._stream >= 0:
                os.close(self._stream)
            self._stream = -1


def recover(folder: Path, ledger: Ledger) -> int:
    """Record what was commanded before the machine stopped and has no record; return how many.

    Raises:
        StoreError: the file or the ledger cannot be used.
    """
    left: dict[str, dict[int, Record]] = {}
    for record in _read(folder):
        left.setdefault(record.run, {})[record.part] = record
    count = 0
    for run, parts in left.items():
        known = recorded_parts(folder, run, LAST)
        lost = [_draft(parts[part]) for part in sorted(parts) if part not in known]
        ledger.append_to(run, lost)
        count += len(lost)
    return count


def _draft(record: Record) -> Callable[[Link], Record]:
    return lambda link: replace(
        record,
        seq=link.seq,
        reasons=(RECOVERED, *record.reasons),
        previous_sha256=link.previous_sha256,
    )


def _read(folder: Path) -> Iterator[Record]:
    """Yield the records of whole lines; the power may have been cut in the midst of one."""
    file = folder / FILE
    if not file.exists():
        return
    with store_errors(folder):
        lines = file.read_bytes().split(b"\n")
    for line in lines:
        checksum, _, body = line.partition(b" ")
        if not body or checksum != _checksum(body):
            continue
        try:
            yield schema.decode(body)
        except ConfigError as error:
            log.error("%s: a part was commanded and cannot be recorded: %s", file, error)


def _line(record: Record) -> bytes:
    body = schema.encode(record)
    return _checksum(body) + b" " + body + b"\n"


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


def _write(stream: int, data: bytes, at: int) -> None:
    while data:
        done = os.pwrite(stream, data, at)
        data, at = data[done:], at + done
    os.fdatasync(stream)
