"""``lineguard update``: signed updates of program and models, with the way back."""

import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline import signing
from pipeline.cli.broker import (
    Broker,
    Ca,
    Cert,
    Keepalive,
    PasswordFile,
    Username,
    broker_options,
)
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import console, said_to_people
from pipeline.errors import ConfigError, UpdateError
from pipeline.trial import Bounds
from pipeline.update import order as orders
from pipeline.update.kinds import AppKind, ModelKind
from pipeline.update.listener import Listener, carry_out
from pipeline.update.message import message_of
from pipeline.update.slots import Slots
from pipeline.update.source import source_of
from pipeline.update.updater import Kind, Updater, Watch

app = typer.Typer(
    no_args_is_help=True,
    help="Bring signed updates to this station, and take back what does not prove itself.",
)


class What(str, Enum):
    """What is updated."""

    model = "model"
    app = "app"


FOLDERS = {What.model: Path("/var/lib/lineguard/models"), What.app: Path("/opt/lineguard")}

Updated = Annotated[What, typer.Option("--kind", help="What is updated.")]
Folder = Annotated[
    Path | None, typer.Option(help="Where its slots lie; else where the installer puts them.")
]
Target = Annotated[str, typer.Option(help="What this station is: cpu, openvino, gpu, ...")]
Keys = Annotated[
    list[Path], typer.Option("--key", help="File of a trusted public key; may be given again.")
]
Runtime = Annotated[str, typer.Option(help="Runtime that a new model is proved with.")]
Trial = Annotated[
    int, typer.Option(min=5, max=3600, help="A new model must have proved itself within so long.")
]
Restart = Annotated[str, typer.Option(help="Command that lets the station run the new release.")]
Ports = Annotated[
    list[int], typer.Option("--health-port", help="health.port of each station file; all count.")
]
Steady = Annotated[float, typer.Option(help="It must be well so long without a break.")]
Probation = Annotated[float, typer.Option(help="and that within so long.")]
RESTART = "systemctl try-restart lineguard@*.service"
SHUTDOWN_S = 5.0
"""A restart fails, too, while the machine is shut down. That ends this process within this time,
and the next boot goes on with the probation; else the release would be refused for ever."""


