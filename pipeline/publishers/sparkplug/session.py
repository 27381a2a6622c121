"""One session after another with a broker: wait for the host, be born, publish, die.

Sparkplug publishes data with QoS 0, which nobody confirms. So each batch ends with a subscription
that is there already: a broker reads in order, and its answer says that it has read the batch.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.properties import Properties

from pipeline.clock import Clock, SystemClock
from pipeline.errors import ConfigError, PublishError
from pipeline.link import Link
from pipeline.publishers import Address
from pipeline.publishers.sparkplug.node import REBIRTH, Node
from pipeline.publishers.sparkplug.options import Options
from pipeline.publishers.sparkplug.payload import commands
from pipeline.types import Record

LOG = logging.getLogger(__name__)

NAMESPACE = "spBv1.0"
BIRTH_WAIT_S = 1.0
GOODBYE_S = 1.0
MAX_STATE_BYTES = 4096


class SparkplugPublisher:
    """Publishes records as metrics of one edge node.

    A thread of its own keeps the connection; all that it shares with the publish thread, the
    numbers of the messages above all, is changed and sent under one lock.
    """

    def __init__(self, options: Options, address: Address, clock: Clock | None = None) -> None:
        self._options = options
        self._clock = clock or SystemClock()
        self._group = options.group or f"{address.site}-{address.line}"
        self._name = options.node or address.station
        self._lock = threading.Lock()
        self._node = Node()
        self._born = threading.Event()
        self._confirmed = threading.Event()
        self._fence: int | None = None
        self._host_ms = -1
        self._over = threading.Event()
        self._closed = threading.Event()
        self._link = Link(
            options,
            options.client_id or f"lineguard.{address.path.replace('/', '.')}.spb",
            connected=self._connected,
            heard=self._heard,
            lost=lambda reason: self._born.clear(),
            subscribed=self._subscribed,
            kind="sparkplug",
        )
        self._link.client.on_pre_connect = self._on_pre_connect
        self._thread = threading.Thread(target=self._stay, name="sparkplug", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        silent = self._closed.is_set() or self._born.is_set() or not self._link.was_tried
        return "" if silent else self._link.trouble

    def send(self, records: Sequence[Record]) -> tuple[str, ...]:
        if self._closed.is_set() or not self._born.wait(BIRTH_WAIT_S):
            raise PublishError(self._link.trouble)
        if not records:
            return ()
        with self._lock:
            self._confirmed.clear()
            for record in records:
                self._say("NDATA", self._node.part(record, self._now_ms()))
            self._fence = self._link.subscribe(self._topic("NCMD"))
        if not self._confirmed.wait(self._options.confirm_s) or not self._born.is_set():
            raise PublishError(
                f"{self._link.where} has not answered within {self._options.confirm_s} s; "
                "what it was given is offered again"
            )
        return tuple(record.id for record in records)

    def state(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            try:
                if self._born.is_set():
                    self._say("NDATA", self._node.state(state, self._now_ms()))
                else:
                    self._node.remember(state)
            except (TypeError, ValueError, RecursionError) as error:
                LOG.error("sparkplug: the state cannot be published: %s", error)

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._die()
        self._link.trouble = f"{self._link.where}: this publisher is closed"
        self._thread.join(GOODBYE_S)

    def _stay(self) -> None:
        """Connect, and again whenever a session was ended on purpose."""
        while not self._closed.is_set():
            self._link.start()
            self._over.wait()
            self._over.clear()
            self._link.leave()

    def _die(self) -> None:
        """End this session: the death certificate, then the connection."""
        with self._lock:
            if self._born.is_set():
                self._born.clear()
                payload = self._node.death(self._now_ms())
                self._link.client.publish(self._topic("NDEATH"), payload, qos=1)
            self._link.disconnect()
        self._over.set()

    def _birth(self) -> None:
        with self._lock:
            self._say("NBIRTH", self._node.birth(self._now_ms()))
            self._link.trouble = ""
            self._born.set()

    def _say(self, verb: str, payload: bytes | None) -> None:
        """Publish; the caller holds the lock, so that numbers go out in their order."""
        if payload is not None:
            self._link.client.publish(self._topic(verb), payload, qos=0)

    def _topic(self, verb: str) -> str:
        return f"{NAMESPACE}/{self._group}/{verb}/{self._name}"

    @property
    def _host_topic(self) -> str:
        return f"{NAMESPACE}/STATE/{self._options.primary_host}"

    def _host_is(self, what: str) -> str:
        return f"{self._link.where}: the host '{self._options.primary_host}' {what}"

    def _now_ms(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)

    # Called by the connection's thread. An exception would end it: nothing below may raise.

    def _on_pre_connect(self, client: paho.Client, userdata: Any) -> None:
        del userdata
        with self._lock:
            will = self._node.connecting(self._now_ms())
        client.will_set(self._topic("NDEATH"), will, qos=1, retain=False)

    def _connected(self, limits: Properties | None) -> None:
        del limits
        self._host_ms = -1
        self._link.client.drop_out_messages()  # the certificate of the session before
        self._link.subscribe(self._topic("NCMD"))
        if self._options.primary_host is None:
            self._birth()
            return
        self._link.say(self._host_is("is not online"))
        self._link.subscribe(self._host_topic)

    def _subscribed(self, mid: int) -> None:
        with self._lock:
            if mid == self._fence:
                self._confirmed.set()

    def _heard(self, message: paho.MQTTMessage) -> None:
        try:
            if message.topic == self._topic("NCMD"):
                if not message.retain:
                    self._command(bytes(message.payload))
            elif self._options.primary_host is not None and message.topic == self._host_topic:
                self._host_said(bytes(message.payload))
        except ConfigError as error:
            LOG.warning("%s: '%s': %s", self._link.where, message.topic, error)

    def _command(self, payload: bytes) -> None:
        asked = commands(payload)
        if asked.get(REBIRTH) is True and self._born.is_set():
            self._birth()
        elif others := sorted(set(asked) - {REBIRTH}):
            LOG.warning("%s: no command: %.100r; only %s is", self._link.where, others[0], REBIRTH)

    def _host_said(self, payload: bytes) -> None:
        """Begin a session when the host comes, end it when it goes; older news is not heeded."""
        is_online, time_ms = _read_host(payload)
        if time_ms < self._host_ms:
            return
        self._host_ms = time_ms
        if is_online and not self._born.is_set():
            self._birth()
        elif not is_online and self._born.is_set():
            self._link.say(
                f"{self._link.where}: the host '{self._options.primary_host}' went offline"
            )
            self._die()


def _read_host(payload: bytes) -> tuple[bool, int]:
    """Read what a host application says of itself: whether it is online, and since when, ms.

    Raises:
        ConfigError: it is not ``{"online": ..., "timestamp": ...}``.
    """
    if len(payload) > MAX_STATE_BYTES:
        raise ConfigError(f"{len(payload)} bytes; {MAX_STATE_BYTES} are taken")
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"no JSON ({error})") from error
    online = said.get("online") if isinstance(said, dict) else None
    time_ms = said.get("timestamp") if isinstance(said, dict) else None
    if not isinstance(online, bool) or isinstance(time_ms, bool) or not isinstance(time_ms, int):
        raise ConfigError("neither online (true, false) nor a timestamp in it")
    return online, time_ms
