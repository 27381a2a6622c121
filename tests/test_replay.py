"""Recordings through the whole station: the same verdicts tomorrow and on another runtime."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.quality.golden import differences, golden_parts, read_golden
from pipeline.quality.truth import read_truth
from pipeline.replay import Replay, load_for_replay, replay
from pipeline.shipped import shipped
from tests.conftest import REPOSITORY

CLIP = REPOSITORY / "tests" / "replay" / "drawn.mp4"
GOLDEN = CLIP.with_suffix(".golden.jsonl")
TRUTH = CLIP.with_suffix(".truth.jsonl")
TIMES = ("id", "run", "time", "latency_ms", "stages_ms", "previous_sha256")
"""What differs from run to run: the times, and what is made from them."""


def played(
    clip: Path,
    config: str,
    store: Path,
    runtime: str | None = None,
    truth: Path | None = None,
    mode: str | None = None,
) -> Replay:
    """Play a clip through the station of a shipped station file."""
    station = load_for_replay(
        shipped(config), clip, store, realtime=False, runtime=runtime, mode=mode
    )
    return replay(station, read_truth(truth) if truth else None)


def without_times(done: Replay) -> list[dict[str, Any]]:
    return [{k: v for k, v in asdict(r).items() if k not in TIMES} for r in done.records]


def is_balanced(done: Replay) -> bool:
    return done.tally.captured == done.tally.inspected + sum(done.tally.dropped.values())


def test_the_recorded_clip_gives_its_golden_verdicts(tmp_path: Path) -> None:
    done = played(CLIP, "configs/demo.yaml", tmp_path, truth=TRUTH)
    assert differences(read_golden(GOLDEN), golden_parts(done.records)) == ()
    assert done.truth is not None
    assert (done.truth.missed, done.truth.double, done.truth.phantom) == (0, 0, 0)
    assert done.truth.escapes.count == 0
    assert is_balanced(done)


def test_a_second_replay_differs_in_nothing_but_times(tmp_path: Path) -> None:
    first = played(CLIP, "configs/demo.yaml", tmp_path)
    second = played(CLIP, "configs/demo.yaml", tmp_path)
    assert without_times(first) == without_times(second)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_several_workers_record_what_one_does(tmp_path: Path, runtime: str) -> None:
    one = played(CLIP, "configs/demo.yaml", tmp_path, runtime=runtime, mode="latency")
    many = played(CLIP, "configs/demo.yaml", tmp_path, runtime=runtime, mode="throughput")
    both = [
        [{k: v for k, v in row.items() if k != "config_sha256"} for row in without_times(done)]
        for done in (one, many)
    ]
    assert both[0] == both[1]
    assert is_balanced(many)


def test_openvino_gives_the_verdicts_of_onnx_runtime(tmp_path: Path) -> None:
    done = played(CLIP, "configs/demo.yaml", tmp_path, runtime="openvino")
    assert differences(read_golden(GOLDEN), golden_parts(done.records)) == ()


@pytest.mark.data
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_real_boards_on_a_belt_are_each_seen_once_and_none_escapes(
    tmp_path: Path, data_dir: Path, runtime: str
) -> None:
    clip = data_dir / "videos" / "boards-line.mp4"
    truth = clip.with_suffix(".truth.jsonl")
    done = played(clip, "configs/boards-line.yaml", tmp_path, runtime=runtime, truth=truth)
    assert done.truth is not None
    assert (done.truth.parts, done.truth.missed, done.truth.double) == (24, 0, 0)
    assert done.truth.phantom == 0
    assert done.truth.escapes.count == 0
    assert is_balanced(done)


@pytest.mark.data
def test_at_most_one_good_real_board_is_rejected_as_bad(tmp_path: Path, data_dir: Path) -> None:
    clip = data_dir / "videos" / "boards-line.mp4"
    truth = clip.with_suffix(".truth.jsonl")
    done = played(clip, "configs/boards-line.yaml", tmp_path, truth=truth)
    assert done.truth is not None
    assert done.truth.overkill.count <= 1


@pytest.mark.data
def test_looking_until_sure_changes_no_verdict(tmp_path: Path, data_dir: Path) -> None:
    clip = data_dir / "videos" / "boards-line.mp4"
    said, views = [], []
    for folder, sure_by in (("until-sure", None), ("every-view", {"sure_by": None})):
        station = load_for_replay(
            shipped("configs/boards-line.yaml"), clip, tmp_path / folder, realtime=False
        )
        parts = station.document.parts.model_copy(update=sure_by or {})
        document = station.document.model_copy(update={"parts": parts})
        done = replay(replace(station, document=document))
        said.append([record.verdict for record in done.records])
        views.append(sum(record.views for record in done.records))
    assert said[0] == said[1]
    assert views[0] < 0.6 * views[1]


@pytest.mark.data
def test_exactly_the_parts_that_cross_the_middle_count(tmp_path: Path, data_dir: Path) -> None:
    done = played(data_dir / "videos" / "belt_two_parts.mp4", "configs/belt-parts.yaml", tmp_path)
    assert len(done.records) == 4
    assert is_balanced(done)


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["bolt_on_belt", "produce_on_belt", "bottle_presence", "belt_running_blur"]
)
def test_other_real_lines_run_through_with_balanced_books(
    tmp_path: Path, data_dir: Path, name: str
) -> None:
    done = played(data_dir / "videos" / f"{name}.mp4", "configs/belt-parts.yaml", tmp_path)
    assert done.tally.captured > 0
    assert is_balanced(done)


def test_a_replay_says_what_a_part_costs_the_processor(tmp_path: Path) -> None:
    done = played(CLIP, "configs/demo.yaml", tmp_path)
    assert done.cpu_s is not None
    assert done.figures()["cpu_ms_per_part"] == round(1000 * done.cpu_s / len(done.records), 1) > 0
