"""Cuts the network, lets it go dead, slow and far away, and counts what is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chaos.audit import Audit
from pipeline.chaos.kills import Siege
from pipeline.chaos.line import KEEPALIVE_S, Line
from pipeline.chaos.proxy import Cable
from pipeline.chaos.states import States
from pipeline.clock import NS_PER_S

FPS = 20.0
CALM_S = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is done to the cable for a while."""

    name: str
    seconds: float
    do: Callable[[Cable], None]


def _dead(cable: Cable) -> None:
    cable.is_dead = True


def _far(cable: Cable) -> None:
    cable.delay_s = 0.3


def _slow(cable: Cable) -> None:
    cable.bytes_per_s = 2048


FAULTS = (
    Fault("cut", 4.0, Cable.cut),
    Fault("black hole", 1.75 * KEEPALIVE_S, _dead),
    Fault("300 ms latency", 5.0, _far),
    Fault("2 KB/s", 6.0, _slow),
    Fault("cut again", 3.0, Cable.cut),
)


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network did, and what it cost.

    Attributes:
        audit: the books.
        noticed_s: how long after each fault began the station took note of it (``degraded``, shown
            on the spot); None where nothing was held up.
        shown_s: how long after each fault began the broker told the plant that the station is
            away; None where the connection held.
    """

    audit: Audit
    noticed_s: dict[str, float | None]
    shown_s: dict[str, float | None]

    def figures(self) -> dict[str, Any]:
        """Return the figures under their documented keys."""
        return {
            **self.audit.figures(),
            "keepalive_s": KEEPALIVE_S,
            "outage_noticed_s": self.noticed_s,
            "outage_shown_s": self.shown_s,
        }


def spoil_network(folder: Path, on_fault: Callable[[str], None]) -> Weather:
    """Run a line in an empty folder while its network fails in every way.

    Raises:
        LineguardError: the line did not survive, or did not deliver in the end.
    """
    with Line(folder, fps=FPS) as line, closing(Cable(line.broker_port)) as cable:
        line.connect_station_to(cable.port)
        siege = Siege(line, 0, lambda done: None)
        siege.start()
        with closing(States(line.broker_port)) as states:
            siege.decide(int(CALM_S * FPS))
            began_ns, shown = {}, {}
            for fault in FAULTS:
                on_fault(fault.name)
                began_ns[fault.name] = time.monotonic_ns()
                shown[fault.name] = _suffer(line, cable, fault, states)
        siege.finish(0)
        ends_ns = [*list(began_ns.values())[1:], time.monotonic_ns()]
        noticed = {
            name: _first(siege.witness.told_ns, began, end)
            for (name, began), end in zip(began_ns.items(), ends_ns, strict=True)
        }
        return Weather(siege.audit(), noticed, shown)


def _first(told_ns: list[int], began_ns: int, end_ns: int) -> float | None:
    """Return the seconds from the begin of a fault to a change of state before the next fault."""
    moment = next((t for t in told_ns if began_ns < t < end_ns), None)
    return None if moment is None else round((moment - began_ns) / NS_PER_S, 2)


def _suffer(line: Line, cable: Cable, fault: Fault, states: States) -> float | None:
    """Bring a fault about, mend it, and wait until the station is heard again."""
    began_ns = time.monotonic_ns()
    fault.do(cable)
    line.pause(fault.seconds)
    cable.mend()
    mended_ns = time.monotonic_ns()
    offline_ns = states.since(began_ns, lambda state: state == "offline")
    if offline_ns is not None:
        line.until(
            lambda: states.since(mended_ns, lambda s: s != "offline") is not None, "the station"
        )
    line.pause(CALM_S)
    line.until(lambda: states.heard[-1].state == "ready", "a station that is ready again")
    return None if offline_ns is None else round((offline_ns - began_ns) / NS_PER_S, 2)
