"""``lineguard bench``: how fast the whole station is on this machine, and beside what else."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Counted, said_to_people
from pipeline.errors import ConfigError
from pipeline.shipped import shipped

if TYPE_CHECKING:
    from pipeline.bench.sections import Results
    from pipeline.bench.work import Work

BUNDLE = "models/boards-n"
NAMES = "stages, e2e, paced, burst, start, density, parts, ledger, against, peers"
WITH_NUMBERS = "Numbers"
WITH_PEERS = "Other programs"


def bench(
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a bundle; more of other input sizes. Default: boards-n."),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(help="KIND[:KEY=VALUE,...], e.g. openvino:precision=bf16,parts.views=3."),
    ] = "onnx",
    against: Annotated[
        str | None, typer.Option(help="Compare with this one, in turns: as --runtime.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Only this section: {NAMES}.")] = None,
    quick: Annotated[bool, typer.Option(help="Below half a minute a section; says less.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Or say what was measured before.")
    ] = True,
    kept: Annotated[
        Path, typer.Option(help="Clips and results stay here; a later run goes on from them.")
    ] = Path("runs/bench"),
    write: Annotated[
        Path | None, typer.Option(help="Write the page with its plots, e.g. docs/performance.md.")
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(min=1, help="paced, burst: so many parts.", rich_help_panel=WITH_NUMBERS),
    ] = None,
    parts_per_min: Annotated[
        float | None,
        typer.Option(
            min=1, help="paced: default 600; burst: 12,000.", rich_help_panel=WITH_NUMBERS
        ),
    ] = None,
    cameras: Annotated[
        int | None,
        typer.Option(min=1, help="density: at most.", rich_help_panel=WITH_NUMBERS),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=0.1, help="density: of each camera; 10.", rich_help_panel=WITH_NUMBERS),
    ] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(min=1, help="density: default 500.", rich_help_panel=WITH_NUMBERS),
    ] = None,
    records: Annotated[
        int | None,
        typer.Option(
            min=1000,
            help="ledger: up to so many; 10,000,000 take 20 GB.",
            rich_help_panel=WITH_NUMBERS,
        ),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(help="parts: clip of a line.", rich_help_panel=WITH_NUMBERS),
    ] = None,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Measure other programs, too.", rich_help_panel=WITH_PEERS),
    ] = False,
    peer: Annotated[
        list[str] | None, typer.Option(help="Only this one.", rich_help_panel=WITH_PEERS)
    ] = None,
    peer_env: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PATH of its environment: ultralytics, roboflow.", rich_help_panel=WITH_PEERS
        ),
    ] = None,
    make_envs: Annotated[
        bool,
        typer.Option(
            "--make-peer-envs", help="Make those not named, with pip.", rich_help_panel=WITH_PEERS
        ),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Checkpoint (.pt) of the bundle.", rich_help_panel=WITH_PEERS),
    ] = None,
    ours: Annotated[
        str | None,
        typer.Option(help="How the station runs beside them.", rich_help_panel=WITH_PEERS),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Measure the whole station: rules, ledger, pictures, gate and broker are always in it.

    Shares and ratios are taken in turns in one run, medians of five with least and most; absolute
    figures belong to the machine that the results describe. What is measured is kept at once:
    --only NAME measures a section again and keeps the others. JSON keys: docs/commands.md.
    """
    # Loaded here: what is measured must not make every other command start later.
    from pipeline.bench import sections
    from pipeline.bench.page import write_page
    from pipeline.bench.variant import read_variant
    from pipeline.bench.work import Work

    bundles = bundle or [shipped(BUNDLE)]
    options = {
        "parts": parts, "parts_per_min": parts_per_min, "cameras": cameras, "fps": fps,
        "deadline_ms": deadline_ms, "records": records, "clip": clip, "peer": tuple(peer or ()),
        "weights": weights, "ours": ours, "environments": _pairs(peer_env or ()),
        "make_envs": make_envs,
    }  # fmt: skip
    asked = [n for n, is_asked in (("against", against), ("peers", peers)) if is_asked]
    names = sections.chosen(only or (), asked) if measure else ()
    if "against" in names and against is None:
        raise ConfigError("bench: the section 'against' needs --against KIND[:KEY=VALUE,...]")
    people = said_to_people(json)
    results = sections.read_results(kept / sections.RESULTS)
    with tempfile.TemporaryDirectory(prefix="lineguard-bench-") as scratch:
        for name in names:
            work = Work(
                variants=tuple(read_variant(runtime, folder) for folder in bundles),
                against=read_variant(against, bundles[0]) if against else None,
                scratch=Path(scratch) / name,
                kept=kept,
                quick=quick,
                options=options,
            )
            results = _measured(name, work, results)
            sections.write_results(results, kept / sections.RESULTS)
    _say(results, people)
    if write is not None:
        write_page(results, write)
        people.print(f"{write}: written")
    write_json(results, json)


def _measured(name: str, work: Work, results: Results) -> Results:
    from pipeline.bench import sections

    work.scratch.mkdir()
    with Counted(f"{name}: {sections.SECTIONS[name].says}", "steps") as shown:
        return sections.measured(name, work.told(shown.progress, shown.print), results)


def _pairs(given: Sequence[str]) -> Mapping[str, str]:
    """Read NAME=PATH.

    Raises:
        ConfigError: it is not of this form.
    """
    pairs = [pair.partition("=") for pair in given]
    if wrong := [name for name, is_pair, _ in pairs if not is_pair]:
        raise ConfigError(f"--peer-env {wrong[0]}: write NAME=PATH, e.g. ultralytics=/opt/peer")
    return {name: path for name, _, path in pairs}


def _say(results: Results, people: Console) -> None:
    from pipeline.bench.page import rows_of
    from pipeline.bench.sections import SECTIONS

    if not results:
        people.print("nothing was measured yet")
        return
    sections: Mapping[str, Any] = results["sections"]
    for name, taken in sections.items():
        table = Table("what", "figure", "range", title=f"{name}: {SECTIONS[name].says}")
        for row in rows_of(name, taken["figures"]):
            table.add_row(*row)
        people.print(table)
        if taken["quick"]:
            people.print("taken with --quick: too short to be quoted", style="yellow")
    machine = results["machine"]
    people.print(f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}")
