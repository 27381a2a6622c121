"""Serves a dashboard: on this machine alone, or over TLS to people with accounts."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from pipeline.errors import ConfigError
from pipeline.web.access import Doorkeeper
from pipeline.web.app import application
from pipeline.web.board import Board

LOOPBACK = "127.0.0.1"
CONNECTIONS = 256
GOODBYE_S = 2


@dataclass(frozen=True, slots=True)
class Address:
    """Where the dashboard listens.

    Attributes:
        port: 0 takes a free one.
        hosts: further names under which it may be reached, e.g. that of a proxy.
        certificate, key: PEM files for TLS, or None.
    """

    host: str = LOOPBACK
    port: int = 8080
    hosts: Sequence[str] = ()
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can reach it."""
        if self.hosts:
            return False
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Serving:
    """A dashboard whose port is taken.

    Attributes:
        url: what to open.
        listening: the socket that was taken.
    """

    url: str
    listening: socket.socket
    _server: uvicorn.Server

    def run(self) -> None:
        """Serve until the process or ``stop`` ends it."""
        self._server.run(sockets=[self.listening])

    def stop(self) -> None:
        """End ``run``; any thread."""
        self._server.should_exit = True


def prepare(board: Board, address: Address) -> Serving:
    """Take the port.

    Raises:
        ConfigError: the port is in use, or others could reach it without TLS or an account.
    """
    check(board, address)
    listening = _listen(address)
    is_tls = address.certificate is not None
    door = Doorkeeper(board.desk, open_here=address.is_local, secure=is_tls)
    known = {LOOPBACK, "localhost", "[::1]", _named(address.host), *address.hosts}
    config = uvicorn.Config(
        application(board, door, frozenset(name.lower() for name in known)),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GOODBYE_S,
        h11_max_incomplete_event_size=16 << 10,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    port = listening.getsockname()[1]
    url = f"http{'s' if is_tls else ''}://{_named(address.host)}:{port}/"
    return Serving(url, listening, uvicorn.Server(config))


def check(board: Board, address: Address) -> None:
    """Refuse what would let strangers in.

    Raises:
        ConfigError: see ``prepare``.
    """
    if (address.certificate is None) != (address.key is None):
        raise ConfigError("--tls-cert and --tls-key go together; name both")
    for file in (address.certificate, address.key):
        if file is not None and not file.is_file():
            raise ConfigError(f"{file}: no such file; name the certificate and its key, PEM")
    if address.is_local:
        return
    if address.certificate is None and not address.hosts:
        raise ConfigError(
            f"--host {address.host}: others could read along; give --tls-cert and --tls-key, "
            "or stay on 127.0.0.1 behind a proxy that speaks TLS and name it with --allow-host"
        )
    if not board.desk.has_accounts:
        raise ConfigError(
            "others could reach this dashboard and nobody has a password yet; "
            "make an account first: lineguard accounts set STATION_FILE NAME --role engineer"
        )


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # The protocol is named: asyncio turns Nagle's algorithm off only where it knows that it is TCP,
    # and without that every answer of two pieces waits 40 ms for the browser to confirm the first.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
        listening.listen(CONNECTIONS)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"--host {address.host} --port {address.port}: {error.strerror}; "
            "take another port, or 0 for a free one"
        ) from error
    return listening


def _named(host: str) -> str:
    return f"[{host}]" if ":" in host else host
