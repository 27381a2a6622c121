"""Parts that were searched, as a table: CSV for a spreadsheet, Parquet for everything else."""

from __future__ import annotations

import csv
import io
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

from pipeline.plugins import vendor
from pipeline.web import queries
from pipeline.web.board import Board
from pipeline.web.requests import PartsQuery
from pipeline.web.streams import pieces

MEDIA_TYPES = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
ROWS_AT_MOST = 100_000
PAGE = 1000
IN_MEMORY_BYTES = 8 << 20
KEYS = ("time", "id", "run", "part", "verdict", "labels", "recipe", "latency_ms", "review")


def found(board: Board, query: PartsQuery) -> list[dict[str, Any]]:
    """Return the parts that a search finds, with their labels and newest reviews."""
    parts = queries.search(board.index, queries.Search(**query.model_dump()))
    labels = queries.labels_of(board.index, [s["number"] for s in parts])
    said = board.desk.reviewed([s["id"] for s in parts])
    return [s | {"labels": labels.get(s["number"], []), "review": said.get(s["id"])} for s in parts]


def as_csv(board: Board, query: PartsQuery) -> Iterator[bytes]:
    """Yield a table with a head, page by page."""
    yield (",".join(KEYS) + "\r\n").encode()
    for rows in _pages(board, query):
        page = io.StringIO()
        csv.DictWriter(page, KEYS).writerows(r | {"labels": " ".join(r["labels"])} for r in rows)
        yield page.getvalue().encode()


def as_parquet(board: Board, query: PartsQuery) -> Iterator[bytes]:
    """Write a file page by page, and yield its bytes.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    arrow, parquet = vendor("pyarrow", "parquet"), vendor("pyarrow.parquet", "parquet")
    text = arrow.string()
    types = {"part": arrow.int64(), "latency_ms": arrow.float64(), "labels": arrow.list_(text)}
    schema = arrow.schema([(key, types.get(key, text)) for key in KEYS])
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
    with parquet.ParquetWriter(file, schema) as writer:
        for rows in _pages(board, query):
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
    return pieces(file)


def _pages(board: Board, query: PartsQuery) -> Iterator[list[dict[str, Any]]]:
    query, left = query.model_copy(update={"limit": PAGE}), ROWS_AT_MOST
    while left > 0 and (parts := found(board, query)):
        yield [{key: (p | {"time": _stamp(p["time_ms"])})[key] for key in KEYS} for p in parts]
        left -= len(parts)
        query = query.model_copy(update={"before": parts[-1]["number"]})


def _stamp(time_ms: int) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms / 1000))
    return f"{stamp}.{time_ms % 1000:03d}Z"
