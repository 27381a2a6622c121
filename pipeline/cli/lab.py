"""``lineguard lab``: data, training, export and evaluation, away from the line."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pipeline import plugins
from pipeline.bundle import open_bundle
from pipeline.cli.output import (
    Counted,
    JsonFile,
    console,
    error_console,
    said_to_people,
    write_json,
)
from pipeline.detector import open_detector
from pipeline.errors import ConfigError
from pipeline.lab import evaluate as evaluation
from pipeline.lab import synth as drawing
from pipeline.quality.intervals import Share

app = typer.Typer(help="Draw data, train, export and evaluate models.", no_args_is_help=True)
synth = typer.Typer(help="Draw bare boards with defects of known size.", no_args_is_help=True)
app.add_typer(synth, name="synth")

Out = Annotated[Path, typer.Option("--out", "-o", help="A folder that is not there yet, or empty.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same bytes.")]


@synth.command()
def dataset(
    out: Out,
    images: Annotated[int, typer.Option(help="Number of pictures.")] = 500,
    good_share: Annotated[float, typer.Option(help="Share of boards without a defect.")] = 0.25,
    look: Annotated[
        list[str] | None,
        typer.Option(help="FAMILY=WEIGHT, repeated: binary, grey, colour. Default: 2, 1, 1."),
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of pictures for validation.")] = 0.1,
    seed: Seed = 0,
) -> None:
    """Write a YOLO data set of drawn boards."""
    looks = drawing.LOOKS if look is None else dict(_weight(text) for text in look)
    with Counted("drawing", "pictures") as shown:
        file = drawing.write_dataset(
            out,
            images=images,
            good_share=good_share,
            seed=seed,
            looks=looks,
            val_share=val_share,
            progress=shown.progress,
        )
    console.print(f"{file}: {images} pictures")


def _weight(text: str) -> tuple[str, float]:
    family, _, weight = text.partition("=")
    try:
        return family, float(weight)
    except ValueError:
        raise ConfigError(f"--look {text}: write FAMILY=WEIGHT, such as binary=1") from None


@synth.command()
def onto(
    source: Annotated[Path, typer.Argument(help="Folder of a YOLO data set of real boards.")],
    out: Out,
    seed: Seed = 0,
) -> None:
    """Add drawn defects to real boards, beside those they have."""
    with Counted("drawing", "pictures") as shown:
        file = drawing.add_defects_to(source, out, seed=seed, progress=shown.progress)
    console.print(f"{file}")


@synth.command()
def line(
    out: Annotated[Path, typer.Option("--out", "-o", help="The video to write (.mp4).")],
    boards: Annotated[int, typer.Option(help="Number of boards on the belt.")] = 12,
    seed: Seed = 0,
) -> None:
    """Write a video of boards on a belt, with its truth and geometry beside it."""
    with Counted("filming", "frames") as shown:
        file = drawing.write_line_video(out, boards=boards, seed=seed, progress=shown.progress)
    console.print(f"{file}")


@app.command()
def train(
    data: Annotated[
        list[Path], typer.Argument(help="data.yaml of each YOLO data set; val is the first one's.")
    ],
    recipe: Annotated[Path, typer.Option(help="Training recipe; see configs/lab/.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    start: Annotated[Path | None, typer.Option(help="Weights (.pt) to start from.")] = None,
    hours: Annotated[float | None, typer.Option(help="End within this time.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the run's last checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="cpu, or the number of a CUDA device.")] = "cpu",
    json: JsonFile = None,
) -> None:
    """Train a detector; a checkpoint is kept after every epoch.

    It starts from random weights unless --start names others.

    JSON keys: weights, made_with.
    """
    from pipeline.lab import train as training  # torch loads for seconds

    def on_epoch(epoch: int, of: int, figures: dict[str, float]) -> None:
        known = ", ".join(f"{k.split('/')[-1]} {v:.3f}" for k, v in figures.items() if "mAP" in k)
        error_console.print(f"epoch {epoch} of {of}: {known}")

    done = training.train(
        training.read_recipe(recipe),
        data,
        out,
        hours=hours,
        epochs=epochs,
        start=start,
        resume=resume,
        device=device,
        on_epoch=on_epoch,
    )
    said_to_people(json).print(
        f"{done.weights}\nnext: lineguard lab export {done.weights} --out models/NAME"
    )
    write_json({"weights": str(done.weights), "made_with": done.made_with}, json)


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="Checkpoint of a training run (.pt).")],
    recipe: Annotated[Path, typer.Option(help="The training recipe, which names the bundle.")],
    data: Annotated[Path, typer.Option(help="data.yaml: thresholds from val, figures from test.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
    good: Annotated[Path | None, typer.Option(help="Folder of defect-free pictures.")] = None,
    json: JsonFile = None,
) -> None:
    """Export a trained detector to a bundle: ONNX, thresholds, measured figures, model card.

    JSON keys: parity, metrics (as of evaluate).
    """
    from pipeline.lab.release import release  # torch loads for seconds

    with Counted("export", "pictures") as shown:
        done = release(weights, recipe, data, out, good, shown.progress)
    people = said_to_people(json)
    people.print(f"{out}: {done.parity}")
    for name, figures in done.metrics.items():
        people.print(f"{name}: mAP50 {figures['map50']:.4f}, mAP50-95 {figures['map50_95']:.4f}")
    write_json({"parity": str(done.parity), "metrics": done.metrics}, json)


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    data: Annotated[Path, typer.Argument(help="data.yaml of a YOLO data set.")],
    part: Annotated[str, typer.Option(help="Part of the data set: train, val or test.")] = "test",
    good: Annotated[Path | None, typer.Option(help="Folder of defect-free pictures.")] = None,
    runtime: Annotated[str, typer.Option(help="Kind of runtime.")] = "onnx",
    artefact: Annotated[str | None, typer.Option(help="Name of an artefact of the bundle.")] = None,
    json: JsonFile = None,
) -> None:
    """Measure a bundle through the station's own detector and rules.

    JSON keys: set, pictures, map50, map50_95, per_class.LABEL.ap50|ap50_95|recall, escapes,
    overkill, false_alarms, unsure, false_alarm_rate, bundle, runtime; a share is count, of,
    share, interval.
    """
    from pipeline.lab.datasets import read_dataset

    opened = open_bundle(bundle)
    options = plugins.load("runtimes", runtime).Options()
    detector = open_detector(opened, runtime, options, artefact, min_score=evaluation.LEAST_SCORE)
    with Counted("evaluate", "pictures") as shown:
        figures = evaluation.evaluate(
            opened, read_dataset(data), part, detector, good, shown.progress
        )
    figures |= {
        "bundle": opened.manifest.name,
        "bundle_sha256": opened.sha256,
        "runtime": detector.runtime.name,
    }
    people = said_to_people(json)
    people.print(_class_table(figures))
    people.print(f"mAP50 {figures['map50']:.4f}   mAP50-95 {figures['map50_95']:.4f}", style="bold")
    for name in ("escapes", "overkill", "false_alarms", "unsure"):
        share = Share(figures[name]["count"], figures[name]["of"])
        people.print(f"{name.replace('_', ' '):<17} {share}")
    write_json(figures, json)


def _class_table(figures: dict[str, Any]) -> Table:
    table = Table("class", "AP50", "AP50-95", "recall at the fail score")
    for label, row in figures["per_class"].items():
        recall = Share(row["recall"]["count"], row["recall"]["of"])
        table.add_row(label, _three(row["ap50"]), _three(row["ap50_95"]), str(recall))
    return table


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
