"""The ledger: every decision in SQLite, chained by hash, an outbox per receiver, and pictures.

One process writes a ledger at a time. A record is committed (synchronous=FULL) before anybody is
told of it; the database is the queue, so what was not delivered is still there after any crash.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline import schema
from pipeline.errors import ConfigError, StoreError
from pipeline.records import GENESIS, Link, StoredPicture
from pipeline.types import Record

DATABASE = "ledger.sqlite"
PICTURES = "pictures"

_TABLES = """
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, run TEXT NOT NULL, seq INTEGER NOT NULL,
    verdict TEXT NOT NULL, time TEXT NOT NULL, body BLOB NOT NULL, sha256 TEXT NOT NULL,
    UNIQUE (run, seq)
);
CREATE TABLE IF NOT EXISTS outbox (
    receiver TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (receiver, number)
) WITHOUT ROWID;
"""


class Ledger:
    """The writing side of a store; one thread uses it.

    Args:
        folder: of the store; made if it is not there.
        receivers: names of those who must be told of every record.
    """

    def __init__(self, folder: Path, receivers: Sequence[str] = ()) -> None:
        self._receivers = tuple(receivers)
        with _store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder / "ledger.lock")
            self._db = _connect(folder)
            self._db.executescript(_TABLES)
            row = self._db.execute(
                "SELECT number, sha256 FROM records ORDER BY number DESC LIMIT 1"
            ).fetchone()
        self._number: int = row[0] if row else 0
        self._previous: str = row[1] if row else GENESIS
        self._seq = 0
        self._folder = folder

    def append(self, drafts: Sequence[Callable[[Link], Record]]) -> tuple[Record, ...]:
        """Commit records together, each chained to the one before.

        Args:
            drafts: each makes its record from its place in the chain.

        Returns:
            The records, in order, once they are on the disk.

        Raises:
            StoreError: nothing of this call was kept.
        """
        made, number, seq, previous = [], self._number, self._seq, self._previous
        rows = []
        for draft in drafts:
            number, seq = number + 1, seq + 1
            record = draft(Link(seq, previous))
            body = schema.encode(record)
            previous = schema.sha256(record)
            made.append(record)
            rows.append(
                (
                    number,
                    record.id,
                    record.run,
                    record.seq,
                    record.verdict.value,
                    record.time,
                    body,
                    previous,
                )
            )
        with _store_errors(self._folder), self._db:
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany(
                "INSERT INTO outbox VALUES (?, ?)",
                [(receiver, row[0]) for row in rows for receiver in self._receivers],
            )
        self._number, self._seq, self._previous = number, seq, previous
        return tuple(made)

    def close(self) -> None:
        """Close the database; may be called twice."""
        self._db.close()
        self._lock.close()


class Outbox:
    """What one receiver has not been told yet; one thread uses it."""

    def __init__(self, folder: Path, receiver: str) -> None:
        self._folder = folder
        self._receiver = receiver
        with _store_errors(folder):
            self._db = _connect(folder)

    def waiting(self, limit: int) -> tuple[Record, ...]:
        """Return the oldest records that the receiver has not confirmed."""
        with _store_errors(self._folder):
            rows = self._db.execute(
                "SELECT body FROM outbox JOIN records USING (number) WHERE receiver = ? "
                "ORDER BY number LIMIT ?",
                (self._receiver, limit),
            ).fetchall()
        return tuple(_decoded(self._folder, body) for (body,) in rows)

    def count(self) -> int:
        """Return how many records wait."""
        with _store_errors(self._folder):
            row = self._db.execute(
                "SELECT count(*) FROM outbox WHERE receiver = ?", (self._receiver,)
            ).fetchone()
        return int(row[0])

    def confirm(self, ids: Sequence[str]) -> None:
        """Forget that the receiver waits for these."""
        with _store_errors(self._folder), self._db:
            self._db.executemany(
                "DELETE FROM outbox WHERE receiver = ? AND number = "
                "(SELECT number FROM records WHERE id = ?)",
                [(self._receiver, id) for id in ids],
            )

    def close(self) -> None:
        """Close the database; may be called twice."""
        self._db.close()


class Pictures:
    """Picture files of a store, the oldest deleted when they exceed their share of the disk."""

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self._folder = folder
        self._keep_bytes = keep_bytes
        with _store_errors(folder):
            files = sorted((folder / PICTURES).rglob("*.jpg"))
            self._files = deque((file, file.stat().st_size) for file in files)
        self._bytes = sum(size for _, size in self._files)

    def keep(self, name: str, jpeg: bytes) -> StoredPicture:
        """Write a picture and wait until it is on the disk.

        Args:
            name: relative path without suffix; names sort by time.

        Raises:
            StoreError: it could not be written.
        """
        file = self._folder / PICTURES / f"{name}.jpg"
        with _store_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as stream:
                stream.write(jpeg)
                stream.flush()
                os.fsync(stream.fileno())
            self._files.append((file, len(jpeg)))
            self._bytes += len(jpeg)
            while self._bytes > self._keep_bytes and len(self._files) > 1:
                oldest, size = self._files.popleft()
                oldest.unlink(missing_ok=True)
                self._bytes -= size
        return StoredPicture(str(file.relative_to(self._folder)), hashlib.sha256(jpeg).hexdigest())


def read_records(folder: Path) -> Iterator[Record]:
    """Yield all records of a store, oldest first; a station may be writing meanwhile.

    Raises:
        StoreError: there is no ledger, or a record fits neither its own hash nor its successor's.
    """
    if not (folder / DATABASE).is_file():
        raise StoreError(f"{folder}: no ledger here; was a station run with this store?")
    previous = GENESIS
    with _store_errors(folder):
        db = _connect(folder)
        try:
            for body, kept in db.execute("SELECT body, sha256 FROM records ORDER BY number"):
                record = _checked(folder, body, kept, previous)
                previous = kept
                yield record
        finally:
            db.close()


def recorded_parts(folder: Path, run: str, last: int = 20_000) -> frozenset[int]:
    """Return the numbers of the parts among the last records of a run."""
    with _store_errors(folder):
        db = _connect(folder)
        try:
            rows = db.execute(
                "SELECT body FROM records WHERE run = ? ORDER BY seq DESC LIMIT ?", (run, last)
            ).fetchall()
        finally:
            db.close()
    return frozenset(_decoded(folder, body).part for (body,) in rows)


def _checked(folder: Path, body: bytes, kept: str, previous: str) -> Record:
    """Read a record whose bytes must fit the hash kept beside them, and the record before."""
    if hashlib.sha256(body).hexdigest() != kept:
        raise StoreError(
            f"{folder}: the record after hash {previous[:12]} was changed: its bytes do not fit "
            "their own hash; do not trust this store"
        )
    record = _decoded(folder, body)
    if record.previous_sha256 != previous:
        raise StoreError(
            f"{folder}: the chain breaks at record {record.id} (run {record.run}, "
            f"number {record.seq}): a record before it was changed or removed"
        )
    return record


def _decoded(folder: Path, body: bytes) -> Record:
    try:
        return schema.decode(body)
    except ConfigError as error:
        raise StoreError(f"{folder}: {error}; was it written by another lineguard?") from error


def _connect(folder: Path) -> sqlite3.Connection:
    db = sqlite3.connect(folder / DATABASE, timeout=5.0, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    return db


def _locked(file: Path) -> IO[bytes]:
    stream = file.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise StoreError(
            f"{file.parent}: another station writes this store; stop it or name another store.path"
        ) from error
    return stream


@contextmanager
def _store_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{where}: the ledger cannot be used: {error}") from error
    except OSError as error:
        raise StoreError(
            f"{error.filename or where}: {error.strerror}; the store needs a folder it may write to"
        ) from error
