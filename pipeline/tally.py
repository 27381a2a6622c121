"""The station's books: what became of every frame and every part."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

LATENCIES_KEPT = 10_000


@dataclass(slots=True)
class Tally:
    """The station's books; ``captured == inspected + sum(dropped)`` when it stands still.

    Attributes:
        captured: frames that the camera gave.
        inspected: frames that were looked at, the one included at which an inspection failed.
        dropped: frames that were not, by reason.
        lost_exposures: gaps in the camera's own numbering.
        reopened: times that the camera was opened again.
        verdicts: parts by verdict.
        latency_ms: of the last decisions.
        told: records that each receiver has confirmed, by its name.
    """

    captured: int = 0
    inspected: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lost_exposures: int = 0
    reopened: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    told: Counter[str] = field(default_factory=Counter)
