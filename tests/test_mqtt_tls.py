"""Station, broker and collector over TLS with certificates of their own and the manual's rights."""

import shutil
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.collect import Collector, Options, SqliteArchive
from pipeline.collect.sqlite import account
from pipeline.errors import PublishError
from pipeline.publishers import Address
from pipeline.publishers.mqtt import MqttPublisher, Tls, create
from pipeline.publishers.mqtt import Options as BrokerOptions
from pipeline.schema import EXAMPLE
from pipeline.store import Ledger, Outbox
from pipeline.types import Record
from tests.brokers import free_port, mosquitto, until
from tests.test_store import drafts

ADDRESS = Address("acme", "north", "smt", "line-2", "aoi-1")
RECORDS = tuple(
    replace(EXAMPLE, id=f"{n:08d}-0000-7000-8000-000000000000", seq=n + 1, part=n + 1)
    for n in range(20)
)
MANUAL = Path(__file__).resolve().parent.parent / "docs" / "mqtt.md"


def openssl(folder: Path, words: str) -> None:
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)


def certificate(folder: Path, name: str, of: str, days: int) -> None:
    """Make a key and a certificate of the plant's CA; a negative life is one that has ended."""
    openssl(
        folder, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={of}"
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl(
        folder,
        f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem"
        f" -days {days} -extfile names",
    )


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the plant's CA and the certificates of everybody."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("papers")
    openssl(
        folder, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"
    )
    for name, of, days in (
        ("broker", "broker", 2),
        ("broker-expired", "broker", -1),
        ("aoi-1", "aoi-1", 2),
        ("aoi-1-expired", "aoi-1", -1),
        ("aoi-2", "aoi-2", 2),
        ("plant", "plant", 2),
    ):
        certificate(folder, name, of, days)
    return folder


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def rights() -> str:
    """Return the two access lists that the manual gives, as one."""
    page = MANUAL.read_text(encoding="utf-8").split("For mosquitto:")[1].split("```")
    return textwrap.dedent(page[1]) + textwrap.dedent(page[3])


def broker_at(stack: ExitStack, folder: Path, papers: Path, name: str = "broker") -> int:
    acl = folder / "acl"
    acl.write_text(rights())
    acl.chmod(0o600)
    number = free_port()
    stack.enter_context(
        mosquitto(
            folder,
            number,
            f"cafile {papers / 'ca.pem'}",
            f"certfile {papers / name}.pem",
            f"keyfile {papers / name}.key",
            "require_certificate true",
            "use_identity_as_username true",
            "tls_version tlsv1.2",
            f"acl_file {acl}",
        )
    )
    return number


def options(papers: Path, port: int, who: str, **more: object) -> BrokerOptions:
    tls = Tls(
        ca_file=papers / "ca.pem", cert_file=papers / f"{who}.pem", key_file=papers / f"{who}.key"
    )
    values = {"host": "localhost", "port": port, "tls": tls, "confirm_s": 1.0, **more}
    return BrokerOptions.model_validate(values)


def station_at(stack: ExitStack, settings: BrokerOptions) -> MqttPublisher:
    publisher = create(settings, ADDRESS)
    stack.callback(publisher.close)
    return publisher


def refusal(publisher: MqttPublisher, records: tuple[Record, ...] = RECORDS) -> str:
    with pytest.raises(PublishError) as caught:
        publisher.send(records)
    return str(caught.value)


def test_the_rights_in_the_manual_are_enough_for_station_and_collector(
    papers: Path, tmp_path: Path, stack: ExitStack
) -> None:
    port = broker_at(stack, tmp_path, papers)
    archive = SqliteArchive(tmp_path / "plant.sqlite")
    collector = Collector(Options("plant", options(papers, port, "plant")), archive)
    thread = threading.Thread(target=collector.run, daemon=True)
    thread.start()
    publisher = station_at(stack, options(papers, port, "aoi-1", collector="plant"))
    left = {record.id: record for record in RECORDS}

    def delivered() -> bool:
        try:
            for id_ in publisher.send(tuple(left.values())) if left else ():
                del left[id_]
        except PublishError:
            return False
        return not left

    until(delivered, "the receipts")
    collector.stop()
    thread.join(10)
    archive.close()
    assert account(tmp_path / "plant.sqlite")[0].records == len(RECORDS)


def test_a_station_cannot_write_in_the_name_of_another(
    papers: Path, tmp_path: Path, stack: ExitStack
) -> None:
    port = broker_at(stack, tmp_path, papers)
    publisher = station_at(stack, options(papers, port, "aoi-2"))
    until(lambda: "Not authorized" in refusal(publisher), "the refusal")


def test_a_broker_whose_certificate_has_expired_gets_nothing(
    papers: Path, tmp_path: Path, stack: ExitStack
) -> None:
    port = broker_at(stack, tmp_path, papers, "broker-expired")
    publisher = station_at(stack, options(papers, port, "aoi-1"))
    until(lambda: "certificate has expired" in refusal(publisher), "the refusal")
    assert "check tls.ca_file" in refusal(publisher)


def test_a_station_whose_certificate_has_expired_keeps_its_records(
    papers: Path, tmp_path: Path, stack: ExitStack
) -> None:
    port = broker_at(stack, tmp_path, papers)
    publisher = station_at(stack, options(papers, port, "aoi-1-expired"))
    log = tmp_path / "mosquitto.log"
    until(lambda: "certificate" in log.read_text() or "SSL" in log.read_text(), "the refusal")
    for _ in range(3):
        assert refusal(publisher)


def test_a_certificate_for_another_host_gets_nothing(
    papers: Path, tmp_path: Path, stack: ExitStack
) -> None:
    port = broker_at(stack, tmp_path, papers)
    publisher = station_at(stack, options(papers, port, "aoi-1", host="127.0.0.1"))
    until(lambda: "IP address mismatch" in refusal(publisher), "the refusal")


@pytest.mark.parametrize(
    ("paper", "host", "said"),
    [
        ("broker-expired", "localhost", "certificate has expired"),
        ("broker", "127.0.0.1", "IP address mismatch"),
    ],
)
def test_records_that_a_refused_broker_did_not_get_wait_and_leave_once_it_is_mended(
    paper: str, host: str, said: str, papers: Path, tmp_path: Path, stack: ExitStack
) -> None:
    ledger, outbox = Ledger(tmp_path / "store", ["mqtt"]), Outbox(tmp_path / "store", "mqtt")
    stack.callback(ledger.close)
    stack.callback(outbox.close)
    ledger.append(drafts(len(RECORDS)))
    with ExitStack() as before:
        port = broker_at(before, tmp_path, papers, paper)
        publisher = station_at(before, options(papers, port, "aoi-1", host=host))
        until(lambda: said in refusal(publisher, outbox.waiting(64)), "the refusal")
    assert outbox.count() == len(RECORDS)
    mended = station_at(stack, options(papers, broker_at(stack, tmp_path, papers), "aoi-1"))

    def all_left() -> bool:
        with suppress(PublishError):
            outbox.confirm(mended.send(outbox.waiting(64)))
        return outbox.count() == 0

    until(all_left, "the records")


def test_a_collector_collects_nothing_from_a_broker_that_cannot_prove_itself(
    papers: Path, tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    port = broker_at(stack, tmp_path, papers, "broker-expired")
    archive = SqliteArchive(tmp_path / "plant.sqlite")
    collector = Collector(Options("plant", options(papers, port, "plant")), archive)
    thread = threading.Thread(target=collector.run, daemon=True)
    thread.start()
    until(lambda: "certificate has expired" in caplog.text, "the refusal")
    collector.stop()
    thread.join(10)
    archive.close()
    assert account(tmp_path / "plant.sqlite") == ()
