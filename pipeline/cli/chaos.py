"""``lineguard chaos``: kill what you like; nothing is lost, and nothing passes unseen."""

import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.chaos.audit import Audit
from pipeline.chaos.fulldisk import fill_disk
from pipeline.chaos.kills import Outcome, kill_all
from pipeline.chaos.network import spoil_network
from pipeline.chaos.powercut import cut_power
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Counted, said_to_people


def chaos(
    kills: Annotated[int, typer.Option(min=1, help="Times that the station is killed.")] = 40,
    network: Annotated[
        bool, typer.Option("--network", help="Instead: cut, black hole, 300 ms, 2 KB/s.")
    ] = False,
    full_disk: Annotated[
        bool, typer.Option("--full-disk", help="Instead: fill a disk of 16 MB; as root.")
    ] = False,
    power_cuts: Annotated[
        int, typer.Option(min=0, help="Instead: cut the power of a disk so often; as root.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Another seed kills at other moments.")] = 11,
    folder: Annotated[
        Path | None, typer.Option(help="Keep ledger, archive, journal and logs in this new folder.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Kill station, broker and collector of a demo line with SIGKILL, and count what was lost.

    Decisions are counted at the reject gate, which keeps a journal of its own. JSON keys: decided,
    recorded, collected, lost, double, altered, kills, recovery_s.p50|p95, and more: see
    docs/commands.md. Exit 1 if anything was lost, doubled or altered.
    """
    people = said_to_people(json)
    # A drill that is told to stop ends its processes too, as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="lineguard-chaos-") as scratch:
        place = folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        if power_cuts:
            is_whole, figures = _power(place, power_cuts, seed, people)
        elif full_disk:
            is_whole, figures = _disk(place, people)
        elif network:
            is_whole, figures = _network(place, people)
        else:
            is_whole, figures = _kills(place, kills, seed, people)
    write_json(figures, json)
    if not is_whole:
        raise typer.Exit(1)


def _kills(place: Path, kills: int, seed: int, people: Console) -> tuple[bool, dict[str, Any]]:
    with Counted("chaos", "kills") as bar:
        done: Outcome = kill_all(place, kills, seed, lambda n: bar.progress(n, kills))
    people.print(
        f"killed: station {done.kills['station']}, broker {done.kills['broker']} "
        f"({done.broker}), collector {done.kills['collector']}"
    )
    _say_books(people, done.audit)
    figures = done.figures()
    r = figures["recovery_s"]
    people.print(f"kill to first new verdict: p50 {r['p50']} s, p95 {r['p95']} s")
    return done.audit.is_whole, figures


def _network(place: Path, people: Console) -> tuple[bool, dict[str, Any]]:
    done = spoil_network(place, lambda name: people.print(f"network: {name}", style="dim"))
    _say_books(people, done.audit)
    for name, shown_s in done.shown_s.items():
        noticed_s = done.noticed_s[name]
        noticed = "held nothing up" if noticed_s is None else f"noticed after {noticed_s} s"
        shown = "the connection held" if shown_s is None else f"told the plant after {shown_s} s"
        people.print(f"{name}: {noticed}; {shown}")
    return done.audit.is_whole, done.figures()


def _disk(place: Path, people: Console) -> tuple[bool, dict[str, Any]]:
    done = fill_disk(place, lambda step: people.print(step, style="dim"))
    _say_books(people, done.audit)
    people.print(
        f"not well after {done.degraded_s} s, not ready after {done.stopped_s} s, "
        f"ready {done.recovered_s} s after there was room again"
    )
    return done.audit.is_whole, done.figures()


def _power(place: Path, cuts: int, seed: int, people: Console) -> tuple[bool, dict[str, Any]]:
    with Counted("chaos", "cuts") as bar:
        done = cut_power(place, cuts, seed, lambda n: bar.progress(n, cuts))
    people.print(
        f"{done.cuts} power cuts: {done.acknowledged} records acknowledged, {done.lost} lost, "
        f"{done.damaged} times damaged",
        style="bold",
    )
    return not (done.lost or done.damaged), done.figures()


def _say_books(people: Console, audit: Audit) -> None:
    sign = "=" if audit.is_whole else "|"
    people.print(
        f"decided {audit.decided} {sign} recorded {audit.recorded} {sign} "
        f"collected {audit.collected}",
        style="bold",
    )
    people.print(
        f"lost {audit.lost}, double {audit.double}, altered {audit.altered}, phantom "
        f"{audit.phantom}; {audit.cut_off} recorded in the instant of a kill, unseen by the gate"
    )
