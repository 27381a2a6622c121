"""Writes a ledger as fast as asked and says what is committed: ``-m ... FOLDER PER_S``."""

import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from pipeline.records import Link, StoredPicture, uuid7
from pipeline.schema import EXAMPLE
from pipeline.store import Ledger, Pictures
from pipeline.types import Record

PICTURE_EVERY = 5
PICTURE = b"\xff\xd8" + bytes(20_000) + b"\xff\xd9"


def write(folder: Path, per_s: float) -> None:
    """Append records for ever; print the number of each once it is committed."""
    run = str(uuid7(datetime.now(timezone.utc)))
    ledger = Ledger(folder, ["mqtt"])
    pictures = Pictures(folder, 1 << 30)
    number = 0
    while True:
        number += 1
        kept = pictures.keep(f"{run}-{number:08d}", PICTURE) if not number % PICTURE_EVERY else None

        def draft(link: Link, number: int = number, kept: StoredPicture | None = kept) -> Record:
            return replace(
                EXAMPLE,
                id=str(uuid7(datetime.now(timezone.utc))),
                run=run,
                seq=link.seq,
                part=number,
                image=kept.path if kept else None,
                image_sha256=kept.sha256 if kept else None,
                previous_sha256=link.previous_sha256,
            )

        ledger.append([draft])
        sys.stdout.write(f"{run} {number}\n")
        sys.stdout.flush()
        time.sleep(1 / per_s)


if __name__ == "__main__":
    write(Path(sys.argv[1]), float(sys.argv[2]))
