"""What systemd and a health check are told of a station."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.clock import NS_PER_S, ManualClock, SystemClock
from pipeline.errors import ConfigError
from pipeline.station import Tally
from pipeline.supervision import Supervision, judge, notify
from tests.doubles import until


@dataclass
class Books:
    """A station of which only the books are needed."""

    tally: Tally = field(default_factory=Tally)
    faults: dict[str, str] = field(default_factory=dict)


class Manager:
    """The listening side of sd_notify."""

    def __init__(self, folder: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(folder / "notify")}
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._link.bind(self.environment["NOTIFY_SOCKET"])
        self._link.settimeout(0.5)

    def hears(self) -> str:
        """Return the next message, or nothing if none comes."""
        try:
            return self._link.recv(4096).decode()
        except TimeoutError:
            return ""

    def close(self) -> None:
        self._link.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


def test_without_a_service_manager_nobody_is_told() -> None:
    assert not notify("READY=1", {})


def test_the_manager_hears_ready_then_stopping(manager: Manager) -> None:
    with Supervision(Books(), SystemClock(), environment=manager.environment, beat_s=60):
        assert manager.hears() == "READY=1"
    assert manager.hears() == "STOPPING=1"


def test_the_watchdog_is_fed_while_frames_move(manager: Manager) -> None:
    books = Books()
    with Supervision(books, SystemClock(), environment=manager.environment, beat_s=0.01):
        manager.hears()
        books.tally.captured = books.tally.inspected = 5
        assert manager.hears() == "WATCHDOG=1\nSTATUS=5 frames inspected; no fault"


def test_the_watchdog_starves_when_the_books_stand_still(manager: Manager) -> None:
    with Supervision(Books(), SystemClock(), environment=manager.environment, beat_s=0.01):
        assert manager.hears() == "READY=1"
        assert manager.hears() == ""


def test_a_camera_that_is_looked_for_is_no_hang(manager: Manager) -> None:
    books = Books(faults={"camera": "no frame for 500 ms"})
    with Supervision(books, SystemClock(), environment=manager.environment, beat_s=0.01):
        manager.hears()
        books.tally.reopened = 1
        assert manager.hears() == "WATCHDOG=1\nSTATUS=0 frames inspected; no frame for 500 ms"


def test_a_working_station_is_well(tmp_path: Path) -> None:
    books, clock, file = Books(), ManualClock(), tmp_path / "health.json"
    with Supervision(books, clock, file, {}, beat_s=0.01):
        clock.advance(100 * NS_PER_S)
        books.tally.captured = books.tally.inspected = 7
        until(lambda: json.loads(file.read_text())["frames"] == 7)
        assert judge(file, clock.now_ns()) is None
    assert not file.exists()


FRESH = {"faults": {}, "frames": 1, "written_ns": 100 * NS_PER_S, "frame_ns": 100 * NS_PER_S}


@pytest.mark.parametrize(
    ("said", "now_s", "wrong"),
    [
        (FRESH, 101, None),
        (FRESH | {"faults": {"publisher mqtt": "away"}}, 101, None),
        (FRESH | {"faults": {"camera": "gone"}}, 101, "camera: gone"),
        (FRESH, 111, "said nothing"),
        (FRESH | {"frame_ns": 0}, 101, "no frame"),
        ({"faults": {}}, 101, "no health file"),
        ([], 101, "no health file"),
    ],
)
def test_a_health_file_is_judged(
    tmp_path: Path, said: object, now_s: int, wrong: str | None
) -> None:
    file = tmp_path / "health.json"
    file.write_text(json.dumps(said))
    found = judge(file, now_s * NS_PER_S)
    assert (found is None) if wrong is None else (found is not None and wrong in found)


def test_a_station_that_is_gone_is_not_well(tmp_path: Path) -> None:
    assert "is it running" in str(judge(tmp_path / "health.json", 0))


def test_a_health_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a folder"):
        Supervision(Books(), ManualClock(), tmp_path / "no" / "health.json", {}).__enter__()
