"""The dashboard's operations: what each page asks, and what people may do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.responses import Response, StreamingResponse

from pipeline.errors import ConfigError, StoreError
from pipeline.web import queries
from pipeline.web.access import Refused
from pipeline.web.board import Board
from pipeline.web.desk import Review, Role
from pipeline.web.exports import FORMATS, export
from pipeline.web.operations import Asked, Operation
from pipeline.web.panel import MAX_VIDEO_BYTES
from pipeline.web.preview import flips
from pipeline.web.requests import (
    ChartQuery,
    ExportQuery,
    FaultBody,
    LimitQuery,
    LineBody,
    MapQuery,
    ParetoQuery,
    PartsQuery,
    PictureQuery,
    PreviewBody,
    ReviewBody,
    TrendQuery,
    VideoQuery,
)
from pipeline.web.rerun import run_again
from pipeline.web.stationpage import station_page
from pipeline.web.streams import JPEG, events, mjpeg, pieces
from pipeline.web.tables import MEDIA_TYPES, as_csv, as_parquet, found

NOTE_S = 3.0
"""So long an audit line may wait for room on a disk that is being given back."""


def operations(board: Board) -> tuple[Operation, ...]:
    """Return everything that can be asked of a board; what is not named here is denied."""
    table = (*_LINE, *_PARTS, *_QUALITY, *_STATION, *(_DEMO if board.demo else ()))
    return tuple(replace(op, run=partial(op.run, board)) for op in table)


def _line(board: Board, asked: Asked) -> Any:
    return board.hub.line.value or {}


def _parts(board: Board, asked: Asked) -> Any:
    parts = found(board, asked.query)
    more = parts[-1]["number"] if len(parts) == asked.query.limit else None
    return {"parts": parts, "before": more}


def _csv(board: Board, asked: Asked) -> Response:
    return _file(as_csv(board, asked.query), "csv")


def _parquet(board: Board, asked: Asked) -> Response:
    return _file(as_parquet(board, asked.query), "parquet")


def _file(content: Iterator[bytes], kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="parts.{kind}"'}
    return StreamingResponse(content, media_type=MEDIA_TYPES[kind], headers=headers)


def _part(board: Board, asked: Asked) -> Any:
    kept = board.kept(asked.id)
    record = kept.values()
    link = board.ledger.link(kept)
    summary = queries.by_id(board.index, asked.id)
    return {
        "number": kept.number,
        "record": record,
        "sha256": kept.sha256,
        "chain": {
            "own": link.own,
            "before": link.before,
            "after": link.after,
            "whole": link.whole,
        },
        "picture": board.ledger.picture_file(record["image"]) is not None,
        "reviews": board.desk.reviews_of(asked.id),
        "good": summary["good"] if summary else None,
        "truth": queries.true_defects(board.index, kept.number),
        "labels": list(board.bundle.manifest.labels),
    }


def _picture(board: Board, asked: Asked) -> Response:
    jpeg = board.picture(asked.id, asked.query.view)
    # A record never changes; its picture is the same for good.
    return Response(jpeg, media_type=JPEG, headers={"Cache-Control": "private, max-age=86400"})


def _rerun(board: Board, asked: Asked) -> Any:
    kept = board.kept(asked.id)
    again = run_again(board, kept.values())
    said = {"id": asked.id, "same": again["same"]}
    board.desk.note(asked.person.name, "rerun", said)
    return again


def _review(board: Board, asked: Asked) -> Any:
    kept = board.kept(asked.id)
    record, body = kept.values(), asked.query
    known = board.bundle.manifest.labels
    if unknown := [d.label for d in body.added if d.label not in known]:
        raise Refused(400, f"the model has no label '{unknown[0]}'; it has: {', '.join(known)}")
    if any(i >= len(record["defects"]) for i in body.wrong):
        raise Refused(400, f"wrong: this record has {len(record['defects'])} defects")
    added = tuple({"label": d.label, "xyxy": list(d.xyxy)} for d in body.added)
    review = Review(body.verdict, body.wrong, added, body.note)
    board.desk.add_review(kept.number, record, review, asked.person.name)
    return {"reviews": board.desk.reviews_of(asked.id)}


def _reviews(board: Board, asked: Asked) -> Any:
    done = board.desk.reviewed_numbers()
    waiting = queries.unreviewed(board.index, done, asked.query.limit)
    labels = queries.labels_of(board.index, [s["number"] for s in waiting])
    return {
        "waiting": [s | {"labels": labels.get(s["number"], [])} for s in waiting],
        "reviewed": len(done),
        "agreement": board.desk.agreement(),
    }


def _export(board: Board, asked: Asked) -> Response:
    name = asked.query.format
    made = export(board, FORMATS[name])
    board.desk.note(asked.person.name, "export", {"format": name, "parts": made.parts})
    headers = {"Content-Disposition": f'attachment; filename="reviewed-{name}.zip"'}
    return StreamingResponse(pieces(made.file), media_type="application/zip", headers=headers)


def _pareto(board: Board, asked: Asked) -> Any:
    return {"labels": queries.pareto(board.index, asked.query.hours, _now_ms())}


def _chart(board: Board, asked: Asked) -> Any:
    return queries.chart(board.index, asked.query.size, asked.query.subgroups)


def _trend(board: Board, asked: Asked) -> Any:
    return {"steps": queries.trend(board.index, asked.query.step, _now_ms())}


def _map(board: Board, asked: Asked) -> Any:
    return {
        "places": queries.places(board.index, asked.query.label),
        "picture": queries.newest_picture(board.index),
    }


def _recipe(board: Board, asked: Asked) -> Any:
    recipe = board.config.document.recipe
    return {
        "recipe": recipe.model_dump(mode="json"),
        "bundle": board.bundle.manifest.name,
        "thresholds": {
            label: t.model_dump() for label, t in board.bundle.manifest.thresholds.items()
        },
    }


def _preview(board: Board, asked: Asked) -> Any:
    try:
        return flips(board, asked.query.defects, asked.query.parts)
    except ConfigError as error:
        raise Refused(400, str(error)) from error


def _station(board: Board, asked: Asked) -> Any:
    return station_page(board)


def _audit(board: Board, asked: Asked) -> Any:
    return {"audit": board.desk.audit(asked.query.limit)}


def _faults(board: Board, asked: Asked) -> Any:
    return board.panel.faults()


def _ask_fault(board: Board, asked: Asked) -> Any:
    body = asked.query
    board.panel.ask_fault(body.name, body.on)
    _note_patiently(board, asked.person.name, {"name": body.name, "on": body.on})
    return board.panel.faults()


def _lines(board: Board, asked: Asked) -> Any:
    return board.panel.lines()


def _ask_line(board: Board, asked: Asked) -> Any:
    board.panel.ask_line(asked.query.line)
    board.desk.note(asked.person.name, "demo.line", {"line": asked.query.line})
    return board.panel.lines()


def _add_video(board: Board, asked: Asked) -> Any:
    assert asked.file is not None
    with asked.file as sent:
        line = board.panel.add_video(asked.query.name, sent)
    board.desk.note(asked.person.name, "demo.video", {"line": line})
    return {"line": line} | board.panel.lines()


def _note_patiently(board: Board, who: str, what: dict[str, Any]) -> None:
    """Write the audit line of a fault once there is room: what was ended may be a full disk."""
    until_s = time.monotonic() + NOTE_S
    while True:
        try:
            board.desk.note(who, "demo.fault", what)
            return
        except StoreError:
            if not what["on"] and time.monotonic() < until_s:
                time.sleep(0.05)
                continue
            raise


def _now_ms() -> int:
    return int(time.time() * 1000)


_VIEWER, _OPERATOR, _ENGINEER = Role.VIEWER, Role.OPERATOR, Role.ENGINEER
_SSE, _MIXED = "text/event-stream", "multipart/x-mixed-replace"

_LINE = (
    Operation("GET", "/line", _VIEWER, _line, "State, counts and newest parts."),
    Operation("GET", "/events", _VIEWER, events, "The same as server-sent events, as they happen.",
              gives=_SSE, streams=True),
    Operation("GET", "/live.mjpg", _VIEWER, mjpeg, "The live picture with boxes and verdicts.",
              gives=_MIXED, streams=True),
)  # fmt: skip
_PARTS = (
    Operation("GET", "/parts", _VIEWER, _parts, "Search parts, newest first.", PartsQuery),
    Operation("GET", "/parts.csv", _VIEWER, _csv, "The same as a table, at most 100,000 rows.",
              PartsQuery, MEDIA_TYPES["csv"]),
    Operation("GET", "/parts.parquet", _VIEWER, _parquet, "The same in columns (extra `parquet`).",
              PartsQuery, MEDIA_TYPES["parquet"]),
    Operation("GET", "/parts/{id}", _VIEWER, _part, "A part, its reviews, its chain."),
    Operation("GET", "/parts/{id}/picture", _VIEWER, _picture, "Its picture.", PictureQuery, JPEG),
    Operation("POST", "/parts/{id}/rerun", _OPERATOR, _rerun,
              "Show its stored picture to the model again."),
    Operation("POST", "/parts/{id}/review", _OPERATOR, _review, "Confirm or correct a verdict.",
              ReviewBody),
    Operation("GET", "/reviews", _VIEWER, _reviews, "What is to be reviewed.", LimitQuery),
    Operation("GET", "/reviews/export", _OPERATOR, _export,
              "Reviewed parts with pictures and boxes.", ExportQuery, "application/zip"),
)  # fmt: skip
_QUALITY = (
    Operation("GET", "/quality/pareto", _VIEWER, _pareto, "Defects by label.", ParetoQuery),
    Operation("GET", "/quality/chart", _VIEWER, _chart, "p chart of rejects.", ChartQuery),
    Operation("GET", "/quality/trend", _VIEWER, _trend, "Verdicts over time.", TrendQuery),
    Operation("GET", "/quality/map", _VIEWER, _map, "Where defects lie.", MapQuery),
)
_STATION = (
    Operation("GET", "/recipe", _VIEWER, _recipe, "Thresholds and rules in force."),
    Operation("POST", "/recipe/preview", _VIEWER, _preview,
              "Which stored parts other rules would have judged otherwise; changes nothing.",
              PreviewBody),
    Operation("GET", "/station", _VIEWER, _station, "Each part of the station."),
    Operation("GET", "/audit", _ENGINEER, _audit, "Who changed what, when.", LimitQuery),
)  # fmt: skip
_DEMO = (
    Operation("GET", "/demo/faults", _VIEWER, _faults, "Faults: offered, and asked for."),
    Operation("POST", "/demo/faults", _ENGINEER, _ask_fault, "Make or end one.", FaultBody),
    Operation("GET", "/demo/lines", _VIEWER, _lines, "Lines: offered, and which one runs."),
    Operation("POST", "/demo/lines", _ENGINEER, _ask_line, "Run another line.", LineBody),
    Operation(
        "POST",
        "/demo/videos",
        _ENGINEER,
        _add_video,
        "Send a video of a line.",
        VideoQuery,
        uploads=MAX_VIDEO_BYTES,
    ),
)
