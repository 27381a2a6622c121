"""The ledger: every decision in SQLite, chained by hash, and an outbox per receiver.

One process writes a ledger at a time. A record is committed (synchronous=FULL) before anybody is
told of it; the database is the queue, so what was not delivered is still there after any crash.
"""

from __future__ import annotations

import fcntl
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline import schema
from pipeline.database import open_database, store_errors
from pipeline.disk import Room
from pipeline.errors import ConfigError, DiskFull, StoreError
from pipeline.records import GENESIS, Link
from pipeline.types import RECORD_SCHEMA, Record

DATABASE = "ledger.sqlite"

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
        self._told: dict[str, None] = {}  # confirmed, and not written down yet
        with store_errors(folder):
            # A confirmation that a power cut takes back is delivered again: no need to wait for it.
            self._db = open_database(folder / DATABASE, synchronous="NORMAL")

    def waiting(self, limit: int) -> tuple[Record, ...]:
        """Return the oldest records that the receiver has not confirmed."""
        with store_errors(self._folder):
            rows = self._db.execute(
                "SELECT id, body FROM outbox JOIN records USING (number) WHERE receiver = ? "
                "ORDER BY number LIMIT ?",
                (self._receiver, limit + len(self._told)),
            ).fetchall()
        bodies = [body for id, body in rows if id not in self._told]
        return tuple(_decoded(self._folder, body) for body in bodies[:limit])

    def count(self) -> int:
        """Return how many records wait, after having written down what was confirmed."""
        with suppress(DiskFull):
            self.settle()
        with store_errors(self._folder):
            row = self._db.execute(
                "SELECT count(*) FROM outbox WHERE receiver = ?", (self._receiver,)
            ).fetchone()
        return int(row[0])

    def confirm(self, ids: Sequence[str]) -> None:
        """Forget that the receiver waits for these; ``settle`` writes it down."""
        self._told.update(dict.fromkeys(ids))

    def settle(self) -> None:
        """Write down what was confirmed: each time would cost as much as the records themselves.

        Raises:
            DiskFull: it is known here still; call again.
        """
        if not self._told:
            return
        with store_errors(self._folder), self._db:
            self._db.executemany(
                "DELETE FROM outbox WHERE receiver = ? AND number = "
                "(SELECT number FROM records WHERE id = ?)",
                [(self._receiver, id) for id in self._told],
            )
        self._told.clear()

    def close(self) -> None:
        """Write down what was confirmed, if there is room, and close; may be called twice."""
        try:
            with suppress(DiskFull):
                self.settle()
        finally:
            self._told.clear()
            self._db.close()


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
