"""``lineguard run``: the station on the line."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as station_file
from pipeline.assembly import build, open_window
from pipeline.cli.output import JsonFile, line_of, said_to_people, write_json
from pipeline.clock import SystemClock
from pipeline.errors import PublishError
from pipeline.monitor.health import Health
from pipeline.replay import frames, latency
from pipeline.station import Station

REST_OF_START_S = 60
"""What a start takes beside the model, on a slow machine."""


def run(
    config: Annotated[Path, typer.Argument(help="The station file.")],
    json: JsonFile = None,
) -> None:
    """Run a station until its camera ends or it is told to stop (Ctrl-C or SIGTERM).

    SIGUSR1 repeats the self-test of the model. With health.port in the station file it serves
    /healthz, /readyz and /metrics; under systemd (Type=notify) it feeds the watchdog.

    JSON keys: frames.captured|inspected|dropped|lost_exposures, verdicts, latency_ms.p50|p99,
    undelivered.
    """
    people = said_to_people(json)
    loaded, clock = station_file.load(config), SystemClock()
    section, window = loaded.document.health, open_window(loaded, clock)
    with Health(clock, section.port, section.host) as health:
        # The child process that tries the model may take its time, and then this one as much.
        health.loading(2 * loaded.document.model.trial.seconds + REST_OF_START_S)
        station = build(
            loaded,
            clock,
            lambda record: people.print(line_of(record)),
            health=health,
            window=window,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: station.stop())
        signal.signal(signal.SIGUSR1, lambda *_: _test_soon(station))
        with window.on(station):
            tally = station.run()
    n = frames(tally)
    figures = {
        "frames": n,
        "verdicts": dict(tally.verdicts),
        "latency_ms": latency(tally.latency_ms),
        "undelivered": station.undelivered,
    }
    people.print(
        f"stopped: {n['captured']} frames captured = {n['inspected']} inspected + "
        f"{n['dropped']} dropped; {sum(tally.verdicts.values())} parts"
    )
    write_json(figures, json)
    if waiting := sum(station.undelivered.values()):
        raise PublishError(
            f"{waiting} records were not delivered; they wait in the store for the next start. "
            f"{'; '.join(station.faults.values())}"
        )


def _test_soon(station: Station) -> None:
    """Ask for a self-test from a thread of its own: a signal must not wait for the queue."""
    threading.Thread(target=station.request_self_test, daemon=True).start()
