"""The fleet's station files for AWS IoT Core and Azure IoT Hub, against brokers with their rules.

The clouds themselves are not reached: a broker of this machine asks for what their manuals ask for.
"""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load
from pipeline.errors import ConfigError, PublishError
from pipeline.publishers import Address
from pipeline.publishers.mqtt import MqttPublisher, Options, create
from pipeline.schema import EXAMPLE
from pipeline.types import Record
from tests import test_mqtt_tls as tls
from tests.brokers import ANYONE, HOST, Subscriber, accepts, free_port, mosquitto, until
from tests.conftest import REPOSITORY

papers, stack = tls.papers, tls.stack  # fixtures
FLEET = REPOSITORY / "deploy" / "fleet"
ADDRESS = Address("acme", "north", "smt", "line-2", "aoi-1")
OWN = "lineguard/v1/acme/north/smt/line-2/aoi-1"
ALPN = "x-amzn-mqtt-ca"
AWS_LEVELS, AWS_BYTES = 8, 128 << 10
RECORDS = tuple(
    replace(EXAMPLE, id=f"{n:08d}-0000-7000-8000-000000000000", seq=n + 1, part=n + 1)
    for n in range(5)
)


def publisher_of(cloud: str, papers: Path, port: int, **changed: Any) -> Options:
    """Return the publisher of a cloud's station file, sent to this machine instead."""
    page = yaml.safe_load((FLEET / cloud / "station.yaml").read_text())["publishers"][0]
    del page["kind"]
    page |= {"host": "localhost", "port": port, "confirm_s": 1.0}
    page["tls"] |= {
        "ca_file": str(papers / "ca.pem"),
        "cert_file": str(papers / "aoi-1.pem"),
        "key_file": str(papers / "aoi-1.key"),
    }
    return Options.model_validate_json(json.dumps(page | changed))


def delivered(publisher: MqttPublisher, records: tuple[Record, ...] = RECORDS) -> bool:
    left = {record.id: record for record in records}

    def all_gone() -> bool:
        try:
            for id_ in publisher.send(tuple(left.values())) if left else ():
                del left[id_]
        except PublishError:
            return False
        return not left

    until(all_gone, "the broker to take all of it")
    return True


