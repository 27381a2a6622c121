"""Where collected records lie: committed together, each once, whatever is delivered twice.

What SQLite and PostgreSQL share is here: the tables and every statement. A database of its own kind
stands beside this file and says how it opens, commits and fails.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.collect.arrival import Arrival
from pipeline.receipts import Receipt

TABLES = """
CREATE TABLE IF NOT EXISTS records (
    source TEXT NOT NULL, run TEXT NOT NULL, seq {integer} NOT NULL, id TEXT NOT NULL,
    part {integer} NOT NULL, verdict TEXT NOT NULL, time TEXT NOT NULL, body {bytes} NOT NULL,
    sha256 TEXT NOT NULL, previous_sha256 TEXT NOT NULL, UNIQUE (source, run, seq)
);
CREATE TABLE IF NOT EXISTS ranges (
    source TEXT NOT NULL, run TEXT NOT NULL, first {integer} NOT NULL, last {integer} NOT NULL,
    PRIMARY KEY (source, run, first)
);
CREATE TABLE IF NOT EXISTS dead_letters (
    number {counter} PRIMARY KEY, topic TEXT NOT NULL, why TEXT NOT NULL, payload {bytes} NOT NULL
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


class Archive(Protocol):
    """Keeps what was collected. One thread uses it."""

    def add(self, arrivals: Sequence[Arrival]) -> Taken:
        """Commit records together; return once they are on the disk.

        Raises:
            ArchiveAway, DiskFull: nothing of this call is acknowledged; it is to be repeated.
            StoreError: it cannot be kept.
        """

    def set_aside(self, topic: str, why: str, payload: bytes) -> None:
        """Keep what is no record, for a person to look at; the newest ten thousand.

        Raises:
            StoreError: it could not be kept.
        """

    def accounts(self) -> tuple[Account, ...]:
        """Count what is held, and prove its chains, per station.

        Raises:
            StoreError: it cannot be read.
        """

    def hashes(self) -> list[tuple[str, str]]:
        """Return id and hash of every record; the hash is made from what lies there.

        Raises:
            StoreError: it cannot be read.
        """

    def close(self) -> None:
        """Close it; may be called twice."""


class SqlArchive(ABC):
    """What every archive does, in SQL that SQLite and PostgreSQL both understand."""

    def add(self, arrivals: Sequence[Arrival]) -> Taken:
        new, repeated = 0, 0
        conflicts: list[Arrival] = []
        around: dict[tuple[str, str, int], Receipt] = {}
        with self._transaction():
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
        with self._transaction():
            self._execute(
                "INSERT INTO dead_letters (topic, why, payload) VALUES (?, ?, ?)",
                (topic, why, payload),
            )
            self._execute(
                "DELETE FROM dead_letters WHERE number <= "
                "(SELECT max(number) FROM dead_letters) - ?",
                (DEAD_LETTERS_KEPT,),
            )

    def accounts(self) -> tuple[Account, ...]:
        with self._transaction():
            found = self._execute("SELECT DISTINCT source FROM ranges ORDER BY source").fetchall()
            return tuple(self._account(source) for (source,) in found)

    def hashes(self) -> list[tuple[str, str]]:
        with self._transaction():
            rows = self._execute("SELECT id, body FROM records").fetchall()
        return [(id_, hashlib.sha256(body).hexdigest()) for id_, body in rows]

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[None]:
        """Commit what is done within, or nothing of it; turn the database's errors into ours."""

    @abstractmethod
    def _execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        """Do one statement, with ``?`` for each value; return a cursor."""

    def _insert(self, arrival: Arrival) -> str | None:
        """Insert a record; return the hash of the one that has its place already, or None."""
        r = arrival.record
        place = (arrival.source, r.run, r.seq)
        values = (*place, r.id, r.part, r.verdict.value, r.time, arrival.body, arrival.sha256)
        done = self._execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*values, r.previous_sha256),
        )
        if done.rowcount:
            return None
        kept = self._execute(
            "SELECT sha256 FROM records WHERE source = ? AND run = ? AND seq = ?", place
        ).fetchone()
        return str(kept[0])

    def _range_with(self, arrival: Arrival, *, is_new: bool) -> Receipt:
        """Return the unbroken range that a record lies in, after adding it if it is new."""
        source, run, seq = arrival.source, arrival.record.run, arrival.record.seq
        reach = 1 if is_new else 0
        near = self._execute(
            "SELECT first, last FROM ranges WHERE source = ? AND run = ? "
            "AND first <= ? AND last >= ?",
            (source, run, seq + reach, seq - reach),
        ).fetchall()
        first = min([seq, *(row[0] for row in near)])
        last = max([seq, *(row[1] for row in near)])
        if is_new:
            for old, _ in near:
                self._execute(
                    "DELETE FROM ranges WHERE source = ? AND run = ? AND first = ?",
                    (source, run, old),
                )
            self._execute("INSERT INTO ranges VALUES (?, ?, ?, ?)", (source, run, first, last))
        return Receipt(run=run, first=first, through=last)

    def _account(self, source: str) -> Account:
        records = self._number("SELECT count(*) FROM records WHERE source = ?", source)
        expected = self._number(
            "SELECT sum(last) FROM (SELECT max(last) AS last FROM ranges WHERE source = ? "
            "GROUP BY run) AS ends",
            source,
        )
        unchained = self._number(
            "SELECT count(*) FROM records AS r JOIN records AS p ON p.source = r.source "
            "AND p.run = r.run AND p.seq = r.seq - 1 "
            "WHERE r.source = ? AND p.sha256 <> r.previous_sha256",
            source,
        )
        runs = self._number("SELECT count(DISTINCT run) FROM ranges WHERE source = ?", source)
        return Account(source, runs, records, expected - records, unchained)

    def _number(self, query: str, source: str) -> int:
        return int(self._execute(query, (source,)).fetchone()[0] or 0)


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
