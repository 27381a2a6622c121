"""One session after another with a broker: wait for the host, be born, publish, die.

Sparkplug publishes data with QoS 0, which nobody confirms. So each batch ends with a subscription
that is there already: a broker reads in order, and its answer says that it has read the batch.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from pipeline.broker import client_for, hint_on, refusal_of, why_refused
from pipeline.clock import Clock, SystemClock
from pipeline.errors import ConfigError, PublishError
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
        self._where = f"sparkplug broker {options.host}:{options.port}"
        self._waits = f"{self._where} does not answer; is it running and the port open?"
        self._was_tried = False
        self._lock = threading.Lock()
        self._node = Node()
        self._born = threading.Event()
        self._confirmed = threading.Event()
        self._fence: int | None = None
        self._host_ms = -1
        self._over = threading.Event()
        self._closed = threading.Event()
        self._client = self._new_client(options, f"lineguard.{address.path.replace('/', '.')}.spb")
        self._thread = threading.Thread(target=self._stay, name="sparkplug", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        silent = self._closed.is_set() or self._born.is_set() or not self._was_tried
        return "" if silent else self._waits

    def send(self, records: Sequence[Record]) -> tuple[str, ...]:
        if self._closed.is_set() or not self._born.wait(BIRTH_WAIT_S):
            raise PublishError(self._waits)
        if not records:
            return ()
        with self._lock:
            self._confirmed.clear()
            for record in records:
                self._say("NDATA", self._node.part(record, self._now_ms()))
            self._fence = self._client.subscribe(self._topic("NCMD"), 1)[1]
        if not self._confirmed.wait(self._options.confirm_s) or not self._born.is_set():
            raise PublishError(
                f"{self._where} has not answered within {self._options.confirm_s} s; "
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
        self._waits = f"{self._where}: this publisher is closed"
        self._thread.join(GOODBYE_S)

    def _new_client(self, options: Options, name: str) -> paho.Client:
        client = client_for(options, options.client_id or name)
        client.on_pre_connect = self._on_pre_connect
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _stay(self) -> None:
        """Connect, and again whenever a session was ended on purpose."""
        options = self._options
        start: dict[str, Any] = {"clean_start": True} if options.version == "5" else {}
        while not self._closed.is_set():
            self._client.connect_async(
                options.host, options.port, options.wire_keepalive_s, **start
            )
            self._client.loop_start()
            self._over.wait()
            self._over.clear()
            self._client.loop_stop()

    def _die(self) -> None:
        """End this session: the death certificate, then the connection."""
        with self._lock:
            if self._born.is_set():
                self._born.clear()
                payload = self._node.death(self._now_ms())
                self._client.publish(self._topic("NDEATH"), payload, qos=1)
            self._client.disconnect()
        self._over.set()

    def _birth(self) -> None:
        with self._lock:
            self._say("NBIRTH", self._node.birth(self._now_ms()))
            self._waits, self._was_tried = "", True
            self._born.set()

    def _say(self, verb: str, payload: bytes | None) -> None:
        """Publish; the caller holds the lock, so that numbers go out in their order."""
        if payload is not None:
            self._client.publish(self._topic(verb), payload, qos=0)

    def _topic(self, verb: str) -> str:
        return f"{NAMESPACE}/{self._group}/{verb}/{self._name}"

    @property
    def _host_topic(self) -> str:
        return f"{NAMESPACE}/STATE/{self._options.primary_host}"

    def _now_ms(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)

    # Called by the connection's thread. An exception would end it: nothing below may raise.

    def _on_pre_connect(self, client: paho.Client, userdata: Any) -> None:
        del userdata
        with self._lock:
            will = self._node.connecting(self._now_ms())
        client.will_set(self._topic("NDEATH"), will, qos=1, retain=False)

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        limits: Properties | None,
    ) -> None:
        del userdata, flags, limits
        if reason.is_failure:
            self._wait_says(f"{self._where} {why_refused(reason)}")
            return
        self._host_ms = -1
        client.drop_out_messages()  # the certificate of the session before
        client.subscribe(self._topic("NCMD"), 1)
        if self._options.primary_host is None:
            self._birth()
            return
        self._wait_says(f"{self._where}: the host '{self._options.primary_host}' is not online")
        client.subscribe(self._host_topic, 1)

    def _on_connect_fail(self, client: paho.Client, userdata: Any) -> None:
        del client, userdata
        error = sys.exc_info()[1]  # paho calls this inside its `except OSError`
        self._wait_says(f"{self._where} cannot be reached ({error}); {hint_on(error)}")

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, flags, properties
        if not self._closed.is_set() and self._born.is_set():
            self._wait_says(f"{self._where}: the connection was lost ({reason}); it is tried again")
        self._born.clear()

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del client, userdata, properties
        if why := refusal_of(reasons, self._topic("NCMD")):
            LOG.warning("%s %s", self._where, why)
        with self._lock:
            if mid == self._fence:
                self._confirmed.set()

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        del client, userdata
        try:
            if message.topic == self._topic("NCMD"):
                if not message.retain:
                    self._command(bytes(message.payload))
            elif self._options.primary_host is not None and message.topic == self._host_topic:
                self._host_said(bytes(message.payload))
        except ConfigError as error:
            LOG.warning("%s: '%s': %s", self._where, message.topic, error)

    def _command(self, payload: bytes) -> None:
        asked = commands(payload)
        if asked.get(REBIRTH) is True and self._born.is_set():
            self._birth()
        elif others := sorted(set(asked) - {REBIRTH}):
            LOG.warning("%s: no command: %.100r; only %s is", self._where, others[0], REBIRTH)

    def _host_said(self, payload: bytes) -> None:
        """Begin a session when the host comes, end it when it goes; older news is not heeded."""
        is_online, time_ms = _read_host(payload)
        if time_ms < self._host_ms:
            return
        self._host_ms = time_ms
        if is_online and not self._born.is_set():
            self._birth()
        elif not is_online and self._born.is_set():
            self._wait_says(f"{self._where}: the host '{self._options.primary_host}' went offline")
            self._die()

    def _wait_says(self, why: str) -> None:
        """Remember why there is no session; tell it once, not at every attempt."""
        if why != self._waits:
            LOG.warning("%s", why)
        self._waits, self._was_tried = why, True


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
