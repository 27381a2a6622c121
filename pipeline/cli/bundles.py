"""``lineguard models``: what bundles there are and what is in them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline.bundle import MANIFEST, Bundle, open_bundle
from pipeline.cli.output import JsonFile, said_to_people, write_json
from pipeline.shipped import shipped

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
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")], json: JsonFile = None
) -> None:
    """Show a bundle after checking every file of it against the manifest."""
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
    write_json(_figures(opened), json)


def _figures(bundle: Bundle) -> dict[str, object]:
    return {"sha256": bundle.sha256, **bundle.manifest.model_dump(mode="json")}
