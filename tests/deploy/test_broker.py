"""The demo's broker as it is configured: TLS alone, a certificate for everybody, topics by name."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.brokers import free_port, until
from tests.conftest import REPOSITORY

DEMO = REPOSITORY / "docker" / "demo"
OWN = "lineguard/v1/lineguard/demo/hall-1/line-1/demo/inspection"
OTHERS = "lineguard/v1/lineguard/demo/hall-1/line-2/other/inspection"


@dataclass
class Broker:
    """The demo's broker on the loopback address."""

    port: int
    pki: Path

    def client(self, name: str | None) -> paho.Client:
        made = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        if name is not None:
            context.load_cert_chain(self.pki / f"{name}.crt", self.pki / f"{name}.key")
        made.tls_set_context(context)
        return made


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("mosquitto and openssl are needed (apt-get install mosquitto openssl)")
    folder = tmp_path_factory.mktemp("broker")
    subprocess.run([str(DEMO / "certificates.sh"), str(folder / "pki")], check=True)
    for file in (folder, folder / "pki", *(folder / "pki").iterdir()):
        file.chmod(0o755 if file.is_dir() else 0o644)  # the broker may run as a user of its own
    for parent in list(folder.parents)[:2]:
        parent.chmod(0o755)
    shutil.copy(DEMO / "acl", folder / "acl")
    port = free_port()
    page = (DEMO / "mosquitto.conf").read_text()
    page = page.replace("/mosquitto/pki", f"{folder}/pki").replace("/mosquitto/config", str(folder))
    page = page.replace("listener 8883", f"listener {port} 127.0.0.1")
    (folder / "mosquitto.conf").write_text(page)
    log = (folder / "log").open("wb")
    process = subprocess.Popen([program, "-c", folder / "mosquitto.conf"], stdout=log, stderr=log)
    until(lambda: b"running" in (folder / "log").read_bytes(), "the broker")
    yield Broker(port, folder / "pki")
    process.terminate()
    process.wait()


def told(broker: Broker, topic: str) -> bool:
    """Publish as the station; return whether the broker took it."""
    answers: list[ReasonCode] = []

    def on_publish(c: object, u: object, mid: int, code: ReasonCode, p: Properties) -> None:
        answers.append(code)

    client = broker.client("demo")
    client.on_publish = on_publish
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish(topic, b"{}", qos=1)
    until(lambda: bool(answers), "an answer of the broker")
    client.disconnect()
    client.loop_stop()
    return not answers[0].is_failure


def test_a_station_may_write_what_is_its_own(broker: Broker) -> None:
    assert told(broker, OWN)


def test_a_station_may_not_speak_for_another(broker: Broker) -> None:
    assert not told(broker, OTHERS)


def test_nobody_comes_in_without_a_certificate(broker: Broker) -> None:
    client, seen = broker.client(None), []
    client.on_connect = lambda *words: seen.append(words)
    client.on_disconnect = lambda *words: seen.append("refused")
    try:
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        until(lambda: bool(seen), "the broker to refuse")
        client.loop_stop()
    except (ssl.SSLError, OSError):
        return
    assert seen == ["refused"]


def test_a_viewer_reads_and_does_not_write(broker: Broker) -> None:
    got: list[str] = []
    ready: list[bool] = []
    viewer = broker.client("viewer")
    viewer.on_message = lambda c, u, message: got.append(message.topic)
    viewer.on_subscribe = lambda *words: ready.append(True)
    viewer.connect("127.0.0.1", broker.port)
    viewer.loop_start()
    viewer.subscribe("lineguard/#", qos=1)
    until(lambda: bool(ready), "the subscription")
    viewer.publish("lineguard/v1/forged", b"{}", qos=1)
    assert told(broker, OWN)
    until(lambda: bool(got), "the station's message")
    viewer.disconnect()
    viewer.loop_stop()
    assert got == [OWN]
