"""The MQTT publisher against real brokers: mosquitto, and the one that comes with the demo."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.demo_broker import DemoBroker
from pipeline.errors import ConfigError, PublishError
from pipeline.publishers import Address
from pipeline.publishers.mqtt import MqttPublisher, Options, Tls, create
from pipeline.schema import EXAMPLE, event_schema
from pipeline.types import Record, Verdict
from tests.brokers import ANYONE, HOST, PATIENCE_S, Subscriber, free_port, mosquitto, running, until

ADDRESS = Address("acme", "north", "smt", "line-2", "aoi-1")
BASE = "lineguard/v1/acme/north/smt/line-2/aoi-1"


def records(count: int, **values: Any) -> tuple[Record, ...]:
    return tuple(
        replace(EXAMPLE, id=f"{n:08d}-0000-7000-8000-000000000000", seq=n + 1, part=n + 1, **values)
        for n in range(count)
    )


def ids(offered: Sequence[Record]) -> list[str]:
    return [record.id for record in offered]


def offer(publisher: MqttPublisher, offered: Sequence[Record]) -> None:
    """Offer records as the station does: what is not confirmed comes again."""
    left = {record.id: record for record in offered}
    deadline = time.monotonic() + PATIENCE_S
    while left:
        assert time.monotonic() < deadline, f"{len(left)} records were not taken"
        try:
            for id_ in publisher.send(tuple(left.values())):
                del left[id_]
        except PublishError:
            time.sleep(0.05)


class Wire:
    """A cable between publisher and broker that can hold back the answers, or be cut."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.answers_pass = threading.Event()
        self.answers_pass.set()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection((HOST, self._broker_port))
            except OSError:
                return
            self._ends += [near, far]
            free = threading.Event()
            free.set()
            for source, sink, gate in ((near, far, free), (far, near, self.answers_pass)):
                threading.Thread(target=self._carry, args=(source, sink, gate), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, gate: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                gate.wait()
                sink.sendall(data)
        except OSError:
            return

    def cut(self) -> None:
        """End all connections; answers held back are lost."""
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._ends.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()
        self.answers_pass.set()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Yield what closes publishers, subscribers and brokers at the end, last first."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture(params=["demo", "mosquitto"])
def port(request: pytest.FixtureRequest, tmp_path: Path, stack: ExitStack) -> int:
    """Return the port of a running broker, of each kind in turn."""
    number = free_port()
    stack.enter_context(running(request.param, tmp_path, number))
    return number


def publisher_at(stack: ExitStack, port: int, **options: Any) -> MqttPublisher:
    publisher = create(Options(port=port, **options), ADDRESS)
    stack.callback(publisher.close)
    return publisher


def subscriber_at(stack: ExitStack, port: int, topic: str = "lineguard/#") -> Subscriber:
    subscriber = Subscriber(port, topic)
    stack.callback(subscriber.close)
    return subscriber


def hear_out(publisher: MqttPublisher, subscriber: Subscriber) -> None:
    """Close, and wait until the goodbye arrived: all messages came before it."""
    publisher.close()
    until(lambda: "stopped" in subscriber.states(), "the goodbye")


def test_a_subscriber_gets_exactly_one_message_per_part(port: int, stack: ExitStack) -> None:
    subscriber = subscriber_at(stack, port)
    publisher = publisher_at(stack, port)
    offered = records(300)
    assert set(publisher.send(offered)) == set(ids(offered))
    hear_out(publisher, subscriber)
    assert [heard.data["id"] for heard in subscriber.on("inspection")] == ids(offered)
    assert {heard.topic for heard in subscriber.heard} == {f"{BASE}/inspection", f"{BASE}/state"}


def test_a_message_is_a_valid_cloudevent(port: int, stack: ExitStack) -> None:
    subscriber = subscriber_at(stack, port, f"{BASE}/inspection")
    publisher_at(stack, port).send(records(1))
    until(lambda: bool(subscriber.heard), "the message")
    heard = subscriber.heard[0]
    jsonschema.Draft202012Validator(event_schema()).validate(heard.data)
    assert (heard.qos, heard.retained) == (1, False)
    assert heard.content == "application/cloudevents+json"


def test_rejects_are_repeated_on_their_topic_if_asked(port: int, stack: ExitStack) -> None:
    subscriber = subscriber_at(stack, port)
    publisher = publisher_at(stack, port, defect_topic=True)
    offered = tuple(
        replace(record, verdict=verdict)
        for record, verdict in zip(records(3), Verdict, strict=True)
    )
    publisher.send(offered)
    hear_out(publisher, subscriber)
    assert [heard.data["id"] for heard in subscriber.on("inspection")] == ids(offered)
    assert [heard.data["id"] for heard in subscriber.on("defect")] == ids(offered[1:])


def test_the_state_is_retained_for_who_comes_late(port: int, stack: ExitStack) -> None:
    publisher = publisher_at(stack, port)
    publisher.send(records(1))
    publisher.state({"state": "running", "ready": True})
    publisher.send(records(1))
    subscriber = subscriber_at(stack, port)
    until(lambda: bool(subscriber.heard), "the retained state")
    assert subscriber.heard[0].retained
    assert subscriber.heard[0].data == {"state": "running", "ready": True}


def test_a_state_told_before_the_connection_stands_arrives(port: int, stack: ExitStack) -> None:
    subscriber = subscriber_at(stack, port)
    publisher_at(stack, port).state({"state": "starting", "ready": False})
    until(lambda: subscriber.states() == ["starting"], "the state")


def test_only_the_newest_state_is_kept_while_there_is_no_broker(
    tmp_path: Path, stack: ExitStack
) -> None:
    number = free_port()
    publisher = publisher_at(stack, number)
    for n in range(1000):
        publisher.state({"state": f"s{n}", "ready": False})
    stack.enter_context(mosquitto(tmp_path, number, ANYONE))
    offer(publisher, records(1))
    subscriber = subscriber_at(stack, number)
    until(lambda: bool(subscriber.heard), "the retained state")
    assert subscriber.states() == ["s999"]


STATION = """
import sys, time
from pipeline.publishers import Address
from pipeline.publishers.mqtt import Options, create
address = Address("acme", "north", "smt", "line-2", "aoi-1")
publisher = create(Options(port=int(sys.argv[1])), address)
publisher.state({"state": "running", "ready": True})
time.sleep(300)
"""


def test_the_will_says_offline_when_the_station_is_killed(port: int, stack: ExitStack) -> None:
    subscriber = subscriber_at(stack, port)
    station = subprocess.Popen([sys.executable, "-c", STATION, str(port)])
    try:
        until(lambda: "running" in subscriber.states(), "the station")
    finally:
        station.send_signal(signal.SIGKILL)
        station.wait()
    until(lambda: "offline" in subscriber.states(), "the will")
    assert subscriber.on("state")[-1].data == {"state": "offline", "ready": False}
    late = subscriber_at(stack, port)
    until(lambda: late.states() == ["offline"], "the retained will")


def test_a_clean_end_says_stopped_and_leaves_no_will(port: int, stack: ExitStack) -> None:
    subscriber = subscriber_at(stack, port)
    publisher = publisher_at(stack, port)
    publisher.state({"state": "running", "ready": True})
    publisher.send(records(1))
    hear_out(publisher, subscriber)
    second = publisher_at(stack, port)
    second.state({"state": "again", "ready": True})
    until(lambda: "again" in subscriber.states(), "the second station")
    assert subscriber.states() == ["running", "stopped", "again"]


def test_an_unreachable_broker_is_told_in_one_line(stack: ExitStack) -> None:
    number = free_port()
    publisher = publisher_at(stack, number)
    started = time.monotonic()
    with pytest.raises(PublishError) as caught:
        publisher.send(records(3))
    assert time.monotonic() - started < 5
    assert f"127.0.0.1:{number}" in str(caught.value)
    assert "is it running" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_nobody_knows_is_told_too(stack: ExitStack) -> None:
    publisher = create(Options(host="no-such-broker.invalid"), ADDRESS)
    stack.callback(publisher.close)
    with pytest.raises(PublishError, match=r"no-such-broker\.invalid:1883"):
        publisher.send(records(1))


@pytest.mark.parametrize("kind", ["demo", "mosquitto"])
def test_after_a_broker_restart_all_records_and_the_state_arrive(
    kind: str, tmp_path: Path, stack: ExitStack
) -> None:
    number = free_port()
    publisher = publisher_at(stack, number)
    with running(kind, tmp_path, number):
        publisher.state({"state": "running", "ready": True})
        offer(publisher, records(10))
    with pytest.raises(PublishError):
        publisher.send(records(20)[10:])
        publisher.send(records(20)[10:])
    stack.enter_context(running(kind, tmp_path, number))
    subscriber = subscriber_at(stack, number)
    offer(publisher, records(20)[10:])
    until(lambda: len(subscriber.on("inspection")) >= 10, "the records")
    until(lambda: "running" in subscriber.states(), "the state")
    assert [h.data["id"] for h in subscriber.on("inspection")] == ids(records(20)[10:])


def test_a_slow_answer_makes_no_second_message(port: int, stack: ExitStack) -> None:
    subscriber = subscriber_at(stack, port)
    wire = Wire(port)
    stack.callback(wire.close)
    publisher = publisher_at(stack, wire.port, confirm_s=0.3)
    offer(publisher, records(1))
    wire.answers_pass.clear()
    for _ in range(3):
        with pytest.raises(PublishError, match="has not confirmed within"):
            publisher.send(records(5)[1:])
    wire.answers_pass.set()
    offer(publisher, records(5)[1:])
    hear_out(publisher, subscriber)
    assert [heard.data["id"] for heard in subscriber.on("inspection")] == ids(records(5))


def test_a_lost_answer_makes_one_second_message_and_not_a_third(
    port: int, stack: ExitStack
) -> None:
    subscriber = subscriber_at(stack, port)
    wire = Wire(port)
    stack.callback(wire.close)
    publisher = publisher_at(stack, wire.port, confirm_s=0.3)
    offer(publisher, records(1))
    wire.answers_pass.clear()
    with pytest.raises(PublishError):
        publisher.send(records(3)[1:])
    until(lambda: len(subscriber.on("inspection")) == 3, "what the broker took")
    wire.cut()
    wire.answers_pass.set()
    offer(publisher, records(3)[1:])
    hear_out(publisher, subscriber)
    heard = [heard.data["id"] for heard in subscriber.on("inspection")]
    assert heard == [*ids(records(3)), *ids(records(3)[1:])]


def test_a_broker_that_forbids_the_topic_settles_nothing(tmp_path: Path, stack: ExitStack) -> None:
    number = free_port()
    rights = tmp_path / "acl"
    rights.write_text(f"topic readwrite {BASE}/state\n")
    rights.chmod(0o600)
    stack.enter_context(mosquitto(tmp_path, number, ANYONE, f"acl_file {rights}"))
    publisher = publisher_at(stack, number, dead_letter=tmp_path / "dead.jsonl")
    for _ in range(2):
        with pytest.raises(PublishError) as caught:
            publisher.send(records(3))
        assert f"'{BASE}/inspection': Not authorized" in str(caught.value)
        assert f"grant this station to write '{BASE}/#'" in str(caught.value)
    assert not (tmp_path / "dead.jsonl").exists()


def test_a_forbidden_copy_does_not_repeat_the_inspection(tmp_path: Path, stack: ExitStack) -> None:
    number = free_port()
    rights = tmp_path / "acl"
    rights.write_text(f"topic readwrite {BASE}/state\ntopic readwrite {BASE}/inspection\n")
    rights.chmod(0o600)
    stack.enter_context(mosquitto(tmp_path, number, ANYONE, f"acl_file {rights}"))
    subscriber = subscriber_at(stack, number, f"{BASE}/+")
    publisher = publisher_at(stack, number, defect_topic=True)
    for _ in range(3):
        with pytest.raises(PublishError, match=f"'{BASE}/defect': Not authorized"):
            publisher.send(records(1))
    hear_out(publisher, subscriber)
    assert subscriber.on("inspection") == []


@pytest.mark.parametrize("who", ["the station file", "the broker"])
def test_a_record_too_large_is_set_aside(who: str, tmp_path: Path, stack: ExitStack) -> None:
    number = free_port()
    limit = ("max_packet_size 3000",) if who == "the broker" else ()
    stack.enter_context(mosquitto(tmp_path, number, ANYONE, *limit))
    dead = tmp_path / "dead.jsonl"
    own = {"max_payload_bytes": 3000} if who == "the station file" else {}
    subscriber = subscriber_at(stack, number)
    publisher = publisher_at(stack, number, dead_letter=dead, **own)
    offered = one_large_of(5)
    offer(publisher, offered)
    hear_out(publisher, subscriber)
    good = [heard.data["id"] for heard in subscriber.on("inspection")]
    assert good == ids((*offered[:2], *offered[3:]))
    assert [json.loads(line)["id"] for line in dead.read_text().splitlines()] == [offered[2].id]


@pytest.mark.parametrize("kind", ["demo", "mosquitto"])
def test_a_record_on_which_the_broker_hangs_up_is_found_and_set_aside(
    kind: str, tmp_path: Path, stack: ExitStack
) -> None:
    number = free_port()
    if kind == "mosquitto":
        stack.enter_context(mosquitto(tmp_path, number, ANYONE, "message_size_limit 3000"))
    else:
        pytest.importorskip("iotcore")
        stack.enter_context(DemoBroker(number, max_payload_bytes=3000))
    dead = tmp_path / "dead.jsonl"
    subscriber = subscriber_at(stack, number)
    publisher = publisher_at(stack, number, dead_letter=dead)
    offered = one_large_of(5)
    offer(publisher, offered)
    hear_out(publisher, subscriber)
    good = {heard.data["id"] for heard in subscriber.on("inspection")}
    assert good == set(ids((*offered[:2], *offered[3:])))
    assert [json.loads(line)["id"] for line in dead.read_text().splitlines()] == [offered[2].id]


def one_large_of(count: int) -> tuple[Record, ...]:
    """Return records of which the third is larger than 3,000 bytes."""
    small = records(count)
    return (*small[:2], replace(small[2], reasons=("x" * 3000,)), *small[3:])


def test_a_broker_that_takes_few_at_a_time_gets_few_at_a_time(
    tmp_path: Path, stack: ExitStack
) -> None:
    number = free_port()
    stack.enter_context(mosquitto(tmp_path, number, ANYONE, "max_inflight_messages 2"))
    subscriber = subscriber_at(stack, number)
    wire = Wire(number)
    stack.callback(wire.close)
    publisher = publisher_at(stack, wire.port, in_flight=64, confirm_s=0.3)
    offer(publisher, records(1))
    wire.answers_pass.clear()
    with pytest.raises(PublishError):
        publisher.send(records(20)[1:])
    until(lambda: len(subscriber.on("inspection")) >= 2, "the first of them")
    assert len(subscriber.on("inspection")) == 2
    wire.answers_pass.set()
    offer(publisher, records(20)[1:])
    hear_out(publisher, subscriber)
    assert [heard.data["id"] for heard in subscriber.on("inspection")] == ids(records(20))


@pytest.fixture
def locked(tmp_path: Path, stack: ExitStack) -> int:
    """Return the port of a broker that knows one user, with the rights that the manual gives."""
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed (apt-get install mosquitto)")
    users = tmp_path / "users"
    subprocess.run([tool, "-b", "-c", str(users), "aoi-1", "s3cret"], check=True)
    users.chmod(0o600)
    rights = tmp_path / "acl"
    manual = (Path(__file__).resolve().parent.parent / "docs" / "mqtt.md").read_text()
    rights.write_text(textwrap.dedent(manual.split("For mosquitto:")[1].split("```")[1]))
    rights.chmod(0o600)
    number = free_port()
    stack.enter_context(
        mosquitto(
            tmp_path,
            number,
            "allow_anonymous false",
            f"password_file {users}",
            f"acl_file {rights}",
        )
    )
    return number


def test_a_password_comes_from_a_file(locked: int, tmp_path: Path, stack: ExitStack) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    publisher = publisher_at(stack, locked, username="aoi-1", password_file=secret)
    assert publisher.send(records(1)) == (records(1)[0].id,)


def test_the_rights_in_the_manual_are_enough(
    locked: int, tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    publisher = publisher_at(
        stack, locked, username="aoi-1", password_file=secret, defect_topic=True
    )
    publisher.state({"state": "running", "ready": True})
    assert publisher.send(records(1)) == (records(1)[0].id,)
    publisher.state({"state": "running", "ready": True})
    assert "refused" not in caplog.text


def test_a_wrong_password_is_told(locked: int, tmp_path: Path, stack: ExitStack) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    publisher = publisher_at(stack, locked, username="aoi-1", password_file=secret)
    until(lambda: "refused the connection" in failure(publisher), "the refusal")
    assert "check username and password" in failure(publisher)
    assert "wrong" not in failure(publisher)


def failure(publisher: MqttPublisher) -> str:
    with pytest.raises(PublishError) as caught:
        publisher.send(records(1))
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"username": "a", "password_file": Path("/nowhere/secret")}, "/nowhere/secret: No such"),
        ({"username": "a", "password_env": "LINEGUARD_NO_SUCH"}, "no LINEGUARD_NO_SUCH"),
        ({"username": "a", "password_file": Path("/dev/null")}, "/dev/null: empty"),
        ({"tls": Tls(ca_file=Path("/nowhere/ca.pem"))}, "/nowhere/ca.pem: no readable CA"),
        ({"tls": Tls(ca_file=Path("/dev/null"))}, "/dev/null: no readable CA"),
        ({"tls": Tls(cert_file=Path("/nowhere/c.pem"))}, "/nowhere/c.pem: no readable cert"),
    ],
)
def test_a_secret_that_is_not_there_is_a_config_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create(Options(**options), ADDRESS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"password": "s3cret"}, "Extra inputs are not permitted"),
        ({"password_file": Path("x")}, "a password needs a username"),
        ({"username": "a", "password_file": Path("x"), "password_env": "X"}, "not both"),
        ({"tls": {"key_file": Path("x")}}, "key_file needs cert_file"),
        ({"host": "a..b"}, "not the name or the address of a machine"),
        ({"host": ""}, "at least 1 character"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"root": "a/#"}, "should match pattern"),
        ({"in_flight": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Options(**options)


@pytest.mark.parametrize("keepalive_s", range(6, 601))
def test_a_silent_line_is_lost_within_one_and_a_half_times_the_keep_alive(keepalive_s: int) -> None:
    agreed_s = Options(keepalive_s=keepalive_s).wire_keepalive_s
    assert agreed_s * 3 // 2 + 6 <= 1.5 * keepalive_s, "mosquitto 2.0 looks every six seconds"
    assert 2 * agreed_s + 2 <= 1.5 * keepalive_s, "paho waits twice, and turns once a second"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder: a CA, its certificates for broker and station, and a strange CA."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("papers")
    for ca in ("ca", "stranger"):
        openssl(
            folder,
            f"req -x509 -newkey rsa:2048 -nodes -keyout {ca}.key -out {ca}.pem"
            f" -days 2 -subj /CN={ca}",
        )
    for name, alternative in (("broker", "DNS:localhost"), ("station", "DNS:aoi-1")):
        openssl(
            folder,
            f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}",
        )
        (folder / "names").write_text(f"subjectAltName={alternative}\n")
        openssl(
            folder,
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
            f" -out {name}.pem -days 2 -extfile names",
        )
    openssl(folder, "rsa -aes128 -in station.key -out locked.key -passout pass:secret")
    return folder


def openssl(folder: Path, words: str) -> None:
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tls_port(papers: Path, tmp_path: Path, stack: ExitStack) -> int:
    """Return the port of a broker that speaks TLS and wants a certificate."""
    number = free_port()
    stack.enter_context(
        mosquitto(
            tmp_path,
            number,
            ANYONE,
            f"cafile {papers / 'ca.pem'}",
            f"certfile {papers / 'broker.pem'}",
            f"keyfile {papers / 'broker.key'}",
            "require_certificate true",
            "tls_version tlsv1.2",
        )
    )
    return number


def test_records_go_over_tls_with_a_client_certificate(
    papers: Path, tls_port: int, stack: ExitStack
) -> None:
    tls = Tls(
        ca_file=papers / "ca.pem", cert_file=papers / "station.pem", key_file=papers / "station.key"
    )
    publisher = publisher_at(stack, tls_port, host="localhost", tls=tls)
    offer(publisher, records(50))


@pytest.mark.parametrize(
    "case",
    [
        ("localhost", "stranger.pem", "certificate verify failed"),
        (HOST, "ca.pem", "IP address mismatch"),
    ],
)
def test_a_broker_that_cannot_prove_itself_gets_nothing(
    case: tuple[str, str, str], papers: Path, tls_port: int, stack: ExitStack
) -> None:
    host, ca, said = case
    publisher = publisher_at(stack, tls_port, host=host, tls=Tls(ca_file=papers / ca))
    until(lambda: said in failure(publisher), said)
    assert "check tls.ca_file" in failure(publisher)


def test_a_key_with_a_pass_phrase_is_refused_and_not_asked_for(papers: Path) -> None:
    tls = Tls(cert_file=papers / "station.pem", key_file=papers / "locked.key")
    with pytest.raises(ConfigError, match="unencrypted key"):
        create(Options(tls=tls), ADDRESS)


def test_an_unencrypted_way_to_another_machine_is_told(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = create(Options(host="no-such-broker.invalid"), ADDRESS)
    stack.callback(publisher.close)
    assert "not encrypted" in caplog.text


def test_the_demo_broker_listens_on_loopback_only() -> None:
    pytest.importorskip("iotcore")
    with DemoBroker() as broker:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        listening = {line.split()[1] for line in lines if line.split()[3] == "0A"}
        assert f"0100007F:{broker.port:04X}" in listening
        assert f"00000000:{broker.port:04X}" not in listening


def test_a_port_in_use_is_told() -> None:
    pytest.importorskip("iotcore")
    with DemoBroker() as first, pytest.raises(PublishError, match="is the port in use"):
        DemoBroker(first.port).__enter__()
