"""``lineguard demo``: the whole product on one machine in a minute."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import demo as demonstration
from pipeline import schema
from pipeline.cli.output import JsonFile, Rate, line_of, said_to_people, write_json
from pipeline.cli.replay import say_replay
from pipeline.shipped import shipped
from pipeline.station import Tally


def demo(
    boards: Annotated[int, typer.Option(min=1, help="Boards that pass.")] = 12,
    seed: Annotated[int, typer.Option(help="Another seed shows other boards.")] = 7,
    fast: Annotated[
        bool, typer.Option("--fast/--real-time", help="As fast as it goes, or at a belt's pace.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Another station file.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Keep the records in this folder.")] = None,
    json: JsonFile = None,
) -> None:
    """Run a drawn line through the real model; show each verdict as it arrives over MQTT.

    It ends with a summary against the truth. JSON keys: those of replay --truth, and delivered.
    """
    people = said_to_people(json)
    file = config or shipped("configs/demo.yaml")
    delivered = []
    people.print("line: drawn boards  ->  model  ->  verdict  ->  MQTT broker (127.0.0.1)  ->  you")
    with (
        tempfile.TemporaryDirectory(prefix="lineguard-demo-") as scratch,
        Rate("line", "frames") as rate,
    ):

        def begin(tally: Tally, total: int | None) -> None:
            rate.watch(lambda: tally.inspected, total)

        def arrived(event: dict[str, Any]) -> None:
            record = schema.decode(schema.canonical(event["data"]))
            delivered.append(record.id)
            rate.print(line_of(record))

        done = demonstration.demo(
            file,
            store or Path(scratch),
            boards=boards,
            seed=seed,
            realtime=not fast,
            on_start=begin,
            on_message=arrived,
        )
    say_replay(people, done)
    people.print(f"MQTT:     {len(set(delivered))} of {len(done.records)} records arrived")
    write_json(done.figures() | {"delivered": len(set(delivered))}, json)
