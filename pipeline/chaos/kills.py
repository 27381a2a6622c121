"""Kills station, broker and collector at random points, and counts what is left."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chaos.audit import Audit, audit, percentile
from pipeline.chaos.line import Line
from pipeline.chaos.witness import Witness
from pipeline.clock import NS_PER_S
from pipeline.errors import PublishError
from pipeline.store import newest_run

DECISIONS_PER_KILL = 50
OTHERS_EVERY = 10
"""So many kills of the station for each of the broker and the collector."""
BOOT_S = 1.0
BOOT_SHARE = 0.1
AWAY_S = 1.0
NEARLY_EMPTY = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of faults gave.

    Attributes:
        audit: the books.
        kills: by process.
        recovery_s: from a kill of the station to the first new verdict, for each kill that was
            followed by one before the next kill.
        broker: what the broker was.
    """

    audit: Audit
    kills: dict[str, int]
    recovery_s: tuple[float, ...]
    broker: str

    def figures(self) -> dict[str, Any]:
        """Return the figures under their documented keys."""
        return {
            **self.audit.figures(),
            "kills": sum(self.kills.values()),
            "killed": self.kills,
            "recovery_s": {f"p{p}": percentile(self.recovery_s, p) for p in (50, 95)},
            "broker": self.broker,
        }


class Siege:
    """Kills parts of a line and starts them again at once, as a service manager would.

    Args:
        on_kill: told after each kill of the station how many there were.

    Attributes:
        witness: what the gate saw.
    """

    def __init__(self, line: Line, seed: int, on_kill: Callable[[int], None]) -> None:
        self._line = line
        self._random = random.Random(seed)
        self._on_kill = on_kill
        self.witness = Witness(line.journal)
        self._runs: dict[int, str] = {}
        self._killed_ns: list[int] = []
        self._kills = {"station": 0, "broker": 0, "collector": 0}
        self._back: dict[str, float] = {}
        self._pid = 0

    def run(self, kills: int) -> Outcome:
        """Kill the station so often, the others a tenth as often; let the line finish; count.

        Raises:
            LineguardError: a process ended by itself, or the line did not finish.
        """
        self.start()
        for n in range(1, kills + 1):
            self._wait()
            self._kill_station()
            if n % OTHERS_EVERY == 0:
                self._kill_other("broker")
            if n % OTHERS_EVERY == OTHERS_EVERY // 2:
                self._kill_other("collector")
            self._on_kill(n)
        self.finish(kills * DECISIONS_PER_KILL)
        return Outcome(self.audit(), self._kills, self._recoveries(), self._line.broker_kind)

    def start(self) -> None:
        """Start all three."""
        self._line.start_broker()
        self._line.start_collector()
        self._pid = self._line.start_station()

    def decide(self, more: int) -> None:
        """Wait until so many more parts were decided."""
        wanted = self.witness.look() + more
        self._line.until(lambda: self._seen() >= wanted, "new verdicts")

    def audit(self) -> Audit:
        """Compare gate, ledger and archive.

        Raises:
            StoreError: one of them was damaged.
        """
        return audit(self.witness.acts, self._runs, self._line.store, self._line.archive)

    def _wait(self) -> None:
        """Let the station decide some parts; now and then kill it while it still starts."""
        if self._random.random() < BOOT_SHARE:
            self._line.pause(self._random.uniform(0, BOOT_S))
            return
        self.decide(self._random.randint(1, 2 * DECISIONS_PER_KILL))

    def _seen(self) -> int:
        self._start_those_due()
        return self.witness.look()

    def _kill_station(self) -> None:
        self._killed_ns.append(self._line.kill("station"))
        self._kills["station"] += 1
        self._note_run()
        self._pid = self._line.start_station()

    def _kill_other(self, name: str) -> None:
        """Kill broker or collector; it stays away for up to a second."""
        self._start_those_due(also=name)
        self._line.kill(name)
        self._kills[name] += 1
        self._back[name] = time.monotonic() + self._random.uniform(0, AWAY_S)

    def _start_those_due(self, also: str = "") -> None:
        for name, at in list(self._back.items()):
            if name == also or time.monotonic() >= at:
                del self._back[name]
                self._line.start_broker() if name == "broker" else self._line.start_collector()

    def _note_run(self) -> None:
        """Note which run the process that has ended wrote, if it wrote any."""
        run = newest_run(self._line.store)
        if run is not None and run not in self._runs.values():
            self._runs[self._pid] = run

    def finish(self, decisions: int) -> None:
        """Let the line decide the rest, then bring all home."""
        self._line.until(lambda: not self._back or self._seen() < 0, "broker and collector")
        self._line.until(lambda: self._seen() >= decisions, "the remaining decisions", 10 * 60)
        self._line.until(lambda: self._line.waiting() < NEARLY_EMPTY, "the backlog", 5 * 60)
        for _ in range(5):
            self._line.stop_station()
            self._note_run()
            if not self._line.waiting():
                break
            self._pid = self._line.start_station()
            self.decide(1)
        else:
            raise PublishError(f"chaos: {self._line.waiting()} records were never acknowledged")
        self.witness.look()

    def _recoveries(self) -> tuple[float, ...]:
        found = []
        bounds = [*self._killed_ns[1:], time.monotonic_ns()]
        acts = iter(self.witness.acts)
        act = next(acts, None)
        for killed, end in zip(self._killed_ns, bounds, strict=True):
            while act is not None and act.t_ns <= killed:
                act = next(acts, None)
            if act is not None and act.t_ns <= end:
                found.append((act.t_ns - killed) / NS_PER_S)
        return tuple(found)


def kill_all(folder: Path, kills: int, seed: int, on_kill: Callable[[int], None]) -> Outcome:
    """Run a line in an empty folder through so many kills.

    Raises:
        StoreError: the ledger was damaged.
        LineguardError: the line did not survive.
    """
    with Line(folder) as line:
        return Siege(line, seed, on_kill).run(kills)
