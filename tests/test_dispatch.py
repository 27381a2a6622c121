"""What the ledger holds reaches every receiver, in order, whatever the receiver does with it."""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.clock import ManualClock, SystemClock
from pipeline.dispatch import RECORDS_PER_SEND, Dispatch, Waits
from pipeline.errors import DiskFull, PublishError
from pipeline.readiness import DISK, Readiness
from pipeline.records import Link
from pipeline.schema import EXAMPLE
from pipeline.store import Ledger, Outbox
from pipeline.tally import Tally
from pipeline.types import Record
from tests.doubles import until


class Moody:
    """A receiver that takes all, a part or nothing of what it is sent, as its chance says."""

    trouble = ""

    def __init__(self, seed: int = 0, mood: float = 0.0) -> None:
        self.got: list[str] = []
        self.offers = 0
        self._rng = random.Random(seed)
        self._mood = mood

    def send(self, records: Sequence[Record]) -> tuple[str, ...]:
        self.offers += 1
        chance = self._rng.random()
        if chance < self._mood / 2:
            raise PublishError("receiver: connection refused")
        ids = [record.id for record in records]
        if chance < self._mood:
            ids = self._rng.sample(ids, self._rng.randint(1, len(ids)))
        self.got += ids
        return tuple(ids)

    def state(self, state: Any) -> None:
        pass

    def close(self) -> None:
        pass


class CountedOutbox(Outbox):
    """An outbox that counts how often it is read, and that may find no room to write."""

    reads = 0
    full = 0

    def waiting(self, limit: int) -> tuple[Record, ...]:
        self.reads += 1
        return super().waiting(limit)

    def settle(self) -> None:
        if self.full:
            self.full -= 1
            raise DiskFull("store: no room")
        super().settle()


class Sender:
    """A ledger, one receiver, and what stands between them."""

    def __init__(self, folder: Path, receiver: Moody, run: str, full: int = 0) -> None:
        self.ledger = Ledger(folder, ["mqtt"])
        self.outbox = CountedOutbox(folder, "mqtt")
        self.outbox.full = full
        self.tally = Tally()
        self.readiness = Readiness((), (), SystemClock(), run, lambda error: None)
        outboxes: dict[str, tuple[Any, Waits]] = {"mqtt": (receiver, self.outbox)}
        self.dispatch = Dispatch(outboxes, ManualClock(), self.readiness, self.tally)
        self._run = run

    def append(self, count: int) -> list[str]:
        records = self.ledger.append([self._draft] * count)
        self.dispatch.take(records)
        return [record.id for record in records]

    def _draft(self, link: Link) -> Record:
        return replace(
            EXAMPLE,
            id=f"{self._run}-{link.seq}",
            run=self._run,
            seq=link.seq,
            previous_sha256=link.previous_sha256,
        )


@contextmanager
def sending(folder: Path, receiver: Moody, run: str = "run-1", full: int = 0) -> Iterator[Sender]:
    sender = Sender(folder, receiver, run, full)
    thread = threading.Thread(target=sender.dispatch.publish, args=["mqtt"], daemon=True)
    thread.start()
    try:
        yield sender
    finally:
        sender.dispatch.finish()
        thread.join(20)
        assert not thread.is_alive()
        sender.dispatch.close()
        sender.ledger.close()


def test_a_receiver_that_keeps_up_is_told_without_its_outbox_being_read(tmp_path: Path) -> None:
    receiver = Moody()
    with sending(tmp_path, receiver) as sender:
        told = sender.append(1)
        until(lambda: receiver.got == told)
        until(lambda: sender.tally.told["mqtt"] == 1)
        reads = sender.outbox.reads
        for _ in range(30):
            told += sender.append(1)
        until(lambda: receiver.got == told)
        assert sender.outbox.reads - reads <= 2
    assert sender.dispatch.undelivered == {"mqtt": 0}


@pytest.mark.parametrize("seed", range(8))
def test_every_record_is_told_once_whatever_the_receiver_takes(tmp_path: Path, seed: int) -> None:
    rng, told = random.Random(seed), []
    receiver = Moody(seed, mood=0.4)
    with sending(tmp_path, receiver) as sender:
        for count in rng.choices([1, 1, 2, 5, RECORDS_PER_SEND + 40], k=12):
            offers = receiver.offers
            told += sender.append(count)
            if rng.random() < 0.5:
                until(lambda offers=offers: receiver.offers > offers)
        until(lambda: sender.tally.told["mqtt"] == len(told))
    assert sorted(receiver.got) == sorted(told)
    assert sender.dispatch.undelivered == {"mqtt": 0}


def test_a_receiver_that_takes_all_gets_them_in_order(tmp_path: Path) -> None:
    receiver, told = Moody(), []
    with sending(tmp_path, receiver) as sender:
        for count in (3, RECORDS_PER_SEND, 1, 2 * RECORDS_PER_SEND + 1, 1, 7):
            told += sender.append(count)
    assert receiver.got == told


def test_what_an_earlier_run_left_is_told_before(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, ["mqtt"])
    left = ledger.append([lambda link: replace(EXAMPLE, id="left", run="run-0", seq=link.seq)])
    ledger.close()
    receiver = Moody()
    with sending(tmp_path, receiver) as sender:
        told = sender.append(2)
    assert receiver.got == [left[0].id, *told]


def test_a_confirmation_that_finds_no_room_is_kept_and_nothing_told_again(tmp_path: Path) -> None:
    receiver = Moody()
    with sending(tmp_path, receiver, full=4) as sender:
        told = sender.append(2)
        until(lambda: DISK in sender.readiness.faults)
        until(lambda: sender.outbox.full == 0)
        told += sender.append(2)
    assert receiver.got == told
    assert sender.dispatch.undelivered == {"mqtt": 0}
