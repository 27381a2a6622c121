"""The ledger: every decision in SQLite, chained by hash, an outbox per receiver, and pictures.

One process writes a ledger at a time. A record is committed (synchronous=FULL) before anybody is
told of it; the database is the queue, so what was not delivered is still there after any crash.
Where the disk is full, pictures make room for records: those of good parts first, then the oldest.
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
from pipeline.disk import Room, free_bytes, is_full
from pipeline.errors import ConfigError, DiskFull, StoreError
from pipeline.records import GENESIS, Link, StoredPicture
from pipeline.types import RECORD_SCHEMA, Record

DATABASE = "ledger.sqlite"
PICTURES = "pictures"
LEAST_FREE_BYTES = 1 << 17
"""Below this SQLite's "disk I/O error" means that its shared index found no room."""

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
        reserve_bytes: room that is held for records on a disk that others fill.
    """

    def __init__(self, folder: Path, receivers: Sequence[str] = (), reserve_bytes: int = 0) -> None:
        self._receivers = tuple(receivers)
        self._room = Room(folder, reserve_bytes)
        with store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder / "ledger.lock")
            self._db = open_database(folder / DATABASE)
            self._db.executescript(_TABLES)
            row = self._db.execute(
                "SELECT number, sha256, body FROM records ORDER BY number DESC LIMIT 1"
            ).fetchone()
        self._number: int = row[0] if row else 0
        self._previous: str = row[1] if row else GENESIS
        if row and (version := schema.version_of(row[2])) != RECORD_SCHEMA:
            self.close()
            raise StoreError(
                f"{folder}: another lineguard wrote this ledger (records of schema {version}, this "
                f"one writes {RECORD_SCHEMA}); let that one deliver what waits, then move the "
                "folder away: a chain of hashes cannot be rewritten"
            )
        self._seq = 0
        self._folder = folder

    def append(self, drafts: Sequence[Callable[[Link], Record]]) -> tuple[Record, ...]:
        """Commit records together, each chained to the one before.

        Args:
            drafts: each makes its record from its place in the chain.

        Returns:
            The records, in order, once they are on the disk.

        Raises:
            DiskFull: nothing of this call was kept; it may be repeated.
            StoreError: nothing of this call was kept.
        """
        made, number, seq, previous = [], self._number, self._seq, self._previous
        rows = []
        for draft in drafts:
            number, seq = number + 1, seq + 1
            record = draft(Link(seq, previous))
            body = schema.encode(record)
            previous = hashlib.sha256(body).hexdigest()
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
        try:
            self._commit(rows)
        except DiskFull:
            self._room.release()
            self._commit_or_note(rows)
        self._number, self._seq, self._previous = number, seq, previous
        return tuple(made)

    def append_to(self, run: str, drafts: Sequence[Callable[[Link], Record]]) -> None:
        """Commit records to an earlier run, before this one has any; errors as ``append``."""
        with store_errors(self._folder):
            query = "SELECT coalesce(max(seq), 0) FROM records WHERE run = ?"
            self._seq = int(self._db.execute(query, (run,)).fetchone()[0])
        try:
            self.append(drafts)
        finally:
            self._seq = 0

    def shortage(self) -> str:
        """Say in one line what the disk lacks, or "" if nothing."""
        with store_errors(self._folder):
            return self._room.shortage()

    def close(self) -> None:
        """Close the database; may be called twice."""
        self._db.close()
        self._lock.close()

    def _commit(self, rows: Sequence[tuple[object, ...]]) -> None:
        with store_errors(self._folder), self._db:
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany(
                "INSERT INTO outbox VALUES (?, ?)",
                [(receiver, row[0]) for row in rows for receiver in self._receivers],
            )

    def _commit_or_note(self, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            self._commit(rows)
        except DiskFull:
            with store_errors(self._folder):
                self._room.failed()
            raise


class Outbox:
    """What one receiver has not been told yet; one thread uses it."""

    def __init__(self, folder: Path, receiver: str) -> None:
        self._folder = folder
        self._receiver = receiver
        with store_errors(folder):
            # A confirmation that a power cut takes back is delivered again: no need to wait for it.
            self._db = open_database(folder / DATABASE, synchronous="NORMAL")

    def waiting(self, limit: int) -> tuple[Record, ...]:
        """Return the oldest records that the receiver has not confirmed."""
        with store_errors(self._folder):
            rows = self._db.execute(
                "SELECT body FROM outbox JOIN records USING (number) WHERE receiver = ? "
                "ORDER BY number LIMIT ?",
                (self._receiver, limit),
            ).fetchall()
        return tuple(_decoded(self._folder, body) for (body,) in rows)

    def count(self) -> int:
        """Return how many records wait."""
        with store_errors(self._folder):
            row = self._db.execute(
                "SELECT count(*) FROM outbox WHERE receiver = ?", (self._receiver,)
            ).fetchone()
        return int(row[0])

    def confirm(self, ids: Sequence[str]) -> None:
        """Forget that the receiver waits for these."""
        with store_errors(self._folder), self._db:
            self._db.executemany(
                "DELETE FROM outbox WHERE receiver = ? AND number = "
                "(SELECT number FROM records WHERE id = ?)",
                [(self._receiver, id) for id in ids],
            )

    def close(self) -> None:
        """Close the database; may be called twice."""
        self._db.close()


class Pictures:
    """Picture files of a store: a ring within a share of the disk.

    The oldest makes room, those whose name ends in ``GOOD`` before all others: what was rejected
    is looked at again, what passed hardly ever.
    """

    GOOD = "-pass"

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self._folder = folder
        self._keep_bytes = keep_bytes
        self._good: deque[tuple[Path, int]] = deque()
        self._others: deque[tuple[Path, int]] = deque()
        self._bytes = 0
        with store_errors(folder):
            for file in sorted((folder / PICTURES).rglob("*.jpg")):
                self._add(file, file.stat().st_size)

    def keep(self, name: str, jpeg: bytes) -> StoredPicture:
        """Write a picture and wait until it is on the disk.

        Args:
            name: relative path without suffix; names sort by time.

        Raises:
            DiskFull: there is no room, also without the older pictures.
            StoreError: it could not be written.
        """
        file = self._folder / PICTURES / f"{name}.jpg"
        while not self._written(file, jpeg):
            self._drop_oldest()
        self._add(file, len(jpeg))
        with store_errors(file):
            while self._bytes > self._keep_bytes and len(self._good) + len(self._others) > 1:
                self._drop_oldest()
        return StoredPicture(str(file.relative_to(self._folder)), hashlib.sha256(jpeg).hexdigest())

    def _written(self, file: Path, jpeg: bytes) -> bool:
        """Write a file whole or not at all; return False if dropping another may make room."""
        try:
            with store_errors(file):
                _write_new(file, jpeg)
        except DiskFull:
            if not (self._good or self._others):
                raise
            return False
        return True

    def _add(self, file: Path, size: int) -> None:
        ring = self._good if file.stem.endswith(self.GOOD) else self._others
        ring.append((file, size))
        self._bytes += size

    def _drop_oldest(self) -> None:
        oldest, size = (self._good or self._others).popleft()
        with store_errors(oldest):
            oldest.unlink(missing_ok=True)
        self._bytes -= size


def _write_new(file: Path, data: bytes) -> None:
    """Write a file that is not there yet and wait for the disk; leave none that is cut off."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as stream:
        try:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            file.unlink(missing_ok=True)
            raise


