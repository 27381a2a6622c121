"""Takes orders from a broker: one topic per kind of update, one answer to each order."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from pipeline.errors import LineguardError, UpdateAway
from pipeline.handoff import Handoff
from pipeline.link import Link
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
        self._topic = topic
        self._carry_out = carry_out
        self._ends_after = ends_after
        self._again_s = again_s
        self._held: dict[str, tuple[float, bytes]] = {}
        self._inbox: Handoff[tuple[str, bytes]] = Handoff(ORDERS_WAITING, lambda item: True)
        self._stopping = threading.Event()
        name = options.client_id or f"lineguard-update.{topic.replace('/', '.')}"
        self._link = Link(options, name, connected=self._connected, heard=self._heard)

    def run(self) -> None:
        """Carry out orders until ``stop`` is called or the program was replaced."""
        bounds = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        bounds.MaximumPacketSize = MAX_MESSAGE_BYTES + HEADER_BYTES  # a larger one is never sent
        self._link.start(properties=bounds)
        try:
            while not self._stopping.is_set():
                for kind, payload in self._inbox.take(1, WAIT_S) or self._due():
                    self._take(kind, payload)
        finally:
            self._link.leave()

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
        told = self._link.client.publish(
            f"{self._topic}/answer/{kind}", json.dumps(asdict(answer)), qos=1, retain=True
        )
        if answer.ok and kind in self._ends_after:
            with suppress(RuntimeError, ValueError):  # the connection is away; the update is done
                told.wait_for_publish(self._options.confirm_s)
            self.stop()

    # Called by the connection's thread: nothing below may raise.

    def _connected(self, limits: Properties | None) -> None:
        del limits
        self._link.subscribe(*(f"{self._topic}/order/{kind}" for kind in self._carry_out))

    def _heard(self, message: paho.MQTTMessage) -> None:
        kind = message.topic.rpartition("/")[2]
        if message.payload and kind in self._carry_out:  # an empty one takes a retained one back
            self._inbox.put((kind, bytes(message.payload)))
