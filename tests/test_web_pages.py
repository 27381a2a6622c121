"""The dashboard over a real store: what each page is told, and what people may say."""

import csv
import importlib
import importlib.util
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from pipeline.assembly import build
from pipeline.config import StationConfig
from pipeline.errors import StoreError
from pipeline.quality.truthfile import FILE as TRUTH_FILE
from pipeline.quality.truthfile import line_of
from pipeline.store import DATABASE
from pipeline.types import Box, Decision, Frame, Part, Verdict
from pipeline.web.board import Board
from tests.dashboards import (
    NEXT_RUN,
    RUN,
    Reported,
    config_in,
    dashboard,
    fill,
    mixed,
    pictured,
    record,
    showing,
    token,
)
from tests.doubles import until

from pipeline.clock import SystemClock  # isort: skip
from pipeline.inspection import InView  # isort: skip


@pytest.fixture
def config(tmp_path: Path) -> StationConfig:
    return config_in(tmp_path)


@pytest.fixture
def filled(config: StationConfig) -> Iterator[httpx.Client]:
    """Serve forty parts, and a failed and an unsure one with pictures."""
    pictures = [
        pictured(config, 41, "FAIL", ("short", "open")),
        pictured(config, 42, "UNSURE", ("open",)),
    ]
    fill(config, [*mixed(40), *pictures])
    with dashboard(config) as client:
        yield client


def parts(client: httpx.Client, **wanted: Any) -> list[Any]:
    return list(client.get("/api/v1/parts", params=wanted).json()["parts"])


def event(client: httpx.Client) -> dict[str, Any]:
    """Return the first event of the stream."""
    with client.stream("GET", "/api/v1/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                return dict(json.loads(line[6:]))
    raise AssertionError("the stream ended")


# -- line -----------------------------------------------------------------------------------


def test_the_line_tells_state_counts_and_newest_parts(
    filled: httpx.Client, config: StationConfig
) -> None:
    with showing(config, Reported()) as window:
        window.offer(frame(), ())
        until(lambda: event(filled)["health"]["level"] == "good", "a station that is well")
        until(lambda: event(filled)["figures"].get("parts") == 42, "the counts")
        line = event(filled)
    assert line["figures"]["verdicts"] == {"PASS": 32, "FAIL": 5, "UNSURE": 5}
    assert line["figures"]["yield"]["count"] == 32
    until(lambda: event(filled)["health"]["title"] == "No contact", "the silence")


def test_without_a_station_nothing_is_good_but_everything_can_be_read(
    filled: httpx.Client,
) -> None:
    assert event(filled)["health"]["level"] == "off"
    assert len(parts(filled)) == 42


def test_a_fault_is_told_with_its_reason_and_taken_back(
    filled: httpx.Client, config: StationConfig
) -> None:
    station = Reported("not ready", {"camera": "camera 'top': unplugged"})
    with showing(config, station) as window:
        window.offer(frame(), ())
        until(lambda: event(filled)["health"]["level"] == "fault", "the fault")
        assert event(filled)["health"]["reasons"] == ["camera 'top': unplugged"]
        station.state, station.faults = "ready", {}
        until(lambda: event(filled)["health"]["level"] == "good", "the end of the fault")


def test_a_new_record_reaches_open_pages_by_itself(
    filled: httpx.Client, config: StationConfig
) -> None:
    with filled.stream("GET", "/api/v1/events") as stream:
        fill(config, [record(43, "FAIL", ("spur",), run=NEXT_RUN)])
        for line in stream.iter_lines():
            records = json.loads(line[6:]).get("records", []) if line[:5] == "data:" else []
            if records and records[-1]["part"] == 43:
                assert records[-1]["labels"] == ["spur"]
                return
    raise AssertionError("the stream ended without the record")


def test_the_live_picture_is_a_stream_of_jpegs_with_boxes(
    filled: httpx.Client, config: StationConfig
) -> None:
    view = InView(Part(1, 0, 1, 1, Box(100, 100, 600, 600)), (500, 500), Decision(Verdict.FAIL))
    with showing(config, Reported()) as window:
        window.offer(frame(), [view])
        with filled.stream("GET", "/api/v1/live.mjpg") as stream:
            assert "boundary=frame" in stream.headers["content-type"]
            got = b""
            for piece in stream.iter_bytes():
                got += piece
                if b"\xff\xd9\r\n" in got:
                    break
    jpeg = got[got.index(b"\xff\xd8") :].partition(b"\xff\xd9\r\n")[0] + b"\xff\xd9"
    image = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.int16)
    assert image.shape == (360, 640, 3)
    # The frame around the part is red where the drawn frame is grey.
    assert image[200, 50, 2] > image[200, 50, 0] + 60


