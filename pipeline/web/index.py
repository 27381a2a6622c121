"""What the pages search and count: folded from the ledger, rebuilt from it at any time.

The ledger has only the indexes that the station needs; every further one would slow each verdict
down. So the dashboard keeps its own, in a file of its own, and answers from that.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.types import Verdict
from pipeline.web.ledger import Kept, LedgerReader

FILE = "index.sqlite"
LAYOUT = 5
HOUR_MS = 3_600_000
VERDICTS = (Verdict.PASS.value, Verdict.FAIL.value, Verdict.UNSURE.value)
"""By number, as the index holds them."""

_TABLES = """
CREATE TABLE parts (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, run TEXT NOT NULL, part INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, verdict INTEGER NOT NULL, recipe TEXT NOT NULL,
    bundle TEXT NOT NULL, latency_ms REAL NOT NULL, picture INTEGER NOT NULL,
    first_frame INTEGER NOT NULL, last_frame INTEGER NOT NULL, good INTEGER
);
CREATE INDEX parts_verdict ON parts (verdict, number);
CREATE INDEX parts_time ON parts (time_ms, verdict);
CREATE INDEX parts_part ON parts (part, number);
CREATE INDEX parts_run ON parts (run, number);
CREATE INDEX parts_good ON parts (run, good, verdict) WHERE good IS NOT NULL;
CREATE TABLE defects (
    number INTEGER NOT NULL, label TEXT NOT NULL, verdict INTEGER NOT NULL, score REAL NOT NULL,
    x REAL NOT NULL, y REAL NOT NULL, size_px REAL NOT NULL
);
CREATE INDEX defects_number ON defects (number);
CREATE INDEX defects_label ON defects (label, verdict, number, x, y);
CREATE INDEX defects_rejected ON defects (number) WHERE verdict != 0;
CREATE TABLE hours (
    hour INTEGER NOT NULL, verdict INTEGER NOT NULL, parts INTEGER NOT NULL,
    PRIMARY KEY (hour, verdict)
) WITHOUT ROWID;
CREATE TABLE labels (
    hour INTEGER NOT NULL, label TEXT NOT NULL, parts INTEGER NOT NULL, defects INTEGER NOT NULL,
    PRIMARY KEY (hour, label)
) WITHOUT ROWID;
CREATE TABLE runs (
    run TEXT NOT NULL, verdict INTEGER NOT NULL, parts INTEGER NOT NULL,
    PRIMARY KEY (run, verdict)
) WITHOUT ROWID;
CREATE TABLE truth (number INTEGER PRIMARY KEY, defects TEXT NOT NULL);
CREATE TABLE folded (number INTEGER NOT NULL, sha256 TEXT NOT NULL);
INSERT INTO folded VALUES (0, '');
"""


class Index:
    """The dashboard's own tables; any thread may use it, one at a time.

    Args:
        folder: of the dashboard; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.RLock()
        self._where = folder
        with self._errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / FILE, timeout=5.0, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            # It can be made again from the ledger at any time.
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute("PRAGMA cache_size=-65536")
            if self._db.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
                self.clear()

    @property
    def folded(self) -> tuple[int, str]:
        """Return number and hash of the newest record that is in it."""
        number, sha256 = self.rows("SELECT number, sha256 FROM folded")[0]
        return int(number), str(sha256)

    def clear(self) -> None:
        """Begin again."""
        with self._lock, self._errors(), self._db:
            names = self._db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            dropped = "".join(f"DROP TABLE {name};" for (name,) in names)
            self._db.executescript(f"{dropped}{_TABLES}PRAGMA user_version = {LAYOUT}")

    def fold(self, records: Sequence[Kept]) -> list[dict[str, Any]]:
        """Take records in, in the order of the ledger; return their values."""
        values = [kept.values() for kept in records]
        with self._lock, self._errors(), self._db:
            self._insert([kept.number for kept in records], values)
            if records:
                self._db.execute(
                    "UPDATE folded SET number = ?, sha256 = ?",
                    (records[-1].number, records[-1].sha256),
                )
        return values

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with self._lock, self._errors():
            return self._db.execute(sql, values).fetchall()

    def note_truth(self, number: int, good: bool, defects: Sequence[Mapping[str, Any]]) -> None:
        """Note what is true of a part, where that is known: on a drawn line."""
        with self._lock, self._errors(), self._db:
            self._db.execute("UPDATE parts SET good = ? WHERE number = ?", (good, number))
            self._db.execute(
                "INSERT OR REPLACE INTO truth VALUES (?, ?)", (number, json.dumps(list(defects)))
            )

    def close(self) -> None:
        """Close the database; may be called twice."""
        with self._lock:
            self._db.close()

    def _insert(self, numbers: Sequence[int], values: Sequence[dict[str, Any]]) -> None:
        """Insert rows many at a time: one by one, a million records took six times as long."""
        rows = [_part_row(n, v) for n, v in zip(numbers, values, strict=True)]
        self._db.executemany(
            "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", rows
        )
        self._db.executemany(
            "INSERT INTO defects VALUES (?, ?, ?, ?, ?, ?, ?)",
            [row for n, v in zip(numbers, values, strict=True) for row in _defect_rows(n, v)],
        )
        hours = Counter((time_ms // HOUR_MS, verdict) for _, time_ms, verdict in _keys(rows))
        self._db.executemany(
            "INSERT INTO hours VALUES (?, ?, ?) ON CONFLICT (hour, verdict) "
            "DO UPDATE SET parts = parts + excluded.parts",
            [(*key, count) for key, count in hours.items()],
        )
        runs = Counter((run, verdict) for run, _, verdict in _keys(rows))
        self._db.executemany(
            "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT (run, verdict) "
            "DO UPDATE SET parts = parts + excluded.parts",
            [(*key, count) for key, count in runs.items()],
        )
        self._db.executemany(
            "INSERT INTO labels VALUES (?, ?, 1, ?) ON CONFLICT (hour, label) "
            "DO UPDATE SET parts = parts + 1, defects = defects + excluded.defects",
            [row for v in values for row in _label_rows(v)],
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self._where}: the dashboard's index cannot be used: {error}; "
                "make room, or delete the folder: it is made again from the ledger"
            ) from error


def catch_up(index: Index, ledger: LedgerReader, limit: int) -> list[tuple[int, dict[str, Any]]]:
    """Fold the next records of the ledger; begin again if it is another ledger than before.

    Returns:
        Numbers and values of the records that were folded, at most ``limit``.
    """
    number, sha256 = index.folded
    if number:
        here = ledger.at(number)
        if here is None or here.sha256 != sha256:
            index.clear()
            number = 0
    records = ledger.after(number, limit)
    return list(zip((kept.number for kept in records), index.fold(records), strict=True))


def _part_row(number: int, record: dict[str, Any]) -> tuple[Any, ...]:
    return (
        number,
        record["id"],
        record["run"],
        record["part"],
        milliseconds(record["time"]),
        VERDICTS.index(record["verdict"]),
        record["recipe"],
        record["bundle"],
        record["latency_ms"],
        record["image"] is not None,
        record["first_frame"],
        record["last_frame"],
    )


def _keys(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, int, int]]:
    """Yield run, time in milliseconds and verdict of rows of ``parts``."""
    for row in rows:
        yield row[2], row[4], row[5]


def _defect_rows(number: int, record: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    width, height = part_size(record)
    verdict = VERDICTS.index(record["verdict"])
    for defect in record["defects"]:
        x0, y0, x1, y1 = defect["xyxy"]
        place = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
        size_px = max(x1 - x0, y1 - y0)
        yield number, defect["label"], verdict, defect["score"], *place, size_px


def _label_rows(record: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield hour, label and how many of it, of a part that was not passed."""
    if record["verdict"] != Verdict.PASS.value:
        hour = milliseconds(record["time"]) // HOUR_MS
        for label, count in Counter(d["label"] for d in record["defects"]).items():
            yield hour, label, count


def milliseconds(time: str) -> int:
    """Return a record's time as milliseconds since 1970."""
    # Python 3.10 does not read the Z.
    return int(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1000)


def part_size(record: dict[str, Any]) -> tuple[float, float]:
    """Return width and height of a part, pixels, at least 1."""
    x0, y0, x1, y1 = record.get("image_box") or record["box"]
    return max(x1 - x0, 1.0), max(y1 - y0, 1.0)
