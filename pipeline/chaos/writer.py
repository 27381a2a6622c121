"""Writes a ledger as fast as asked and says what is committed: ``-m ... FOLDER PER_S ORDER``."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from pipeline.intents import Intents, recover
from pipeline.pictures import Pictures
from pipeline.records import GENESIS, Link, StoredPicture, uuid7
from pipeline.schema import EXAMPLE
from pipeline.store import Ledger
from pipeline.types import Record

PICTURE_EVERY = 5
PICTURE = b"\xff\xd8" + bytes(20_000) + b"\xff\xd9"
RECORD_FIRST, ACT_FIRST = "record-first", "act-first"
RECORDS_LATER = 7
"""So many commands are given before their records are committed together."""


def write(folder: Path, per_s: float, order: str) -> None:
    """Append records for ever; print the number of each once no power cut can take it back."""
    run = str(uuid7(datetime.now(timezone.utc)))
    ledger = Ledger(folder, ["mqtt"])
    pictures = Pictures(folder, 1 << 30)
    recover(folder, ledger)
    intents = Intents(folder)
    waiting: list[Callable[[Link], Record]] = []
    number = 0
    while True:
        number += 1
        if order == ACT_FIRST:
            waiting.append(_draft(run, number, None))
            intents.note([waiting[-1](Link(1, GENESIS))])
            if len(waiting) == RECORDS_LATER:
                for record in ledger.append(waiting):
                    intents.recorded(record.part)
                waiting.clear()
        else:
            name = f"{run}-{number:08d}"
            kept = None if number % PICTURE_EVERY else pictures.keep(name, PICTURE)
            ledger.append([_draft(run, number, kept)])
        sys.stdout.write(f"{run} {number}\n")
        sys.stdout.flush()
        time.sleep(1 / per_s)


def _draft(run: str, number: int, kept: StoredPicture | None) -> Callable[[Link], Record]:
    return lambda link: replace(
        EXAMPLE,
        id=str(uuid7(datetime.now(timezone.utc))),
        run=run,
        seq=link.seq,
        part=number,
        image=kept.path if kept else None,
        image_sha256=kept.sha256 if kept else None,
        previous_sha256=link.previous_sha256,
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
