"""A station that does not make progress never seems well, and every figure has one name."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.clock import NS_PER_S, ManualClock
from pipeline.errors import ConfigError
from pipeline.monitor.figures import STATES, Beat, LatencyCount, Snapshot
from pipeline.monitor.health import STALE_S, Health
from pipeline.monitor.metrics import HISTOGRAM, METRICS, Exposition
from pipeline.monitor.probes import MAX_CONNECTIONS
from pipeline.monitor.shifts import TimesOfDay
from pipeline.monitor.systemd import Notifier
from tests.conftest import REPOSITORY

pytest.importorskip("prometheus_client", reason="pip install 'lineguard[monitor]'")

READY = Snapshot(0, state="ready", captured=7, verdicts={"PASS": 3})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def health(clock: ManualClock) -> Iterator[Health]:
    with Health(clock, port=0) as served:
        yield served


def asked(health: Health, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", health.port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


# --- HTTP


@pytest.mark.parametrize("state", STATES)
def test_ready_is_said_in_ready_and_degraded_alone(health: Health, state: str) -> None:
    health.take(replace(READY, state=state))
    status, body = asked(health, "/readyz")
    assert (status == 200) == (state in ("ready", "degraded"))
    assert json.loads(body)["state"] == state


def test_before_the_first_word_a_station_is_alive_and_not_ready(health: Health) -> None:
    assert asked(health, "/healthz")[0] == 200
    assert asked(health, "/readyz")[0] == 503


def test_a_frozen_worker_is_neither_alive_nor_ready(health: Health) -> None:
    health.take(replace(READY, frozen=("inspect",)))
    for path in ("/healthz", "/readyz"):
        status, body = asked(health, path)
        assert status == 503
        assert "inspect" in json.loads(body)["said"]


def test_a_main_thread_that_says_nothing_is_not_alive(health: Health, clock: ManualClock) -> None:
    health.take(READY)
    clock.advance(int((STALE_S + 1) * NS_PER_S))
    assert asked(health, "/healthz")[0] == 503
    assert asked(health, "/readyz")[0] == 503


def test_faults_are_named(health: Health) -> None:
    health.take(replace(READY, state="not ready", faults={"camera": "no frame for 900 ms"}))
    _, body = asked(health, "/readyz")
    assert json.loads(body)["faults"] == {"camera": "no frame for 900 ms"}


def test_another_path_is_not_found_and_nothing_can_be_sent(health: Health) -> None:
    assert asked(health, "/../etc/passwd")[0] == 404
    assert asked(health, "/metrics", "POST")[0] == 501
    assert asked(health, "/metrics", "HEAD") == (200, b"")


def test_a_flood_of_idle_connections_is_turned_away(health: Health) -> None:
    address = ("127.0.0.1", health.port or 0)
    idle = [socket.create_connection(address, timeout=10) for _ in range(MAX_CONNECTIONS)]
    one_more = socket.create_connection(address, timeout=10)
    assert one_more.recv(1) == b""  # closed at once
    for connection in (*idle, one_more):
        connection.close()


def test_a_port_in_use_is_a_config_error(health: Health, clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match=r"cannot be served: .*health\.port"):
        Health(clock, port=health.port)


# --- metrics


def samples(text: bytes) -> dict[str, float]:
    rows = [line for line in text.decode().splitlines() if line and line[0] != "#"]
    return {row.rpartition(" ")[0]: float(row.rpartition(" ")[2]) for row in rows}


def test_every_state_and_verdict_is_there_from_the_start(health: Health) -> None:
    found = samples(asked(health, "/metrics")[1])
    assert sum(found[f'lineguard_state{{state="{state}"}}'] for state in STATES) == 1
    assert found['lineguard_parts_total{verdict="FAIL"}'] == 0
    assert found["process_resident_memory_bytes"] > 0


def test_the_figures_are_those_of_the_last_snapshot(health: Health) -> None:
    health.take(replace(READY, dropped={"inspection too slow": 2}, waiting={"mqtt": 5}))
    found = samples(asked(health, "/metrics")[1])
    assert found["lineguard_ready"] == 1
    assert found["lineguard_frames_captured_total"] == 7
    assert found['lineguard_frames_dropped_total{reason="inspection too slow"}'] == 2
    assert found['lineguard_records_waiting{receiver="mqtt"}'] == 5
    assert found['lineguard_parts_total{verdict="PASS"}'] == 3


def test_latencies_are_counted_cumulatively() -> None:
    count = LatencyCount()
    for seconds in (0.004, 0.005, 0.3, 99.0):
        count.add(seconds)
    found = samples(Exposition().text(replace(READY, latencies=count.now())))
    assert found[f'{HISTOGRAM}_bucket{{le="0.005"}}'] == 2
    assert found[f'{HISTOGRAM}_bucket{{le="0.5"}}'] == 3
    assert found[f'{HISTOGRAM}_bucket{{le="+Inf"}}'] == found[f"{HISTOGRAM}_count"] == 4
    assert found[f"{HISTOGRAM}_sum"] == pytest.approx(99.309)


def known_names() -> set[str]:
    exposed = samples(
        Exposition().text(
            replace(READY, faults={"x": ""}, dropped={"x": 1}, waiting={"x": 1}, frame_age_s=1.0)
        )
    )
    return {name.partition("{")[0] for name in exposed}


def expressions(page: Any) -> Iterator[str]:
    """Yield every expression and query of a dashboard or of alert rules."""
    if isinstance(page, Mapping):
        for key, value in page.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(page, list):
        for value in page:
            yield from expressions(value)


@pytest.mark.parametrize("name", ["alerts.yaml", "dashboard.json"])
def test_dashboard_and_alerts_use_exactly_the_names_there_are(name: str) -> None:
    page = yaml.safe_load((REPOSITORY / "deploy" / "monitoring" / name).read_text())
    used = set(re.findall(r"\b(?:lineguard|process)_[a-z_]+", " ".join(expressions(page))))
    assert used
    assert used <= known_names()


def test_the_dashboard_shows_every_metric_of_ours() -> None:
    page = (REPOSITORY / "deploy" / "monitoring" / "dashboard.json").read_text()
    missing = [m.name for m in METRICS if m.name not in page]
    assert missing == []


def test_the_labels_that_alerts_ask_for_exist() -> None:
    page = yaml.safe_load((REPOSITORY / "deploy" / "monitoring" / "alerts.yaml").read_text())
    labels = {m.name: set(m.labels) for m in METRICS}
    for expr in expressions(page):
        for name, inside in re.findall(r"(lineguard_[a-z_]+)\{([^}]*)\}", expr):
            assert set(re.findall(r"(\w+)[!=]", inside)) <= labels[name]


def test_the_manual_lists_every_metric_and_every_alert() -> None:
    manual = (REPOSITORY / "docs" / "monitoring.md").read_text()
    rows = {m.name: f"| `{m.name}` | {m.kind} |" for m in METRICS}
    assert [name for name, row in rows.items() if row not in manual] == []
    assert f"| `{HISTOGRAM}` | histogram |" in manual
    page = yaml.safe_load((REPOSITORY / "deploy" / "monitoring" / "alerts.yaml").read_text())
    alerts = [rule["alert"] for group in page["groups"] for rule in group["rules"]]
    assert [alert for alert in alerts if alert not in manual] == []


# --- systemd


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines += listener.recv(4096).decode().split("\n")
        except BlockingIOError:
            return lines


def told(listener: socket.socket, clock: ManualClock, deadline_s: int = 4) -> Health:
    usec = str(deadline_s * 1_000_000)
    environment = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": usec}
    return Health(clock, notifier=Notifier(environment))


def test_systemd_hears_of_the_start_the_states_and_the_end(
    systemd: socket.socket, clock: ManualClock
) -> None:
    health = told(systemd, clock)
    for state in ("starting", "ready", "ready", "stopping"):
        health.take(replace(READY, state=state))
    said = [line for line in heard(systemd) if line != "WATCHDOG=1"]
    assert said == ["READY=1", "STATUS=starting", "STATUS=ready", "STATUS=stopping", "STOPPING=1"]


def test_systemd_is_asked_for_the_time_that_loading_may_take(
    systemd: socket.socket, clock: ManualClock
) -> None:
    health = told(systemd, clock)
    health.loading(3660)
    health.take(READY)
    said = [line for line in heard(systemd) if line != "WATCHDOG=1"]
    assert said == [
        "EXTEND_TIMEOUT_USEC=3660000000", "STATUS=loading", "READY=1", "STATUS=ready",
    ]  # fmt: skip


def test_the_watchdog_is_fed_four_times_in_its_deadline(
    systemd: socket.socket, clock: ManualClock
) -> None:
    health = told(systemd, clock)
    for _ in range(80):  # 4 s, 20 times a second
        health.take(replace(READY, t_ns=clock.now_ns()))
        clock.advance(NS_PER_S // 20)
    assert heard(systemd).count("WATCHDOG=1") == 4


def test_a_frozen_worker_starves_the_watchdog(systemd: socket.socket, clock: ManualClock) -> None:
    health = told(systemd, clock)
    health.take(READY)
    assert heard(systemd).count("WATCHDOG=1") == 1
    for _ in range(80):
        clock.advance(NS_PER_S)
        health.take(replace(READY, t_ns=clock.now_ns(), frozen=("inspect",)))
    assert "WATCHDOG=1" not in heard(systemd)
    clock.advance(NS_PER_S)
    health.take(replace(READY, t_ns=clock.now_ns()))
    assert "WATCHDOG=1" in heard(systemd)


def test_the_watchdog_of_another_process_is_not_fed(systemd: socket.socket) -> None:
    environment = {
        "NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1",
    }  # fmt: skip
    Notifier(environment).ping(0)
    assert heard(systemd) == []


def test_a_socket_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")
    Notifier({}).tell("READY=1")


# --- shifts, steps


def test_a_time_of_day_is_due_once_a_day() -> None:
    zone = datetime.now().astimezone().tzinfo
    times = TimesOfDay(["06:00", "14:00"])
    start = datetime(2026, 3, 3, 5, 0, tzinfo=zone)
    hours = [start + timedelta(minutes=20 * i) for i in range(3 * 48)]
    due = [at for at in hours if times.due(at.astimezone(timezone.utc))]
    assert [(at.hour, at.minute) for at in due] == [(6, 0), (14, 0)] * 2


def test_a_start_after_the_time_is_not_late_for_it() -> None:
    times = TimesOfDay(["06:00"])
    assert not times.due(datetime(2026, 3, 3, 6, 1).astimezone())


def test_waiting_for_work_is_no_step(clock: ManualClock) -> None:
    beat = Beat(clock.now_ns)
    clock.advance(NS_PER_S)
    assert beat.busy_s() == 0
    with beat.step():
        clock.advance(3 * NS_PER_S)
        assert beat.busy_s() == 3
    assert beat.busy_s() == 0


def test_closing_leaves_no_thread(clock: ManualClock) -> None:
    before = threading.active_count()
    with Health(clock, port=0):
        assert threading.active_count() == before + 1
    assert "health" not in {t.name for t in threading.enumerate() if t.is_alive()}
