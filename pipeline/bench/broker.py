"""A broker in a process of its own, and a subscriber in another: the station shares no GIL."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.chaos.line import HOST, PATH, free_port, listens
from pipeline.errors import PublishError
from pipeline.plugins import vendor

START_S = 20.0
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that runs.

    Attributes:
        kind: what it is.
        port: where it listens, on this machine alone.
    """

    kind: str
    port: int


@contextmanager
def broker(
    scratch: Path, mosquitto: str | None = shutil.which("mosquitto", path=PATH)
) -> Iterator[Broker]:
    """Run Mosquitto if it is installed, else the broker of the demo.

    Raises:
        MissingExtra: neither is installed.
        PublishError: it did not start.
    """
    port = free_port()
    if mosquitto is None:
        vendor("iotcore", "demo")
        words = [sys.executable, "-m", "pipeline.chaos.broker", str(port)]
    else:
        page = scratch / "mosquitto.conf"
        page.write_text(
            f"listener {port} {HOST}\nallow_anonymous true\npersistence false\n"
            f"user {getpass.getuser()}\n",
            encoding="utf-8",
        )
        words = [mosquitto, "-c", str(page)]
    with process(words, scratch / "broker.log") as running:
        _await(running, port)
        yield Broker("mosquitto" if mosquitto else "the demo's broker", port)


@contextmanager
def process(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process as long as the ``with`` block; what it says goes to a file."""
    with log.open("ab") as said:
        running = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            yield running
        finally:
            # The demo's broker works in a child of the process that was started.
            os.killpg(running.pid, signal.SIGTERM)
            try:
                running.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()


def _await(running: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_S
    while not listens(port):
        if running.poll() is not None or time.monotonic() > deadline:
            raise PublishError(f"bench: the broker does not listen on {HOST}:{port}")
        time.sleep(POLL_S)
