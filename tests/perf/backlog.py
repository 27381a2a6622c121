"""An hour's records while the broker is away, then the way out: memory, speed of drain and line.

    python -m tests.perf.backlog [RECORDS]

The records are written while a publisher tries in vain to reach its broker. Then a real station
works on that store: first still without a broker, then while the backlog leaves through mosquitto
to a collector, then with nothing left to send. The speed of the line is counted at its gate.
"""

import json
import resource
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.chaos.line import COLLECTOR, SOURCE, Line
from pipeline.chaos.witness import Witness
from pipeline.clock import NS_PER_S
from pipeline.errors import PublishError
from pipeline.publishers import Address
from pipeline.publishers.mqtt import Options, create
from pipeline.records import Link, uuid7
from pipeline.schema import EXAMPLE
from pipeline.store import Ledger, Outbox
from pipeline.types import Record

GROUP = 10
WINDOW = 64
FPS = 20.0
PHASE_S = 15.0
WARM_PARTS = 60
NEARLY_EMPTY = 2 * WINDOW


def rss_mb(process: int | str = "self") -> float:
    """Return the resident memory of a process now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
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


def pile_up(line: Line, count: int) -> dict[str, float]:
    """Write records that nobody takes; return the memory that grew meanwhile."""
    options = Options(port=line.broker_port, collector=COLLECTOR)
    publisher = create(options, Address(*SOURCE.split("/")))
    ledger, outbox = Ledger(line.store, ["mqtt"]), Outbox(line.store, "mqtt")
    ledger.append([draft] * WINDOW)
    before_mb, began = rss_mb(), time.monotonic()
    for n in range(0, count, GROUP):
        ledger.append([draft] * GROUP)
        if n % 4000 == 0:
            with suppress(PublishError):
                publisher.send(outbox.waiting(WINDOW))
    written_s, grown_mb = time.monotonic() - began, rss_mb() - before_mb
    publisher.close()
    outbox.close()
    ledger.close()
    return {"rss_growth_mb": round(grown_mb, 1), "written_per_s": round(count / written_s)}


@dataclass(frozen=True)
class Work:
    """A running station, watched at its gate."""

    line: Line
    witness: Witness
    pid: int

    def found(self) -> float:
        """Wait until the first records are delivered; return the seconds that took."""
        began, most = time.monotonic(), 0
        while (waiting := self.line.waiting()) >= most - WINDOW:
            most = max(most, waiting)
            self.line.pause(0.1)
        return round(time.monotonic() - began, 1)

    def during(self, seconds: float | None = None) -> dict[str, float]:
        """Let it work, or empty its outbox; return speed of line and drain, and the memory."""
        waiting, began, first = self.line.waiting(), time.monotonic(), self.witness.look()
        if seconds is None:
            self.line.until(lambda: self.line.waiting() < NEARLY_EMPTY, "the drain")
        else:
            self.line.pause(seconds)
        took_s, left = time.monotonic() - began, self.line.waiting()
        self.witness.look()
        acts = self.witness.acts[first:]
        span_s = (acts[-1].t_ns - acts[0].t_ns) / NS_PER_S
        gaps = sorted(b.t_ns - a.t_ns for a, b in pairwise(acts))
        return {
            "seconds": round(took_s, 1),
            "parts_per_s": round((len(acts) - 1) / span_s, 2),
            "p99_between_parts_ms": round(gaps[int(len(gaps) * 0.99)] / 1e6, 1),
            "drained_per_s": round((waiting - left + len(acts)) / took_s),
            "rss_mb": round(rss_mb(self.pid), 1),
        }


def main(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch, Line(Path(scratch), fps=FPS) as line:
        figures: dict[str, Any] = {"records": count, **pile_up(line, count)}
        work = Work(line, Witness(line.journal), line.start_station())
        line.until(lambda: work.witness.look() >= WARM_PARTS, "the station")
        figures["away"] = work.during(PHASE_S)
        line.start_broker()
        line.start_collector()
        figures["broker_found_after_s"] = work.found()
        figures["draining"] = work.during()
        figures["connected"] = work.during(PHASE_S)
        return figures


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 36_000)) + "\n")
