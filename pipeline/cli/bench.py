"""``lineguard bench``: how fast the whole station is on this machine, and beside what else."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Counted, said_to_people
from pipeline.errors import ConfigError
from pipeline.shipped import shipped

if TYPE_CHECKING:
    from pipeline.bench.sections import Results
    from pipeline.bench.variant import Variant
    from pipeline.bench.work import Work

BUNDLE = "models/boards-n"
NAMES = "stages, e2e, paced, burst, start, density, parts, ledger, against, peers"
NUMBERS, PEERS = "Numbers", "Other programs"

Bundles = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of a bundle; more of other input sizes. Default: boards-n."),
]
Runtime = Annotated[
    str, typer.Option(help="KIND[:KEY=VALUE,...], e.g. openvino:precision=bf16,parts.views=3.")
]
Against = Annotated[str | None, typer.Option(help="Compare with this one, in turns: as --runtime.")]
Only = Annotated[list[str] | None, typer.Option(help=f"Only this section: {NAMES}.")]
Quick = Annotated[bool, typer.Option(help="Below half a minute a section; says less.")]
Measure = Annotated[
    bool, typer.Option("--measure/--no-measure", help="Or say what was measured before.")
]
Kept = Annotated[
    Path, typer.Option(help="Clips and results stay here; a later run goes on from them.")
]
Write = Annotated[
    Path | None, typer.Option(help="Write the page with its plots, e.g. docs/performance.md.")
]
Parts = Annotated[
    int | None, typer.Option(min=1, help="paced, burst: so many parts.", rich_help_panel=NUMBERS)
]
PartsPerMin = Annotated[
    float | None,
    typer.Option(min=1, help="paced: default 600; burst: 12,000.", rich_help_panel=NUMBERS),
]
Cameras = Annotated[
    int | None, typer.Option(min=1, help="density: at most.", rich_help_panel=NUMBERS)
]
Fps = Annotated[
    float | None,
    typer.Option(min=0.1, help="density: of each camera; 10.", rich_help_panel=NUMBERS),
]
DeadlineMs = Annotated[
    float | None, typer.Option(min=1, help="density: default 500.", rich_help_panel=NUMBERS)
]
Records = Annotated[
    int | None,
    typer.Option(
        min=1000, help="ledger: up to so many; 10,000,000 take 20 GB.", rich_help_panel=NUMBERS
    ),
]
Clip = Annotated[Path | None, typer.Option(help="parts: clip of a line.", rich_help_panel=NUMBERS)]
WithPeers = Annotated[
    bool, typer.Option("--peers", help="Measure other programs, too.", rich_help_panel=PEERS)
]
Peer = Annotated[list[str] | None, typer.Option(help="Only this one.", rich_help_panel=PEERS)]
PeerEnvironments = Annotated[
    list[str] | None,
    typer.Option(
        "--peer-env",
        help="NAME=PATH of its environment: ultralytics, roboflow.",
        rich_help_panel=PEERS,
    ),
]
MakeEnvironments = Annotated[
    bool,
    typer.Option("--make-peer-envs", help="Make those not named, with pip.", rich_help_panel=PEERS),
]
Weights = Annotated[
    Path | None, typer.Option(help="Checkpoint (.pt) of the bundle.", rich_help_panel=PEERS)
]
Ours = Annotated[
    str | None, typer.Option(help="How the station runs beside them.", rich_help_panel=PEERS)
]


def bench(
    bundle: Bundles = None,
    runtime: Runtime = "onnx",
    against: Against = None,
    only: Only = None,
    quick: Quick = False,
    measure: Measure = True,
    kept: Kept = Path("runs/bench"),
    write: Write = None,
    parts: Parts = None,
    parts_per_min: PartsPerMin = None,
    cameras: Cameras = None,
    fps: Fps = None,
    deadline_ms: DeadlineMs = None,
    records: Records = None,
    clip: Clip = None,
    peers: WithPeers = False,
    peer: Peer = None,
    peer_env: PeerEnvironments = None,
    make_envs: MakeEnvironments = False,
    weights: Weights = None,
    ours: Ours = None,
    json: JsonFile = None,
) -> None:
    """Measure the whole station: rules, ledger, pictures, gate and broker are always in it.

    Shares and ratios are taken in turns in one run, medians of five with least and most; absolute
    figures belong to the machine that the results describe. What is measured is kept at once:
    --only NAME measures a section again and keeps the others. JSON keys: docs/commands.md.
    """
    # Loaded here: what is measured must not make every other command start later.
    from pipeline.bench import sections, work
    from pipeline.bench.page import write_page

    asked = work.Asked(
        parts, parts_per_min, cameras, fps, deadline_ms, records, clip,
        tuple(peer or ()), weights, ours, _pairs(peer_env or ()), make_envs,
    )  # fmt: skip
    extra = [n for n, is_asked in (("against", against), ("peers", peers)) if is_asked]
    names = sections.chosen(only or (), extra) if measure else ()
    people, file = said_to_people(json), kept / sections.RESULTS
    results = sections.read_results(file)
    if names:
        variants = _variants(runtime, bundle or [shipped(BUNDLE)])
        other = _other(against, names, variants)
        with tempfile.TemporaryDirectory(prefix="lineguard-bench-") as scratch:
            whole = work.Work(variants, Path(scratch), kept, other, quick, asked=asked)
            results = _all_measured(names, whole, results, file)
    show(results, people)
    if write is not None:
        write_page(results, write)
        people.print(f"{write}: written")
    write_json(results, json)


def _variants(runtime: str, bundles: Sequence[Path]) -> tuple[Variant, ...]:
    from pipeline.bench.variant import read_variant

    return tuple(read_variant(runtime, folder) for folder in bundles)


def _other(
    against: str | None, names: Sequence[str], variants: Sequence[Variant]
) -> Variant | None:
    """Return what the first variant is compared with.

    Raises:
        ConfigError: it is to be compared, and nothing was named.
    """
    if against is not None:
        return _variants(against, [variants[0].bundle])[0]
    if "against" in names:
        raise ConfigError("bench: the section 'against' needs --against KIND[:KEY=VALUE,...]")
    return None


def _all_measured(names: Sequence[str], whole: Work, results: Results, file: Path) -> Results:
    """Measure sections one after the other, each in a folder of its own; keep each at once."""
    from pipeline.bench import sections

    for name in names:
        work = replace(whole, scratch=whole.scratch / name)
        results = _measured(name, work, results)
        sections.write_results(results, file)
    return results


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


def show(results: Results, people: Console) -> None:
    """Print what was measured, a table for each section."""
    from pipeline.bench.page import rows_of
    from pipeline.bench.sections import SECTIONS

    if not results:
        people.print("nothing was measured yet")
        return
    sections: Mapping[str, Any] = results["sections"]
    for name, taken in sections.items():
        table = Table("what", "figure", "range", title=f"{name}: {SECTIONS[name].says}")
        for row in rows_of(name, taken["figures"]):
            table.add_row(*map(escape, row))
        people.print(table)
        if taken["quick"]:
            people.print("taken with --quick: too short to be quoted", style="yellow")
    machine = results["machine"]
    people.print(f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}")
