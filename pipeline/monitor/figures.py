"""What a station says of itself at one moment: frozen, so that any thread may read it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.clock import NS_PER_S

STATES = ("starting", "ready", "degraded", "not ready", "stopping", "stopped")
"""Every state of a station; verdicts can be trusted in ``ready`` and ``degraded`` alone."""

TRUSTED = frozenset({"ready", "degraded"})

LATENCY_BOUNDS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What runs; ``signed_by`` is the id of the trusted key, or None."""

    bundle: str = ""
    sha256: str = ""
    runtime: str = ""
    signed_by: str | None = None
    golden_pictures: int = 0


@dataclass(frozen=True, slots=True)
class Latencies:
    """Times from exposure to command, s: how many lie below each bound, in all, and their sum.

    ``below`` is cumulative, as Prometheus wants it.
    """

    below: tuple[int, ...] = (0,) * len(LATENCY_BOUNDS_S)
    count: int = 0
    sum_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A station at one moment; counters count from its start.

    Attributes:
        t_ns: monotonic time of the moment.
        state: one of STATES.
        faults: why it is not ready, or degraded, by part of the station.
        frozen: workers that have not ended their present step for too long.
        captured, inspected, dropped: frames; the last by reason.
        lost_exposures: gaps in the camera's numbering.
        reopened: times that the camera was opened again.
        frame_age_s: since the last frame came; None before the first.
        verdicts: parts by verdict.
        latencies: of the parts.
        waiting: records that each receiver still waits for.
        self_tests: how often the self-test was passed, the one before the start included.
        rechecks: pictures that were looked at twice, those of self-tests included.
        model: what runs.
    """

    t_ns: int
    state: str = "starting"
    faults: Mapping[str, str] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    captured: int = 0
    inspected: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    lost_exposures: int = 0
    reopened: int = 0
    frame_age_s: float | None = None
    verdicts: Mapping[str, int] = field(default_factory=dict)
    latencies: Latencies = Latencies()
    waiting: Mapping[str, int] = field(default_factory=dict)
    self_tests: int = 0
    rechecks: int = 0
    model: ModelFacts = ModelFacts()

    @property
    def ready(self) -> bool:
        return self.state in TRUSTED


class LatencyCount:
    """Counts times into Prometheus' buckets; one thread adds to it."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def now(self) -> Latencies:
        """Return the counts up to now."""
        counts = tuple(self._counts)
        total, below = 0, []
        for count in counts[:-1]:
            total += count
            below.append(total)
        return Latencies(tuple(below), total + counts[-1], self._sum_s)


class Beat:
    """Tells how long a worker has been at its present step; waiting for work is no step."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._since_ns: int | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Be at a step of work."""
        self._since_ns = self._now_ns()
        try:
            yield
        finally:
            self._since_ns = None

    def busy_s(self) -> float:
        """Return the time since the present step began, 0 if there is none."""
        since_ns = self._since_ns
        return 0.0 if since_ns is None else (self._now_ns() - since_ns) / NS_PER_S
