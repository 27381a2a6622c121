"""``lineguard models``: what bundles there are and what is in them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline.bundle import MANIFEST, Bundle, open_bundle
from pipeline.cli.output import JsonFile, error_console, said_to_people, write_json
from pipeline.errors import BundleError
from pipeline.shipped import shipped

PERMISSIVE = frozenset(
    ("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "Unlicense")
)

app = typer.Typer(help="List model bundles; look into one.", no_args_is_help=True)


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
        size = f"{m.input.width} x {m.input.height}"
        table.add_row(
            m.name, m.version, ", ".join(m.labels), size, ", ".join(m.artefacts), m.licence
        )
    said_to_people(json).print(table)
    write_json([_figures(bundle) for bundle in found], json)


@app.command()
def info(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
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
        f"decoder {m.decoder}, input {m.input.width} x {m.input.height}, licence {m.licence}"
    )
    for name, artefact in m.artefacts.items():
        file = opened.checked_file(artefact)
        size = file.stat().st_size / 1e6
        people.print(
            f"  {name}: {artefact.path}, {size:.1f} MB, {artefact.precision}, "
            f"for {', '.join(artefact.runtimes)}, sha256 well"
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
