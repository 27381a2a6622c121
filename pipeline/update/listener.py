"""Takes orders from a broker: one topic per kind of update, one answer to each order."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from pipeline.broker import client_for, hint_on, refusal_of, why_refused
from pipeline.errors import LineguardError, UpdateAway
from pipeline.handoff import Handoff
from pipeline.publishers.mqtt import Options
from pipeline.update.message import MAX_MESSAGE_BYTES, read_message
from pipeline.update.order import utc_now
from pipeline.update.slots import Slots
from pipeline.update.source import Source
from pipeline.update.updater import Updater

LOG = logging.getLogger(__name__)

WAIT_S = 0.2
ORDERS_WAITING = 4
HEADER_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an order.

    Attributes:
        ok: whether the update is at work; one that was at work before is no fault.
        said: what was done, or why it was refused or went back.
        current: release at work now.
        again: whether it is tried again by itself: the files could not be had, for one.
    """

    ok: bool
    said: str
    current: str
    again: bool = False


def carry_out(updater: Updater, slots: Slots, files: Source, payload: bytes) -> Answer:
    """Do what a message orders, and say what became of it.

    Args:
        slots: those of the updater.
        files: where the files of what is ordered lie.
    """
    try:
        ordered = read_message(payload, files)
        if not updater.is_news(ordered):
            return Answer(True, "nothing newer was ordered", slots.at("current"))
        return Answer(True, f"{updater.apply(ordered, utc_now())} is at work", slots.at("current"))
    except LineguardError as error:
        again = isinstance(error, UpdateAway)
        return Answer(False, str(error), slots.at("current"), again)


class Listener:
    """Reads ``{topic}/order/{kind}`` and publishes on ``{topic}/answer/{kind}``, retained.

    Orders are to be published retained: a station that was away finds the newest when it comes. Of
    those that wait while one is carried out only the newest few are kept.

    Args:
        carry_out: per kind, what is done with the bytes of a message, in the thread of ``run``.
        ends_after: kinds after whose success ``run`` returns: the program was replaced.
        again_s: an order that may still come to something is tried again after so long.
    """

    def __init__(
        self, options: Options, topic: str, carry_out: Mapping[str, Callable[[bytes], Answer]],
        ends_after: frozenset[str] = frozenset(), again_s: float = 600.0,
    ) -> None:  # fmt: skip
        self._options = options
        self._where = f"mqtt broker {options.host}:{options.port}"
        self._topic = topic
        self._carry_out = carry_out
        self._ends_after = ends_after
        self._again_s = again_s
        self._held: dict[str, tuple[float, bytes]] = {}
        self._inbox: Handoff[tuple[str, bytes]] = Handoff(ORDERS_WAITING, lambda item: True)
        self._stopping = threading.Event()
        name = options.client_id or f"lineguard-update.{topic.replace('/', '.')}"
        self._client = client_for(options, name)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._trouble = ""

    def run(self) -> None:
        """Carry out orders until ``stop`` is called or the program was replaced."""
        bounds = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        bounds.MaximumPacketSize = MAX_MESSAGE_BYTES + HEADER_BYTES  # a larger one is never sent
        o = self._options
        self._client.connect_async(
            o.host, o.port, o.wire_keepalive_s, clean_start=True, properties=bounds
        )
        self._client.loop_start()
        try:
            while not self._stopping.is_set():
                for kind, payload in self._inbox.take(1, WAIT_S) or self._due():
                    self._take(kind, payload)
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    def stop(self) -> None:
        """End ``run``; any thread."""
        self._stopping.set()

    def _due(self) -> list[tuple[str, bytes]]:
        now = time.monotonic()
        return [(kind, payload) for kind, (due, payload) in self._held.items() if now >= due]

    def _take(self, kind: str, payload: bytes) -> None:
        self._held.pop(kind, None)
        answer = self._carry_out[kind](payload)
        if answer.again:
            self._held[kind] = (time.monotonic() + self._again_s, payload)
        LOG.log(logging.INFO if answer.ok else logging.WARNING, "order %s: %s", kind, answer.said)
        told = self._client.publish(
            f"{self._topic}/answer/{kind}", json.dumps(asdict(answer)), qos=1, retain=True
        )
        if answer.ok and kind in self._ends_after:
            with suppress(RuntimeError, ValueError):  # the connection is away; the update is done
                told.wait_for_publish(self._options.confirm_s)
            self.stop()

    # Called by paho's thread. An exception would end it: nothing below may raise.

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: paho.ConnectFlags, reason: ReasonCode,
        limits: Properties | None,
    ) -> None:  # fmt: skip
        del userdata, flags, limits
        if reason.is_failure:
            self._trouble_is(f"{self._where} {why_refused(reason)}")
            return
        self._trouble = ""
        client.subscribe([(f"{self._topic}/order/{kind}", 1) for kind in self._carry_out])
        LOG.info("%s: connected", self._where)

    def _on_connect_fail(self, client: paho.Client, userdata: Any) -> None:
        del client, userdata
        error = sys.exc_info()[1]
        self._trouble_is(f"{self._where} cannot be reached ({error}); {hint_on(error)}")

    def _on_subscribe(
        self, client: paho.Client, userdata: Any, mid: int, reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:  # fmt: skip
        del client, userdata, mid, properties
        if why := refusal_of(reasons, f"{self._topic}/order/+"):
            LOG.warning("%s %s", self._where, why)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        del client, userdata
        kind = message.topic.rpartition("/")[2]
        if message.payload and kind in self._carry_out:  # an empty one takes a retained one back
            self._inbox.put((kind, bytes(message.payload)))

    def _trouble_is(self, trouble: str) -> None:
        """Say why there is no connection once, not at every attempt."""
        if trouble != self._trouble:
            LOG.warning("%s", trouble)
        self._trouble = trouble
