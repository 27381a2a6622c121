"""Serve the health of a station over HTTP, to probes and Prometheus."""

from __future__ import annotations

import json
import logging
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.monitor.metrics import CONTENT_TYPE, Exposition

if TYPE_CHECKING:
    from pipeline.monitor.health import Health

log = logging.getLogger(__name__)

REQUEST_S = 5.0
MAX_CONNECTIONS = 16

Answer = tuple[HTTPStatus, str, bytes]


class Server(ThreadingHTTPServer):
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
    server: Server
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


def served(health: Health, host: str, port: int) -> Server:
    """Serve a station's health in a thread.

    Raises:
        ConfigError: the port cannot be used.
        MissingExtra: the package ``prometheus_client`` is not installed.
    """
    try:
        server = Server((host, port), health)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"health: {host}:{port} cannot be served: {why}; set health.host and health.port"
        ) from error
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
