"""``lineguard run``: the station on the line."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as station_file
from pipeline.assembly import build
from pipeline.cli.output import JsonFile, line_of, said_to_people, write_json
from pipeline.clock import SystemClock
from pipeline.errors import PublishError
from pipeline.replay import frames, latency


def run(
    config: Annotated[Path, typer.Argument(help="The station file.")],
    json: JsonFile = None,
) -> None:
    """Run a station until its camera ends or it is told to stop (Ctrl-C or SIGTERM).

    JSON keys: frames.captured|inspected|dropped|lost_exposures, verdicts, latency_ms.p50|p99,
    undelivered.
    """
    people = said_to_people(json)
    station = build(
        station_file.load(config), SystemClock(), lambda record: people.print(line_of(record))
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: station.stop())
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
