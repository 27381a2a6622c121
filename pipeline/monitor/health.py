"""Publish the health of a station: to systemd, and over HTTP to probes and Prometheus."""

from __future__ import annotations

import json
import logging
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import Self

from pipeline.clock import NS_PER_S, Clock
from pipeline.errors import ConfigError
from pipeline.monitor.figures import Snapshot
from pipeline.monitor.metrics import CONTENT_TYPE, Exposition
from pipeline.monitor.systemd import Notifier

log = logging.getLogger(__name__)

STALE_S = 2.0
"""A station gives a snapshot 20 times a second; without one for so long, its main thread hangs."""

REQUEST_S = 5.0
MAX_CONNECTIONS = 16

Answer = tuple[HTTPStatus, str, bytes]


class Health:
    """Takes snapshots of a station and passes them on; close it last.

    Args:
        port: of the HTTP server; 0 takes a free one, None serves nothing.
        host: its address; what it tells is counts and states, and it takes no command.

    Raises:
        ConfigError: the port cannot be used.
        MissingExtra: a port is given, and the package ``prometheus_client`` is not installed.
    """

    def __init__(
        self,
        clock: Clock,
        port: int | None = None,
        host: str = "127.0.0.1",
        notifier: Notifier | None = None,
    ) -> None:
        self._clock = clock
        self._notifier = notifier or Notifier()
        self._snapshot = Snapshot(clock.now_ns())
        self._told: str | None = None
        self._server = None if port is None else _served(self, host, port)

    @property
    def port(self) -> int | None:
        """The port that is served, or None."""
        return None if self._server is None else int(self._server.server_address[1])

    def loading(self, seconds: float) -> None:
        """Ask systemd for so long until the station is up; without, its unit's time counts alone.

        systemd takes the longer of the two.
        """
        self._notifier.tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", "STATUS=loading")

    def take(self, snapshot: Snapshot) -> None:
        """Take up what the station's main thread says of it; that thread calls this all the time.

        systemd's watchdog is fed here and nowhere else: a main thread that hangs, or a worker that
        does, starves it.
        """
        first, self._snapshot = self._told is None, snapshot
        if snapshot.state != self._told:
            self._told = snapshot.state
            self._notifier.tell(*(["READY=1"] if first else []), f"STATUS={snapshot.state}")
        if snapshot.state in ("stopping", "stopped"):
            self._notifier.tell("STOPPING=1")
        if not snapshot.frozen:
            self._notifier.ping(snapshot.t_ns)

    def alive(self) -> tuple[bool, str]:
        """Tell whether the station makes progress, and what it lacks."""
        snapshot = self._snapshot
        age_s = (self._clock.now_ns() - snapshot.t_ns) / NS_PER_S
        if snapshot.frozen:
            return False, f"frozen: {', '.join(snapshot.frozen)}"
        if self._told not in (None, "stopped") and age_s > STALE_S:
            return False, f"the main thread has said nothing for {age_s:.0f} s"
        return True, "alive"

    def snapshot(self) -> Snapshot:
        """Return the last snapshot."""
        return self._snapshot

    def close(self) -> None:
        """Stop serving; may be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    """A bounded server: whoever comes when all places are taken is turned away."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], health: Health) -> None:
        self.health = health
        self.exposition = Exposition()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Request)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("health: a request of %s broke off", client_address, exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "lineguard", ""
    timeout = REQUEST_S

    def do_GET(self) -> None:
        status, kind, body = self._answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("health: " + format, *args)

    def _answer(self, path: str) -> Answer:
        health = self.server.health
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE, self.server.exposition.text(health.snapshot())
        if path not in ("/healthz", "/readyz"):
            return _json(HTTPStatus.NOT_FOUND, {"here": ["/healthz", "/readyz", "/metrics"]})
        alive, why = health.alive()
        snapshot = health.snapshot()
        well = alive and (path == "/healthz" or snapshot.ready)
        page = {"state": snapshot.state, "alive": alive, "ready": alive and snapshot.ready}
        return _json(
            HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE,
            page | {"said": why, "faults": dict(snapshot.faults)},
        )


def _json(status: HTTPStatus, page: dict[str, Any]) -> Answer:
    return status, "application/json", (json.dumps(page) + "\n").encode()


def _served(health: Health, host: str, port: int) -> _Server:
    try:
        server = _Server((host, port), health)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"health: {host}:{port} cannot be served: {why}; set health.host and health.port"
        ) from error
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