def test_truth_beside_verdicts_counts_escapes_and_overkill(
    tmp_path: Path, config: StationConfig
) -> None:
    fill(config, mixed(10))  # 3 fails, 7 is unsure
    live = Path(str(config.document.live.path))
    live.mkdir()
    truth = {3: True, 4: False, 7: False}
    lines = [
        line_of(
            RUN,
            {
                "centre_frame": 40 * n + 15,
                "good": truth.get(n, True),
                "defects": [] if truth.get(n, True) else [{"class": "open", "xyxy": [1, 2, 9, 8]}],
            },
        )
        for n in range(1, 11)
    ]
    (live / TRUTH_FILE).write_text("".join(lines))
    with dashboard(config, demo=True) as client, showing(config, Reported()) as window:
        window.offer(frame(), ())
        until(lambda: bool(event(client)["figures"].get("truth")), "the truth")
        found = event(client)["figures"]["truth"]
        assert (found["escapes"]["count"], found["escapes"]["of"]) == (1, 2)
        assert (found["overkill"]["count"], found["overkill"]["of"]) == (1, 8)
        bad = [p for p in parts(client) if p["good"] is False]
        assert [p["part"] for p in bad] == [7, 4]
        escaped = client.get(f"/api/v1/parts/{bad[1]['id']}").json()
        assert escaped["truth"] == [{"label": "open", "xyxy": [1, 2, 9, 8]}]


# -- parts ----------------------------------------------------------------------------------


def test_parts_are_found_by_verdict_label_number_id_and_time(filled: httpx.Client) -> None:
    assert {p["verdict"] for p in parts(filled, verdict="FAIL")} == {"FAIL"}
    assert [p["part"] for p in parts(filled, label="short")] == [41, 33, 23, 13, 3]
    assert [p["part"] for p in parts(filled, label="open", verdict="FAIL")] == [41]
    (one,) = parts(filled, text="17")
    assert one["part"] == 17
    assert parts(filled, text=one["id"][:20]) == [one]
    since = one["time_ms"]
    assert [p["part"] for p in parts(filled, since_ms=since, until_ms=since + 4000)] == [18, 17]
    assert parts(filled, since_ms=since + 10**9) == []


def test_pages_of_a_search_join_without_gap_or_repeat(filled: httpx.Client) -> None:
    found: list[int] = []
    before = None
    while True:
        asked = {"limit": 7} | ({"before": before} if before else {})
        page = filled.get("/api/v1/parts", params=asked).json()
        found += [p["part"] for p in page["parts"]]
        before = page["before"]
        if before is None:
            break
    assert found == list(range(42, 0, -1))


def test_a_part_shows_its_record_and_that_its_chain_is_whole(filled: httpx.Client) -> None:
    first, last = parts(filled)[-1], parts(filled)[0]
    page = filled.get(f"/api/v1/parts/{first['id']}").json()
    assert page["record"]["part"] == 1
    assert page["chain"] == {"own": True, "before": True, "after": True, "whole": True}
    newest = filled.get(f"/api/v1/parts/{last['id']}").json()
    assert newest["chain"] == {"own": True, "before": True, "after": None, "whole": True}


def test_a_changed_record_is_shown_as_one(config: StationConfig) -> None:
    kept = fill(config, mixed(5))
    db = sqlite3.connect(config.store_path / DATABASE)
    with db:
        db.execute(
            "UPDATE records SET body = CAST(replace(body, 'FAIL', 'PASS') AS BLOB) WHERE id = ?",
            (kept[2].id,),
        )
    db.close()
    with dashboard(config) as client:
        page = client.get(f"/api/v1/parts/{kept[2].id}").json()
        assert not page["chain"]["own"]
        assert not page["chain"]["whole"]


