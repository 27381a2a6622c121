"""``lineguard config``: check a station file, print the schemas."""

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as station_file
from pipeline import schema as schemas
from pipeline.cli.output import console
from pipeline.model import open_model

app = typer.Typer(help="Check a station file; print the schemas.", no_args_is_help=True)


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="The station file.")],
    model: Annotated[bool, typer.Option(help="Also load the model and run it once.")] = True,
) -> None:
    """Check a station file: every key, every kind, the model bundle and the recipe."""
    loaded = station_file.load(config)
    if model:
        open_model(loaded).detector.close()
    console.print(f"{config}: well (sha256 {loaded.sha256[:12]})")


@app.command()
def schema(
    record: Annotated[bool, typer.Option("--record", help="Of a record instead.")] = False,
    event: Annotated[bool, typer.Option("--event", help="Of a published event instead.")] = False,
) -> None:
    """Print the JSON Schema of a station file, with the options of every kind."""
    chosen = station_file.schema
    if record:
        chosen = schemas.record_schema
    if event:
        chosen = schemas.event_schema
    typer.echo(json_format.dumps(chosen(), indent=2))
