"""Reads a station's ledger without ever writing to it or keeping it waiting."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.pictures import PICTURES
from pipeline.records import GENESIS
from pipeline.store import DATABASE

BUSY_S = 2.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as the ledger holds it.

    Attributes:
        number: its place in the ledger, from 1.
        body: canonical JSON.
        sha256: the hash kept beside it.
    """

    number: int
    body: bytes
    sha256: str

    def values(self) -> dict[str, Any]:
        """Return the record's values."""
        return dict(json.loads(self.body))


@dataclass(frozen=True, slots=True)
class Link:
    """How a record hangs in the chain: each is True, False, or None where there is no neighbour.

    Attributes:
        own: its bytes fit the hash kept beside them.
        before: it holds the hash of the record before it.
        after: the record after it holds its hash.
    """

    own: bool
    before: bool
    after: bool | None

    @property
    def whole(self) -> bool:
        return self.own and self.before and self.after is not False


class LedgerReader:
    """Short reads only: a long one would keep the station's write-ahead log from being folded."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._file = store / DATABASE
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def after(self, number: int, limit: int) -> tuple[Kept, ...]:
        """Return the records that follow a number, oldest first; none while there is no ledger."""
        rows = self._rows(
            "SELECT number, body, sha256 FROM records WHERE number > ? ORDER BY number LIMIT ?",
            (number, limit),
        )
        return tuple(Kept(*row) for row in rows)

    def at(self, number: int) -> Kept | None:
        """Return the record of a number."""
        rows = self._rows("SELECT number, body, sha256 FROM records WHERE number = ?", (number,))
        return Kept(*rows[0]) if rows else None

    def by_id(self, id: str) -> Kept | None:
        """Return the record of an id."""
        rows = self._rows("SELECT number, body, sha256 FROM records WHERE id = ?", (id,))
        return Kept(*rows[0]) if rows else None

    def last_number(self) -> int:
        """Return the number of the newest record, 0 if there is none."""
        rows = self._rows("SELECT max(number) FROM records", ())
        return int(rows[0][0] or 0) if rows else 0

    def waiting(self) -> dict[str, int]:
        """Return how many records each receiver still waits for."""
        return dict(self._rows("SELECT receiver, count(*) FROM outbox GROUP BY receiver", ()))

    def link(self, kept: Kept) -> Link:
        """Check a record against its own hash and against its neighbours in the chain."""
        before = self.at(kept.number - 1)
        after = self.at(kept.number + 1)
        previous = before.sha256 if before else GENESIS
        return Link(
            own=hashlib.sha256(kept.body).hexdigest() == kept.sha256,
            before=kept.values()["previous_sha256"] == previous,
            after=after.values()["previous_sha256"] == kept.sha256 if after else None,
        )

    def picture_file(self, image: str | None) -> Path | None:
        """Return the file of a record's picture, or None if it is gone or lies elsewhere."""
        if image is None:
            return None
        root = (self.store / PICTURES).resolve()
        file = (self.store / image).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None

    def close(self) -> None:
        """Close the database; may be called twice."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _rows(self, sql: str, values: Sequence[Any]) -> list[Any]:
        with self._reading() as db:
            return db.execute(sql, values).fetchall() if db else []

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        with self._lock:
            try:
                if self._db is None and self._file.is_file():
                    self._db = sqlite3.connect(
                        f"{self._file.resolve().as_uri()}?mode=ro",
                        uri=True,
                        timeout=BUSY_S,
                        check_same_thread=False,
                    )
                yield self._db
            except sqlite3.Error as error:
                self._db = None
                raise StoreError(f"{self.store}: the ledger cannot be read: {error}") from error
