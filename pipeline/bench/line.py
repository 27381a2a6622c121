"""A whole station under measurement: it works in turns, and says what each turn took."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from pipeline.assembly import build
from pipeline.bench.camera import GatedCamera
from pipeline.bench.figures import Round
from pipeline.clock import NS_PER_MS, SystemClock
from pipeline.config import load
from pipeline.errors import LineguardError
from pipeline.types import Image, Record

PATIENCE_S = 120.0
POLL_S = 0.002
RECEIVER = "mqtt"

Decided = tuple[str, int, str, int]
"""Id of the record, number of the exposure, verdict, and when that was recorded, monotonic, ns."""


@dataclass(frozen=True, slots=True)
class Paced:
    """What became of the parts of a paced turn.

    Attributes:
        given: exposures.
        lost: of them, those that the station was too slow to look at; it rejects them as UNSURE.
        silent: of all, those that have no verdict, or more than one: there must be none.
        recorded: decisions in the ledger.
        latency_ms: from the exposure until the verdict is in the ledger and the gate has it.
        decided_ns: monotonic time of that moment, by id of the record.
        cpu_s: of the whole process meanwhile.
    """

    given: int
    lost: int
    silent: int
    recorded: int
    latency_ms: tuple[float, ...]
    decided_ns: Mapping[str, int]
    cpu_s: float


class MeasuredLine:
    """A station with all that belongs to it; ``with`` runs it.

    Args:
        file: station file; its camera is not used.
        pictures: endless; see GatedCamera.
        live: parts are lost where it is too slow.

    Attributes:
        store: folder of its ledger.
        decided: of all turns; plain values, which no garbage collection has to walk through: over
            60,000 records one takes 80 ms, for which all threads stand, and parts were lost.
    """

    def __init__(self, file: Path, pictures: Iterator[Image], *, live: bool = False) -> None:
        config = load(file)
        self.store = config.store_path
        self.decided: list[Decided] = []
        self._publishes = bool(config.publishers)
        self._camera = GatedCamera(pictures, live)
        self._station = build(config, SystemClock(), self._keep, self._camera)
        self._thread = threading.Thread(target=self._run, name="bench", daemon=True)
        self._reached = threading.Event()
        self._target = 0
        self._fault: LineguardError | None = None

    def __enter__(self) -> Self:
        gc.freeze()  # as ``run`` does
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._station.stop()
        self._thread.join()
        gc.unfreeze()

    @property
    def verdicts(self) -> tuple[str, ...]:
        return tuple(verdict for _, _, verdict, _ in self.decided)

    def work(self, count: int) -> Round:
        """Take so many parts as fast as it goes, to the broker's last confirmation."""
        cpu_s, began = time.process_time(), time.perf_counter()
        self._give(count)
        self._await_records(PATIENCE_S)
        self._await_delivery()
        return Round(count, time.perf_counter() - began, time.process_time() - cpu_s)

    def pace(self, count: int, fps: float) -> Paced:
        """Show so many parts at a pace, and wait until all that came of them is delivered."""
        first, cpu_s = len(self.decided), time.process_time()
        shown, lost = len(self._camera.exposed_ns), self._lost()
        self._give(count, fps)
        self._await_records(count / fps + PATIENCE_S)
        self._await_delivery()
        rows, exposed = self.decided[first:], self._camera.exposed_ns
        given, judged = range(shown, len(exposed)), Counter(seq for _, seq, _, _ in rows)
        return Paced(
            given=len(given),
            lost=self._lost() - lost,
            silent=sum(judged[seq] != 1 for seq in given),
            recorded=len(rows),
            latency_ms=tuple((t - exposed[seq]) / NS_PER_MS for _, seq, _, t in rows),
            decided_ns={id: t for id, _, _, t in rows},
            cpu_s=time.process_time() - cpu_s,
        )

    def _give(self, count: int, fps: float | None = None) -> None:
        """Show so many parts more."""
        self._target = len(self.decided) + count
        self._reached.clear()
        self._camera.give(count, fps)

    def _run(self) -> None:
        try:
            self._station.run()
        except LineguardError as error:
            self._fault = error
        finally:
            self._reached.set()

    def _keep(self, record: Record) -> None:
        """Take a record from the station's keep thread: nothing here may cost time."""
        told = (record.id, record.first_frame, record.verdict.value, time.monotonic_ns())
        self.decided.append(told)
        if len(self.decided) == self._target:
            self._reached.set()

    def _await_records(self, patience_s: float) -> None:
        if not self._reached.wait(patience_s):
            raise LineguardError(
                f"bench: {len(self.decided)} of {self._target} parts were decided within "
                f"{patience_s:.0f} s; is the machine busy? take fewer with --quick"
            )
        if self._fault is not None:
            raise self._fault

    def _await_delivery(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._publishes and self._station.tally.told[RECEIVER] < len(self.decided):
            if time.monotonic() > deadline:
                raise LineguardError("bench: the broker does not confirm what was published")
            time.sleep(POLL_S)

    def _lost(self) -> int:
        return sum(self._station.tally.dropped.values())