def test_pictures_come_whole_cut_out_and_small(filled: httpx.Client) -> None:
    id = parts(filled, verdict="UNSURE")[0]["id"]
    sizes = {}
    for view in ("full", "part", "thumb"):
        answer = filled.get(f"/api/v1/parts/{id}/picture", params={"view": view})
        assert answer.headers["content-type"] == "image/jpeg"
        data = np.frombuffer(answer.content, np.uint8)
        image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
        sizes[view] = image.shape[:2]
    assert sizes == {"full": (200, 240), "part": (160, 160), "thumb": (160, 160)}


def test_a_part_without_a_picture_says_so(filled: httpx.Client) -> None:
    id = parts(filled, text="1")[0]["id"]
    answer = filled.get(f"/api/v1/parts/{id}/picture")
    assert answer.status_code == 404
    assert "not kept" in answer.json()["error"]


@pytest.mark.parametrize("view", ["full", "part", "thumb"])
def test_a_picture_that_was_exchanged_on_the_disk_is_not_shown(
    filled: httpx.Client, config: StationConfig, view: str
) -> None:
    id = parts(filled, verdict="UNSURE")[0]["id"]
    file = config.store_path / filled.get(f"/api/v1/parts/{id}").json()["record"]["image"]
    file.write_bytes(file.read_bytes() + b"\0")
    answer = filled.get(f"/api/v1/parts/{id}/picture", params={"view": view})
    assert answer.status_code == 404
    assert "not the one that the record names" in answer.json()["error"]


def test_the_table_for_a_spreadsheet_holds_every_part_that_was_searched(
    filled: httpx.Client,
) -> None:
    lines = filled.get("/api/v1/parts.csv", params={"verdict": "FAIL"}).text.splitlines()
    assert lines[0].startswith("time,id,run,part,verdict")
    assert len(lines) == 1 + 5
    assert ",41,FAIL,short open," in lines[1]


# -- quality --------------------------------------------------------------------------------


def test_pareto_counts_the_defects_of_rejected_parts(config: StationConfig) -> None:
    fill(config, [*mixed(20), record(21, "PASS", ("spur",)), record(22, "FAIL", ("short",) * 3)])
    with dashboard(config) as client:
        labels = client.get("/api/v1/quality/pareto", params={"hours": 24 * 366}).json()["labels"]
    assert labels == [
        {"label": "short", "parts": 3, "defects": 5},
        {"label": "open", "parts": 2, "defects": 2},
    ]


def test_the_chart_groups_successive_parts_and_flags_a_bad_spell(config: StationConfig) -> None:
    spell = [record(n, "FAIL", ("open",)) for n in range(161, 171)]
    fill(config, [*mixed(160), *spell, record(171)])
    with dashboard(config) as client:
        chart = client.get("/api/v1/quality/chart", params={"size": 10}).json()
    assert [p["count"] for p in chart["points"]] == [2] * 16 + [10]
    assert chart["points"][-1]["broken"] == ["beyond three standard deviations"]


def test_the_map_places_defects_as_shares_of_the_part(filled: httpx.Client) -> None:
    places = filled.get("/api/v1/quality/map", params={"label": "short"}).json()["places"]
    assert len(places) == 5
    assert places[0] == [round(30 / 160, 4), round(50 / 160, 4), "short"]


@pytest.mark.parametrize("step", ["minute", "hour", "day"])
def test_a_trend_has_a_step_for_every_time_also_without_parts(
    filled: httpx.Client, step: str
) -> None:
    steps = filled.get("/api/v1/quality/trend", params={"step": step}).json()["steps"]
    gaps = {b["time_ms"] - a["time_ms"] for a, b in pairwise(steps)}
    assert len(gaps) == 1


# -- review ---------------------------------------------------------------------------------


def test_a_review_is_kept_with_who_and_when_and_leaves_the_queue(filled: httpx.Client) -> None:
    queue = filled.get("/api/v1/reviews").json()
    assert [p["part"] for p in queue["waiting"]] == [42, 37, 27, 17, 7]
    id = queue["waiting"][0]["id"]
    for verdict in ("PASS", "FAIL"):
        body = {"verdict": verdict, "note": "looked twice"}
        answer = filled.post(f"/api/v1/parts/{id}/review", json=body, headers=token(filled))
        assert answer.status_code == 200
    said = filled.get(f"/api/v1/parts/{id}").json()["reviews"]
    assert [(r["verdict"], r["who"], r["note"]) for r in said] == [
        ("FAIL", "local", "looked twice"),
        ("PASS", "local", "looked twice"),
    ]
    after = filled.get("/api/v1/reviews").json()
    assert id not in {p["id"] for p in after["waiting"]}
    assert after["agreement"] == {"UNSURE": {"FAIL": 1}}
    audit = filled.get("/api/v1/audit").json()["audit"]
    assert [e["action"] for e in audit] == ["review", "review"]


