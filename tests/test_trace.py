"""A part is traced from its number to its proof; what does not fit is told, with its exit code."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline import schema
from pipeline.assembly import build
from pipeline.cli.main import app
from pipeline.clock import SystemClock
from pipeline.config import load
from pipeline.errors import ConfigError, StoreError
from pipeline.store import DATABASE, read_records
from pipeline.trace import find
from pipeline.types import Record, Verdict
from tests.tiny import bundle

BRIGHTNESS = (0, 128, 255)


@dataclass(frozen=True)
class Traced:
    """A store that a station has filled, and the station's file."""

    file: Path
    store: Path
    records: tuple[Record, ...]

    def run(self, *words: str) -> Any:
        return CliRunner().invoke(app, ["trace", *words, "--config", str(self.file)])


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    """Return three parts, the brighter the more surely a scratch; the model is a real one."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, level in enumerate(BRIGHTNESS):
        cv2.imwrite(str(pictures / f"{i}.png"), np.full((32, 48, 3), level, np.uint8))
    (tmp_path / "bundle").mkdir()
    bundle(tmp_path / "bundle")
    page = {
        "station": {"name": "aoi-1"},
        "camera": {"kind": "images", "path": "pictures"},
        "trigger": {"kind": "every_frame"},
        "model": {"bundle": "bundle", "runtime": {"kind": "onnx"}},
        "recipe": {"name": "any"},
        "store": {"path": "store", "pictures": "all", "reserve_mb": 0},
    }
    file = tmp_path / "station.yaml"
    file.write_text(yaml.safe_dump(page))
    build(load(file), SystemClock()).run()
    return Traced(file, tmp_path / "store", tuple(read_records(tmp_path / "store")))


def change(store: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(store / DATABASE)
    with db:
        db.execute(statement, values)
    db.close()


def test_the_stored_picture_gives_the_verdict_again(traced: Traced, tmp_path: Path) -> None:
    figures, drawn = tmp_path / "trace.json", tmp_path / "again.png"
    done = traced.run("2", "--json", str(figures), "--draw", str(drawn))
    assert done.exit_code == 0, done.output
    said = json.loads(figures.read_text())
    assert said["record"] == schema.as_dict(traced.records[1])
    assert (said["records"], said["after"], said["same"]) == (3, 1, True)
    assert said["verdict_again"] == "FAIL"
    assert cv2.imread(str(drawn)).shape[1] == 48


@pytest.mark.parametrize("name", [lambda r: r.id, lambda r: f"{r.run}:{r.part}", lambda r: "3"])
def test_a_part_has_three_names(traced: Traced, name: Callable[[Record], str]) -> None:
    found = find(traced.store, name(traced.records[2]))
    assert (found.record, found.records, found.after) == (traced.records[2], 3, 0)


def test_of_two_runs_a_number_means_the_newer(traced: Traced) -> None:
    build(load(traced.file), SystemClock()).run()
    newest = list(read_records(traced.store))[3]
    assert find(traced.store, "1").record == newest
    assert find(traced.store, f"{traced.records[0].run}:1").record == traced.records[0]


def test_a_part_that_is_not_there_is_one_line(traced: Traced) -> None:
    with pytest.raises(ConfigError, match="no part '99' in 3 records"):
        find(traced.store, "99")


def test_a_broken_chain_is_told_whatever_part_is_asked_for(traced: Traced) -> None:
    change(traced.store, "DELETE FROM records WHERE number = 2")
    done = traced.run("1")
    assert isinstance(done.exception, StoreError)
    assert (done.exception.exit_code, "chain breaks" in str(done.exception)) == (74, True)


def test_another_verdict_is_an_exit_code_of_its_own(traced: Traced) -> None:
    """The record says what no model said; its own hash and its successor's were made to fit."""
    first = traced.records[0]
    body = schema.encode(first).replace(b'"image_verdict":"FAIL"', b'"image_verdict":"PASS"')
    assert body != schema.encode(first)
    change(traced.store, "DELETE FROM records WHERE number > 1")
    change(
        traced.store,
        "UPDATE records SET body = ?, sha256 = ?",
        body,
        schema.sha256(schema.decode(body)),
    )
    done = traced.run("1")
    assert (done.exit_code, "ANOTHER VERDICT" in done.output) == (1, True)


def test_a_picture_that_was_changed_proves_nothing(traced: Traced) -> None:
    file = traced.store / str(traced.records[0].image)
    file.write_bytes(file.read_bytes() + b" ")
    done = traced.run("1")
    assert isinstance(done.exception, ConfigError)
    assert "the picture was changed" in str(done.exception)
    assert traced.run("1", "--no-rerun").exit_code == 0


def test_a_picture_that_is_gone_is_told(traced: Traced) -> None:
    (traced.store / str(traced.records[0].image)).unlink()
    done = traced.run("1")
    assert "made room for newer ones" in str(done.exception)


def test_another_model_is_refused(traced: Traced, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    from tests.tiny import e2e_model

    bundle(other, e2e_model((0.1, 0.2)))
    done = traced.run("1", "--bundle", str(other))
    assert isinstance(done.exception, ConfigError)
    assert "name the bundle that decided" in str(done.exception)


def test_a_picture_alone_may_say_otherwise_than_all_views(traced: Traced) -> None:
    assert {r.image_verdict for r in traced.records} == {Verdict.FAIL}
    assert all(r.image_box == (0.0, 0.0, 48.0, 32.0) for r in traced.records)
