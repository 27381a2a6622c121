"""``lineguard trace``: prove what was decided of a part."""

from pathlib import Path
from typing import Annotated

import cv2
import typer

from pipeline import schema
from pipeline import trace as tracing
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import line_of, said_to_people
from pipeline.config import load
from pipeline.errors import ConfigError


def trace(
    part: Annotated[
        str, typer.Argument(help="Id of a record, RUN:PART, or a number (of the newest run).")
    ],
    config: Annotated[Path, typer.Option("--config", "-c", help="The station file.")],
    store: Annotated[Path | None, typer.Option(help="Another store than the file's.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle that decided, if the file names another now.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Write the picture with what was found again, PNG or JPEG.")
    ] = None,
    chain: Annotated[
        bool,
        typer.Option(help="Check the chain of all records; without it name the part by its id."),
    ] = True,
    rerun: Annotated[
        bool, typer.Option("--rerun/--no-rerun", help="Run the stored picture again.")
    ] = True,
    json: JsonFile = None,
) -> None:
    """Rebuild a part's record, check the chain of all records, run its picture again.

    JSON keys: record, records, after (null with --no-chain), verdict_again, same, found_again.
    Exit 0: all is as recorded; 1: the picture gives another verdict; 74: the chain is broken; 78:
    no such part, no picture, or another model.
    """
    people = said_to_people(json)
    station = load(config, _overrides(config, store, bundle))
    found = (tracing.find if chain else tracing.find_alone)(station.store_path, part)
    record = found.record
    people.print(line_of(record))
    people.print(
        f"record {record.id}, run {record.run}, number {record.seq}, {record.time}, "
        f"model {record.bundle} on {record.runtime}"
    )
    if chain:
        people.print(
            f"chain:   whole over {found.records} records; {found.after} later ones vouch for it"
        )
    figures = {"record": schema.as_dict(record), "records": found.records, "after": found.after}
    if not rerun:
        write_json(figures, json)
        return
    again = tracing.rerun(station, record, tracing.stored_picture(station.store_path, record))
    if draw is not None:
        _write_picture(draw, again)
    same = again.verdict is record.image_verdict
    word = record.image_verdict.value if record.image_verdict else "nothing"
    people.print(
        f"picture: {again.verdict.value} now, {word} then: "
        f"{'the same' if same else 'ANOTHER VERDICT'}; {len(again.found)} findings",
        style="bold" if same else "bold red",
    )
    said = {"verdict_again": again.verdict.value, "same": same, "found_again": again.defects()}
    write_json({**figures, **said}, json)
    if not same:
        raise typer.Exit(1)


def _overrides(config: Path, store: Path | None, bundle: Path | None) -> dict[str, object]:
    """Return the sections that replace those of the file."""
    sections: dict[str, object] = {}
    document = load(config).document
    if store is not None:
        sections["store"] = document.store.model_dump() | {"path": str(store.resolve())}
    if bundle is not None:
        sections["model"] = document.model.model_dump() | {"bundle": str(bundle.resolve())}
    return sections


def _write_picture(file: Path, again: tracing.Rerun) -> None:
    try:
        written = cv2.imwrite(str(file), again.picture)
    except cv2.error:
        written = False
    if not written:
        raise ConfigError(f"{file}: cannot be written; name a .png or .jpg in a folder that exists")
