"""An archive in one SQLite file, WAL, synchronous=FULL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.collect.archive import TABLES, Account, SqlArchive
from pipeline.database import open_database, store_errors


class SqliteArchive(SqlArchive):
    """An archive in a file; it and its folder are made if they are not there.

    Raises:
        StoreError: the file cannot be written, or is none of SQLite's.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with store_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = open_database(file)
            self._db.executescript(
                TABLES.format(integer="INTEGER", counter="INTEGER", bytes="BLOB")
            )

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with store_errors(self._file.parent), self._db:
            yield

    def _execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        return self._db.execute(statement, values)


def account(file: Path) -> tuple[Account, ...]:
    """Count what an archive holds, and prove its chains, per station.

    Raises:
        StoreError: it cannot be read.
    """
    with closing(SqliteArchive(file)) as archive:
        return archive.accounts()


def read_hashes(file: Path) -> list[tuple[str, str]]:
    """Return id and hash of every record of an archive; the hash is made from what lies there.

    Raises:
        StoreError: it cannot be read.
    """
    with closing(SqliteArchive(file)) as archive:
        return archive.hashes()
