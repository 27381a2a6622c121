"""``lineguard bench``: how fast a bundle runs on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import plugins
from pipeline.bundle import open_bundle
from pipeline.cli.output import Counted, JsonFile, said_to_people, write_json
from pipeline.detector import open_detector
from pipeline.lab import bench as benches
from pipeline.shipped import shipped


def bench(
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; else boards-n.")] = None,
    runtime: Annotated[str, typer.Option(help="Kind of runtime.")] = "onnx",
    pictures: Annotated[int, typer.Option(min=1, help="Pictures per round and side.")] = 20,
    json: JsonFile = None,
) -> None:
    """Compare the detector with the bare runtime, in turns in one run.

    JSON keys: raw_ms, detect_ms (median, min, max), detect_over_raw, runtime, machine.
    """
    opened = open_bundle(bundle or shipped("models/boards-n"))
    options = plugins.load("runtimes", runtime).Options()
    detector = open_detector(opened, runtime, options, unproved=True)
    with Counted("bench", "rounds") as shown:
        figures = benches.bench(detector, pictures, shown.progress)
    detector.close()
    people = said_to_people(json)
    for key, said in (("raw_ms", "bare runtime"), ("detect_ms", "window + runtime + decode")):
        ms = figures[key]
        people.print(f"{said:<26} {ms['median']:8.2f} ms ({ms['min']:.2f} to {ms['max']:.2f})")
    people.print(f"{'share of the bare speed':<26} {figures['detect_over_raw']:8.1%}", style="bold")
    people.print(f"{figures['runtime']} on {figures['machine']}")
    write_json(figures, json)
