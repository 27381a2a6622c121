"""What people do at the dashboard: accounts, sessions, reviews, and an audit nobody can rewrite."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, StoreError
from pipeline.records import GENESIS

FOLDER = "dashboard"
FILE = "desk.sqlite"
SESSION_S = 8 * 3600
MIN_PASSWORD = 10
MAX_PASSWORD = 200
_SCRYPT: dict[str, Any] = {"n": 2**14, "r": 8, "p": 1, "maxmem": 64 << 20}
"""16 MiB and about 50 ms for one try, as RFC 7914 advises for logins."""

_TABLES = """
CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, role INTEGER NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
    token TEXT PRIMARY KEY, name TEXT NOT NULL, ends_s INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS reviews (
    review INTEGER PRIMARY KEY, number INTEGER NOT NULL, id TEXT NOT NULL, station TEXT NOT NULL,
    verdict TEXT NOT NULL, wrong TEXT NOT NULL, added TEXT NOT NULL, note TEXT NOT NULL,
    who TEXT NOT NULL, time_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS reviews_id ON reviews (id, review);
CREATE TABLE IF NOT EXISTS audit (
    entry INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
    what TEXT NOT NULL, sha256 TEXT NOT NULL
);
"""
_KEPT = ("audit", "reviews")
"""Nothing in these is ever changed or deleted; the database itself refuses."""


class Role(IntEnum):
    """What a person may do; each may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ENGINEER = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who was let in."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Review:
    """What a person says of a part.

    Attributes:
        verdict: PASS or FAIL.
        wrong: numbers of the record's defects, from 0, that are none.
        added: defects that the station did not find: label, and box relative to the part, pixels.
    """

    verdict: str
    wrong: tuple[int, ...] = ()
    added: tuple[dict[str, Any], ...] = ()
    note: str = ""


class Desk:
    """The dashboard's own ledger; any thread may use it.

    Args:
        folder: of the dashboard; made if it is not there.
        now_s: seconds since 1970.
    """

    def __init__(self, folder: Path, now_s: Callable[[], float] = time.time) -> None:
        self._where = folder
        self._now_s = now_s
        self._lock = threading.RLock()
        with self._errors():
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            (folder / FILE).touch(mode=0o600)
            self._db = sqlite3.connect(folder / FILE, timeout=5.0, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES + "".join(_guards()))
            with self._db:
                self._db.execute(
                    "INSERT OR IGNORE INTO keys VALUES ('csrf', ?)", (secrets.token_bytes(32),)
                )
        self._key: bytes = self.rows("SELECT value FROM keys WHERE name = 'csrf'")[0][0]

    # -- accounts -----------------------------------------------------------------------------

    @classmethod
    def of(cls, store: Path) -> Desk:
        """Open the desk of a store, whether or not its dashboard is running."""
        return cls(store / FOLDER)

    @property
    def has_accounts(self) -> bool:
        return bool(self.rows("SELECT 1 FROM accounts LIMIT 1"))

    def accounts(self) -> tuple[Person, ...]:
        """Return everybody who may log in."""
        rows = self.rows("SELECT name, role FROM accounts ORDER BY name")
        return tuple(Person(name, Role(role)) for name, role in rows)

    def set_account(self, name: str, password: str, role: Role, by: str) -> None:
        """Make an account, or give it another password and role; its sessions end.

        Raises:
            ConfigError: the name or the password will not do.
        """
        if not (name.isidentifier() and len(name) <= 40):
            raise ConfigError(f"account '{name:.40}': use letters, digits and _, at most 40")
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise ConfigError(
                f"account '{name}': the password has {len(password)} characters; "
                f"use {MIN_PASSWORD} to {MAX_PASSWORD}"
            )
        salt = secrets.token_bytes(16)
        with self._writing() as db:
            db.execute("DELETE FROM sessions WHERE name = ?", (name,))
            db.execute(
                "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?)",
                (name, int(role), salt, _hashed(password, salt)),
            )
            self._note(by, "account.set", {"name": name, "role": role.word})

    def remove_account(self, name: str, by: str) -> None:
        """Let somebody in no more.

        Raises:
            ConfigError: there is no such account.
        """
        with self._writing() as db:
            if db.execute("DELETE FROM accounts WHERE name = ?", (name,)).rowcount == 0:
                raise ConfigError(f"account '{name:.40}': there is none of that name")
            db.execute("DELETE FROM sessions WHERE name = ?", (name,))
            self._note(by, "account.remove", {"name": name})

    def log_in(self, name: str, password: str) -> str | None:
        """Return a session's token if name and password are right.

        A name that is not known costs the same time as one that is.
        """
        row = self.rows("SELECT salt, hash FROM accounts WHERE name = ?", (name,))
        salt, kept = row[0] if row else (b"-" * 16, b"")
        if not hmac.compare_digest(_hashed(password, salt), kept):
            return None
        token = secrets.token_urlsafe(32)
        now_s = int(self._now_s())
        with self._writing() as db:
            db.execute("DELETE FROM sessions WHERE ends_s < ?", (now_s,))
            db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?)", (_digest(token), name, now_s + SESSION_S)
            )
            self._note(name, "session.begin", {})
        return token

    def log_out(self, token: str, who: str) -> None:
        """End a session."""
        with self._writing() as db:
            db.execute("DELETE FROM sessions WHERE token = ?", (_digest(token),))
            self._note(who, "session.end", {})

    def person(self, token: str) -> Person | None:
        """Return whose session this is, or None."""
        rows = self.rows(
            "SELECT name, role FROM sessions JOIN accounts USING (name) "
            "WHERE token = ? AND ends_s > ?",
            (_digest(token), int(self._now_s())),
        )
        return Person(rows[0][0], Role(rows[0][1])) if rows else None

    def csrf(self, token: str) -> str:
        """Return what a request that changes something must carry beside this session."""
        return hmac.new(self._key, token.encode(), "sha256").hexdigest()

    # -- reviews and audit --------------------------------------------------------------------

    def add_review(self, number: int, record: Mapping[str, Any], review: Review, who: str) -> None:
        """Keep what a person says of a part; an earlier review of it stays."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO reviews VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    record["id"],
                    record["verdict"],
                    review.verdict,
                    json.dumps(review.wrong),
                    json.dumps(review.added),
                    review.note,
                    who,
                    self._now_ms(),
                ),
            )
            self._note(who, "review", {"record": record["id"], "verdict": review.verdict})

    def reviews_of(self, id: str) -> list[dict[str, Any]]:
        """Return all reviews of a part, newest first."""
        rows = self.rows(
            "SELECT verdict, wrong, added, note, who, time_ms FROM reviews WHERE id = ? "
            "ORDER BY review DESC LIMIT 50",
            (id,),
        )
        return [_review(*row) for row in rows]

    def reviewed(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the newest review's verdict of those parts that have one."""
        marks = ",".join("?" * len(ids))
        rows = self.rows(
            f"SELECT id, verdict, max(review) FROM reviews WHERE id IN ({marks}) GROUP BY id", ids
        )
        return {id: verdict for id, verdict, _ in rows}

    def reviewed_numbers(self) -> set[int]:
        """Return the numbers of all records that somebody has reviewed."""
        return {number for (number,) in self.rows("SELECT DISTINCT number FROM reviews")}

    def newest_reviews(self, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """Return number of the record and newest review of each reviewed part, newest first."""
        rows = self.rows(
            "SELECT number, verdict, wrong, added, note, who, time_ms FROM reviews WHERE review IN "
            "(SELECT max(review) FROM reviews GROUP BY id) ORDER BY review DESC LIMIT ?",
            (limit,),
        )
        return [(row[0], _review(*row[1:])) for row in rows]

    def agreement(self) -> dict[str, dict[str, int]]:
        """Return how many parts, by the station's verdict and by that of the newest review."""
        table: dict[str, dict[str, int]] = {}
        for station, person, count in self.rows(
            "SELECT station, verdict, count(*) FROM reviews WHERE review IN "
            "(SELECT max(review) FROM reviews GROUP BY id) GROUP BY station, verdict"
        ):
            table.setdefault(station, {})[person] = count
        return table

    def note(self, who: str, action: str, what: Mapping[str, Any]) -> None:
        """Write a line of the audit."""
        with self._writing():
            self._note(who, action, what)

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest lines of the audit."""
        rows = self.rows(
            "SELECT entry, time_ms, who, action, what, sha256 FROM audit "
            "ORDER BY entry DESC LIMIT ?",
            (limit,),
        )
        return [
            {
                "entry": entry,
                "time_ms": time_ms,
                "who": who,
                "action": action,
                "what": json.loads(what),
                "sha256": sha256,
            }
            for entry, time_ms, who, action, what, sha256 in rows
        ]

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with self._lock, self._errors():
            return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the database; may be called twice."""
        with self._lock:
            self._db.close()

    def _note(self, who: str, action: str, what: Mapping[str, Any]) -> None:
        last = self._db.execute("SELECT sha256 FROM audit ORDER BY entry DESC LIMIT 1").fetchone()
        time_ms, text = self._now_ms(), json.dumps(what, sort_keys=True)
        chained = json.dumps([last[0] if last else GENESIS, time_ms, who, action, text])
        self._db.execute(
            "INSERT INTO audit VALUES (NULL, ?, ?, ?, ?, ?)",
            (time_ms, who, action, text, _digest(chained)),
        )

    def _now_ms(self) -> int:
        return int(self._now_s() * 1000)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors(), self._db:
            yield self._db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self._where}: reviews and audit cannot be kept: {error}; "
                "make room, or let the dashboard write there"
            ) from error


def _guards() -> Iterator[str]:
    for table in _KEPT:
        for change in ("UPDATE", "DELETE"):
            yield (
                f"CREATE TRIGGER IF NOT EXISTS {table}_{change} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;"
            )


def _hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password[: 4 * MAX_PASSWORD].encode(), salt=salt, **_SCRYPT)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _review(
    verdict: str, wrong: str, added: str, note: str, who: str, time_ms: int
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "wrong": json.loads(wrong),
        "added": json.loads(added),
        "note": note,
        "who": who,
        "time_ms": time_ms,
    }
