"""A SQLite database whose commits are on the disk, and what its errors mean for a store."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.disk import free_bytes, is_full
from pipeline.errors import DiskFull, StoreError

LEAST_FREE_BYTES = 1 << 17
"""Below this SQLite's "disk I/O error" means that its shared index found no room."""


def open_database(file: Path, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open or make a database whose commits are on the disk when they return.

    Raises:
        sqlite3.Error: see ``store_errors``.
    """
    db = sqlite3.connect(file, timeout=5.0, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={synchronous}")
    return db


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
