"""An archive in PostgreSQL: what its server has committed to disk is acknowledged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.collect.archive import TABLES, SqlArchive
from pipeline.errors import ArchiveAway, ConfigError, DiskFull, StoreError
from pipeline.plugins import vendor

CONNECT_S = 5
SILENT_MS = 20_000
ONE_COLLECTOR = 0x6C67_0001
"""Key of the lock under which ranges are joined: two collectors may share an archive."""

DISK_FULL = "53100"


class PostgresArchive(SqlArchive):
    """An archive in a database that is there; its tables are made if they are not.

    Args:
        url: ``postgresql://user@host/database``, without a password: that stands in the file that
            PGPASSFILE names, or in ``~/.pgpass``.

    Raises:
        ConfigError: the URL is none, or holds a password.
        MissingExtra: psycopg is not installed.
        StoreError: the server cannot be reached, or refuses.
    """

    def __init__(self, url: str) -> None:
        self._psycopg: Any = vendor("psycopg", "postgres")
        self._settings = self._read(url)
        said = {k: self._settings[k] for k in ("host", "port", "dbname") if k in self._settings}
        self._where = "PostgreSQL " + " ".join(f"{k}={v}" for k, v in said.items())
        self._db: Any = None
        with self._transaction():
            for statement in filter(str.strip, _TABLES.split(";")):
                self._execute(statement)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()

    def _read(self, url: str) -> dict[str, Any]:
        try:
            given: dict[str, Any] = self._psycopg.conninfo.conninfo_to_dict(url)
        except self._psycopg.ProgrammingError as error:
            raise ConfigError(
                f"no address of a database: {_one_line(error)}; write postgresql://USER@HOST/NAME"
            ) from error
        if "password" in given:
            raise ConfigError(
                "the address of the database holds a password, which every user of this machine "
                "can read; put it into ~/.pgpass or the file that PGPASSFILE names"
            )
        return given

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            db = self._connected()
            with db.transaction():
                # Whatever the server's default is: a receipt promises the disk.
                db.execute("SET LOCAL synchronous_commit TO on")
                db.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_COLLECTOR,))
                yield
        except self._psycopg.Error as error:
            raise self._ours(error) from error

    def _execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        return self._db.execute(statement.replace("?", "%s"), values)

    def _connected(self) -> Any:
        if self._db is None or self._db.closed:
            self._db = self._psycopg.connect(
                **{"connect_timeout": CONNECT_S, "tcp_user_timeout": SILENT_MS, **self._settings},
                autocommit=True,
            )
        return self._db

    def _ours(self, error: Any) -> StoreError:
        said = f"{self._where}: {_one_line(error)}"
        if error.sqlstate == DISK_FULL:
            return DiskFull(f"{said}; make room on the server")
        if isinstance(error, self._psycopg.OperationalError):
            # A connection that broke in a commit may have committed: asking again finds out.
            with suppress(self._psycopg.Error):
                self.close()
            return ArchiveAway(f"{said}; is it running, and may this user enter?")
        return StoreError(said)


_TABLES = TABLES.format(
    integer="BIGINT", counter="BIGINT GENERATED ALWAYS AS IDENTITY", bytes="BYTEA"
)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
