"""Where collected records lie: committed together, each once, whatever is delivered twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.collect.arrival import Arrival
from pipeline.receipts import Receipt
from pipeline.store import open_database, store_errors

_TABLES = """
CREATE TABLE IF NOT EXISTS records (
    source TEXT NOT NULL, run TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL,
    part INTEGER NOT NULL, verdict TEXT NOT NULL, time TEXT NOT NULL, body BLOB NOT NULL,
    sha256 TEXT NOT NULL, previous_sha256 TEXT NOT NULL, UNIQUE (source, run, seq)
);
CREATE TABLE IF NOT EXISTS ranges (
    source TEXT NOT NULL, run TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (source, run, first)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    number INTEGER PRIMARY KEY, topic TEXT NOT NULL, why TEXT NOT NULL, payload BLOB NOT NULL
);
"""
DEAD_LETTERS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch.

    Attributes:
        new: records that were not there yet.
        repeated: records that were there already, the same.
        conflicts: records that were there already, but not the same; the first one stays.
        receipts: what the archive now holds around this batch: source and range.
    """

    new: int
    repeated: int
    conflicts: tuple[Arrival, ...]
    receipts: tuple[tuple[str, Receipt], ...]


class Archive(Protocol):
    """Keeps what was collected. One thread uses it."""

    def add(self, arrivals: Sequence[Arrival]) -> Taken:
        """Commit records together; return once they are on the disk.

        Raises:
            StoreError: nothing of this call was kept; it may be repeated.
        """

    def set_aside(self, topic: str, why: str, payload: bytes) -> None:
        """Keep what is no record, for a person to look at; the newest ten thousand.

        Raises:
            StoreError: it could not be kept.
        """

    def close(self) -> None:
        """Close it; may be called twice."""


class SqliteArchive:
    """An archive in one SQLite file, WAL, synchronous=FULL."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with store_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = open_database(file)
            self._db.executescript(_TABLES)

    def add(self, arrivals: Sequence[Arrival]) -> Taken:
        new, repeated = 0, 0
        conflicts: list[Arrival] = []
        around: dict[tuple[str, str, int], Receipt] = {}
        with store_errors(self._file.parent), self._db:
            for arrival in arrivals:
                kept = self._insert(arrival)
                if kept not in (None, arrival.sha256):
                    conflicts.append(arrival)
                    continue
                new, repeated = new + (kept is None), repeated + (kept is not None)
                receipt = self._range_with(arrival, is_new=kept is None)
                around[arrival.source, receipt.run, receipt.through] = receipt
        receipts = _widest([(source, receipt) for (source, _, _), receipt in around.items()])
        return Taken(new, repeated, tuple(conflicts), receipts)

    def set_aside(self, topic: str, why: str, payload: bytes) -> None:
        with store_errors(self._file.parent), self._db:
            added = self._db.execute(
                "INSERT INTO dead_letters (topic, why, payload) VALUES (?, ?, ?)",
                (topic, why, payload),
            )
            self._db.execute(
                "DELETE FROM dead_letters WHERE number <= ?",
                ((added.lastrowid or 0) - DEAD_LETTERS_KEPT,),
            )

    def close(self) -> None:
        self._db.close()

    def _insert(self, arrival: Arrival) -> str | None:
        """Insert a record; return the hash of the one that has its place already, or None."""
        r = arrival.record
        place = (arrival.source, r.run, r.seq)
        values = (*place, r.id, r.part, r.verdict.value, r.time, arrival.body, arrival.sha256)
        done = self._db.execute(
            "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, r.previous_sha256),
        )
        if done.rowcount:
            return None
        kept = self._db.execute(
            "SELECT sha256 FROM records WHERE source = ? AND run = ? AND seq = ?", place
        ).fetchone()
        return str(kept[0])

    def _range_with(self, arrival: Arrival, *, is_new: bool) -> Receipt:
        """Return the unbroken range that a record lies in, after adding it if it is new."""
        source, run, seq = arrival.source, arrival.record.run, arrival.record.seq
        reach = 1 if is_new else 0
        near = self._db.execute(
            "SELECT first, last FROM ranges WHERE source = ? AND run = ? "
            "AND first <= ? AND last >= ?",
            (source, run, seq + reach, seq - reach),
        ).fetchall()
        first = min([seq, *(row[0] for row in near)])
        last = max([seq, *(row[1] for row in near)])
        if is_new:
            self._db.executemany(
                "DELETE FROM ranges WHERE source = ? AND run = ? AND first = ?",
                [(source, run, row[0]) for row in near],
            )
            self._db.execute("INSERT INTO ranges VALUES (?, ?, ?, ?)", (source, run, first, last))
        return Receipt(run=run, first=first, through=last)


def _widest(found: Sequence[tuple[str, Receipt]]) -> tuple[tuple[str, Receipt], ...]:
    """Drop the ranges that lie within another one."""
    return tuple(
        (source, receipt)
        for source, receipt in found
        if not any(
            other is not receipt
            and of == source
            and other.covers(receipt.run, receipt.first)
            and other.covers(receipt.run, receipt.through)
            for of, other in found
        )
    )


@dataclass(frozen=True, slots=True)
class Account:
    """What an archive holds of one station.

    Attributes:
        source: the station's path.
        runs: starts of it that are known.
        records: of all runs.
        missing: numbers that lie between collected ones, or before the first of a run.
        unchained: records that do not hold the hash of the one before them in their run.
    """

    source: str
    runs: int
    records: int
    missing: int
    unchained: int


def read_hashes(file: Path) -> list[tuple[str, str]]:
    """Return id and hash of every record of an archive; the hash is made from what lies there.

    Raises:
        StoreError: it cannot be read.
    """
    with store_errors(file.parent):
        db = open_database(file)
        try:
            rows = db.execute("SELECT id, body FROM records").fetchall()
        finally:
            db.close()
    return [(id_, hashlib.sha256(body).hexdigest()) for id_, body in rows]


def account(file: Path) -> tuple[Account, ...]:
    """Count what an archive holds, and prove its chains, per station.

    Raises:
        StoreError: it cannot be read.
    """
    with store_errors(file.parent):
        db = open_database(file)
        try:
            return tuple(_account(db, source) for source in _sources(db))
        finally:
            db.close()


def _sources(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT DISTINCT source FROM ranges ORDER BY source")]


def _account(db: sqlite3.Connection, source: str) -> Account:
    def number(query: str) -> int:
        row: Any = db.execute(query, (source,)).fetchone()
        return int(row[0] or 0)

    records = number("SELECT count(*) FROM records WHERE source = ?")
    expected = number(
        "SELECT sum(last) FROM (SELECT max(last) AS last FROM ranges WHERE source = ? GROUP BY run)"
    )
    unchained = number(
        "SELECT count(*) FROM records AS r JOIN records AS p ON p.source = r.source "
        "AND p.run = r.run AND p.seq = r.seq - 1 "
        "WHERE r.source = ? AND p.sha256 <> r.previous_sha256"
    )
    runs = number("SELECT count(DISTINCT run) FROM ranges WHERE source = ?")
    return Account(source, runs, records, expected - records, unchained)
