"""Records by webhook: signed, in order, offered again until they are taken, and nowhere else."""

import hashlib
import hmac
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError, PublishError
from pipeline.publishers import Address
from pipeline.publishers.webhook import SIGNATURE, Options, WebhookPublisher, create, signature
from pipeline.schema import EXAMPLE
from tests.hooks import SECRET, hook

ADDRESS = Address("acme", "north", "smt", "line-2", "aoi-1")
RECORDS = tuple(replace(EXAMPLE, id=f"{n:08d}-0000-7000-8000-000000000000") for n in range(6))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


def publisher(port: int, secret: Path, scheme: str = "http", **other: Any) -> WebhookPublisher:
    url = f"{scheme}://127.0.0.1:{port}/in?line=2"
    return create(Options(url=url, secret_file=secret, **other), ADDRESS)


def test_records_come_in_order_over_one_connection_each_with_its_key(secret: Path) -> None:
    with hook() as got:
        publisher(got.port, secret).send(RECORDS)
    assert got.ids() == [record.id for record in RECORDS]
    assert [h["Idempotency-Key"] for h in got.headers] == got.ids()
    assert got.connections == 1


def test_the_signature_is_that_of_time_and_body() -> None:
    mac = hmac.new(b"k" * 16, b"1700000000." + b"{}", hashlib.sha256).hexdigest()
    assert signature(b"k" * 16, 1_700_000_000, b"{}") == f"t=1700000000,v1={mac}"


def test_a_wrong_secret_is_said_and_nothing_is_confirmed(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 32)
    with hook() as got, pytest.raises(PublishError, match="401 Unauthorized; check the secret"):
        publisher(got.port, wrong).send(RECORDS)
    assert got.events == []


@pytest.mark.parametrize("status", [302, 307, 400, 404, 410, 429, 500, 503])
def test_what_is_not_taken_is_offered_again_and_what_came_before_is_confirmed(
    secret: Path, status: int
) -> None:
    with hook() as got:
        got.answers = [204, 204, status]
        sender = publisher(got.port, secret)
        assert sender.send(RECORDS) == tuple(r.id for r in RECORDS[:2])
        assert str(status) in sender.trouble
        assert sender.send(RECORDS[2:]) == tuple(r.id for r in RECORDS[2:])
        assert sender.trouble == ""
    assert got.ids() == [record.id for record in RECORDS]


@pytest.mark.parametrize("status", [413, 422])
def test_a_record_that_will_never_be_taken_does_not_hold_up_the_others(
    secret: Path, status: int
) -> None:
    with hook() as got:
        got.answers = [204, status]
        assert len(publisher(got.port, secret).send(RECORDS)) == len(RECORDS)
    assert got.ids() == [r.id for r in RECORDS if r is not RECORDS[1]]


def test_a_receiver_that_comes_back_gets_what_it_missed(secret: Path) -> None:
    with hook() as first:
        port = first.port
        sender = publisher(port, secret)
        sender.send(RECORDS[:2])
    with pytest.raises(PublishError, match="cannot be reached"):
        sender.send(RECORDS[2:])
    with hook(port) as second:
        assert len(sender.send(RECORDS[2:])) == 4
    assert second.ids() == [r.id for r in RECORDS[2:]]


def test_a_connection_that_the_receiver_closed_while_idle_is_no_trouble(secret: Path) -> None:
    with hook() as got:
        sender = publisher(got.port, secret)
        sender.send(RECORDS[:1])
        got.hang_up()
        assert len(sender.send(RECORDS[1:])) == len(RECORDS) - 1
        assert sender.trouble == ""
    assert got.connections == 2


def test_over_tls_only_a_trusted_receiver_gets_records(secret: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=hook", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    with hook(tls=tmp_path) as got:
        trusting = publisher(got.port, secret, "https", ca_file=tmp_path / "cert.pem")
        assert len(trusting.send(RECORDS)) == len(RECORDS)
        with pytest.raises(PublishError, match="certificate"):
            publisher(got.port, secret, "https").send(RECORDS)
    assert len(got.events) == len(RECORDS)


@pytest.mark.parametrize(
    "url",
    ["http://plant.example/in", "ftp://127.0.0.1/", "https://", "https://u:p@plant.example/",
     "https://plant.example:999999/", "//plant.example", "https://plant.example/#x"],
)  # fmt: skip
def test_a_url_that_others_could_read_along_or_that_is_none_is_refused(
    url: str, secret: Path
) -> None:
    with pytest.raises(ValidationError):
        Options(url=url, secret_file=secret)


def test_a_webhook_needs_one_secret_of_some_length(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="one of them"):
        Options(url="https://plant.example/")
    short = tmp_path / "short"
    short.write_text("hunter2")
    for file, said in ((short, "7 bytes"), (tmp_path / "none", "No such file")):
        with pytest.raises(ConfigError, match=said):
            create(Options(url="https://plant.example/", secret_file=file), ADDRESS)


def test_the_header_is_named_as_documented() -> None:
    assert SIGNATURE == "X-Lineguard-Signature"
