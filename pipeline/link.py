"""A connection to an MQTT broker that keeps itself up, and says once why there is none."""

import logging
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from pipeline.broker import Broker, password_of, tls_context

LOG = logging.getLogger(__name__)

CREDENTIALS_REFUSED = (134, 135)
RECONNECT_MOST_S = 4


class Link:
    """Connects, and reconnects, on its own, from ``start`` until ``leave``.

    What is given is called by the connection's thread. An exception would end that thread: none of
    it may raise.

    Args:
        options: where the broker is and how to log in.
        client_id: under which the broker knows this client.
        connected: is given the broker's limits (None if it states none); subscribe here.
        heard: is given each message.
        lost: is told why a connection that stood has ended, or with which code it was ended here.
        subscribed: is told the number of a subscription that the broker has answered.
        kind: of the connection, in messages.
        settings: of paho's client.

    Attributes:
        client: to publish with.
        where: names the broker in messages.
        trouble: why there is no connection; "" if there is one.
        was_tried: whether the first attempt has ended, one way or the other.

    Raises:
        ConfigError: the password or a TLS file cannot be read.
    """

    def __init__(
        self,
        options: Broker,
        client_id: str,
        *,
        connected: Callable[[Properties | None], None],
        heard: Callable[[paho.MQTTMessage], None],
        lost: Callable[[ReasonCode], None] = lambda reason: None,
        subscribed: Callable[[int], None] = lambda mid: None,
        kind: str = "mqtt",
        **settings: Any,
    ) -> None:
        self.where = f"{kind} broker {options.host}:{options.port}"
        self.trouble = f"{self.where} does not answer; is it running and the port open?"
        self.was_tried = False
        self._options = options
        self._connected, self._lost = connected, lost
        self._heard, self._subscribed = heard, subscribed
        self._stands = False
        self._leaving = False
        self._asking = threading.RLock()
        self._asked: dict[int, Sequence[str]] = {}
        self.client = _client_for(options, client_id, **settings)
        self.client.on_connect = self._on_connect
        self.client.on_connect_fail = self._on_connect_fail
        self.client.on_disconnect = self._on_disconnect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message

    def start(self, *, clean: bool = True, properties: Properties | None = None) -> None:
        """Begin to connect, in a thread; returns at once.

        Args:
            clean: whether the broker forgets what it kept of an earlier connection.
            properties: of MQTT 5's CONNECT; an older broker knows none, nor ``clean``.
        """
        self._leaving = False
        options = self._options
        of_5: dict[str, Any] = {"clean_start": clean, "properties": properties}
        self.client.connect_async(
            options.host,
            options.port,
            options.wire_keepalive_s,
            **(of_5 if options.version == "5" else {}),
        )
        self.client.loop_start()

    def subscribe(self, *topics: str) -> int | None:
        """Ask for topics, QoS 1; a refusal is told. Return the number of the answer to come."""
        with self._asking:  # the answer may come before this returns
            number = self.client.subscribe([(topic, 1) for topic in topics])[1]
            if number is not None:
                self._asked[number] = topics
        return number

    def say(self, trouble: str) -> None:
        """Remember why nothing can be exchanged; tell it once, not at every attempt."""
        if trouble != self.trouble:
            LOG.warning("%s", trouble)
        self.trouble, self.was_tried = trouble, True

    def disconnect(self) -> None:
        """End the connection from any thread, its own too; it is no loss to be told of."""
        self._leaving = True
        self.client.disconnect()

    def leave(self) -> None:
        """End the connection and its thread; ``start`` begins anew."""
        if not self._leaving:
            self.disconnect()
        self.client.loop_stop()

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        limits: Properties | None,
    ) -> None:
        del client, userdata, flags
        if reason.is_failure:
            self.say(f"{self.where} {_why_refused(reason)}")
            return
        with self._asking:
            self._asked.clear()
        self.trouble, self.was_tried, self._stands = "", True, True
        self._connected(limits)
        LOG.info("%s: connected", self.where)

    def _on_connect_fail(self, client: paho.Client, userdata: Any) -> None:
        del client, userdata
        # paho calls this inside its `except OSError`, and does not pass the error on.
        error = sys.exc_info()[1]
        self.say(f"{self.where} cannot be reached ({error}); {_hint_on(error)}")

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, flags, properties
        if not self._stands:
            return
        self._stands = False
        if not self._leaving:
            self.say(f"{self.where}: the connection was lost ({reason}); it is tried again")
        self._lost(reason)

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del client, userdata, properties
        with self._asking:
            topics = self._asked.pop(mid, ())
        for topic, reason in zip(topics, reasons, strict=False):
            if reason.is_failure:
                hint = "grant this user to read it"
                LOG.warning("%s refused to subscribe '%s': %s; %s", self.where, topic, reason, hint)
        self._subscribed(mid)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        del client, userdata
        self._heard(message)


def _client_for(options: Broker, client_id: str, **settings: Any) -> paho.Client:
    """Make a client with the credentials and version of the options; it does not connect yet.

    Raises:
        ConfigError: the password or a TLS file cannot be read.
    """
    version = MQTTProtocolVersion.MQTTv5
    if options.version == "3.1.1":
        version, settings = MQTTProtocolVersion.MQTTv311, {"clean_session": True, **settings}
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, **settings)
    client.reconnect_delay_set(1, RECONNECT_MOST_S)
    if options.username is not None:
        client.username_pw_set(options.username, password_of(options))
    if options.tls is not None:
        client.tls_set_context(tls_context(options.tls))
    return client


def _hint_on(error: BaseException | None) -> str:
    """Say what to look at when a broker cannot be reached."""
    if isinstance(error, ssl.SSLError):
        return "check tls.ca_file, and that the certificate names this host"
    return "is it running and the port open?"


def _why_refused(reason: ReasonCode) -> str:
    """Say in words why a broker does not let this client in, and what to look at."""
    is_login = reason.value in CREDENTIALS_REFUSED
    hint = "check username and password" if is_login else "see the broker's log"
    return f"refused the connection: {reason}; {hint}"