class Front:
    """Stands before a broker as AWS does on port 443: who names no protocol is sent away."""

    def __init__(self, papers: Path, behind: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(papers / "broker.pem", papers / "broker.key")
        self._context.load_verify_locations(papers / "ca.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.set_alpn_protocols([ALPN])
        self._behind = behind
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self.sent_away = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listening.accept()
                threading.Thread(target=self._let_in, args=(plain,), daemon=True).start()

    def _let_in(self, plain: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as client:
            if client.selected_alpn_protocol() != ALPN:
                self.sent_away += 1
                return
            with socket.create_connection((HOST, self._behind)) as broker:
                back = threading.Thread(target=_pour, args=(broker, client), daemon=True)
                back.start()
                _pour(client, broker)


def _pour(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(65536):
            to.sendall(block)
        to.shutdown(socket.SHUT_WR)


@pytest.fixture
def aws(papers: Path, tmp_path: Path, stack: ExitStack) -> Iterator[tuple[Front, int]]:
    """A broker with the rules of AWS IoT Core: policy, 128 KB, ALPN and a certificate."""
    behind = free_port()
    (tmp_path / "acl").write_text(f"topic read #\npattern write {OWN.removesuffix('aoi-1')}%c/#\n")
    (tmp_path / "acl").chmod(0o600)
    stack.enter_context(
        mosquitto(
            tmp_path, behind, ANYONE, f"acl_file {tmp_path / 'acl'}",
            f"max_packet_size {AWS_BYTES + 1024}",
        )
    )  # fmt: skip
    front = stack.enter_context(closing(Front(papers, behind)))
    yield front, behind


def test_a_station_publishes_as_aws_asks(aws: tuple[Front, int], papers: Path) -> None:
    front, behind = aws
    listener = Subscriber(behind, "#")
    with closing(create(publisher_of("aws", papers, front.port), ADDRESS)) as publisher:
        publisher.state({"ready": True, "state": "running"})
        assert delivered(publisher)
        until(lambda: len(listener.on("inspection")) >= len(RECORDS), "the events")
        until(lambda: bool(listener.on("state")), "the state")
    listener.close()
    topics = {heard.topic for heard in listener.heard}
    assert topics == {f"{OWN}/inspection", f"{OWN}/state"}
    assert all(len(topic.split("/")) <= AWS_LEVELS for topic in topics)
    assert all(not topic.startswith("$") for topic in topics)


def test_a_station_that_does_not_name_the_protocol_is_sent_away(
    aws: tuple[Front, int],
    papers: Path,
) -> None:
    front, _ = aws
    page = publisher_of("aws", papers, front.port)
    assert page.tls is not None
    without = page.model_copy(update={"tls": page.tls.model_copy(update={"alpn": ()})})
    with closing(create(without, ADDRESS)) as publisher:
        until(lambda: front.sent_away > 0, "the refusal")
        with pytest.raises(PublishError):
            publisher.send(RECORDS)


def test_another_things_client_id_is_refused_and_nothing_is_given_up(
    aws: tuple[Front, int],
    papers: Path,
) -> None:
    front, _ = aws
    with closing(
        create(publisher_of("aws", papers, front.port, client_id="aoi-2"), ADDRESS)
    ) as publisher:

        def refusal() -> str:
            with pytest.raises(PublishError) as caught:
                publisher.send(RECORDS)
            return str(caught.value)

        until(lambda: "Not authorized" in refusal(), "the refusal")


def test_the_policy_lets_a_thing_write_what_the_station_writes_and_nothing_more() -> None:
    policy = json.loads((FLEET / "aws" / "policy.json").read_text())
    allowed = {s["Action"]: s["Resource"] for s in policy["Statement"]}
    assert set(allowed) == {"iot:Connect", "iot:Publish", "iot:RetainPublish"}
    written = {r.rsplit("/", 1)[-1] for r in allowed["iot:Publish"]}
    assert written == {"inspection", "defect", "state"}
    assert "ThingName}/state" in allowed["iot:RetainPublish"]


@pytest.fixture
def azure(papers: Path, tmp_path: Path, stack: ExitStack) -> tuple[int, int]:
    """A broker with IoT Hub's rules: a certificate, its user name, one topic, nothing retained."""
    port, plain = free_port(), free_port()
    user = yaml.safe_load((FLEET / "azure" / "station.yaml").read_text())["publishers"][0]
    (tmp_path / "acl").write_text(
        f"topic read #\nuser {user['username']}\ntopic write devices/aoi-1/messages/events/#\n"
    )
    (tmp_path / "acl").chmod(0o600)
    stack.enter_context(
        mosquitto(
            tmp_path, port, f"cafile {papers / 'ca.pem'}", f"certfile {papers / 'broker.pem'}",
            f"keyfile {papers / 'broker.key'}", "require_certificate true", ANYONE,
            "retain_available false", f"acl_file {tmp_path / 'acl'}", f"listener {plain} {HOST}",
        )
    )  # fmt: skip
    until(lambda: accepts(plain), "the listener without TLS")
    return port, plain


def test_a_station_publishes_as_iot_hub_asks(
    azure: tuple[int, int],
    papers: Path,
    tmp_path: Path,
) -> None:
    port, plain = azure
    listener = Subscriber(plain, "devices/#")
    with closing(create(publisher_of("azure", papers, port), ADDRESS)) as publisher:
        publisher.state({"ready": True, "state": "running"})
        assert delivered(publisher)
        until(lambda: len(listener.heard) > len(RECORDS), "the events and the state")
    listener.close()
    leaves = [h.topic.split("leaf=")[1].split("&")[0] for h in listener.heard]
    assert leaves.count("inspection") == len(RECORDS) and "state" in leaves
    assert all(h.topic.startswith("devices/aoi-1/messages/events/") for h in listener.heard)
    assert not any(h.retained for h in listener.heard)
    assert "as aoi-1 (p2, c1" in (tmp_path / "mosquitto.log").read_text()  # p2: MQTT 3.1.1


def test_a_broker_that_keeps_nothing_hangs_up_on_a_state_to_be_kept(
    azure: tuple[int, int],
    papers: Path,
    tmp_path: Path,
) -> None:
    port, _ = azure
    options = publisher_of("azure", papers, port, retain_state=True)
    with closing(create(options, ADDRESS)):
        log = tmp_path / "mosquitto.log"
        until(lambda: "retain" in log.read_text().lower(), "the refusal")


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_a_station_file_of_a_cloud_is_right_in_itself(cloud: str, tmp_path: Path) -> None:
    file = tmp_path / "station.yaml"
    file.write_text((FLEET / cloud / "station.yaml").read_text())
    options = load(file).publishers[0].options
    assert options.client_id == "aoi-1" and options.tls.cert_file is not None


@pytest.mark.parametrize("more", [{"version": "3.1.1"}, {"topic": "devices/a/{leaf}"}])
def test_a_collector_needs_mqtt_5_and_its_own_topics(tmp_path: Path, more: dict[str, str]) -> None:
    page = yaml.safe_load((FLEET / "aws" / "station.yaml").read_text())
    page["publishers"] = [{"kind": "mqtt", "collector": "plant", **more}]
    file = tmp_path / "station.yaml"
    file.write_text(yaml.safe_dump(page))
    with pytest.raises(ConfigError, match="a collector answers under root"):
        load(file)
