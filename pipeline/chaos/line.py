"""A line of real processes on one machine: station, broker, collector; each can be killed."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml
from typing_extensions import Self

from pipeline.errors import LineguardError, PublishError, StoreError
from pipeline.proof import REPORT, Checked, Report, Run, contract_sha256
from pipeline.store import DATABASE, Outbox

HOST = "127.0.0.1"
COLLECTOR = "chaos"
SOURCE = "lineguard/chaos/hall-1/line-1/station-1"
PATIENCE_S = 300.0
POLL_S = 0.01
STOP_S = 30.0
SIDE_PX = 160
DECODER = "yolo-e2e"
KEEPALIVE_S = 8
PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


class Line:
    """Where everything lies, and which processes run; ``with`` ends them all.

    Args:
        folder: an empty one.
        store: of the station, or None for one in ``folder``.
        fps: exposures a second; each is one part.
        settings: of the station's store.
        mosquitto: the program, or None for the broker of the demo.

    Attributes:
        journal: of the reject gate.
        store: of the station.
        archive: of the collector.
        broker_port: where the broker listens.
        broker_kind: what the broker is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store: Path | None = None,
        fps: float = 100.0,
        settings: Mapping[str, Any] | None = None,
        mosquitto: str | None = shutil.which("mosquitto", path=PATH),
    ) -> None:
        self.folder = folder
        self.journal = folder / "gate.jsonl"
        self.store = store or folder / "store"
        self.archive = folder / "plant.sqlite"
        self.broker_port = free_port()
        self._mosquitto = mosquitto
        self.broker_kind = "mosquitto" if mosquitto else "the demo's broker"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._log: IO[bytes] = (folder / "processes.log").open("ab")
        self._write_station(fps, self.broker_port, settings or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in tuple(self._running):
            self.kill(name)
        self._log.close()

    def connect_station_to(self, port: int) -> None:
        """Let the station look for the broker at another port, from its next start on."""
        file = self.folder / "station.yaml"
        page = yaml.safe_load(file.read_text(encoding="utf-8"))
        page["publishers"][0]["port"] = port
        file.write_text(yaml.safe_dump(page, sort_keys=False), encoding="utf-8")

    def pause(self, seconds: float) -> None:
        """Let the line work for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, "a moment", seconds + PATIENCE_S)

    def start_station(self) -> int:
        """Start a station; return its process id."""
        return self._start("station", [*_LINEGUARD, "run", str(self.folder / "station.yaml")])

    def start_collector(self) -> int:
        """Start the collector; return its process id."""
        broker = f"{HOST}:{self.broker_port}"
        words = ["collect", str(self.archive), "--broker", broker, "--name", COLLECTOR]
        return self._start("collector", [*_LINEGUARD, *words, "--keepalive-s", str(KEEPALIVE_S)])

    def start_broker(self) -> int:
        """Start the broker and wait until it listens; return its process id."""
        if self._mosquitto:
            page = self.folder / "mosquitto.conf"
            page.write_text(
                f"listener {self.broker_port} {HOST}\nallow_anonymous true\npersistence false\n"
                f"user {getpass.getuser()}\n"
            )
            words = [self._mosquitto, "-c", str(page)]
        else:
            words = [sys.executable, "-m", "pipeline.chaos.broker", str(self.broker_port)]
        pid = self._start("broker", words)
        self.until(lambda: listens(self.broker_port), "the broker")
        return pid

    def kill(self, name: str) -> int:
        """Kill a process with SIGKILL, wait until it is gone, and return the moment, ns."""
        process = self._running.pop(name)
        # The demo's broker works in a child of the process that was started.
        os.killpg(process.pid, signal.SIGKILL)
        t_ns = time.monotonic_ns()
        process.wait()
        _await_end_of_group(process.pid)
        return t_ns

    def stop_station(self) -> int:
        """End the station in good order; return its exit code."""
        process = self._running.pop("station")
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise LineguardError(f"the station did not stop within {STOP_S} s") from error

    def waiting(self) -> int:
        """Return how many records the collector has not acknowledged."""
        if not (self.store / DATABASE).exists():
            return 0
        try:
            outbox = Outbox(self.store, "mqtt")
        except StoreError:
            return 0
        try:
            return outbox.count()
        finally:
            outbox.close()

    def until(self, true: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait for something; a process that ended meanwhile is an error.

        Raises:
            LineguardError: it did not happen.
        """
        deadline = time.monotonic() + patience_s
        while not true():
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise LineguardError(
                        f"chaos: the {name} ended by itself, code {process.returncode}; "
                        f"see {self.folder / 'processes.log'}"
                    )
            if time.monotonic() > deadline:
                raise PublishError(f"chaos: waited {patience_s:.0f} s for {what}")
            time.sleep(POLL_S)

    def _start(self, name: str, words: list[str]) -> int:
        self._running[name] = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )
        return self._running[name].pid

    def _write_station(self, fps: float, port: int, settings: Mapping[str, Any]) -> None:
        enterprise, site, area, line, name = SOURCE.split("/")
        page = {
            "station": {
                "enterprise": enterprise, "site": site, "area": area, "line": line, "name": name,
            },
            "camera": {
                "kind": "synthetic", "realtime": True, "fps": fps, "width": 2 * SIDE_PX,
                "height": SIDE_PX, "board_px": SIDE_PX, "variety": 4,
            },
            "trigger": {"kind": "every_frame"},
            "model": {
                "bundle": str(_write_bundle(self.folder / "bundle")),
                "runtime": {
                    "kind": "scripted", "height": SIDE_PX, "width": SIDE_PX, "after": "cycle",
                    "script": _SCRIPT,
                },
            },
            "recipe": {"name": "chaos"},
            "store": {"path": str(self.store), "pictures": "rejects", **settings},
            "outputs": [{"kind": "journal", "path": str(self.journal)}],
            "publishers": [
                {
                    "kind": "mqtt", "port": port, "collector": COLLECTOR, "confirm_s": 2.0,
                    "keepalive_s": KEEPALIVE_S, "dead_letter": str(self.folder / "dead.jsonl"),
                }
            ],
        }  # fmt: skip
        text = yaml.safe_dump(page, sort_keys=False)
        (self.folder / "station.yaml").write_text(text, encoding="utf-8")


