"""A broker for demos and tests, inside the package: loopback only, MQTT 5, nothing kept."""

import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import PublishError
from pipeline.plugins import vendor

HOST = "127.0.0.1"

# Its keyword arguments give a v3.1.1 listener on 0.0.0.0 that cuts the line at 20 kB; only a page
# of its own gives v5. The connections table must not be empty.
_PAGE = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 4
[v5.1]
name = "demo"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = {max_payload_bytes}
max_inflight_count = 200
"""


class DemoBroker:
    """A broker that lives as long as the ``with`` block, in a process of its own.

    Attributes:
        host: always 127.0.0.1.
        port: where it listens.
    """

    def __init__(self, port: int = 0, max_payload_bytes: int = 256 * 1024) -> None:
        """Prepare a broker.

        Args:
            port: 0 takes a free one.
            max_payload_bytes: it cuts the line of whoever sends more.

        Raises:
            MissingExtra: the package is not installed.
        """
        self._package = vendor("iotcore", "demo")
        self._max_payload_bytes = max_payload_bytes
        self.host = HOST
        self.port = port or _free_port()
        self._running: Any = None

    def __enter__(self) -> "DemoBroker":
        page = _PAGE.format(
            host=self.host, port=self.port, max_payload_bytes=self._max_payload_bytes
        )
        with tempfile.TemporaryDirectory(prefix="lineguard-") as folder:
            file = Path(folder) / "broker.toml"
            file.write_text(page, encoding="utf-8")
            self._running = self._package.Broker(config_path=str(file))
            try:
                self._running.start()
            except (OSError, RuntimeError) as error:
                raise PublishError(
                    f"demo broker on {self.host}:{self.port}: {error}; is the port in use?"
                ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
