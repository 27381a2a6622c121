"""The chaos drill itself: it loses nothing, and it would see it if something were lost."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import schema
from pipeline.chaos.audit import Audit, audit, percentile
from pipeline.chaos.kills import kill_all
from pipeline.chaos.line import Line, listens
from pipeline.chaos.witness import Act, Witness
from pipeline.clock import SystemClock
from pipeline.collect import Arrival, SqliteArchive
from pipeline.errors import ConfigError, StoreError
from pipeline.outputs.journal import Options, create
from pipeline.records import Link
from pipeline.schema import EXAMPLE
from pipeline.store import DATABASE, Ledger
from pipeline.types import Box, Decision, Inspection, Part, Record, Verdict

SOURCE = "acme/north/smt/line-2/aoi-1"
PID = 7
RUN = "run-1"
COUNT = 6


def inspection(part: int, verdict: Verdict = Verdict.PASS) -> Inspection:
    seen = Part(part, 0, part, part, Box(0, 0, 9, 9))
    return Inspection(seen, Decision(verdict), (), 1, None, None, stamps={"exposed": 0})


def ledger_of(folder: Path, count: int = COUNT) -> tuple[Record, ...]:
    def draft(n: int) -> Callable[[Link], Record]:
        return lambda link: replace(
            EXAMPLE,
            id=f"{n:08d}-0000-7000-8000-000000000000",
            run=RUN,
            seq=link.seq,
            part=n,
            verdict=Verdict.FAIL,
            previous_sha256=link.previous_sha256,
        )

    ledger = Ledger(folder)
    records = ledger.append([draft(n) for n in range(1, count + 1)])
    ledger.close()
    return records


def books(
    tmp_path: Path, acts: list[Act], collected: Callable[[list[Record]], list[Record]] = list
) -> Audit:
    records = ledger_of(tmp_path / "store")
    archive = SqliteArchive(tmp_path / "plant.sqlite")
    archive.add(
        [Arrival(SOURCE, r, schema.encode(r), schema.sha256(r)) for r in collected(list(records))]
    )
    archive.close()
    return audit(acts, {PID: RUN}, tmp_path / "store", tmp_path / "plant.sqlite")


def seen(parts: range, rejected: bool = True) -> list[Act]:
    return [Act(PID, part, rejected, part) for part in parts]


ALL = range(1, COUNT + 1)


def test_a_whole_run_is_whole(tmp_path: Path) -> None:
    found = books(tmp_path, seen(ALL))
    assert found.is_whole
    assert (found.decided, found.recorded, found.collected) == (COUNT, COUNT, COUNT)


def test_a_decision_without_a_record_is_lost(tmp_path: Path) -> None:
    found = books(tmp_path, [*seen(ALL), Act(PID, COUNT + 1, True, 99)])
    assert (found.lost, found.is_whole) == (1, False)


def test_all_decisions_of_a_start_without_any_record_are_lost(tmp_path: Path) -> None:
    found = books(tmp_path, [*seen(ALL), Act(8, 1, True, 99), Act(8, 2, True, 99)])
    assert (found.lost, found.is_whole) == (2, False)


def test_a_record_that_was_not_collected_is_lost(tmp_path: Path) -> None:
    found = books(tmp_path, seen(ALL), lambda records: records[:-2])
    assert (found.lost, found.is_whole) == (2, False)


def test_a_part_that_was_commanded_twice_is_double(tmp_path: Path) -> None:
    found = books(tmp_path, [*seen(ALL), *seen(range(2, 3))])
    assert (found.double, found.is_whole) == (1, False)


def test_a_good_part_that_the_gate_rejected_is_altered(tmp_path: Path) -> None:
    found = books(tmp_path, [*seen(range(1, COUNT)), *seen(range(COUNT, COUNT + 1), False)])
    assert (found.altered, found.is_whole) == (1, False)


def test_a_record_that_was_collected_otherwise_is_altered(tmp_path: Path) -> None:
    found = books(tmp_path, seen(ALL), lambda rs: [*rs[:-1], replace(rs[-1], views=99)])
    assert (found.altered, found.is_whole) == (1, False)


def test_records_at_the_end_of_a_start_that_the_gate_missed_were_cut_off(tmp_path: Path) -> None:
    found = books(tmp_path, seen(range(1, COUNT - 1)))
    assert (found.cut_off, found.decided, found.is_whole) == (2, COUNT, True)


def test_a_record_in_the_middle_that_the_gate_never_saw_is_a_phantom(tmp_path: Path) -> None:
    found = books(tmp_path, [*seen(range(1, 3)), *seen(range(4, COUNT + 1))])
    assert (found.phantom, found.is_whole) == (1, False)


def test_a_ledger_with_a_broken_chain_is_no_book(tmp_path: Path) -> None:
    ledger_of(tmp_path / "store")
    SqliteArchive(tmp_path / "plant.sqlite").close()
    db = sqlite3.connect(tmp_path / "store" / DATABASE)
    with db:
        db.execute("DELETE FROM records WHERE number = 3")
    db.close()
    with pytest.raises(StoreError, match="chain breaks"):
        audit(seen(ALL), {PID: RUN}, tmp_path / "store", tmp_path / "plant.sqlite")


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 50, None), ([3.0], 95, 3.0), ([4.0, 1.0, 3.0, 2.0], 50, 2.0), ([*range(100)], 95, 94)],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], share: int, expected: float | None
) -> None:
    assert percentile(values, share) == expected


# --- the gate's journal


def test_the_witness_reads_what_the_gate_was_told(tmp_path: Path) -> None:
    journal = tmp_path / "gate.jsonl"
    witness = Witness(journal)
    assert witness.look() == 0
    gate = create(Options(path=journal), SystemClock())
    gate.ready(True)
    gate.act(inspection(1))
    gate.act(inspection(2, Verdict.FAIL))
    assert witness.look() == 2
    gate.act(inspection(3, Verdict.UNSURE))
    gate.close()
    gate.close()
    with journal.open("ab") as stream:
        stream.write(b'{"half')
    assert witness.look() == 3
    assert [(act.part, act.rejected) for act in witness.acts] == [(1, False), (2, True), (3, True)]


def test_a_journal_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        create(Options(path=tmp_path), SystemClock())


# --- the drill


def test_whatever_is_killed_nothing_is_lost(tmp_path: Path) -> None:
    outcome = kill_all(tmp_path, 5, 3, lambda done: None)
    assert outcome.kills == {"station": 5, "broker": 0, "collector": 1}
    assert outcome.audit.is_whole, outcome.audit
    assert outcome.audit.decided >= 250


def test_the_demo_broker_is_killed_whole(tmp_path: Path) -> None:
    pytest.importorskip("iotcore")
    with Line(tmp_path, mosquitto=None) as line:
        line.start_broker()
        assert listens(line.broker_port)
        line.kill("broker")
        assert not listens(line.broker_port)
        line.start_broker()
    assert not listens(line.broker_port)
