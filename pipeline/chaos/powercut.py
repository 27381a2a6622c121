"""Pulls the plug without hardware: ext4 on a loop device, shut down under a ledger at work.

Every other time the writer acts first, as a station with a guard does: its intents are cut too.

``EXT4_IOC_SHUTDOWN`` with ``NOLOGFLUSH`` drops whatever is not on the disk, as a power cut does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chaos.writer import ACT_FIRST, RECORD_FIRST
from pipeline.errors import ConfigError, LineguardError
from pipeline.intents import recover
from pipeline.smalldisk import mount
from pipeline.store import DATABASE, Ledger, read_records
from pipeline.types import Record

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
IMAGE_MB = 256
PER_S = 200.0
FIRST_S = 60.0
LEAST_S, MOST_S = 0.1, 1.0
UNMOUNT_S = 30.0


@dataclass(frozen=True, slots=True)
class Cuts:
    """What a number of power cuts cost.

    Attributes:
        cuts: how many there were.
        acknowledged: records, or commands, that were reported as safe before a cut.
        lost: of these, absent afterwards, or their picture absent or another.
        damaged: cuts after which SQLite's integrity check or the hash chain failed.
    """

    cuts: int
    acknowledged: int
    lost: int
    damaged: int

    def figures(self) -> dict[str, Any]:
        """Return the figures under their documented keys."""
        return {name: getattr(self, name) for name in self.__slots__}


def cut_power(folder: Path, cuts: int, seed: int, on_cut: Callable[[int], None]) -> Cuts:
    """Cut the power of a disk under a ledger so often; as root.

    Raises:
        ConfigError: this is not root, or it may not mount.
    """
    if os.geteuid() != 0:
        raise ConfigError("a power cut needs root: run this drill with sudo")
    moments = random.Random(seed)
    image, disk = _new_disk(folder), folder / "disk"
    disk.mkdir()
    acknowledged = lost = damaged = 0
    for n in range(1, cuts + 1):
        with _mounted(image, disk):
            order = (RECORD_FIRST, ACT_FIRST)[n % 2]
            said = _write_until_cut(disk, moments.uniform(LEAST_S, MOST_S), order)
        with _mounted(image, disk):
            absent, is_whole = _missing(disk / "store", said)
        acknowledged, lost = acknowledged + len(said), lost + absent
        damaged += not is_whole
        on_cut(n)
    return Cuts(cuts, acknowledged, lost, damaged)


def _new_disk(folder: Path) -> Path:
    image = folder / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(IMAGE_MB << 20)
    done = subprocess.run(
        ["mkfs.ext4", "-q", "-F", str(image)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"mkfs.ext4 {image}: {done.stderr.strip()}")
    return image


@contextmanager
def _mounted(image: Path, disk: Path) -> Iterator[None]:
    mount(["-o", "loop", str(image), str(disk)])
    try:
        yield
    finally:
        deadline = time.monotonic() + UNMOUNT_S
        while subprocess.run(["umount", str(disk)], capture_output=True, check=False).returncode:
            _wait(deadline, f"{disk}: cannot be unmounted; who has a file open there?")
        while _is_attached(image):
            _wait(
                deadline,
                f"{image}: another mount namespace (a container, a service that was just started) "
                "still holds this disk; end it and start the drill again",
            )


def _wait(deadline: float, error: str) -> None:
    if time.monotonic() > deadline:
        raise LineguardError(error)
    time.sleep(0.05)


def _is_attached(image: Path) -> bool:
    """Tell whether a loop device has the image: a mount would get its dead file system again."""
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it went meanwhile
            if file.read_text(encoding="utf-8").strip() == str(image.resolve()):
                return True
    return False


def _write_until_cut(disk: Path, seconds: float, order: str) -> list[tuple[str, int]]:
    """Let a process write, cut the power, and return what it had acknowledged before the cut."""
    writer_of = "pipeline.chaos.writer"
    words = [sys.executable, "-m", writer_of, str(disk / "store"), str(PER_S), order]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout is not None
        os.set_blocking(writer.stdout.fileno(), False)
        said, end = b"", time.monotonic() + FIRST_S
        while time.monotonic() < end and writer.poll() is None:
            heard = writer.stdout.read() or b""
            if heard and not said:
                end = time.monotonic() + seconds
            said += heard
            time.sleep(0.002)
        said += writer.stdout.read() or b""
        # What is said from here on may have come after the cut: it is not counted.
        _shut_down(disk)
        writer.kill()
    lines = said[: said.rfind(b"\n") + 1].decode().splitlines()
    if not lines:
        raise LineguardError("power cut: the writer wrote nothing")
    return [(run, int(number)) for run, number in (line.split() for line in lines)]


def _shut_down(disk: Path) -> None:
    folder = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(folder)


def _missing(store: Path, said: list[tuple[str, int]]) -> tuple[int, bool]:
    """Return how many acknowledged records are gone, and whether what is there is whole."""
    try:
        with closing(Ledger(store, ["mqtt"])) as ledger:
            recover(store, ledger)
        with closing(sqlite3.connect(store / DATABASE)) as db:
            verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
        kept = {(r.run, r.part): r for r in read_records(store)}
    except (sqlite3.Error, LineguardError):
        return len(said), False
    lost = [key for key in said if key not in kept or not _has_picture(store, kept[key])]
    return len(lost), verdict == "ok"


def _has_picture(store: Path, record: Record) -> bool:
    if record.image is None:
        return True
    file = store / record.image
    if not file.is_file():
        return False
    return hashlib.sha256(file.read_bytes()).hexdigest() == record.image_sha256
