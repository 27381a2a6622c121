"""Figures that a quality engineer may rely on: intervals, truth, golden records."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.quality.golden import (
    GoldenPart,
    differences,
    golden_parts,
    read_golden,
    write_golden,
)
from pipeline.quality.intervals import Share
from pipeline.quality.truth import TruePart, compare, read_truth
from pipeline.quality.truthfile import TruthFile, line_of
from pipeline.schema import EXAMPLE
from pipeline.types import Record, Verdict

PASS, FAIL, UNSURE = Verdict.PASS, Verdict.FAIL, Verdict.UNSURE

# --- shares


@pytest.mark.parametrize(
    ("count", "of", "interval"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_the_interval_is_the_published_one(
    count: int, of: int, interval: tuple[float, float]
) -> None:
    assert Share(count, of).interval == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_stays_within_0_to_1(pair: tuple[int, int]) -> None:
    low, high = Share(*pair).interval
    assert 0 <= low <= pair[0] / pair[1] + 1e-12
    assert pair[0] / pair[1] - 1e-12 <= high <= 1


def test_nothing_of_nothing_is_no_share() -> None:
    share = Share(0, 0)
    assert (share.value, share.interval, str(share)) == (None, (0.0, 1.0), "0 of 0")
    assert json.dumps(share.as_dict())


def test_a_share_says_its_count_and_its_interval() -> None:
    assert str(Share(3, 24)) == "3 of 24 (12.5%; 95 % interval 4.3% to 31.0%)"


# --- truth


def record(first: int, last: int, verdict: Verdict, part: int = 1) -> Record:
    return replace(
        EXAMPLE, part=part, verdict=verdict, first_frame=first, last_frame=last, defects=()
    )


TRUTH = (TruePart(0, True, 10), TruePart(1, False, 50), TruePart(2, True, 90))


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([(0, 20, PASS), (40, 60, FAIL), (80, 99, PASS)], {}),
        ([(0, 20, PASS), (40, 60, PASS), (80, 99, PASS)], {"escapes": 1}),
        ([(0, 20, PASS), (80, 99, PASS)], {"missed": 1, "escapes": 1}),
        ([(40, 60, FAIL), (80, 99, PASS)], {"missed": 1}),
        ([(0, 20, FAIL), (40, 60, FAIL), (80, 99, PASS)], {"overkill": 1, "rejected_good": 1}),
        ([(0, 20, UNSURE), (40, 60, FAIL), (80, 99, PASS)], {"unsure": 1, "rejected_good": 1}),
        ([(0, 20, PASS), (40, 60, UNSURE), (80, 99, PASS)], {"unsure": 1}),
        ([(0, 20, PASS), (40, 49, FAIL), (50, 60, PASS), (80, 99, PASS)],
         {"double": 1, "escapes": 1}),
        ([(0, 20, PASS), (22, 30, FAIL), (40, 60, FAIL), (80, 99, PASS)], {"phantom": 1}),
        ([], {"missed": 3, "escapes": 1}),
    ],
)  # fmt: skip
def test_records_beside_the_truth(
    records: Sequence[tuple[int, int, Verdict]], expected: dict[str, int]
) -> None:
    found = compare([record(*row) for row in records], TRUTH)
    figures = {
        "missed": found.missed,
        "double": found.double,
        "phantom": found.phantom,
        "escapes": found.escapes.count,
        "overkill": found.overkill.count,
        "unsure": found.unsure.count,
        "rejected_good": found.rejected_good.count,
    }
    assert {k: v for k, v in figures.items() if v} == expected
    assert (found.parts, found.escapes.of, found.overkill.of, found.unsure.of) == (3, 1, 2, 3)


def test_where_two_parts_are_in_view_the_nearer_one_is_meant() -> None:
    truth = (TruePart(0, False, 10), TruePart(1, True, 18))
    found = compare([record(4, 18, FAIL), record(10, 26, PASS)], truth)
    assert (found.missed, found.double, found.escapes.count) == (0, 0, 0)


def test_a_part_close_behind_another_is_not_taken_for_it() -> None:
    truth = (TruePart(33, True, 1507), TruePart(34, False, 1545))
    found = compare([record(1460, 1514, PASS), record(1500, 1552, FAIL)], truth)
    assert (found.missed, found.double, found.escapes.count, found.overkill.count) == (0, 0, 0, 0)


def test_a_truth_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.truth.jsonl"
    file.write_text('{"index": 0, "good": true, "centre_frame": 50, "more": 1}\n\n')
    assert read_truth(file) == (TruePart(0, True, 50),)


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "3", "{}", '{"index": 0, "good": true}', "\x00", "[" * 9999,
        '{"index": "x", "good": true, "centre_frame": 1}',
        '{"index": 0, "good": "false", "centre_frame": 1}',
        '{"index": 0, "good": 1, "centre_frame": 1}',
        '{"index": 0, "good": true, "centre_frame": Infinity}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_truth_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.truth.jsonl"
    file.write_text('{"index": 0, "good": true, "centre_frame": 50}\n' + line)
    with pytest.raises(ConfigError, match="line 2: no truth of a part") as said:
        read_truth(file)
    assert "\n" not in str(said.value)


def test_a_truth_file_that_is_absent_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_truth(tmp_path / "absent")


# --- golden records


def golden(part: int, first: int, verdict: str = "PASS") -> GoldenPart:
    return GoldenPart(part, verdict, first, first + 20)


BEFORE = (golden(1, 0), golden(2, 40, "FAIL"), golden(3, 80))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (BEFORE, []),
        ((golden(1, 2), golden(2, 38, "FAIL"), golden(3, 80)), []),
        ((golden(1, 0), golden(2, 40), golden(3, 80)),
         ["flipped: part 2 (frames 40 to 60): FAIL -> PASS"]),
        ((golden(1, 0), golden(2, 80)), ["lost: part 2 (frames 40 to 60): FAIL"]),
        ((*BEFORE, golden(4, 120)), ["new: part 4 (frames 120 to 140): PASS"]),
        ((golden(1, 0), golden(2, 45, "FAIL"), golden(3, 80)),
         ["moved: part 2 (frames 40 to 60): now frames 45 to 65"]),
        ((golden(1, 0), golden(2, 45), golden(3, 80)),
         ["flipped: part 2 (frames 40 to 60): FAIL -> PASS"]),
        ((golden(7, 21), golden(8, 40, "FAIL")),
         ["lost: part 1 (frames 0 to 20): PASS", "new: part 7 (frames 21 to 41): PASS",
          "lost: part 3 (frames 80 to 100): PASS"]),
        ((), ["lost: part 1 (frames 0 to 20): PASS", "lost: part 2 (frames 40 to 60): FAIL",
              "lost: part 3 (frames 80 to 100): PASS"]),
    ],
)  # fmt: skip
def test_every_difference_is_told_in_the_order_of_the_frames(
    now: Sequence[GoldenPart], expected: list[str]
) -> None:
    assert [str(d) for d in differences(BEFORE, now)] == expected


def test_golden_records_come_back_from_their_file(tmp_path: Path) -> None:
    parts = golden_parts([EXAMPLE, record(1, 2, UNSURE)])
    write_golden(tmp_path / "golden.jsonl", parts)
    assert read_golden(tmp_path / "golden.jsonl") == parts


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", "{}", '{"part": 1}', "\xff", '{"part": Infinity}', "[" * 9999]
)
def test_what_is_no_golden_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "golden").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="not a golden file") as said:
        read_golden(tmp_path / "golden")
    assert "\n" not in str(said.value)


def test_a_golden_file_that_cannot_be_read_or_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--update-golden"):
        read_golden(tmp_path / "absent")
    with pytest.raises(ConfigError, match="cannot write"):
        write_golden(tmp_path / "absent" / "golden", ())


def test_of_two_parts_in_view_each_record_gets_its_own_truth(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    centres = {50: True, 94: False, 138: True}
    file.write_text(
        "".join(line_of("run-1", {"centre_frame": f, "good": g}) for f, g in centres.items())
    )
    rows = [{"run": "run-1", "first_frame": c - 48, "last_frame": c + 30} for c in centres]
    told = TruthFile(file).match(list(enumerate(rows)))
    assert [(number, known.good) for number, known in told] == [(0, True), (1, False), (2, True)]


def test_a_record_waits_for_its_truth_and_takes_no_other_part_s(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    rows = [{"run": "run-1", "first_frame": c - 48, "last_frame": c + 30} for c in (50, 94)]
    file.write_text(line_of("run-1", {"centre_frame": 50, "good": True}))
    reader = TruthFile(file)
    assert [number for number, _ in reader.match(list(enumerate(rows)))] == [0]
    with file.open("a") as stream:
        stream.write(line_of("run-1", {"centre_frame": 94, "good": False}))
    assert [(number, known.good) for number, known in reader.match([])] == [(1, False)]
