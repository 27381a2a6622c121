"""A receiver of webhooks on 127.0.0.1 that checks what it is sent, and answers as it is told."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.publishers.webhook import SIGNATURE, signature

SECRET = "0123456789abcdef0123456789abcdef"


@dataclass
class Received:
    """What came; ``answers`` holds statuses to give first, 204 afterwards."""

    events: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    sockets: list[socket.socket] = field(default_factory=list)

    def hang_up(self) -> None:
        """Close the connections that are open."""
        for opened in self.sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()

    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


@contextmanager
def hook(port: int = 0, tls: Path | None = None) -> Iterator[Received]:
    """Listen as long as the block lasts."""
    got = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            got.connections += 1
            got.sockets.append(self.request)
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.headers.append(dict(self.headers))
            status = got.answers.pop(0) if got.answers else 204
            if not _is_signed(self.headers[SIGNATURE], body):
                status = 401
            if status < 300:
                got.events.append(json.loads(body))
            self.send_response(status)
            if status in (301, 302, 307, 308):
                self.send_header("Location", f"http://127.0.0.1:{got.port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    got.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield got
    finally:
        server.shutdown()
        got.hang_up()
        server.server_close()
        thread.join()


def _is_signed(header: str, body: bytes) -> bool:
    t_s = int(header.partition(",")[0].removeprefix("t="))
    return header == signature(SECRET.encode(), t_s, body)
