"""``lineguard run`` as a supervisor meets it: probes, metrics, systemd's socket, signals."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.doubles import until
from tests.test_cli import station_file

pytest.importorskip("prometheus_client", reason="pip install 'lineguard[monitor]'")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(port: int, path: str) -> tuple[int, str]:
    """Ask the running station; (0, "") while it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        said = connection.getresponse()
        return said.status, said.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        yield listener


def test_a_station_is_probed_tested_and_ended(tmp_path: Path, systemd: socket.socket) -> None:
    port = free_port()
    file = station_file(
        tmp_path,
        camera="{kind: synthetic, seed: 3, realtime: true, fps: 5, board_px: 320, variety: 1}",
        health=f"{{port: {port}}}",
    )
    environment = os.environ | {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "4000000",
        "HOME": str(tmp_path),
    }
    station = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", str(file)],
        cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert systemd.recv(4096).startswith(b"EXTEND_TIMEOUT_USEC=300000000\n")
        assert b"READY=1" in systemd.recv(4096)
        said = [systemd.recv(4096).decode() for _ in range(4)]
        assert "WATCHDOG=1" in said
        until(lambda: answer(port, "/readyz")[0] == 200, "being ready")
        station.send_signal(signal.SIGUSR1)
        passed = "lineguard_self_tests_passed_total 2.0"
        until(lambda: passed in answer(port, "/metrics")[1], "the self-test")
        assert answer(port, "/healthz")[0] == 200
        station.send_signal(signal.SIGTERM)
        _, error = station.communicate(timeout=60)
        assert station.returncode == 0, error
    finally:
        station.kill()
        station.wait()
