"""One connection that paho keeps up; its thread only leaves notes for the publish thread."""

import logging
import queue
import threading
from dataclasses import dataclass

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from pipeline.errors import ConfigError
from pipeline.link import Link
from pipeline.publishers.mqtt.options import Options
from pipeline.receipts import Receipt, read_receipt
from pipeline.schema import EVENT_CONTENT, OFFLINE, canonical

LOG = logging.getLogger(__name__)

MAX_PACKET_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Answer:
    """What the broker said to one message; paho's ``is_published()`` is True for a refusal too.

    Attributes:
        mid: the message, as ``Connection.publish`` named it.
        refused: True if the broker did not take it.
        reason: number of the MQTT reason code.
        said: the reason in words.
    """

    mid: int
    refused: bool
    reason: int
    said: str


@dataclass(frozen=True, slots=True)
class Break:
    """The end of a connection; whatever was in flight is void."""

    reason: int
    said: str


class Connection:
    """Speaks MQTT with a clean session; it connects, and reconnects, on its own.

    paho would send again, after a reconnect, what it still holds, while the station offers the
    same records again: two copies. So a new connection starts with paho's queue emptied.

    Attributes:
        notes: answers, breaks and receipts, in the order they happened.
        receive_maximum: messages the broker takes at a time; paho does not heed it.
        max_packet_bytes: the largest packet the broker takes, as far as it says so.
    """

    def __init__(
        self, options: Options, client_id: str, state_topic: str, receipt_topic: str | None = None
    ) -> None:
        self.notes: queue.SimpleQueue[Answer | Break | Receipt] = queue.SimpleQueue()
        self.receive_maximum = options.in_flight
        self.max_packet_bytes = MAX_PACKET_BYTES
        self._state_topic = state_topic
        self._receipt_topic = receipt_topic
        self._state: bytes | None = None
        self._state_order = threading.Lock()
        self._open = threading.Event()
        self._retain_state = options.retain_state
        self._is_5 = options.version == "5"
        self._link = Link(
            options,
            client_id,
            connected=self._connected,
            heard=self._heard,
            lost=self._lost,
        )
        self._client = self._link.client
        self._client.on_publish = self._on_publish
        self._client.max_inflight_messages_set(0)
        self._client.will_set(state_topic, canonical(OFFLINE), qos=1, retain=options.retain_state)
        self._link.start()

    @property
    def where(self) -> str:
        """The broker, in messages."""
        return self._link.where

    @property
    def trouble(self) -> str:
        """Why there is no connection; "" if there is one."""
        return self._link.trouble

    @property
    def was_tried(self) -> bool:
        """Whether the first attempt has ended, one way or the other."""
        return self._link.was_tried

    def wait(self, seconds: float) -> bool:
        """Return True once there is a connection, False if there is none within ``seconds``."""
        return self._open.wait(seconds)

    def publish(self, topic: str, event: bytes) -> int:
        """Hand an event over, QoS 1; the answer comes as a note with the number returned here."""
        return self._client.publish(topic, event, 1, properties=self._of_5(_CLOUDEVENT)).mid

    def state(self, payload: bytes) -> None:
        """Publish a retained state now, and again after every reconnect; never waits."""
        with self._state_order:
            self._state = payload
            if self._open.is_set():
                self._publish_state(payload)

    def close(self, last_state: bytes, seconds: float) -> None:
        """Publish a last state if there is a connection, wait for it at most, and disconnect."""
        if self._open.is_set():
            told = self._publish_state(last_state)
            try:
                told.wait_for_publish(seconds)
            except (RuntimeError, ValueError) as error:
                LOG.debug("%s: no goodbye: %s", self.where, error)
        self._link.leave()
        self._link.trouble = f"{self.where}: this publisher is closed"

    def _publish_state(self, payload: bytes) -> paho.MQTTMessageInfo:
        properties = self._of_5(_PLAIN_JSON)
        return self._client.publish(
            self._state_topic, payload, 1, retain=self._retain_state, properties=properties
        )

    def _of_5(self, properties: Properties) -> Properties | None:
        """Return properties, which MQTT 3.1.1 does not know."""
        return properties if self._is_5 else None

    # Called by the connection's thread: nothing below may raise.

    def _connected(self, limits: Properties | None) -> None:
        self._client.drop_out_messages()
        self.receive_maximum = getattr(limits, "ReceiveMaximum", 65535)
        self.max_packet_bytes = getattr(limits, "MaximumPacketSize", MAX_PACKET_BYTES)
        if self._receipt_topic is not None:
            self._link.subscribe(self._receipt_topic)
        # Without the lock a newer state could overtake this one, and the older would be retained.
        with self._state_order:
            self._open.set()
            if self._state is not None:
                self._publish_state(self._state)

    def _lost(self, reason: ReasonCode) -> None:
        self._open.clear()
        self.notes.put(Break(reason.value, str(reason)))

    def _heard(self, message: paho.MQTTMessage) -> None:
        try:
            self.notes.put(read_receipt(message.payload))
        except ConfigError as error:
            LOG.warning("%s: '%s': %s", self.where, message.topic, error)

    def _on_publish(
        self,
        client: paho.Client,
        userdata: object,
        mid: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, properties
        self.notes.put(Answer(mid, reason.is_failure, reason.value, str(reason)))


def _properties(content: str) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = content
    properties.PayloadFormatIndicator = 1
    return properties


_CLOUDEVENT = _properties(EVENT_CONTENT)
_PLAIN_JSON = _properties("application/json")
