"""The edge node of Sparkplug 3.0 without a network: what it says at birth, between, and at death.

Only node messages are used, as section 5.12 lets a device do that speaks MQTT itself: a station is
one node and has no devices.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pipeline.publishers.sparkplug.payload import Metric, Type, Value, encode
from pipeline.schema import encode as encode_record
from pipeline.types import Record

BD_SEQ, REBIRTH = "bdSeq", "Node Control/Rebirth"
ROUND = 256

METRICS: Mapping[str, Type] = {
    "Station/State": Type.STRING,
    "Station/Ready": Type.BOOLEAN,
    "Station/Faults": Type.STRING,
    "Part/Id": Type.STRING,
    "Part/Run": Type.STRING,
    "Part/Number": Type.INT64,
    "Part/Verdict": Type.STRING,
    "Part/Reasons": Type.STRING,
    "Part/Defects": Type.INT64,
    "Part/Latency": Type.DOUBLE,
    "Part/Recipe": Type.STRING,
    "Part/Record": Type.STRING,
}
"""Every metric that a station will ever publish; ``Part/Record`` is the whole record, as JSON."""


class Node:
    """Numbers the messages of one station and remembers what each metric was last.

    Attributes:
        bd_seq: of the connection, 0..255: birth and death of one session carry the same.
    """

    def __init__(self) -> None:
        self.bd_seq = -1
        self._seq = 0
        self._born_ms = 0
        self._last: dict[str, Value] = dict.fromkeys(METRICS)

    def connecting(self, now_ms: int) -> bytes:
        """Begin a connection; return the will that goes with it."""
        self.bd_seq = (self.bd_seq + 1) % ROUND
        return self.death(now_ms)

    def death(self, now_ms: int) -> bytes:
        """Return the death certificate of this connection."""
        return encode([self._bd_seq(now_ms)], now_ms, None)

    def birth(self, now_ms: int) -> bytes:
        """Return a birth certificate: every metric with what it is now."""
        self._seq, self._born_ms = 0, now_ms
        control = Metric(REBIRTH, Type.BOOLEAN, False, now_ms)
        known = [Metric(name, METRICS[name], value, now_ms) for name, value in self._last.items()]
        return encode([self._bd_seq(now_ms), control, *known], now_ms, self._seq)

    def state(self, state: Mapping[str, Any], now_ms: int) -> bytes | None:
        """Return what is to be said of a new state of the station, or None if nothing changed."""
        return self._data(_of_state(state).items(), now_ms, now_ms)

    def part(self, record: Record, now_ms: int) -> bytes | None:
        """Return what is to be said of a record, or None if it was the last one already.

        One from before the birth is historical: it changes nothing of what is now.
        """
        made_ms = _ms(record.time)
        if made_ms < self._born_ms:
            values = _of_record(record).items()
            old = [Metric(name, METRICS[name], v, made_ms, historical=True) for name, v in values]
            return encode(old, now_ms, self._next(), typed=False)
        return self._data(_of_record(record).items(), made_ms, now_ms)

    def remember(self, state: Mapping[str, Any]) -> None:
        """Keep a state for the next birth."""
        self._last |= _of_state(state)

    def _data(self, values: Iterable[tuple[str, Value]], time_ms: int, now_ms: int) -> bytes | None:
        """Return a message of those values that are not what they were."""
        changed = {name: value for name, value in values if self._last[name] != value}
        if not changed:
            return None
        self._last |= changed
        metrics = [Metric(name, METRICS[name], value, time_ms) for name, value in changed.items()]
        return encode(metrics, now_ms, self._next(), typed=False)

    def _next(self) -> int:
        self._seq = (self._seq + 1) % ROUND
        return self._seq

    def _bd_seq(self, now_ms: int) -> Metric:
        return Metric(BD_SEQ, Type.INT64, self.bd_seq, now_ms)


def _of_state(state: Mapping[str, Any]) -> dict[str, Value]:
    faults = state.get("faults") or {}
    return {
        "Station/State": str(state.get("state", "")),
        "Station/Ready": bool(state.get("ready")),
        "Station/Faults": json.dumps(faults, sort_keys=True, default=str, skipkeys=True),
    }


def _of_record(record: Record) -> dict[str, Value]:
    return {
        "Part/Id": record.id,
        "Part/Run": record.run,
        "Part/Number": record.part,
        "Part/Verdict": record.verdict.value,
        "Part/Reasons": "; ".join(record.reasons),
        "Part/Defects": len(record.defects),
        "Part/Latency": record.latency_ms,
        "Part/Recipe": record.recipe,
        "Part/Record": encode_record(record).decode(),
    }


def _ms(time: str) -> int:
    return int(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1000)
