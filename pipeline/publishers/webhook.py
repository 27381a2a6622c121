"""Records by HTTPS POST, each signed, to what listens at a URL; docs/webhook.md is its manual."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import logging
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from pipeline.errors import ConfigError, PublishError
from pipeline.limits import read_bounded
from pipeline.plugins import ConfigPath
from pipeline.plugins import Options as BaseOptions
from pipeline.publishers import Address
from pipeline.schema import EVENT_CONTENT, event_bytes
from pipeline.types import Record

LOG = logging.getLogger(__name__)

SIGNATURE = "X-Lineguard-Signature"
SAME_MACHINE = ("127.0.0.1", "::1", "localhost")
SECRET_BYTES = 16, 4096
ANSWER_BYTES = 4096
TAKEN = range(200, 300)
NEVER = (413, 422)
"""Answers that stay the same however often the record is offered: too large, not understood."""


def _reachable(url: str) -> str:
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in SAME_MACHINE
    if not parts.hostname or not (parts.scheme == "https" or local):
        raise ValueError("use https://HOST/PATH; http only to this machine")
    if parts.username is not None or parts.fragment:
        raise ValueError("no user, password or fragment here; the secret signs each record")
    _ = parts.port  # raises ValueError if it is none
    return url


class Options(BaseOptions):
    """Where records are posted, and what signs them.

    Attributes:
        url: https; http to this machine alone.
        secret_file, secret_env: where the secret stands, 16 bytes or more; never in the station
            file. One of the two is needed.
        ca_file: who signed the receiver's certificate; None trusts what the system trusts.
        timeout_s: how long a connection or an answer may take.
    """

    url: Annotated[str, Field(max_length=2000), AfterValidator(_reachable)]
    secret_file: ConfigPath | None = None
    secret_env: str | None = None
    ca_file: ConfigPath | None = None
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0

    @model_validator(mode="after")
    def _one_secret(self) -> Options:
        if (self.secret_file is None) == (self.secret_env is None):
            raise ValueError("name secret_file or secret_env, one of them")
        return self


class WebhookPublisher:
    """Posts records one by one, in their order, over one connection that is kept.

    What is not answered with 2xx is offered again; 413 and 422 are final. Redirects are refused: a
    signed record goes where the station file says, and nowhere else.
    """

    def __init__(self, options: Options, address: Address, secret: bytes) -> None:
        self._options = options
        self._address = address
        self._secret = secret
        self._url = urlsplit(options.url)
        self._connection = _connection(options)
        self.trouble = ""
        self._closed = False

    def send(self, records: Sequence[Record]) -> tuple[str, ...]:
        if self._closed:
            raise PublishError(f"webhook {self._where}: this publisher is closed")
        done: list[str] = []
        for record in records:
            try:
                self._offer(record)
            except PublishError as error:
                self.trouble = str(error)
                if not done:
                    raise
                LOG.warning("%s", error)
                break
            self.trouble = ""
            done.append(record.id)
        return tuple(done)

    def state(self, state: Mapping[str, Any]) -> None:
        del state

    def close(self) -> None:
        self._closed = True
        self._connection.close()

    @property
    def _where(self) -> str:
        return f"{self._url.scheme}://{self._url.netloc}"

    def _offer(self, record: Record) -> None:
        """Post a record; return once it is taken, or refused for good.

        Raises:
            PublishError: neither.
        """
        status, said = self._post(record.id, event_bytes(record, self._address))
        if status in NEVER:
            LOG.error(
                "record %s is not taken: webhook %s answers %d %s; it stays in the ledger",
                record.id, self._where, status, said,
            )  # fmt: skip
        elif status not in TAKEN:
            hint = "check the secret" if status in (401, 403) else "see the receiver's log"
            raise PublishError(f"webhook {self._where} answers {status} {said}; {hint}")

    def _post(self, id: str, body: bytes) -> tuple[int, str]:
        headers = {
            "Content-Type": EVENT_CONTENT,
            "Idempotency-Key": id,
            SIGNATURE: signature(self._secret, int(time.time()), body),
        }
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        try:
            return self._answered(path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens it again
            raise PublishError(
                f"webhook {self._where} cannot be reached ({error}); is it running, and its "
                "certificate trusted (ca_file)?"
            ) from error

    def _answered(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        was_open = self._connection.sock is not None
        try:
            self._connection.request("POST", path, body, headers)
            answer = self._connection.getresponse()
        except ConnectionError:
            self._connection.close()
            if not was_open:
                raise
            # A receiver may close what was idle for a while: that is no trouble, and said nowhere.
            return self._answered(path, body, headers)
        answer.read(ANSWER_BYTES)
        if not answer.isclosed():
            self._connection.close()  # more than an answer needs: the rest is not read
        return answer.status, answer.reason[:80]


def signature(secret: bytes, t_s: int, body: bytes) -> str:
    """Return the value of the signature header: ``t=SECONDS,v1=HEX``.

    HEX is the HMAC-SHA256 of ``SECONDS.BODY``: with the time inside it, an old request cannot be
    played again to a receiver that looks at the time.
    """
    mac = hmac.new(secret, str(t_s).encode() + b"." + body, hashlib.sha256)
    return f"t={t_s},v1={mac.hexdigest()}"


def create(options: Options, address: Address) -> WebhookPublisher:
    """Make a publisher; nothing is sent before there is a record.

    Raises:
        ConfigError: the secret or the CA cannot be read.
    """
    return WebhookPublisher(options, address, _secret(options))


def _connection(options: Options) -> http.client.HTTPConnection:
    url = urlsplit(options.url)
    host = str(url.hostname)
    if url.scheme == "http":
        return http.client.HTTPConnection(host, url.port, timeout=options.timeout_s)
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except OSError as error:
        raise ConfigError(f"{options.ca_file}: no readable CA certificate ({error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return http.client.HTTPSConnection(host, url.port, timeout=options.timeout_s, context=context)


def _secret(options: Options) -> bytes:
    least, most = SECRET_BYTES
    if options.secret_env is not None:
        where, secret = options.secret_env, os.environ.get(options.secret_env, "").encode()
    else:
        assert options.secret_file is not None
        where, secret = str(options.secret_file), _content(options.secret_file, most)
    if not least <= len(secret) <= most:
        raise ConfigError(
            f"webhook: the secret in {where} has {len(secret)} bytes; it needs {least} or more, "
            "e.g. from: openssl rand -hex 32"
        )
    return secret


def _content(file: Path, most: int) -> bytes:
    try:
        return read_bounded(file, most).strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}; it should hold the webhook's secret") from error