def newest_run(folder: Path) -> str | None:
    """Return the run of the newest record of a store, or None if there is no record.

    Raises:
        StoreError: the ledger cannot be read.
    """
    if not (folder / DATABASE).is_file():
        return None
    with store_errors(folder):
        db = open_database(folder / DATABASE)
        try:
            query = "SELECT run FROM records ORDER BY number DESC LIMIT 1"
            row = db.execute(query).fetchone() if _has_records(db) else None
        finally:
            db.close()
    return None if row is None else str(row[0])


def _has_records(db: sqlite3.Connection) -> bool:
    """Tell whether the tables are there: a station may have died before it made them."""
    query = "SELECT 1 FROM sqlite_master WHERE name = 'records'"
    return db.execute(query).fetchone() is not None


def read_records(folder: Path) -> Iterator[Record]:
    """Yield all records of a store, oldest first; a station may be writing meanwhile.

    Raises:
        StoreError: there is no ledger, or a record fits neither its own hash nor its successor's.
    """
    if not (folder / DATABASE).is_file():
        raise StoreError(f"{folder}: no ledger here; was a station run with this store?")
    previous = GENESIS
    with store_errors(folder):
        db = open_database(folder / DATABASE)
        try:
            for body, kept in db.execute("SELECT body, sha256 FROM records ORDER BY number"):
                record = _checked(folder, body, kept, previous)
                previous = kept
                yield record
        finally:
            db.close()


def read_record(folder: Path, id: str) -> Record | None:
    """Return the record of an id, whose bytes fit its hash; None if there is none.

    Raises:
        StoreError: there is no ledger, or the record was changed.
    """
    if not (folder / DATABASE).is_file():
        raise StoreError(f"{folder}: no ledger here; was a station run with this store?")
    with store_errors(folder):
        db = open_database(folder / DATABASE)
        try:
            query = "SELECT body, sha256 FROM records WHERE id = ?"
            row = db.execute(query, (id,)).fetchone()
        finally:
            db.close()
    if row is None:
        return None
    if hashlib.sha256(row[0]).hexdigest() != row[1]:
        raise StoreError(f"{folder}: record {id} was changed: its bytes do not fit its own hash")
    return _decoded(folder, row[0])


def recorded_parts(folder: Path, run: str, last: int = 20_000) -> frozenset[int]:
    """Return the numbers of the parts among the last records of a run."""
    with store_errors(folder):
        db = open_database(folder / DATABASE)
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


def open_database(file: Path, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open or make a database whose commits are on the disk when they return.

    Raises:
        sqlite3.Error: see ``store_errors``.
    """
    db = sqlite3.connect(file, timeout=5.0, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={synchronous}")
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
def store_errors(where: Path) -> Iterator[None]:
    """Turn the errors of database and files into ours.

    Raises:
        DiskFull: there is no room.
        StoreError: anything else.
    """
    try:
        yield
    except sqlite3.Error as error:
        if _means_full(error, where):
            raise DiskFull(f"{where}: no room for records: {error}; make room there") from error
        raise StoreError(f"{where}: the ledger cannot be used: {error}") from error
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"{where}: {error.strerror}; make room there") from error
        raise StoreError(
            f"{error.filename or where}: {error.strerror}; the store needs a folder it may write to"
        ) from error


def _means_full(error: sqlite3.Error, folder: Path) -> bool:
    """Tell a full disk from damage; ``sqlite_errorcode`` came with Python 3.11."""
    if "is full" in str(error):
        return True
    return "disk I/O error" in str(error) and free_bytes(folder) < LEAST_FREE_BYTES
