"""Real brokers and a listener of the plant, for the tests that talk MQTT."""

import getpass
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from pipeline.demo_broker import DemoBroker
from pipeline.errors import MissingExtra

HOST = "127.0.0.1"
PATIENCE_S = 60.0
ANYONE = "allow_anonymous true"


def until(true: Callable[[], bool], what: str) -> None:
    """Poll, with a deadline that only a real fault reaches."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def mosquitto(folder: Path, port: int, *lines: str) -> Iterator[subprocess.Popen[bytes]]:
    binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    page = folder / f"mosquitto-{port}.conf"
    page.write_text("\n".join((f"listener {port} {HOST}", f"user {getpass.getuser()}", *lines, "")))
    log = (folder / "mosquitto.log").open("ab")
    broker = subprocess.Popen([binary, "-c", str(page)], stdout=log, stderr=log)
    try:
        until(lambda: accepts(port) or broker.poll() is not None, "mosquitto")
        assert broker.poll() is None, (folder / "mosquitto.log").read_text()
        yield broker
    finally:
        broker.kill()
        broker.wait()
        log.close()


def accepts(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class Heard:
    topic: str
    data: dict[str, Any]
    retained: bool
    qos: int
    content: str


class Subscriber:
    """A plant-side listener with a connection of its own."""

    def __init__(self, port: int, topic: str) -> None:
        self.heard: list[Heard] = []
        self.listening = False
        self._topic = topic
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._hear
        self._client.connect(HOST, port, clean_start=True)
        self._client.loop_start()
        until(lambda: self.listening, "the subscription")

    def _subscribe(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._topic, qos=1)

    def _subscribed(self, *_: Any) -> None:
        self.listening = True

    def _hear(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        del client, userdata
        self.heard.append(
            Heard(
                message.topic,
                json.loads(message.payload),
                message.retain,
                message.qos,
                getattr(message.properties, "ContentType", ""),
            )
        )

    def on(self, leaf: str) -> list[Heard]:
        return [heard for heard in self.heard if heard.topic.endswith(f"/{leaf}")]

    def states(self) -> list[str]:
        return [str(heard.data.get("state")) for heard in self.on("state")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def running(kind: str, folder: Path, port: int) -> Iterator[None]:
    if kind == "mosquitto":
        with mosquitto(folder, port, ANYONE):
            yield
        return
    try:
        broker = DemoBroker(port)
    except MissingExtra as error:
        pytest.skip(str(error))
    with broker:
        yield
