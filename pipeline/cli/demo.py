"""``lineguard demo``: the whole product on one machine in a minute."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from pipeline import demo as demonstration
from pipeline import schema
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Rate, line_of, said_to_people
from pipeline.cli.replay import say_replay
from pipeline.demo import Place
from pipeline.errors import ConfigError, MissingExtra
from pipeline.lines import filmed_line, webcam
from pipeline.plugins import vendor
from pipeline.replay import Replay
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
    seed: Annotated[int, typer.Option(help="Another seed shows other boards.")] = 1,
    layout: Annotated[
        int, typer.Option(min=0, help="Which drawn product is made; the recipe is for the default.")
    ] = demonstration.PRODUCT,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="A layout of its own for every board; far harder.")
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast/--real-time", help="As fast as it goes, or at a belt's pace.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Another station file.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Keep the records in this folder.")] = None,
    video: Annotated[
        Path | None, typer.Option(help="Show this video of a line instead of drawn boards.")
    ] = None,
    camera: Annotated[
        int | None, typer.Option(min=0, max=63, help="Show webcam N (/dev/videoN) instead.")
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder whose videos the page offers as lines, too.")
    ] = None,
    web: Annotated[bool, typer.Option(help="Show it in the browser.")] = True,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of the page; default 8080 or a free one.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Run a drawn line through the real model; show it in the browser and in the terminal.

    It ends with a summary against the truth: after so many boards, or on Ctrl-C. In a terminal the
    belt does not end by itself; elsewhere, and with --no-web or --fast, 12 boards pass. Another
    line, --video FILE or --camera N, goes through the same model: name yours with --config. The
    page changes the line, too: to a video of --videos FOLDER or one that is sent there, a webcam.
    JSON keys: those of replay --truth, of the last line, and delivered.
    """
    people = said_to_people(json)
    file = config or shipped("configs/demo.yaml")
    endless = web and not fast and boards is None and sys.stdout.isatty()
    line = _filmed(video, camera, boards, fast=fast, endless=endless) or demonstration.drawn_line(
        boards=None if endless else boards or BOARDS,
        seed=seed,
        realtime=not fast,
        layout=None if mixed else layout,
    )
    people.print(
        f"line: {_named(line)}  ->  model  ->  verdict  ->  MQTT broker (127.0.0.1)  ->  you"
    )
    with (
        _place(store) as place,
        _dashboard(web and not fast, people, file, place.store, port),
        Rate("line", "frames") as rate,
    ):
        if endless:
            people.print("Ctrl-C ends the line, with a summary")
        told = _Told(people, rate)
        done = demonstration.demo(
            file,
            place,
            line,
            words=_called(line),
            videos=videos,
            on_start=told.began,
            on_message=told.arrived,
            on_change=told.changed,
        )
        told.summary(done)
        write_json(done.figures() | {"delivered": len(told.delivered)}, json)


class _Told:
    """What the terminal shows of the demo, one line after the other.

    Attributes:
        delivered: ids of the records that came over MQTT.
    """

    def __init__(self, people: Console, rate: Rate) -> None:
        self.delivered: set[str] = set()
        self._people = people
        self._rate = rate
        self._made = 0
        self._ended = threading.Event()

    def began(self, station: Station, total: int | None) -> None:
        self._rate.watch(lambda: station.tally.inspected, total)
        _end_on_signals(station, self._ended)

    def arrived(self, event: dict[str, Any]) -> None:
        record = schema.decode(schema.canonical(event["data"]))
        self.delivered.add(record.id)
        self._rate.print(line_of(record))

    def changed(self, words: str, done: Replay) -> None:
        self._made += len(done.records)
        self._people.print(f"{escape(words)}, until another line was chosen:")
        say_replay(self._people, done)

    def summary(self, done: Replay) -> None:
        self._made += len(done.records)
        say_replay(self._people, done)
        self._people.print(f"MQTT:     {len(self.delivered)} of {self._made} records arrived")


def _end_on_signals(station: Station, ended: threading.Event) -> None:
    """Let Ctrl-C end the station, also if it came before there was this one."""

    def end(*_: object) -> None:
        ended.set()
        station.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if ended.is_set():
        station.stop()


def _filmed(
    video: Path | None, camera: int | None, boards: int | None, *, fast: bool, endless: bool
) -> dict[str, Any] | None:
    """Return the camera section of another line than the drawn one, or None."""
    if video is not None and camera is not None:
        raise ConfigError("--video and --camera show one line each; name one of them")
    if (video is not None or camera is not None) and boards is not None:
        raise ConfigError("--boards counts drawn boards; leave it out with --video and --camera")
    if video is not None:
        return filmed_line(video, endless=endless, realtime=not fast)
    return None if camera is None else webcam(camera)


def _named(line: dict[str, Any]) -> str:
    return escape(str(line.get("path") or line.get("device") or "drawn boards"))


def _called(line: dict[str, Any]) -> str:
    """Return what the page calls a line."""
    if "device" in line:
        return f"Webcam {line['device']}"
    return Path(line["path"]).name if "path" in line else "Drawn boards"


@contextmanager
def _place(named: Path | None) -> Iterator[Place]:
    """Yield where the records go; a place that nobody named is gone afterwards, its window too."""
    if named is None:
        with demonstration.scratch_place() as place:
            yield place
    else:
        yield Place(named, None, "the store lies on a disk of this machine; leave --store out")


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
