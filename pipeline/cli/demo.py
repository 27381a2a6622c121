"""``lineguard demo``: the whole product on one machine in a minute."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline import demo as demonstration
from pipeline import schema
from pipeline.cli.output import JsonFile, Rate, line_of, said_to_people, write_json
from pipeline.cli.replay import say_replay
from pipeline.errors import MissingExtra
from pipeline.live import live_folder
from pipeline.plugins import vendor
from pipeline.shipped import shipped
from pipeline.station import Station

BOARDS = 12
PORT = 8080
GOODBYE_S = 5


def demo(
    boards: Annotated[
        int | None,
        typer.Option(min=1, help="Boards that pass. Default: endless with a page and a terminal."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed shows other boards.")] = 7,
    fast: Annotated[
        bool, typer.Option("--fast/--real-time", help="As fast as it goes, or at a belt's pace.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Another station file.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Keep the records in this folder.")] = None,
    web: Annotated[bool, typer.Option(help="Show it in the browser.")] = True,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of the page; default 8080 or a free one.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Run a drawn line through the real model; show it in the browser and in the terminal.

    It ends with a summary against the truth: after so many boards, or on Ctrl-C. In a terminal the
    belt does not end by itself; elsewhere, and with --no-web or --fast, 12 boards pass. JSON keys:
    those of replay --truth, and delivered.
    """
    people = said_to_people(json)
    file = config or shipped("configs/demo.yaml")
    delivered = set()
    endless = web and not fast and boards is None and sys.stdout.isatty()
    people.print("line: drawn boards  ->  model  ->  verdict  ->  MQTT broker (127.0.0.1)  ->  you")
    with (
        _store(store) as folder,
        _dashboard(web and not fast, people, file, folder, port),
        Rate("line", "frames") as rate,
    ):
        if endless:
            people.print("Ctrl-C ends the line, with a summary")

        def begin(station: Station, total: int | None) -> None:
            rate.watch(lambda: station.tally.inspected, total)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: station.stop())

        def arrived(event: dict[str, Any]) -> None:
            record = schema.decode(schema.canonical(event["data"]))
            delivered.add(record.id)
            rate.print(line_of(record))

        done = demonstration.demo(
            file,
            folder,
            boards=None if endless else boards or BOARDS,
            seed=seed,
            realtime=not fast,
            on_start=begin,
            on_message=arrived,
        )
        say_replay(people, done)
        people.print(f"MQTT:     {len(delivered)} of {len(done.records)} records arrived")
        write_json(done.figures() | {"delivered": len(delivered)}, json)


@contextmanager
def _store(named: Path | None) -> Iterator[Path]:
    """Yield the store's folder; one that nobody named is gone afterwards, its window too."""
    if named is not None:
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="lineguard-demo-") as scratch:
        yield Path(scratch)
        shutil.rmtree(live_folder(Path(scratch)), ignore_errors=True)


@contextmanager
def _dashboard(
    wanted: bool, people: Console, file: Path, store: Path, port: int | None
) -> Iterator[None]:
    """Run the dashboard beside the demo, as a process of its own, and say where it is."""
    if not wanted:
        yield
        return
    try:
        vendor("starlette", "web")
        vendor("uvicorn", "web")
    except MissingExtra as error:
        people.print(f"no page in the browser: {error}", markup=False)
        yield
        return
    process = _served(file, store, PORT if port is None else port, quiet=port is None)
    url = _first_line(process)
    if not url and port is None:
        process = _served(file, store, 0, quiet=False)
        url = _first_line(process)
    people.print(f"[bold]{url}[/]")
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _served(file: Path, store: Path, port: int, *, quiet: bool) -> subprocess.Popen[str]:
    words = ["web", str(file), "--store", str(store), "--port", str(port), "--demo"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        # Ctrl-C is for the line: the page stays until the line has come home.
        start_new_session=True,
    )


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
