"""An hour's records while the broker is away, then the way out: memory, and records a second.

    python -m tests.perf.backlog [RECORDS]

It prints the growth of the resident memory while the backlog builds up, the records written a
second, and, once a broker and a collector are there, the records delivered a second.
"""

import json
import resource
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from pipeline.chaos.line import COLLECTOR, SOURCE, Line
from pipeline.errors import PublishError
from pipeline.publishers import Address
from pipeline.publishers.mqtt import Options, create
from pipeline.records import Link, uuid7
from pipeline.schema import EXAMPLE
from pipeline.store import Ledger, Outbox
from pipeline.types import Record

GROUP = 10
WINDOW = 64


def rss_mb() -> float:
    """Return the resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def draft(link: Link) -> Record:
    id_ = str(uuid7(datetime.now(timezone.utc)))
    return replace(
        EXAMPLE,
        id=id_,
        run="backlog",
        seq=link.seq,
        part=link.seq,
        previous_sha256=link.previous_sha256,
    )


def main(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch, Line(Path(scratch)) as line:
        store = line.store
        options = Options(port=line.broker_port, collector=COLLECTOR, catch_up_per_s=100_000)
        publisher = create(options, Address(*SOURCE.split("/")))
        ledger = Ledger(store, ["mqtt"])
        outbox = Outbox(store, "mqtt")
        ledger.append([draft] * WINDOW)
        before_mb, began = rss_mb(), time.monotonic()
        for n in range(0, count, GROUP):
            ledger.append([draft] * GROUP)
            if n % 4000 == 0:
                with suppress(PublishError):
                    publisher.send(outbox.waiting(WINDOW))
        written_s, grown_mb = time.monotonic() - began, rss_mb() - before_mb
        line.start_broker()
        line.start_collector()
        waiting = outbox.count()
        deliver(publisher, outbox, WINDOW)
        began, left = time.monotonic(), outbox.count()
        deliver(publisher, outbox, left)
        drained_s = time.monotonic() - began
        publisher.close()
        outbox.close()
        ledger.close()
        return {
            "records": waiting,
            "rss_growth_mb": round(grown_mb, 1),
            "rss_growth_with_drain_mb": round(rss_mb() - before_mb, 1),
            "written_per_s": round(count / written_s),
            "drained_per_s": round(left / drained_s),
        }


def deliver(publisher: object, outbox: Outbox, count: int) -> None:
    """Deliver so many records as the station does."""
    done = 0
    while done < count:
        try:
            ids = publisher.send(outbox.waiting(WINDOW))  # type: ignore[attr-defined]
        except PublishError:
            time.sleep(0.2)
            continue
        outbox.confirm(ids)
        done += len(ids)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 36_000)) + "\n")