_LINEGUARD = [sys.executable, "-m", "pipeline"]
_HALF = SIDE_PX / 2
_SCRIPT = [
    [],
    [[8.0, 8.0, _HALF, _HALF, 0.9, 0]],
    [],
    [[8.0, 8.0, _HALF, _HALF, 0.3, 1]],
    [],
]
"""What the scripted model finds, in turn: nothing, a fault, nothing, a doubt, nothing."""


def _write_bundle(folder: Path) -> Path:
    """Write a bundle whose model is a script: the faults are about records, not about pictures.

    Its report says of the script what is true of it: that it is its own reference.
    """
    folder.mkdir()
    artefact = folder / "script"
    artefact.write_bytes(b"answers stand in the station file")
    sha256 = hashlib.sha256(artefact.read_bytes()).hexdigest()
    labels, limits = ("scratch", "dent"), (0.5, 0.2)
    report = Report(
        ok=True,
        flips=0,
        artefacts={
            "script": Checked(
                sha256=sha256,
                precision="fp32",
                bytes=artefact.stat().st_size,
                runs={"scripted": Run(ok=True)},
            )
        },
        reference={"artefact": "script", "run": "scripted"},
        pictures={"count": 0},
        contract_sha256=contract_sha256(
            labels, DECODER, (SIDE_PX, SIDE_PX), dict.fromkeys(labels, limits)
        ),
    )
    proof = folder / REPORT
    proof.write_text(report.model_dump_json(), encoding="utf-8")
    thresholds = dict(zip(("fail", "unsure"), limits, strict=True))
    manifest = {
        "name": "chaos",
        "version": "1",
        "decoder": DECODER,
        "labels": labels,
        "input": {"height": SIDE_PX, "width": SIDE_PX},
        "thresholds": dict.fromkeys(labels, thresholds),
        "artefacts": {
            "script": {
                "path": artefact.name,
                "sha256": sha256,
                "runtimes": ["scripted"],
                "precision": "fp32",
            }
        },
        "licence": "CC0-1.0",
        "parity": {
            "path": proof.name,
            "sha256": hashlib.sha256(proof.read_bytes()).hexdigest(),
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _await_end_of_group(group: int) -> None:
    """Wait until no process of a killed group is left: its children's ports are free only then."""
    end = time.monotonic() + STOP_S
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(POLL_S)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port of this machine."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
