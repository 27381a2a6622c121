"""What each request of the interface may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.recipe import DefectRule
from pipeline.web.operations import Query

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
    format: Literal["yolo", "coco", "labelstudio"] = "yolo"


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


class LineBody(Query):
    line: Annotated[str, Field(max_length=100)]


class VideoQuery(Query):
    name: Annotated[str, Field(max_length=100)]


class FaultBody(Query):
    name: Literal["camera", "lamp", "broker", "disk"]
    on: bool
