"""What the plant hears of the station's state, and when."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from pipeline.chaos.line import HOST, SOURCE


@dataclass(frozen=True, slots=True)
class Heard:
    """A state message; ``t_ns`` is when it arrived, monotonic."""

    state: str
    t_ns: int


class States:
    """Listens at the broker itself until it is closed.

    Attributes:
        heard: the states, in order.
    """

    def __init__(self, port: int) -> None:
        self.heard: list[Heard] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = self._subscribe
        self._client.on_message = self._hear
        self._client.connect(HOST, port, keepalive=60)
        self._client.loop_start()

    def since(self, t_ns: int, wanted: Callable[[str], bool]) -> int | None:
        """Return when a state of this kind was first heard after a moment, or None."""
        return next((h.t_ns for h in list(self.heard) if h.t_ns > t_ns and wanted(h.state)), None)

    def close(self) -> None:
        """Stop listening."""
        self._client.disconnect()
        self._client.loop_stop()

    def _subscribe(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(f"lineguard/v1/{SOURCE}/state", qos=1)

    def _hear(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        del client, userdata
        said = json.loads(message.payload)
        self.heard.append(Heard(str(said.get("state")), time.monotonic_ns()))
