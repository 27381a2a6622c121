"""What the pages ask of the index: each answer comes from an index of the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.quality.control import p_chart
from pipeline.quality.intervals import Share
from pipeline.types import Verdict
from pipeline.web.index import HOUR_MS, VERDICTS, Index

MINUTE_MS = 60_000
DAY_MS = 24 * HOUR_MS
MAP_DEFECTS = 1500
IDS_AT_MOST = 1000
PASS, FAIL, UNSURE = range(3)
_COLUMNS = "number, id, run, part, time_ms, verdict, recipe, latency_ms, picture, good"
_KEYS = _COLUMNS.split(", ")


@dataclass(frozen=True, slots=True)
class Search:
    """Which parts are looked for; None does not restrict.

    Attributes:
        before: only those with smaller numbers in the ledger: the next page.
        text: begin of an id, or a part's number.
        since_ms, until_ms: milliseconds since 1970.
    """

    verdict: str | None = None
    label: str | None = None
    run: str | None = None
    text: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    before: int | None = None
    limit: int = 50


def search(index: Index, wanted: Search) -> list[dict[str, Any]]:
    """Return the parts that fit, newest first."""
    where, values = _conditions(index, wanted)
    table = "parts"
    if wanted.label:
        # From the table that knows the labels: it is read in order and only as far as needed.
        verdicts = [VERDICTS.index(wanted.verdict)] if wanted.verdict else [PASS, FAIL, UNSURE]
        branches = " UNION ALL ".join(
            "SELECT * FROM (SELECT DISTINCT number FROM defects WHERE label = ? AND verdict = ? "
            "AND number < ? AND number >= ? ORDER BY number DESC LIMIT ?)"
            for _ in verdicts
        )
        first, last = _range(index, wanted)
        table = f"({branches}) JOIN parts USING (number)"
        head = [v for k in verdicts for v in (wanted.label, k, last, first, wanted.limit)]
        values = [*head, *values]
    rows = index.rows(
        f"SELECT {_COLUMNS} FROM {table} WHERE {where} ORDER BY number DESC LIMIT ?",
        [*values, wanted.limit],
    )
    return [_summary(row) for row in rows]


def by_id(index: Index, id: str) -> dict[str, Any] | None:
    """Return the summary of one part."""
    rows = index.rows(f"SELECT {_COLUMNS} FROM parts WHERE id = ?", (id,))
    return _summary(rows[0]) if rows else None


def true_defects(index: Index, number: int) -> list[dict[str, Any]] | None:
    """Return what is truly wrong with a part, or None where that is not known."""
    rows = index.rows("SELECT defects FROM truth WHERE number = ?", (number,))
    return list(json.loads(rows[0][0])) if rows else None


def labels_of(index: Index, numbers: list[int]) -> dict[int, list[str]]:
    """Return the labels found on each of these parts, strongest first."""
    marks = ",".join("?" * len(numbers))
    found: dict[int, list[str]] = {}
    for number, label in index.rows(
        f"SELECT number, label FROM defects WHERE number IN ({marks}) ORDER BY score DESC", numbers
    ):
        if label not in found.setdefault(number, []):
            found[number].append(label)
    return found


def unreviewed(index: Index, reviewed: set[int], limit: int) -> list[dict[str, Any]]:
    """Return the newest UNSURE parts that nobody has reviewed."""
    rows = index.rows(
        f"SELECT {_COLUMNS} FROM parts WHERE verdict = ? ORDER BY number DESC LIMIT ?",
        (UNSURE, limit + len(reviewed)),
    )
    return [s for s in map(_summary, rows) if s["number"] not in reviewed][:limit]


def counts(index: Index, run: str | None, now_ms: int) -> dict[str, Any]:
    """Return verdicts of a run, yield with its interval, and parts per minute."""
    rows = index.rows("SELECT verdict, parts FROM runs WHERE run = ?", (run,))
    of = {VERDICTS[v]: n for v, n in rows}
    total = sum(of.values())
    recent = index.rows(
        "SELECT count(*), min(time_ms) FROM parts WHERE time_ms > ? AND run = ?",
        (now_ms - MINUTE_MS, run),
    )[0]
    # A run younger than a minute is measured over what there is of it.
    span_ms = max(now_ms - (recent[1] or now_ms), 1000)
    return {
        "parts": total,
        "verdicts": {v: of.get(v, 0) for v in VERDICTS},
        "yield": Share(of.get(Verdict.PASS.value, 0), total).as_dict(),
        "per_minute": round(max(recent[0] - 1, 0) * MINUTE_MS / span_ms, 1),
    }


def truth(index: Index, run: str | None) -> dict[str, Any] | None:
    """Return escapes and overkill of a run whose parts are known, else None."""
    rows = index.rows(
        "SELECT good, verdict, count(*) FROM parts WHERE run = ? AND good IS NOT NULL "
        "GROUP BY good, verdict",
        (run,),
    )
    if not rows:
        return None
    seen = {(good, verdict): n for good, verdict, n in rows}
    bad = sum(n for (good, _), n in seen.items() if not good)
    good = sum(n for (good, _), n in seen.items() if good)
    return {
        "escapes": Share(seen.get((0, PASS), 0), bad).as_dict(),
        "overkill": Share(seen.get((1, FAIL), 0), good).as_dict(),
        "unsure": Share(sum(n for (_, v), n in seen.items() if v == UNSURE), bad + good).as_dict(),
    }


def pareto(index: Index, hours: int, now_ms: int) -> list[dict[str, Any]]:
    """Return the labels of rejected parts, the most frequent first."""
    rows = index.rows(
        "SELECT label, sum(parts), sum(defects) FROM labels WHERE hour > ? GROUP BY label "
        "ORDER BY 3 DESC, 2 DESC",
        (now_ms // HOUR_MS - hours,),
    )
    return [{"label": label, "parts": parts, "defects": found} for label, parts, found in rows]


def chart(index: Index, size: int, subgroups: int) -> dict[str, Any]:
    """Return a p chart of the newest parts, in subgroups of ``size`` successive ones."""
    last = int(index.rows("SELECT max(number) FROM parts")[0][0] or 0)
    newest = last // size
    rows = index.rows(
        "SELECT (number - 1) / ?1, sum(verdict != 0), count(*), min(time_ms) FROM parts "
        "WHERE number > ?2 AND number <= ?3 GROUP BY 1 ORDER BY 1",
        (size, max(newest - subgroups, 0) * size, newest * size),
    )
    made = p_chart([r[1] for r in rows], [r[2] for r in rows])
    return {
        "size": size,
        "centre": made.centre,
        "points": [
            {
                "time_ms": row[3],
                "count": point.count,
                "of": point.of,
                "share": point.share,
                "low": point.low,
                "high": point.high,
                "broken": point.broken,
            }
            for row, point in zip(rows, made.points, strict=True)
        ],
    }


_TREND_MS: Mapping[str, tuple[int, int]] = {
    "minute": (MINUTE_MS, 60),
    "hour": (HOUR_MS, 48),
    "day": (DAY_MS, 60),
}


def trend(index: Index, step: str, now_ms: int) -> list[dict[str, Any]]:
    """Return verdicts per minute of an hour, hour of two days, or day of two months."""
    step_ms, steps = _TREND_MS[step]
    first = now_ms // step_ms - steps + 1
    if step == "minute":
        rows = index.rows(
            "SELECT time_ms / ?1, verdict, count(*) FROM parts WHERE time_ms >= ?2 GROUP BY 1, 2",
            (step_ms, first * step_ms),
        )
    else:
        rows = index.rows(
            "SELECT hour * ?1 / ?2, verdict, sum(parts) FROM hours WHERE hour >= ?3 GROUP BY 1, 2",
            (HOUR_MS, step_ms, first * step_ms // HOUR_MS),
        )
    found = {(at, verdict): n for at, verdict, n in rows}
    return [
        {
            "time_ms": at * step_ms,
            **{name: found.get((at, v), 0) for v, name in enumerate(VERDICTS)},
        }
        for at in range(first, first + steps)
    ]


def places(index: Index, label: str | None) -> list[list[Any]]:
    """Return where the newest defects of rejected parts lie: x, y as shares of the part, label."""
    if label is None:
        # By an index of its own: among a million good parts there may be few of these.
        rows = index.rows(
            "SELECT x, y, label FROM defects WHERE verdict != 0 ORDER BY number DESC LIMIT ?",
            (MAP_DEFECTS,),
        )
    else:
        rows = [
            row
            for verdict in (FAIL, UNSURE)
            for row in index.rows(
                "SELECT x, y, label FROM defects WHERE label = ? AND verdict = ? "
                "ORDER BY number DESC LIMIT ?",
                (label, verdict, MAP_DEFECTS // 2),
            )
        ]
    return [[round(x, 4), round(y, 4), name] for x, y, name in rows]


def newest_picture(index: Index) -> str | None:
    """Return the id of the newest record that has a picture."""
    rows = index.rows(
        "SELECT id FROM (SELECT id, picture FROM parts ORDER BY number DESC LIMIT 500) "
        "WHERE picture LIMIT 1"
    )
    return rows[0][0] if rows else None


def _conditions(index: Index, wanted: Search) -> tuple[str, list[Any]]:
    first, last = _range(index, wanted)
    where = ["number >= ?", "number < ?"]
    values: list[Any] = [first, last]
    if wanted.verdict:
        where.append("parts.verdict = ?")
        values.append(VERDICTS.index(wanted.verdict))
    if wanted.run:
        where.append("run = ?")
        values.append(wanted.run)
    if wanted.text and wanted.text.isascii() and wanted.text.isdigit() and len(wanted.text) < 10:
        where.append("part = ?")
        values.append(int(wanted.text))
    elif wanted.text:
        # Ids sort by time, as numbers do; left to itself, SQLite reads all parts by number.
        where.append(
            "number IN (SELECT number FROM parts WHERE id >= ? AND id < ? AND number < ? "
            "ORDER BY id DESC LIMIT ?)"
        )
        values += [wanted.text, wanted.text + "~", last, IDS_AT_MOST]
    return " AND ".join(where), values


def _range(index: Index, wanted: Search) -> tuple[int, int]:
    """Return the numbers between which records may lie: from, and up to but without."""
    first, last = 0, wanted.before or 1 << 62
    if wanted.since_ms is not None:
        found = _first_since(index, wanted.since_ms)
        first = found if found is not None else 1 << 61
    if wanted.until_ms is not None:
        found = _first_since(index, wanted.until_ms)
        last = min(last, found) if found is not None else last
    return first, last


def _first_since(index: Index, time_ms: int) -> int | None:
    rows = index.rows(
        "SELECT number FROM parts WHERE time_ms >= ? ORDER BY time_ms LIMIT 1", (time_ms,)
    )
    return int(rows[0][0]) if rows else None


def _summary(row: tuple[Any, ...]) -> dict[str, Any]:
    values = dict(zip(_KEYS, row, strict=True))
    values["verdict"] = VERDICTS[values["verdict"]]
    values["picture"] = bool(values["picture"])
    values["good"] = None if values["good"] is None else bool(values["good"])
    return values