def test_reviewed_parts_leave_as_yolo_and_coco_with_the_boxes_that_people_left(
    filled: httpx.Client,
) -> None:
    id = parts(filled, verdict="FAIL")[0]["id"]
    added = {"label": "spur", "xyxy": [100, 100, 120, 110]}
    body = {"verdict": "FAIL", "wrong": [1], "added": [added]}
    filled.post(f"/api/v1/parts/{id}/review", json=body, headers=token(filled))
    yolo = archive(filled, "yolo")
    lines = yolo.read(f"labels/{id}.txt").decode().splitlines()
    assert len(lines) == 2
    assert lines[0].split()[1:] == ["0.187500", "0.312500", "0.125000", "0.125000"]
    assert b"spur" in yolo.read("data.yaml")
    coco = json.loads(archive(filled, "coco").read("annotations.json"))
    assert [a["bbox"] for a in coco["annotations"]] == [[20, 40, 20, 20], [100, 100, 20, 10]]
    assert coco["images"][0]["width"] == 160


def test_label_studio_gets_what_the_station_found_and_what_people_said(
    filled: httpx.Client,
) -> None:
    reviewed, waiting = (parts(filled, verdict=v)[0]["id"] for v in ("FAIL", "UNSURE"))
    body = {"verdict": "FAIL", "wrong": [1]}
    filled.post(f"/api/v1/parts/{reviewed}/review", json=body, headers=token(filled))
    made = archive(filled, "labelstudio")
    tasks = {task["data"]["part"]: task for task in json.loads(made.read("tasks.json"))}
    done, open_ = tasks[reviewed], tasks[waiting]
    assert len(done["predictions"][0]["result"]) == 2
    assert [len(a["result"]) for a in done["annotations"]] == [1]
    assert open_["annotations"] == []
    box = done["annotations"][0]["result"][0]
    assert (box["original_width"], box["original_height"]) == (160, 160)
    value = box["value"]
    assert (value["x"], value["y"], value["width"], value["height"]) == (12.5, 25, 12.5, 12.5)
    assert value["rectanglelabels"] == ["short"]
    assert f"images/{waiting}.jpg" in made.namelist()
    assert b'<Label value="short"/>' in made.read("label_config.xml")


def archive(client: httpx.Client, kind: str) -> zipfile.ZipFile:
    answer = client.get("/api/v1/reviews/export", params={"format": kind})
    made = zipfile.ZipFile(io.BytesIO(answer.content))
    assert not any(name.startswith("/") or ".." in name for name in made.namelist())
    return made


def test_the_table_in_columns_holds_what_the_table_for_a_spreadsheet_holds(
    filled: httpx.Client,
) -> None:
    answer = filled.get("/api/v1/parts.parquet", params={"verdict": "FAIL"})
    if importlib.util.find_spec("pyarrow") is None:
        assert answer.status_code == 400
        assert "lineguard[parquet]" in answer.json()["error"]
        return
    read = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(answer.content))
    rows = read.to_pylist()
    assert rows and [row["id"] for row in rows] == [p["id"] for p in parts(filled, verdict="FAIL")]
    text = filled.get("/api/v1/parts.csv", params={"verdict": "FAIL"}).text
    for row in rows:
        row |= {"labels": " ".join(row["labels"]), "review": row["review"] or ""}
    same = [{key: str(value) for key, value in row.items()} for row in rows]
    assert same == list(csv.DictReader(io.StringIO(text)))


# -- run again ------------------------------------------------------------------------------


