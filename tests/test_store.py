"""The ledger keeps what was decided, proves it, and tells every receiver once."""

import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import schema
from pipeline.errors import StoreError
from pipeline.pictures import Pictures
from pipeline.records import GENESIS, Link, uuid7
from pipeline.schema import EXAMPLE
from pipeline.store import DATABASE, Ledger, Outbox, read_records, recorded_parts
from pipeline.types import Record
from tests.doubles import manual_clock


def drafts(count: int, run: str = "run-1") -> list[Callable[[Link], Record]]:
    def draft(link: Link) -> Record:
        return replace(
            EXAMPLE,
            id=str(uuid7(manual_clock().wall())),
            run=run,
            seq=link.seq,
            part=link.seq,
            previous_sha256=link.previous_sha256,
        )

    return [draft] * count


def filled(folder: Path, count: int = 5, receivers: Sequence[str] = ()) -> tuple[Record, ...]:
    ledger = Ledger(folder, receivers)
    records = ledger.append(drafts(count))
    ledger.close()
    return records


def change(folder: Path, statement: str, *values: object) -> None:
    """Do to a ledger what somebody with a database tool would do."""
    db = sqlite3.connect(folder / DATABASE)
    with db:
        db.execute(statement, values)
    db.close()


def test_records_come_back_as_they_were_and_in_order(tmp_path: Path) -> None:
    records = filled(tmp_path / "deep" / "store")
    assert tuple(read_records(tmp_path / "deep" / "store")) == records
    assert [r.seq for r in records] == [1, 2, 3, 4, 5]


def test_each_record_holds_the_hash_of_the_one_before(tmp_path: Path) -> None:
    records = filled(tmp_path)
    hashes = [GENESIS, *(schema.sha256(r) for r in records)]
    assert [r.previous_sha256 for r in records] == hashes[:-1]


def test_a_new_start_goes_on_with_the_chain(tmp_path: Path) -> None:
    filled(tmp_path)
    ledger = Ledger(tmp_path)
    (record,) = ledger.append(drafts(1, run="run-2"))
    ledger.close()
    records = list(read_records(tmp_path))
    assert record.seq == 1
    assert record.previous_sha256 == schema.sha256(records[-2])
    assert len(records) == 6


def test_a_ledger_of_another_schema_is_refused_in_one_line_and_left_as_it_is(
    tmp_path: Path,
) -> None:
    old = replace(filled(tmp_path, 1)[0], schema=1)
    change(tmp_path, "UPDATE records SET body = ?", schema.canonical(schema.as_dict(old)))
    with pytest.raises(StoreError, match=r"schema 1, this one writes 2\); let that one deliver"):
        Ledger(tmp_path)
    with pytest.raises(StoreError, match="another lineguard wrote"):
        Ledger(tmp_path)


