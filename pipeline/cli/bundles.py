"""``lineguard models``: what bundles there are and what is in them."""

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline import config as station_file
from pipeline import sealing, signing
from pipeline.bundle import MANIFEST, Bundle, open_bundle
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Rate, console, error_console, said_to_people
from pipeline.detector import Detector
from pipeline.drill import DAMAGES, drill
from pipeline.errors import BundleError, ConfigError
from pipeline.model import open_model
from pipeline.shipped import shipped

PERMISSIVE = frozenset(
    ("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "Unlicense")
)

app = typer.Typer(
    help="List model bundles; look into one; sign, verify and test one.", no_args_is_help=True
)
Folder = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
Trusted = Annotated[
    list[Path], typer.Option("--key", help="File of a trusted public key; may be given again.")
]


@app.command(name="list")
def list_bundles(
    folder: Annotated[
        Path | None, typer.Option(help="Where bundles lie; else the shipped ones.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """List the bundles of a folder."""
    found = [
        open_bundle(m.parent) for m in sorted((folder or shipped("models")).glob(f"*/{MANIFEST}"))
    ]
    table = Table("name", "version", "labels", "input", "artefacts", "licence")
    for bundle in found:
        m = bundle.manifest
        size = f"{m.input.width} x {m.input.height}{', template' if m.input.template else ''}"
        table.add_row(
            m.name, m.version, ", ".join(m.labels), size, ", ".join(m.artefacts), m.licence
        )
    said_to_people(json).print(table)
    write_json([_figures(bundle) for bundle in found], json)


@app.command()
def info(
    bundle: Folder,
    require_permissive: Annotated[
        bool,
        typer.Option(help="End with 1 unless the weights' licence lets you keep your code closed."),
    ] = False,
    json: JsonFile = None,
) -> None:
    """Show a bundle after checking every file of it against the manifest.

    JSON keys: sha256, permissive, proved, and those of the manifest.
    """
    opened = open_bundle(bundle)
    people = said_to_people(json)
    m = opened.manifest
    people.print(f"{m.name} {m.version}", style="bold")
    people.print(
        f"decoder {m.decoder}, input {m.input.width} x {m.input.height}"
        f"{' beside a template' if m.input.template else ''}, licence {m.licence}"
    )
    for name, artefact in m.artefacts.items():
        opened.checked_file(artefact)
        size = opened.size_of(artefact) / 1e6
        people.print(
            f"  {name}: {artefact.path}, {size:.1f} MB, {artefact.precision}, "
            f"for {', '.join(artefact.runtimes)}, sha256 well"
        )
        if artefact.recheck is not None:
            people.print(
                f"    near a threshold {artefact.recheck.artefact} looks again "
                f"(odds within {artefact.recheck.odds:g})"
            )
    for label, threshold in m.thresholds.items():
        people.print(f"  {label}: fail from {threshold.fail}, unsure from {threshold.unsure}")
    for data in m.data:
        people.print(f"  data: {', '.join(f'{k}: {v}' for k, v in data.items())}")
    proved = _proved(opened)
    people.print(f"  parity: {proved or 'green, every artefact decides as the reference does'}")
    figures = _figures(opened)
    write_json(figures, json)
    if require_permissive and not figures["permissive"]:
        error_console.print(
            f"bundle '{m.name}': the licence of its weights, '{m.licence}', is not permissive; "
            f"deploy a bundle under one of: {', '.join(sorted(PERMISSIVE))}"
        )
        raise typer.Exit(1)


@app.command()
def keygen(
    private: Annotated[Path, typer.Argument(help="File for the private key; it stays secret.")],
    public: Annotated[
        Path | None, typer.Option(help="File for the public key; else PRIVATE.pub.")
    ] = None,
) -> None:
    """Make an Ed25519 key pair to sign bundles with.

    Keep the private key off the stations. Name the public one in the station file:
    model: {trust: {keys: [plant.pub]}}
    """
    shown = public or private.with_name(private.name + ".pub")
    key = signing.generate(private, shown)
    console.print(f"{private}: private key, keep it secret (mode 0600)")
    console.print(f"{shown}: public key {key.id}; stations that name it run what you sign")


@app.command()
def seal(bundle: Folder) -> None:
    """Write the hash of every file of a bundle into its manifest."""
    sealed = sealing.seal(bundle)
    console.print(f"{bundle}: sealed (sha256 {sealed.sha256[:12]})")


@app.command()
def sign(
    bundle: Folder, key: Annotated[Path, typer.Option("--key", help="File of the private key.")]
) -> None:
    """Seal a bundle and sign it: stations that trust the key run it, changed copies they refuse."""
    signed = sealing.sign(bundle, key)
    console.print(f"{bundle}: sealed and signed (sha256 {signed.sha256[:12]})")


@app.command()
def verify(bundle: Folder, key: Trusted, json: JsonFile = None) -> None:
    """Check a bundle's signature and every file of it; nothing of it is run.

    JSON keys: sha256, signed_by, files.
    """
    opened = open_bundle(bundle, signing.read_trust(key))
    opened.check()
    files = len(opened.manifest.files or {}) + len(opened.manifest.golden)
    figures = {
        "sha256": opened.sha256,
        "signed_by": opened.signed_by,
        "files": files + len(opened.manifest.artefacts),
    }
    said_to_people(json).print(
        f"{bundle}: well: signed by {opened.signed_by}, {figures['files']} files as they were"
    )
    write_json(figures, json)


@app.command()
def golden(
    bundle: Folder,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures that show what it must find.")],
) -> None:
    """Put golden pictures into a bundle, with what its model finds in them now.

    The self-test asks for exactly that, at every start and shift. Take pictures of your product
    with clear defects of each class; sign the bundle again afterwards.
    """
    opened = sealing.add_golden(bundle, pictures)
    for picture in opened.manifest.golden:
        found = {name: len(rows) for name, rows in picture.expect.items()}
        console.print(f"{picture.path}: {', '.join(f'{n}: {k}' for n, k in found.items())} found")


@app.command()
def selftest(
    config: Annotated[Path, typer.Argument(help="The station file.")], json: JsonFile = None
) -> None:
    """Load the model of a station file as the station would, and ask it for the golden pictures.

    JSON keys: bundle, sha256, signed_by, runtime, pictures.
    """
    model = open_model(station_file.load(config))
    model.self_test()
    model.detector.close()
    name, pictures = model.bundle.manifest.name, len(model.questions)
    said_to_people(json).print(
        f"{name}: well: {pictures} golden pictures answered as they should be"
        if pictures
        else f"{name}: loads, but has no golden pictures to ask for; see: lineguard models golden"
    )
    figures = {
        "bundle": name,
        "sha256": model.bundle.sha256,
        "signed_by": model.bundle.signed_by,
        "runtime": model.detector.runtime.name,
        "pictures": pictures,
    }
    write_json(figures, json)


@app.command(name="drill")
def drill_bundle(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle; else the shipped one.")] = None,
    runtime: Annotated[str, typer.Option(help="The runtime that loads it.")] = "onnx",
    count: Annotated[int, typer.Option(min=1, help="How many damaged copies.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the damage.")] = 0,
    json: JsonFile = None,
) -> None:
    """Sign a copy of a bundle, run it, and offer damaged copies of it: each must be refused.

    Exit 1 if one was not, or if the running model was harmed. JSON keys: tried, refused, by_kind,
    accepted, unharmed, said.
    """
    people = said_to_people(json)
    with (
        tempfile.TemporaryDirectory(prefix="lineguard-drill-") as scratch,
        Rate("damaging", "copies") as bar,
    ):
        done = [0]
        bar.watch(lambda: done[0], count)
        key, whole = Path(scratch, "key"), Path(scratch, "whole")
        signing.generate(key, Path(scratch, "key.pub"))
        _copy(bundle or shipped("models/boards-n"), whole)
        sealing.sign(whole, key)

        def step(so_far: int, total: int) -> None:
            del total
            done[0] = so_far

        outcome = drill(
            whole,
            Path(scratch),
            lambda folder: _as_a_station_would(folder, Path(scratch, "key.pub"), runtime),
            count,
            seed,
            step,
        )
    for kind in DAMAGES:
        people.print(f"  {kind}: {outcome.refused[kind]} refused", highlight=False)
    for said in outcome.accepted:
        people.print(f"  [bold red]not refused[/]: {said}")
    refused = sum(outcome.refused.values())
    harmed = "unharmed" if outcome.unharmed else "[bold red]harmed[/]"
    people.print(f"{count} damaged bundles: {refused} refused; the running model is {harmed}")
    write_json(
        {"tried": count, "refused": refused, "by_kind": outcome.refused}
        | {k: v for k, v in asdict(outcome).items() if k != "refused"},
        json,
    )
    if refused != count or not outcome.unharmed:
        raise typer.Exit(1)


def _as_a_station_would(folder: Path, key: Path, runtime: str) -> Detector:
    model = {
        "bundle": str(folder),
        "runtime": {"kind": runtime},
        "trust": {"keys": [str(key)]},
    }
    recipe = {"name": "drill"}
    overrides = {"model": model, "recipe": recipe}
    return open_model(station_file.load(shipped("configs/demo.yaml"), overrides)).detector


def _copy(bundle: Path, to: Path) -> None:
    if not (bundle / MANIFEST).is_file():
        raise ConfigError(f"{bundle}: no model bundle here; see: lineguard models list")
    shutil.copytree(bundle, to)


def _figures(bundle: Bundle) -> dict[str, object]:
    return {
        "sha256": bundle.sha256,
        "permissive": is_permissive(bundle.manifest.licence),
        "proved": _proved(bundle) is None,
        **bundle.manifest.model_dump(mode="json"),
    }


def is_permissive(licence: str) -> bool:
    """Say whether a licence, named by its SPDX id at the start, is one of PERMISSIVE."""
    return licence.partition(" ")[0] in PERMISSIVE


def _proved(bundle: Bundle) -> str | None:
    """Return why not every artefact may run where the report looked, or None if each may."""
    try:
        report = bundle.report()
    except BundleError as error:
        return str(error)
    refusals = (
        f"{name}: {why}"
        for name, checked in report.artefacts.items()
        for run in checked.runs
        if (why := checked.refusal(run)) is not None
    )
    return next(refusals, None)