def test_a_stored_picture_is_run_again_by_a_child_and_compared(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    line = {"kind": "synthetic", "boards": 2, "seed": 7}
    config = config_in(tmp_path, camera=line, publishers=[])
    build(config, SystemClock()).run()
    with dashboard(config) as client:
        for part in parts(client):
            path = f"/api/v1/parts/{part['id']}"
            again = client.post(f"{path}/rerun", headers=token(client), timeout=90)
            assert again.status_code == 200, again.text
            said, record = again.json(), client.get(path).json()["record"]
            assert said["was"] == record["image_verdict"]
            # Close to a threshold the loss of a JPEG may change it: what counts is that it is said.
            assert said["same"] is (said["verdict"] == said["was"])
            assert said["verdict"] == "PASS" or said["found"]
        audit = client.get("/api/v1/audit").json()["audit"]
        assert [e["action"] for e in audit] == ["rerun", "rerun"]


def test_a_part_that_another_model_decided_is_not_run_again(filled: httpx.Client) -> None:
    part = parts(filled, verdict="UNSURE")[0]["id"]
    answer = filled.post(f"/api/v1/parts/{part}/rerun", headers=token(filled), timeout=90)
    assert answer.status_code == 400
    assert "picture" in answer.json()["error"] or "was decided by" in answer.json()["error"]


# -- recipe, station ------------------------------------------------------------------------


def test_a_preview_judges_stored_parts_anew_and_changes_nothing(filled: httpx.Client) -> None:
    body = {"defects": {"short": {"fail": 0.9, "unsure": 0.8}}, "parts": 100}
    answer = filled.post("/api/v1/recipe/preview", json=body, headers=token(filled)).json()
    # Four failed for a short alone; the fifth shows an open too.
    assert answer["parts"] == 42
    assert answer["table"]["FAIL>PASS"] == 4
    assert len(parts(filled, verdict="FAIL")) == 5


def test_a_preview_says_where_the_stored_scores_end(filled: httpx.Client) -> None:
    body = {"defects": {"short": {"fail": 0.05, "unsure": 0.01}}}
    answer = filled.post("/api/v1/recipe/preview", json=body, headers=token(filled)).json()
    assert answer["below_floor"]


def test_the_station_page_has_a_row_for_each_part_and_what_to_do(
    filled: httpx.Client, config: StationConfig
) -> None:
    station = Reported("not ready", {"camera": "camera 'top': unplugged"})
    with showing(config, station):
        rows = {r["name"]: r for r in filled.get("/api/v1/station").json()["rows"]}
    assert rows["Camera"]["level"] == "fault"
    assert "cable" in rows["Camera"]["mend"]
    assert rows["Receiver mqtt"]["level"] == "good"
    assert rows["Ledger"]["said"].startswith("42 records")


def test_a_model_that_is_slower_than_the_camera_is_a_warning(
    filled: httpx.Client, config: StationConfig
) -> None:
    slow = Reported()
    slow.tally.captured, slow.tally.inspected = 100, 80
    slow.tally.dropped["inspection too slow"] = 20
    with showing(config, slow):
        rows = {r["name"]: r for r in filled.get("/api/v1/station").json()["rows"]}
    assert rows["Model"]["level"] == "warning"
    assert "20 of 100 frames" in rows["Model"]["said"]


# -- it can die -----------------------------------------------------------------------------


def test_an_index_that_was_deleted_is_made_again(config: StationConfig) -> None:
    fill(config, mixed(20))
    with dashboard(config) as client:
        before = parts(client)
    for file in (config.store_path / "dashboard").glob("index.sqlite*"):
        file.unlink()
    with dashboard(config) as client:
        assert parts(client) == before


def test_another_ledger_in_the_same_place_is_noticed(config: StationConfig) -> None:
    fill(config, mixed(20))
    with dashboard(config):
        pass
    for file in config.store_path.glob("ledger.sqlite*"):
        file.unlink()
    fill(config, mixed(3))
    with dashboard(config) as client:
        until(lambda: len(parts(client)) == 3, "the new ledger")


def test_a_dashboard_that_starts_before_the_station_waits_for_it(config: StationConfig) -> None:
    with dashboard(config) as client:
        assert parts(client) == []
        assert client.get("/api/v1/station").status_code == 200
        fill(config, mixed(3))
        until(lambda: len(parts(client)) == 3, "the first records")


def test_one_store_has_one_dashboard(config: StationConfig) -> None:
    with dashboard(config), pytest.raises(StoreError, match="another dashboard"):
        Board(config)


def frame() -> Frame:
    return Frame(np.full((720, 1280, 3), 90, np.uint8), 1, SystemClock().now_ns(), "top")
