"""The dashboard's operations: what each page asks, and what people may do."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response, StreamingResponse

from pipeline.errors import ConfigError
from pipeline.recipe import DefectRule
from pipeline.web import queries
from pipeline.web.access import Refused
from pipeline.web.board import Board
from pipeline.web.desk import Review, Role
from pipeline.web.exports import FORMATS, export
from pipeline.web.operations import Asked, Operation, Query, stream
from pipeline.web.preview import flips
from pipeline.web.stationpage import station_page

JPEG = "image/jpeg"
BOUNDARY = "frame"
CSV_ROWS_AT_MOST = 100_000
CSV_PAGE = 1000
Id = Annotated[str, Field(max_length=64)]
Label = Annotated[str, Field(max_length=100)]
Whole = Annotated[int, Field(ge=0, le=1 << 53)]
Pixels = Annotated[float, Field(ge=-100_000, le=100_000)]


class PartsQuery(Query):
    verdict: Literal["PASS", "FAIL", "UNSURE"] | None = None
    label: Label | None = None
    run: Id | None = None
    text: Id | None = None
    since_ms: Whole | None = None
    until_ms: Whole | None = None
    before: Whole | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class PictureQuery(Query):
    view: Literal["full", "part", "thumb"] = "full"


class ParetoQuery(Query):
    hours: Annotated[int, Field(ge=1, le=24 * 366)] = 24


class ChartQuery(Query):
    size: Annotated[int, Field(ge=2, le=200)] = 20
    subgroups: Annotated[int, Field(ge=8, le=40)] = 40


class TrendQuery(Query):
    step: Literal["minute", "hour", "day"] = "hour"


class MapQuery(Query):
    label: Label | None = None


class LimitQuery(Query):
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class ExportQuery(Query):
    format: Literal["yolo", "coco"] = "yolo"


class AddedDefect(Query):
    label: Label
    xyxy: tuple[Pixels, Pixels, Pixels, Pixels]


class ReviewBody(Query):
    verdict: Literal["PASS", "FAIL"]
    wrong: Annotated[tuple[Annotated[int, Field(ge=0, le=1000)], ...], Field(max_length=100)] = ()
    added: Annotated[tuple[AddedDefect, ...], Field(max_length=100)] = ()
    note: Annotated[str, Field(max_length=500)] = ""


class PreviewBody(Query):
    defects: Annotated[dict[Label, DefectRule], Field(max_length=100)]
    parts: Annotated[int, Field(ge=1, le=2000)] = 500


class FaultBody(Query):
    name: Literal["camera", "broker"]
    on: bool


def operations(board: Board) -> tuple[Operation, ...]:
    """Return everything that can be asked of a board; what is not named here is denied."""

    def of(run: Callable[[Board, Asked], Any]) -> Callable[[Asked], Any]:
        return partial(run, board)

    viewer, operator, engineer = Role.VIEWER, Role.OPERATOR, Role.ENGINEER
    table = [
        Operation("GET", "/line", viewer, of(_line), "State, counts and newest parts."),
        Operation(
            "GET",
            "/events",
            viewer,
            stream(lambda asked: _events(board)),
            "The same as server-sent events, as they happen.",
            gives="text/event-stream",
        ),
        Operation(
            "GET",
            "/live.mjpg",
            viewer,
            stream(lambda asked: _mjpeg(board)),
            "The live picture with boxes and verdicts.",
            gives="multipart/x-mixed-replace",
        ),
        Operation("GET", "/parts", viewer, of(_parts), "Search parts, newest first.", PartsQuery),
        Operation(
            "GET",
            "/parts.csv",
            viewer,
            of(_csv),
            "The same as a table, at most 100,000 rows.",
            PartsQuery,
            "text/csv",
        ),
        Operation("GET", "/parts/{id}", viewer, of(_part), "A part, its reviews, its chain."),
        Operation(
            "GET", "/parts/{id}/picture", viewer, of(_picture), "Its picture.", PictureQuery, JPEG
        ),
        Operation(
            "POST",
            "/parts/{id}/review",
            operator,
            of(_review),
            "Confirm or correct a verdict.",
            ReviewBody,
        ),
        Operation("GET", "/reviews", viewer, of(_reviews), "What is to be reviewed.", LimitQuery),
        Operation(
            "GET",
            "/reviews/export",
            operator,
            of(_export),
            "Reviewed parts with pictures and boxes.",
            ExportQuery,
            "application/zip",
        ),
        Operation("GET", "/quality/pareto", viewer, of(_pareto), "Defects by label.", ParetoQuery),
        Operation("GET", "/quality/chart", viewer, of(_chart), "p chart of rejects.", ChartQuery),
        Operation("GET", "/quality/trend", viewer, of(_trend), "Verdicts over time.", TrendQuery),
        Operation("GET", "/quality/map", viewer, of(_map), "Where defects lie.", MapQuery),
        Operation("GET", "/recipe", viewer, of(_recipe), "Thresholds and rules in force."),
        Operation(
            "POST",
            "/recipe/preview",
            viewer,
            of(_preview),
            "Which stored parts other rules would have judged otherwise; changes nothing.",
            PreviewBody,
        ),
        Operation("GET", "/station", viewer, of(_station), "Each part of the station."),
        Operation("GET", "/audit", engineer, of(_audit), "Who changed what, when.", LimitQuery),
    ]
    if board.demo:
        table += [
            Operation("GET", "/demo/faults", viewer, of(_faults), "Faults that are asked for."),
            Operation(
                "POST", "/demo/faults", engineer, of(_ask_fault), "Make or end one.", FaultBody
            ),
        ]
    return tuple(table)


def _line(board: Board, asked: Asked) -> Any:
    return board.hub.line.value or {}


def _events(board: Board) -> Response:
    async def each() -> AsyncIterator[str]:
        newest = None
        yield "retry: 1000\n\n"
        async for line in board.hub.line.each():
            records = line["records"]
            number = records[-1]["number"] if records else 0
            # The newest parts are told when one has come; what stands still travels once.
            said = line if number != newest else {k: v for k, v in line.items() if k != "records"}
            newest = number
            yield f"data: {json.dumps(said)}\n\n"

    return StreamingResponse(each(), media_type="text/event-stream")


def _mjpeg(board: Board) -> Response:
    async def each() -> AsyncIterator[bytes]:
        async for jpeg in board.hub.picture.each():
            head = f"--{BOUNDARY}\r\nContent-Type: {JPEG}\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"

    return StreamingResponse(each(), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")


def _search(board: Board, query: PartsQuery) -> list[dict[str, Any]]:
    found = queries.search(board.index, queries.Search(**query.model_dump()))
    labels = queries.labels_of(board.index, [s["number"] for s in found])
    said = board.desk.reviewed([s["id"] for s in found])
    return [s | {"labels": labels.get(s["number"], []), "review": said.get(s["id"])} for s in found]


def _parts(board: Board, asked: Asked) -> Any:
    found = _search(board, asked.query)
    more = found[-1]["number"] if len(found) == asked.query.limit else None
    return {"parts": found, "before": more}


def _csv(board: Board, asked: Asked) -> Response:
    def lines() -> Iterator[str]:
        query, left = asked.query.model_copy(update={"limit": CSV_PAGE}), CSV_ROWS_AT_MOST
        keys = ["time", "id", "run", "part", "verdict", "labels", "recipe", "latency_ms", "review"]
        yield ",".join(keys) + "\r\n"
        while left > 0 and (found := _search(board, query)):
            page = io.StringIO()
            writer = csv.DictWriter(page, keys, extrasaction="ignore")
            for row in found:
                time_s = row["time_ms"] / 1000
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s))
                named = {"time": f"{stamp}.{row['time_ms'] % 1000:03d}Z"}
                writer.writerow(row | named | {"labels": " ".join(row["labels"])})
            yield page.getvalue()
            left -= len(found)
            query = query.model_copy(update={"before": found[-1]["number"]})

    headers = {"Content-Disposition": 'attachment; filename="parts.csv"'}
    return StreamingResponse(lines(), media_type="text/csv", headers=headers)


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
        "labels": list(board.bundle.manifest.labels),
    }


def _picture(board: Board, asked: Asked) -> Response:
    jpeg = board.picture(asked.id, asked.query.view)
    # A record never changes; its picture is the same for good.
    return Response(jpeg, media_type=JPEG, headers={"Cache-Control": "private, max-age=86400"})


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
    done = {number for number, _ in board.desk.newest_reviews(100_000)}
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
    return StreamingResponse(made.pieces(), media_type="application/zip", headers=headers)


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
    return {"faults": board.faults_wanted()}


def _ask_fault(board: Board, asked: Asked) -> Any:
    body = asked.query
    board.desk.note(asked.person.name, "demo.fault", {"name": body.name, "on": body.on})
    return {"faults": board.ask_fault(body.name, body.on)}


def _now_ms() -> int:
    return int(time.time() * 1000)
