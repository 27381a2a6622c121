"""A running station in its own process, and PLC programs that talk to it over a real carrier."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.gate.client import connected
from pipeline.gate.wire import packed
from pipeline.plc.fake import FakePlc
from pipeline.plc.signals import Code, Inputs, Signals
from pipeline.store import read_records
from pipeline.types import Record
from tests import tiny
from tests.conftest import REPOSITORY

LIMIT_S = 200.0
A_DEFECT = [4.0, 4.0, tiny.WIDTH - 4.0, tiny.HEIGHT - 4.0, 0.95, 0]


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def station_page(output: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Return a station file: each trigger of the PLC is a part; good and bad ones in turn."""
    page: dict[str, Any] = {
        "station": {"name": "plc"},
        "camera": {"kind": "synthetic", "realtime": True, "fps": 50.0, "variety": 1},
        "trigger": {"kind": "plc"},
        "model": {
            "bundle": "model",
            "runtime": {
                "kind": "scripted", "script": [[], [A_DEFECT]], "after": "cycle",
                "height": tiny.HEIGHT, "width": tiny.WIDTH,
            },
        },
        "recipe": {"name": "plc"},
        "store": {"path": "store", "pictures": "none"},
        "gate": {"deadline_ms": 2000, "ack_ms": 5000, "plc_silent_ms": 400},
        "outputs": [output],
    }  # fmt: skip
    return page | sections


@dataclass
class RunningStation:
    """``lineguard run`` on a station file, and what it leaves."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
        with (self.folder / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "run", str(self.folder / "station.yaml")],
                stdout=log, stderr=log, cwd=REPOSITORY, env=environment,
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(LIMIT_S)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(LIMIT_S)

    @property
    def said(self) -> str:
        return (self.folder / "run.log").read_text()

    @property
    def records(self) -> list[Record]:
        return list(read_records(self.store))

    @property
    def guard(self) -> int:
        """The process number of the guard."""
        for line in (self.store / "gate.log").read_text().splitlines()[::-1]:
            if "guards as process" in line:
                return int(line.split()[-1])
        raise AssertionError("no guard has started")


@contextmanager
def running(folder: Path, page: dict[str, Any]) -> Iterator[RunningStation]:
    """Run a station; end it and its guard whatever happens."""
    (folder / "station.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(page))))
    (folder / "model").mkdir()
    tiny.bundle(folder / "model")
    station = RunningStation(folder)
    station.start()
    try:
        yield station
    finally:
        if station.process is not None and station.process.poll() is None:
            station.stop()
        end_guard(station.store)


def end_guard(store: Path) -> None:
    """Ask a guard that was left behind to go: a station with other outputs comes."""
    connection = connected(store) if store.exists() else None
    if connection is not None:
        with connection:
            connection.sendall(packed({"do": "attach", "spec": "{}", "run": ""}))
            log = (store / "gate.log").read_text().splitlines()
        for line in log[::-1]:
            if "guards as process" in line:
                with suppress(ProcessLookupError):
                    os.kill(int(line.split()[-1]), signal.SIGTERM)
                return


@dataclass
class DrivenPlc:
    """The PLC double, its cycle carried over a real client."""

    read: Callable[[], Signals | None]
    write: Callable[[Inputs], None]
    plc: FakePlc = field(default_factory=lambda: FakePlc(patience_ns=8_000_000_000))
    seen: Signals | None = None

    def cycle(self) -> None:
        self.seen = self.read()
        self.write(self.plc.scan(time.monotonic_ns(), self.seen))

    def until(self, holds: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> float:
        """Run cycles until something holds; return after how many seconds."""
        start = time.monotonic()
        while not holds():
            assert time.monotonic() < start + limit_s, f"{what} did not happen: {self.seen}"
            self.cycle()
            time.sleep(0.005)
        return time.monotonic() - start

    @property
    def done(self) -> int:
        return len(self.plc.passed) + len(self.plc.rejected)


def signals_of(registers: list[int]) -> Signals:
    """Read the register map of docs/plc.md as a PLC would."""
    bits = [bool(registers[0] >> i & 1) for i in range(8)]
    return Signals(
        *bits, part=registers[1], error=Code(registers[2]), missed=registers[3],
        overruns=registers[4], heartbeat=registers[5],
    )  # fmt: skip
