"""What the line was told is recorded after all, though the power was cut before its record."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import DiskFull
from pipeline.intents import FILE, RECOVERED, RING_BYTES, Intents, recover
from pipeline.records import GENESIS, Link
from pipeline.schema import EXAMPLE, encode
from pipeline.store import Ledger, read_records
from pipeline.types import Record, Verdict
from tests.doubles import Belt, ScriptedCamera
from tests.test_station import Line


def commanded(parts: Sequence[int], run: str = "run-1") -> list[Record]:
    return [
        replace(
            EXAMPLE,
            id=f"{n:08d}-0000-7000-8000-0000000000{run[-1] * 2}",
            run=run,
            seq=1,
            part=n,
            verdict=Verdict.PASS,
            reasons=(),
            image=None,
            image_sha256=None,
            image_box=None,
            image_verdict=None,
            previous_sha256=GENESIS,
        )
        for n in parts
    ]


def drafts(records: Sequence[Record]) -> list[Callable[[Link], Record]]:
    def draft(record: Record) -> Callable[[Link], Record]:
        return lambda link: replace(record, seq=link.seq, previous_sha256=link.previous_sha256)

    return [draft(record) for record in records]


def recorded_after_a_cut(folder: Path) -> tuple[Record, ...]:
    with closing(Ledger(folder, ["mqtt"])) as ledger:
        recover(folder, ledger)
    return tuple(read_records(folder))


def test_what_was_commanded_and_not_recorded_gets_its_record(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        intents = Intents(tmp_path)
        intents.note(commanded([1, 2]))
        ledger.append(drafts(commanded([1, 2])))
        intents.note(commanded([3, 4]))
    records = recorded_after_a_cut(tmp_path)
    assert [(r.run, r.seq, r.part) for r in records] == [("run-1", n, n) for n in (1, 2, 3, 4)]
    assert [r.verdict for r in records] == [Verdict.PASS] * 4
    assert [r.reasons for r in records] == [(), (), (RECOVERED,), (RECOVERED,)]


def test_recovering_twice_records_nothing_twice(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)):
        Intents(tmp_path).note(commanded([1]))
    assert len(recorded_after_a_cut(tmp_path)) == 1
    assert len(recorded_after_a_cut(tmp_path)) == 1


def test_the_run_after_begins_at_one(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)):
        Intents(tmp_path).note(commanded([1, 2]))
    with closing(Ledger(tmp_path)) as ledger:
        recover(tmp_path, ledger)
        (record,) = ledger.append(drafts(commanded([1], run="run-2")))
    assert record.seq == 1
    assert len(list(read_records(tmp_path))) == 3


def test_a_line_that_the_cut_tore_was_never_commanded(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)):
        Intents(tmp_path).note(commanded([1]))
        end = (tmp_path / FILE).read_bytes().rstrip(b"\0")
        Intents(tmp_path).note(commanded([1, 2]))
    with (tmp_path / FILE).open("r+b") as stream:
        stream.seek(len(end) + 40)
        stream.write(bytes(2000))
    assert [r.part for r in recorded_after_a_cut(tmp_path)] == [1]


def test_the_ring_goes_round_and_forgets_nothing_that_waits(tmp_path: Path) -> None:
    turns = 2 * RING_BYTES // len(encode(*commanded([1])))
    with closing(Ledger(tmp_path)) as ledger:
        intents = Intents(tmp_path)
        ledger.append(drafts(commanded(range(1, turns))))
        for n in range(1, turns):
            intents.note(commanded([n]))
            intents.recorded(n)
        intents.note(commanded([turns]))
    assert (tmp_path / FILE).stat().st_size == RING_BYTES
    with closing(Ledger(tmp_path)) as ledger:
        assert recover(tmp_path, ledger) == 1


def test_a_ring_full_of_waiting_parts_takes_no_more(tmp_path: Path) -> None:
    intents, n = Intents(tmp_path), 0
    with pytest.raises(DiskFull, match="parts wait for the ledger"):
        while n < RING_BYTES:
            n += 100
            intents.note(commanded(range(n, n + 100)))
    assert n > 1000
    intents.close()
    intents.close()


# --- in a station


class Full:
    """Takes no intent."""

    def note(self, records: Sequence[Record]) -> None:
        raise DiskFull(f"no room for {len(records)}")

    def recorded(self, part: int) -> None:
        """There is nothing to forget."""

    def close(self) -> None:
        """There is nothing to let go."""


BELT = Belt(bad=frozenset({1}))


def test_a_station_that_acts_first_writes_down_what_it_will_command(tmp_path: Path) -> None:
    camera = ScriptedCamera(BELT.passing())
    line = Line(tmp_path, camera, record_first=False, intents=Intents(tmp_path))
    line.run()
    held = (tmp_path / FILE).read_bytes()
    assert len(line.records) == 3
    for record in line.records:
        assert f'"part":{record.part},'.encode() in held
    assert recorded_after_a_cut(tmp_path) == tuple(line.records)


def test_what_cannot_be_written_down_is_commanded_as_a_reject(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera(BELT.passing()), record_first=False, intents=Full())
    line.run()
    assert [rejected for _, rejected in line.output.acted] == [True] * 3
    assert [r.verdict for r in line.records] == [Verdict.UNSURE] * 3


def test_a_station_that_records_first_needs_no_intents(tmp_path: Path) -> None:
    line = Line(tmp_path, ScriptedCamera(BELT.passing()), intents=Full())
    line.run()
    assert [r.verdict for r in line.records] == [Verdict.PASS, Verdict.FAIL, Verdict.PASS]