@app.command()
def apply(
    source: Annotated[str, typer.Argument(help="A folder (a stick), or a URL, with update.json.")],
    target: Target,
    key: Keys,
    health_port: Ports,
    kind: Updated = What.model,
    folder: Folder = None,
    runtime: Runtime = "onnx",
    trial_s: Trial = Bounds().seconds,
    restart: Restart = RESTART,
    steady_s: Steady = 60.0,
    probation_s: Probation = 300.0,
    if_newer: Annotated[
        bool, typer.Option("--if-newer", help="Nothing newer is no error; for a timer.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Fetch an update, check and prove it, put it to work, watch it, and go back if it is not well.

    A download that was cut off goes on where it stopped. Nothing is taken that no trusted key
    signed, that is for another target, or that is older than what this station has had.

    JSON keys: release, was.
    """
    slots = Slots(folder or FOLDERS[kind])
    was = slots.at("current")
    watch = _watch(restart, health_port, steady_s, probation_s)
    made = _kind(kind, target, runtime, Bounds(seconds=trial_s))
    updater = Updater(slots, made, signing.read_trust(key), target, watch)
    offered = source_of(source)
    if if_newer and not updater.is_news(offered):
        said_to_people(json).print("nothing newer is offered")
        write_json({"release": was, "was": was}, json)
        return
    release = updater.apply(offered, orders.utc_now())
    said_to_people(json).print(f"{release} is at work; before it: {was or 'nothing'}")
    write_json({"release": release, "was": was}, json)


@app.command()
def listen(
    topic: Annotated[
        str, typer.Option(help="It reads TOPIC/order/KIND and answers on TOPIC/answer/KIND.")
    ],
    files: Annotated[
        str, typer.Option(help="Holds model/ and app/ with the files: a folder, or a URL.")
    ],
    target: Target,
    key: Keys,
    health_port: Ports,
    broker: Broker = "127.0.0.1:1883",
    ca: Ca = None,
    cert: Cert = None,
    cert_key: Annotated[Path | None, typer.Option(help="Key of the certificate.")] = None,
    username: Username = None,
    password_file: PasswordFile = None,
    keepalive_s: Keepalive = 15,
    folder: Annotated[
        Path | None, typer.Option(help="Holds the slots of model and app; else as installed.")
    ] = None,
    runtime: Runtime = "onnx",
    trial_s: Trial = Bounds().seconds,
    restart: Restart = RESTART,
    steady_s: Steady = 60.0,
    probation_s: Probation = 300.0,
    again_s: Annotated[
        float, typer.Option(min=1, help="An order that failed is tried again after so long.")
    ] = 600.0,
) -> None:
    """Take update orders from a broker, until it is stopped or has replaced the program.

    A message holds the signed page of an update (see: lineguard update order) and nothing else.
    What it orders is checked, proved and watched as by `update apply`. Whoever may write to the
    topic can have no other update taken than one that a trusted key signed.
    """
    options = broker_options(
        "update listen", broker, ca=ca, cert=cert, key=cert_key, username=username,
        password_file=password_file, keepalive_s=keepalive_s,
    )  # fmt: skip
    trust, watch = signing.read_trust(key), _watch(restart, health_port, steady_s, probation_s)
    takes = {}
    for kind in What:
        slots = Slots(folder / kind.value if folder else FOLDERS[kind])
        made = _kind(kind, target, runtime, Bounds(seconds=trial_s))
        takes[kind.value] = partial(
            carry_out, Updater(slots, made, trust, target, watch), slots,
            source_of(f"{files}/{kind.value}"),
        )  # fmt: skip
    listener = Listener(options, topic, takes, frozenset({What.app.value}), again_s)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: listener.stop())
    console.print(f"orders are taken from {broker}, {topic}/order/+; Ctrl-C ends it", markup=False)
    listener.run()


@app.command()
def order(
    folder: Annotated[Path, typer.Argument(help="An update that `update make` has signed.")],
) -> None:
    """Print the message that orders an update: publish it, retained, on TOPIC/order/KIND.

    The files of the update must lie where the station's `--files` says, in KIND/payload.
    """
    sys.stdout.buffer.write(message_of(folder))


@app.command()
def resume(
    health_port: Ports,
    kind: Updated = What.model,
    folder: Folder = None,
    restart: Restart = RESTART,
    steady_s: Steady = 60.0,
    probation_s: Probation = 300.0,
) -> None:
    """Finish what a power cut left of an update; for every boot. Does nothing if there is nothing.

    A release that took the station down twice in its probation is taken back.
    """
    _settler(kind, folder, _watch(restart, health_port, steady_s, probation_s)).resume()
    console.print(f"at work: {Slots(folder or FOLDERS[kind]).at('current') or 'nothing'}")


@app.command()
def rollback(kind: Updated = What.model, folder: Folder = None, restart: Restart = RESTART) -> None:
    """Put the release before to work again."""
    watch = Watch(lambda: _restart(restart), lambda: None)
    console.print(f"at work: {_settler(kind, folder, watch).rollback()}")


@app.command()
def status(kind: Updated = What.model, folder: Folder = None, json: JsonFile = None) -> None:
    """Say what is at work, what was before, and what an update has come to.

    JSON keys: current, previous, phase, sequence, refused.
    """
    slots = Slots(folder or FOLDERS[kind])
    state = slots.state()
    figures = {
        "current": slots.at("current"),
        "previous": slots.at("previous"),
        "phase": state.phase,
        "sequence": state.sequence,
        "refused": list(state.refused),
    }
    for name, value in figures.items():
        said_to_people(json).print(f"{name:9} {value}", markup=False)
    write_json(figures, json)


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Holds payload/ with the files of the update.")],
    key: Annotated[Path, typer.Option(help="Private key; see: lineguard models keygen.")],
    version: Annotated[str, typer.Option(help="For people, e.g. 2.1.0.")],
    sequence: Annotated[int, typer.Option(min=1, help="Higher than of every update before.")],
    target: Annotated[str, typer.Option(help="For which stations; any: for all.")] = "any",
    kind: Updated = What.model,
    not_after: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="Nobody takes it after this moment."),
    ] = None,
) -> None:
    """Make and sign an update of a folder; carry the folder on a stick or put it on a web server.

    A model's payload is its bundle. A program's payload holds wheels/ (of wheelhouse.sh), deploy/
    and, for a replay before it is put to work, proof/ (clip.mp4, golden.jsonl, station.yaml).
    """
    page = orders.make(
        folder, key, kind=kind.value, version=version, target=target, sequence=sequence,
        not_after=not_after,
    )  # fmt: skip
    size = sum(entry.size for entry in page.files.values()) / 1e6
    console.print(f"{folder}: {len(page.files)} files, {size:.1f} MB, signed")


def _kind(kind: What, target: str, runtime: str, bounds: Bounds | None = None) -> Kind:
    return ModelKind(runtime, bounds=bounds) if kind is What.model else AppKind(target)


def _settler(kind: What, folder: Path | None, watch: Watch) -> Updater:
    """Return an updater for what needs neither a new release nor a key."""
    slots = Slots(folder or FOLDERS[kind])
    return Updater(slots, _kind(kind, "", ""), signing.Trust(()), "", watch)


def _watch(restart: str, ports: list[int], steady_s: float, probation_s: float) -> Watch:
    if not 0 < steady_s <= probation_s:
        raise ConfigError("--steady-s must be above 0 and at most --probation-s")
    return Watch(lambda: _restart(restart), lambda: _well(ports, steady_s, probation_s))


def _restart(command: str) -> None:
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    except (OSError, ValueError) as error:
        raise UpdateError(f"--restart {command}: {error}") from error
    if done.returncode:
        time.sleep(SHUTDOWN_S)
        said = " ".join(done.stderr.split())[:300] or f"it ended with {done.returncode}"
        raise UpdateError(f"--restart {command}: {said}")


def _well(ports: list[int], steady_s: float, probation_s: float) -> str | None:
    """Return None once all stations were ready for ``steady_s`` on end, or why they were not."""
    end = time.monotonic() + probation_s
    since, why = None, "it was not asked yet"
    while (now := time.monotonic()) < end:
        wrong = next((said for port in ports if (said := _not_ready(port))), None)
        if wrong is not None:
            since, why = None, wrong
        elif since is None:
            since = now
        elif now - since >= steady_s:
            return None
        time.sleep(min(1.0, steady_s / 5))
    return f"not well for {steady_s:.0f} s on end within {probation_s:.0f} s: {why}"


def _not_ready(port: int) -> str | None:
    url = f"http://127.0.0.1:{port}/readyz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return f"{url}: {error.read(500).decode('utf-8', 'replace')}"
    except OSError as error:
        return f"{url}: {error}"
