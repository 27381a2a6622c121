"""``lineguard template``: the part that every other one is laid beside."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline import teaching, trace
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import line_of, said_to_people
from pipeline.config import load


def template(
    part: Annotated[
        str, typer.Argument(help="Id of a record, RUN:PART, or a number (of the newest run).")
    ],
    config: Annotated[Path, typer.Option("--config", "-c", help="The station file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write (.png).")],
    store: Annotated[Path | None, typer.Option(help="Another store than the file's.")] = None,
    good: Annotated[
        bool, typer.Option("--good", help="You have looked at it: it is good, though not passed.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Cut a good part out of its stored picture, for a bundle whose model compares.

    Run the station with any bundle and store.pictures: all, and choose a part without a defect that
    lies as the others will. What the command prints belongs under model: in the station file.

    JSON keys: picture, sha256, part. Exit 74: the chain of records is broken; 78: no such part, no
    picture, or a part that did not pass.
    """
    people = said_to_people(json)
    folder = store.resolve() if store else load(config).store_path
    record = trace.find(folder, part).record
    people.print(line_of(record))
    sha256 = teaching.teach(folder, record, out, looked_at=good)
    picture = os.path.relpath(out.resolve(), config.resolve().parent)
    people.print(f"  template:\n    picture: {picture}\n    sha256: {sha256}", soft_wrap=True)
    write_json({"picture": picture, "sha256": sha256, "part": record.part}, json)