def test_a_station_may_write_while_another_process_reads(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(drafts(2))
    reading = read_records(tmp_path)
    next(reading)
    ledger.append(drafts(2))
    assert len(list(reading)) in (1, 3)
    ledger.close()


def _changed(body: bytes) -> bytes:
    assert b'"FAIL"' in body
    return body.replace(b'"FAIL"', b'"PASS"')


TAMPERINGS: dict[str, Callable[[Path, tuple[Record, ...]], None]] = {
    "a verdict in the middle": lambda folder, records: change(
        folder, "UPDATE records SET body = ? WHERE number = 3", _changed(schema.encode(records[2]))
    ),
    "the last verdict": lambda folder, records: change(
        folder, "UPDATE records SET body = ? WHERE number = 5", _changed(schema.encode(records[4]))
    ),
    "a verdict and its hash": lambda folder, records: change(
        folder,
        "UPDATE records SET body = ?, sha256 = ? WHERE number = 3",
        schema.encode(replace(records[2], part=99)),
        schema.sha256(replace(records[2], part=99)),
    ),
    "a record is removed": lambda folder, _: change(folder, "DELETE FROM records WHERE number = 3"),
    "the first is removed": lambda folder, _: change(
        folder, "DELETE FROM records WHERE number = 1"
    ),
    "two are swapped": lambda folder, _: change(
        folder, "UPDATE records SET number = CASE number WHEN 2 THEN -3 ELSE -2 END "
        "WHERE number IN (2, 3)"
    ),
    "no record at all": lambda folder, _: change(
        folder, "UPDATE records SET body = ? WHERE number = 3", b"{}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_is_seen(tmp_path: Path, what: str) -> None:
    records = filled(tmp_path)
    TAMPERINGS[what](tmp_path, records)
    with pytest.raises(StoreError, match=r"changed|chain breaks") as said:
        list(read_records(tmp_path))
    assert "\n" not in str(said.value)


def test_a_draft_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing(link: Link) -> Record:
        raise StoreError(f"no record {link.seq}")

    ledger = Ledger(tmp_path, ["mqtt"])
    ledger.append(drafts(1))
    with pytest.raises(StoreError, match="no record 3"):
        ledger.append([*drafts(1), failing])
    (second,) = ledger.append(drafts(1))
    ledger.close()
    assert second.seq == 2
    assert len(list(read_records(tmp_path))) == 2


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def twice(link: Link) -> Record:
        return replace(EXAMPLE, seq=link.seq, previous_sha256=link.previous_sha256)

    ledger = Ledger(tmp_path, ["mqtt"])
    with pytest.raises(StoreError, match="UNIQUE"):
        ledger.append([twice, twice])
    ledger.append(drafts(1))
    ledger.close()
    outbox = Outbox(tmp_path, "mqtt")
    assert (len(list(read_records(tmp_path))), outbox.count()) == (1, 1)
    outbox.close()


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    with pytest.raises(StoreError, match="another station writes this store"):
        Ledger(tmp_path)
    first.close()
    first.close()
    Ledger(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for make in (Ledger, lambda folder: Outbox(folder, "mqtt")):
        with pytest.raises(StoreError) as said:
            make(tmp_path / "file" / "store")
        assert "\n" not in str(said.value)
    with pytest.raises(StoreError, match="needs a folder it may write to"):
        Ledger(tmp_path / "file" / "store")


def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreError, match="Permission denied"):
        Ledger(tmp_path / "store")


def test_where_no_ledger_is_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no ledger here"):
        list(read_records(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a database at all " * 99)
    with pytest.raises(StoreError, match="cannot be used"):
        list(read_records(tmp_path))


# --- outbox


def test_the_parts_of_a_run_can_be_asked_for(tmp_path: Path) -> None:
    kept = filled(tmp_path, 3)
    assert recorded_parts(tmp_path, "run-1") == {record.part for record in kept}
    assert recorded_parts(tmp_path, "run-1", last=1) == {kept[-1].part}
    assert recorded_parts(tmp_path, "another") == frozenset()


def test_a_receiver_is_told_of_every_record_until_it_confirms(tmp_path: Path) -> None:
    records = filled(tmp_path, 5, ["mqtt", "file"])
    mqtt, file = Outbox(tmp_path, "mqtt"), Outbox(tmp_path, "file")
    assert mqtt.waiting(3) == records[:3]
    mqtt.confirm([records[0].id, records[2].id])
    assert mqtt.waiting(9) == (records[1], *records[3:])
    assert (mqtt.count(), file.count()) == (3, 5)
    mqtt.confirm([records[0].id, "of another store"])
    assert mqtt.count() == 3
    for outbox in (mqtt, file):
        outbox.close()
        outbox.close()


def test_what_was_not_confirmed_waits_for_the_next_start(tmp_path: Path) -> None:
    records = filled(tmp_path, 3, ["mqtt"])
    first = Outbox(tmp_path, "mqtt")
    first.confirm([records[0].id])
    first.close()
    again = Outbox(tmp_path, "mqtt")
    assert again.waiting(9) == records[1:]
    again.close()


def test_what_was_not_settled_is_told_again_after_a_crash(tmp_path: Path) -> None:
    records = filled(tmp_path, 3, ["mqtt"])
    first, after = Outbox(tmp_path, "mqtt"), Outbox(tmp_path, "mqtt")
    first.confirm([records[0].id, records[2].id])
    assert first.waiting(1) == records[1:2]
    assert after.waiting(9) == records
    first.settle()
    assert after.waiting(9) == first.waiting(9) == records[1:2]
    for outbox in (first, after):
        outbox.close()


def test_a_new_receiver_is_told_from_then_on(tmp_path: Path) -> None:
    filled(tmp_path, 3, ["mqtt"])
    ledger = Ledger(tmp_path, ["file"])
    (record,) = ledger.append(drafts(1, run="run-2"))
    ledger.close()
    outbox = Outbox(tmp_path, "file")
    assert outbox.waiting(9) == (record,)
    outbox.close()


# --- pictures


def test_a_picture_lies_where_its_record_says(tmp_path: Path) -> None:
    kept = Pictures(tmp_path, 1000).keep("2026/01/05/run-1", b"jpeg")
    assert (tmp_path / kept.path).read_bytes() == b"jpeg"
    assert kept.path == "pictures/2026/01/05/run-1.jpg"


def test_the_oldest_pictures_make_room_also_after_a_restart(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, 100)
    names = [f"2026/01/0{day}/a" for day in range(1, 6)]
    for name in names[:3]:
        pictures.keep(name, b"x" * 40)
    pictures = Pictures(tmp_path, 100)
    for name in names[3:]:
        pictures.keep(name, b"x" * 40)
    left = sorted(f.parent.name for f in tmp_path.rglob("*.jpg"))
    assert left == ["04", "05"]


def test_pictures_of_good_parts_make_room_before_all_others(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, 100)
    for name in ("1-fail", "2-pass", "3-unsure", "4-pass"):
        pictures.keep(name, b"x" * 40)
    assert sorted(f.stem for f in tmp_path.rglob("*.jpg")) == ["1-fail", "3-unsure"]


def test_the_newest_picture_stays_however_large(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, 10)
    pictures.keep("1", b"x" * 40)
    pictures.keep("2", b"x" * 40)
    assert [f.stem for f in tmp_path.rglob("*.jpg")] == ["2"]


def test_a_picture_is_never_written_over(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, 1000)
    pictures.keep("1", b"first")
    with pytest.raises(StoreError, match="File exists"):
        pictures.keep("1", b"second")


def test_pictures_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("")
    with pytest.raises(StoreError) as said:
        Pictures(tmp_path, 1000).keep("1", b"jpeg")
    assert "\n" not in str(said.value)
