"""``lineguard chaos``: kill what you like; nothing is lost, and nothing passes unseen."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pipeline.chaos.kills import kill_all
from pipeline.cli.output import Counted, JsonFile, said_to_people, write_json


def chaos(
    kills: Annotated[int, typer.Option(min=1, help="Times that the station is killed.")] = 40,
    seed: Annotated[int, typer.Option(help="Another seed kills at other moments.")] = 11,
    folder: Annotated[
        Path | None, typer.Option(help="Keep ledger, archive, journal and logs in this new folder.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Kill station, broker and collector of a demo line with SIGKILL, and count what was lost.

    Decisions are counted at the reject gate, which keeps a journal of its own. JSON keys: decided,
    recorded, collected, lost, double, altered, kills, recovery_s.p50|p95, and more. Exit 1 if
    anything was lost, doubled or altered.
    """
    people = said_to_people(json)
    with tempfile.TemporaryDirectory(prefix="lineguard-chaos-") as scratch:
        place = folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        with Counted("chaos", "kills") as bar:
            outcome = kill_all(place, kills, seed, lambda done: bar.progress(done, kills))
    f, k = outcome.figures(), outcome.kills
    people.print(
        f"killed: station {k['station']}, broker {k['broker']} ({outcome.broker}), "
        f"collector {k['collector']}"
    )
    people.print(
        f"decided {f['decided']} = recorded {f['recorded']} = collected {f['collected']}"
        if outcome.audit.is_whole
        else f"decided {f['decided']}, recorded {f['recorded']}, collected {f['collected']}",
        style="bold",
    )
    people.print(
        f"lost {f['lost']}, double {f['double']}, altered {f['altered']}, phantom {f['phantom']}; "
        f"{f['cut_off']} were recorded in the instant of a kill and never reached the gate"
    )
    r = f["recovery_s"]
    people.print(f"kill to first new verdict: p50 {r['p50']} s, p95 {r['p95']} s")
    write_json(f, json)
    if not outcome.audit.is_whole:
        raise typer.Exit(1)
