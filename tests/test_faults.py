"""Faults of the machine around a station: the power, the disk, the network."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.chaos.fulldisk import DISK_MB, fill_disk
from pipeline.chaos.network import spoil_network
from pipeline.chaos.powercut import cut_power
from pipeline.disk import RESERVE, Room, free_bytes
from pipeline.errors import ConfigError, DiskFull
from pipeline.pictures import Pictures
from pipeline.smalldisk import small_disk
from pipeline.store import Ledger, Outbox, read_records
from tests.test_store import drafts

CUTS = 20


def skip(why: str) -> NoReturn:
    """Skip, or fail where LINEGUARD_NO_SKIP says that this machine can do it all."""
    if os.environ.get("LINEGUARD_NO_SKIP"):
        pytest.fail(f"LINEGUARD_NO_SKIP is set, but {why}")
    pytest.skip(why)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of 16 MB."""
    if os.geteuid() != 0:
        skip("a small disk needs root: mount")
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(small_disk(tmp_path / "disk", DISK_MB))
        except ConfigError as error:
            skip(f"no small disk here: {error}")
        yield folder


def fill(folder: Path) -> Path:
    """Use up a disk to the last byte, as others do."""
    others = folder / "others"
    with others.open("wb", buffering=0) as stream:
        for size in (1 << 20, 1 << 12):
            try:
                while stream.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return others


# --- the room


def test_a_reserve_is_room_that_others_cannot_use(disk: Path) -> None:
    room = Room(disk, 4 << 20)
    assert room.shortage() == ""
    assert (disk / RESERVE).stat().st_size == 4 << 20
    fill(disk)
    assert "full or nearly so" in room.shortage()
    room.release()
    assert free_bytes(disk) >= 4 << 20
    assert "no room for the reserve of 4 MB" in room.shortage()


def test_the_reserve_is_taken_again_when_there_is_room(disk: Path) -> None:
    room = Room(disk, 4 << 20)
    others = fill(disk)
    room.release()
    others.unlink()
    assert room.shortage() == ""
    assert (disk / RESERVE).stat().st_size == 4 << 20


def test_a_reserve_larger_than_the_disk_is_told(disk: Path) -> None:
    assert "no room for the reserve" in Room(disk, (DISK_MB + 1) << 20).shortage()


def test_without_a_reserve_only_a_failed_write_is_noticed(disk: Path) -> None:
    room = Room(disk)
    others = fill(disk)
    assert room.shortage() == ""
    room.failed()
    assert "full or nearly so" in room.shortage()
    others.unlink()
    assert room.shortage() == ""


# --- the store on a full disk


def test_records_use_the_reserve_of_a_full_disk_and_none_is_lost(disk: Path) -> None:
    ledger = Ledger(disk / "store", ["mqtt"], reserve_bytes=2 << 20)
    assert ledger.shortage() == ""
    kept = list(ledger.append(drafts(10)))
    others = fill(disk)
    with pytest.raises(DiskFull, match="make room there"):
        while True:
            kept += ledger.append(drafts(10))
    assert len(kept) > 100, "the reserve was not used"
    assert ledger.shortage() != ""
    others.unlink()
    assert ledger.shortage() == ""
    kept += ledger.append(drafts(10))
    ledger.close()
    assert list(read_records(disk / "store")) == kept
    outbox = Outbox(disk / "store", "mqtt")
    assert outbox.count() == len(kept)
    outbox.close()


def test_old_pictures_make_room_for_a_new_one(disk: Path) -> None:
    pictures = Pictures(disk, 1 << 30)
    names = [f"2026/01/05/{n}-{'pass' if n % 2 else 'fail'}" for n in range(4)]
    for name in names:
        pictures.keep(name, b"x" * (1 << 20))
    fill(disk)
    pictures.keep("2026/01/05/9-fail", b"y" * (1 << 19))
    left = {file.stem for file in disk.rglob("*.jpg")}
    assert left == {"0-fail", "2-fail", "3-pass", "9-fail"}


def test_a_picture_that_finds_no_room_leaves_no_half_of_it(disk: Path) -> None:
    fill(disk)
    with pytest.raises(DiskFull):
        Pictures(disk, 1 << 30).keep("9-fail", b"y" * (1 << 19))
    assert not list(disk.rglob("*.jpg"))


# --- the drills


def test_a_full_disk_stops_the_line_and_loses_nothing(tmp_path: Path, disk: Path) -> None:
    del disk
    done = fill_disk(tmp_path / "drill", lambda step: None)
    assert done.audit.is_whole, done.audit


def test_no_acknowledged_record_is_lost_when_the_power_is_cut(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        skip("a power cut needs root: a loop device and a mount")
    if shutil.which("mkfs.ext4") is None:
        skip("mkfs.ext4 is not installed (apt-get install e2fsprogs)")
    try:
        done = cut_power(tmp_path, CUTS, 3, lambda cut: None)
    except ConfigError as error:
        skip(f"no loop device here: {error}")
    assert done.acknowledged > CUTS
    assert (done.cuts, done.lost, done.damaged) == (CUTS, 0, 0)


def test_a_bad_network_loses_nothing(tmp_path: Path) -> None:
    done = spoil_network(tmp_path, lambda fault: None)
    assert done.audit.is_whole, done.audit
    assert done.noticed_s["black hole"] is not None, "the station never noticed"
    assert done.shown_s["black hole"] is not None, "the plant was never told"
