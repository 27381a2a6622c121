"""How the ledger behaves as it grows: records a second, and what the dashboard asks of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipeline.bench.figures import spread, timed
from pipeline.bench.work import Work
from pipeline.database import open_database
from pipeline.records import GENESIS, Link, uuid7
from pipeline.schema import EXAMPLE, encode
from pipeline.store import DATABASE, Ledger, Outbox
from pipeline.types import Record, Verdict
from pipeline.web import queries
from pipeline.web.index import Index, catch_up
from pipeline.web.ledger import LedgerReader

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000, 1_000_000), (1_000, 3_000, 10_000)
PER_COMMIT = 64
"""As many records as the station commits together at most when it has fallen behind."""

FILLED_PER_COMMIT = 10_000
SINGLE, TOGETHER = 50, 20
ASKED = 20
RECEIVER = "mqtt"
FOLD_PER_STEP = 2_000
DEEPEST_FOLD = 100_000


def growth(work: Work) -> dict[str, Any]:
    """Fill a ledger; stop at each size and take figures.

    Returns:
        ``sizes``: per size ``records``, ``megabytes``, ``single_per_s`` (a commit each),
        ``together_per_s`` (64 in a commit), ``outbox_ms`` (the next 64 to publish), ``by_id_ms``,
        ``newest_ms`` (50 of them), and, up to 100,000, of the dashboard's own index
        ``fold_per_s``, ``search_ms``, ``trend_ms``, ``counts_ms``.
    """
    most = work.asked.records or 0
    sizes = [s for s in (QUICK_SIZES if work.quick else SIZES) if not most or s <= most]
    sizes += [most] if most and most not in sizes else []
    store = work.folder("growth")
    Ledger(store, [RECEIVER]).close()
    reader, index = LedgerReader(store), Index(work.folder("index"))
    taken = []
    with closing(reader), closing(index):
        for size in sizes:
            work.note(f"{size:,} records")
            fill(store, size, lambda done: work.progress(done, sizes[-1]))
            with closing(Ledger(store, [RECEIVER])) as ledger:
                taken.append(_at(ledger, reader, index, store))
    return {"sizes": taken}


def drafts_of(run: str) -> Callable[[Link], Record]:
    """Return what makes records of one run, as a station does: one defect, one picture each."""

    def draft(link: Link) -> Record:
        now = datetime.now(timezone.utc)
        return replace(
            EXAMPLE,
            id=str(uuid7(now)),
            run=run,
            seq=link.seq,
            part=link.seq,
            time=now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            verdict=Verdict.FAIL if link.seq % 10 == 0 else Verdict.PASS,
            previous_sha256=link.previous_sha256,
        )

    return draft


def fill(store: Path, size: int, progress: Callable[[int], None] = lambda done: None) -> None:
    """Write records until so many are there, chained as the ledger chains them; all are published.

    Their bytes are those of ``schema.encode``, put together from a pattern: a million of them would
    take the ledger itself six minutes.
    """
    db = open_database(store / DATABASE, synchronous="NORMAL")
    try:
        found = db.execute(
            "SELECT number, sha256 FROM records ORDER BY number DESC LIMIT 1"
        ).fetchone()
        number, previous = found or (0, GENESIS)
        while number < size:
            rows = list(_rows(number, previous, min(size - number, FILLED_PER_COMMIT)))
            with db:
                db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            number, previous = rows[-1][0], rows[-1][7]
            progress(number)
    finally:
        db.close()


def _rows(number: int, previous: str, count: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows of the ledger that follow a record of this number and hash."""
    run = f"filled-from-{number}"
    now = datetime.now(timezone.utc)
    told = drafts_of(run)(Link(1, GENESIS))
    pattern = encode(told).decode()
    for key, mark in (("id", told.id), ("previous_sha256", GENESIS)):
        pattern = pattern.replace(f'"{key}":"{mark}"', f'"{key}":"<{key}>"')
    pattern = pattern.replace('"part":1,', '"part":<seq>,').replace('"seq":1,', '"seq":<seq>,')
    for seq in range(1, count + 1):
        id_ = str(uuid7(now))
        body = (
            pattern.replace("<id>", id_)
            .replace("<previous_sha256>", previous)
            .replace("<seq>", str(seq))
            .encode()
        )
        previous = hashlib.sha256(body).hexdigest()
        yield number + seq, id_, run, seq, told.verdict.value, told.time, body, previous


def _at(ledger: Ledger, reader: LedgerReader, index: Index, store: Path) -> dict[str, Any]:
    """Take the figures of a ledger as large as it is now."""
    records, outbox = reader.last_number(), Outbox(store, RECEIVER)
    draft = drafts_of(f"at-{records}")
    single = [timed(lambda: ledger.append([draft]), 1).per_s for _ in range(SINGLE)]
    together = [
        timed(lambda: ledger.append([draft] * PER_COMMIT), PER_COMMIT).per_s
        for _ in range(TOGETHER)
    ]
    asked: dict[str, Callable[[], object]] = {
        "outbox_ms": lambda: outbox.waiting(PER_COMMIT),
        "by_id_ms": lambda: reader.by_id(_id_in_the_middle(reader)),
        "newest_ms": lambda: reader.after(reader.last_number() - 50, 50),
    }
    figures = {name: _ms(ask) for name, ask in asked.items()}
    outbox.confirm([r.id for r in outbox.waiting(SINGLE + PER_COMMIT * TOGETHER)])
    outbox.close()
    return {
        "records": records,
        "megabytes": round(sum(f.stat().st_size for f in store.glob("ledger*")) / 1e6, 1),
        "single_per_s": spread(single, 0).as_dict(),
        "together_per_s": spread(together, 0).as_dict(),
        **figures,
        **(_of_the_index(index, reader, f"at-{records}") if records <= DEEPEST_FOLD else {}),
    }


def _id_in_the_middle(reader: LedgerReader) -> str:
    kept = reader.at(reader.last_number() // 2)
    assert kept is not None
    return str(kept.values()["id"])


def _of_the_index(index: Index, reader: LedgerReader, run: str) -> dict[str, Any]:
    before, began = index.folded[0], time.perf_counter()
    while catch_up(index, reader, FOLD_PER_STEP):
        pass
    folded, seconds = index.folded[0] - before, time.perf_counter() - began
    now_ms = time.time_ns() // 1_000_000
    wanted = queries.Search(verdict=Verdict.FAIL.value)
    return {
        "fold_per_s": round(folded / seconds),
        "search_ms": _ms(lambda: queries.search(index, wanted)),
        "trend_ms": _ms(lambda: queries.trend(index, "hour", now_ms)),
        "counts_ms": _ms(lambda: queries.counts(index, run, now_ms)),
    }


def _ms(ask: Callable[[], object]) -> dict[str, Any]:
    return spread([timed(ask, 1).ms for _ in range(ASKED)], 3).as_dict()
