"""``lineguard lab``: data, training, export and evaluation, away from the line."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline import plugins
from pipeline.bundle import open_bundle
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Counted, console, error_console, said_to_people
from pipeline.config import load
from pipeline.detector import open_detector
from pipeline.errors import ConfigError
from pipeline.lab import evaluate as evaluation
from pipeline.lab import synth as drawing
from pipeline.proof import REPORT, Report
from pipeline.quality.intervals import Share
from pipeline.synth.line import BeltSetup

MAX_FLIPS_SHOWN = 20

app = typer.Typer(help="Draw data, train, export and evaluate models.", no_args_is_help=True)
synth = typer.Typer(help="Draw bare boards with defects of known size.", no_args_is_help=True)
app.add_typer(synth, name="synth")

Out = Annotated[Path, typer.Option("--out", "-o", help="A folder that is not there yet, or empty.")]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="Beside those for processors: tensorrt, litert; repeated."),
]
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
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Each beside a template, for models that compare.")
    ] = False,
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
            pairs=pairs,
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
    layout: Annotated[
        int | None, typer.Option(help="All boards are of this layout; else each has its own.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Write a video of boards on a belt, with its truth and geometry beside it."""
    setup = BeltSetup(layout=layout)
    with Counted("filming", "frames") as shown:
        file = drawing.write_line_video(
            out, boards=boards, seed=seed, setup=setup, progress=shown.progress
        )
    console.print(f"{file}")


@app.command()
def pairs(
    data: Annotated[Path, typer.Argument(help="data.yaml of a YOLO data set.")],
    out: Out,
    template: Annotated[
        Path | None,
        typer.Option(help="The template of all pictures, or a folder of one for each, by name."),
    ] = None,
    retake: Annotated[
        bool,
        typer.Option("--retake", help="Take those templates anew; what they show is no defect."),
    ] = False,
    good: Annotated[
        bool, typer.Option("--good", help="Write each board without its defects, too.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Lay each picture beside the template of its board: data for a model that compares.

    Without --template the labelled defects of each picture are healed, and the board is taken
    anew: for black and white boards, labelled as DeepPCB labels them.
    """
    from pipeline.lab.pairs import write_pairs

    with Counted("comparing", "pictures") as shown:
        written = write_pairs(
            data,
            out,
            template=template,
            retake=retake,
            good=good,
            seed=seed,
            progress=shown.progress,
        )
    console.print("\n".join(str(file) for file in (written.data, written.good) if file))


@app.command()
def train(
    data: Annotated[
        list[Path], typer.Argument(help="data.yaml of each YOLO data set; val is the first one's.")
    ],
    recipe: Annotated[Path, typer.Option(help="Training recipe; see configs/lab/.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    start: Annotated[
        Path | None, typer.Option(help="Weights (.pt), or the folder of a bundle, to start from.")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Weights (.pt) of a larger network of the same classes, to learn from."),
    ] = None,
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
        teacher=teacher,
        resume=resume,
        device=device,
        on_epoch=on_epoch,
    )
    _say_weights(done.weights, done.made_with, json)


@app.command()
def average(
    weights: Annotated[list[Path], typer.Argument(help="Checkpoints (.pt) of one network.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new run.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Training recipe; it says the family. Default: ultralytics.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Average the weights of several checkpoints; the mean often does better on new pictures.

    JSON keys: weights, made_with.
    """
    from pipeline.lab import average as averaging  # torch loads for seconds
    from pipeline.lab import train as training
    from pipeline.lab.families import ULTRALYTICS

    named = training.read_recipe(recipe).get("family", ULTRALYTICS) if recipe else ULTRALYTICS
    done = averaging.average(weights, out, named)
    _say_weights(done.weights, done.made_with, json)


def _say_weights(weights: Path, made_with: dict[str, Any], json: Path | None) -> None:
    said_to_people(json).print(f"{weights}\nnext: lineguard lab export {weights} --out models/NAME")
    write_json({"weights": str(weights), "made_with": made_with}, json)


@app.command()
def export(
    weights: Annotated[Path, typer.Argument(help="Checkpoint of a training run (.pt).")],
    recipe: Annotated[Path, typer.Option(help="The training recipe, which names the bundle.")],
    data: Annotated[Path, typer.Option(help="data.yaml: thresholds from val, figures from test.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
    good: Annotated[Path | None, typer.Option(help="Folder of defect-free pictures.")] = None,
    format: Formats = None,
    json: JsonFile = None,
) -> None:
    """Export a trained detector to a bundle: artefacts, thresholds, figures, parity, model card.

    JSON keys: torch, metrics (as of evaluate), parity (as of lab parity).
    """
    from pipeline.lab.release import release  # torch loads for seconds
    from pipeline.lab.variants import variants_for

    variants = variants_for(format or ())
    with Counted("export", "pictures") as shown:
        done = release(weights, recipe, data, out, good, variants, shown.progress)
    people = said_to_people(json)
    people.print(f"{out}: {done.torch}")
    for name, figures in done.metrics.items():
        people.print(f"{name}: mAP50 {figures['map50']:.4f}, mAP50-95 {figures['map50_95']:.4f}")
    _print_report(people, done.parity)
    figures = {
        "torch": str(done.torch),
        "metrics": done.metrics,
        "parity": done.parity.model_dump(mode="json"),
    }
    write_json(figures, json)


@app.command()
def shrink(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle; it is changed.")],
    data: Annotated[Path, typer.Option(help="data.yaml: INT8 from train, parity on val and test.")],
    good: Annotated[Path | None, typer.Option(help="Folder of defect-free pictures.")] = None,
    format: Formats = None,
    json: JsonFile = None,
) -> None:
    """Add half-float and INT8 artefacts to a bundle; those stay that decide as its fp32 one does.

    The last step of lab export, for a bundle that is there already. JSON keys: as of lab parity.
    """
    from pipeline.lab.datasets import read_dataset
    from pipeline.lab.release import with_variants
    from pipeline.lab.variants import variants_for

    variants = variants_for(format or ())
    opened = open_bundle(bundle)
    with Counted("parity", "pictures") as shown:
        report = with_variants(opened, read_dataset(data), good, variants, progress=shown.progress)
    _print_report(said_to_people(json), report)
    write_json(report.model_dump(mode="json"), json)


@app.command()
def parity(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    data: Annotated[
        Path | None, typer.Option(help="data.yaml; its val and test are looked at.")
    ] = None,
    good: Annotated[Path | None, typer.Option(help="Folder of defect-free pictures.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Station file: compare on the runtime it names, as set.")
    ] = None,
    waive: Annotated[
        str | None, typer.Option(help="Why verdicts may flip all the same; needs --by.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    json: JsonFile = None,
) -> None:
    """Compare every artefact of a bundle, on every runtime here, with the fp32 reference.

    With --data or --good the report becomes a file of the bundle: a station runs what is green in
    it, and nothing else. Without, drawn boards are looked at and nothing is written. Ends with 1 if
    a verdict flips or anything else is beyond its limit.

    JSON keys: ok, flips, artefacts.NAME.runs.RUNTIME.ok|flips|failures|figures,
    artefacts.NAME.skipped|waivers, reference, pictures, contract_sha256, withdrawn, made_with.
    """
    from pipeline.lab import prove
    from pipeline.lab.datasets import read_dataset

    if (waive is None) is not (by is None):
        raise ConfigError("--waive and --by belong together: a reason, and who answers for it")
    opened = open_bundle(bundle)
    frozen = prove.frozen_set(opened, read_dataset(data) if data else None, good)
    choices = []
    if config is not None:
        named = load(config).runtime
        choices.append(prove.RuntimeChoice(named.kind, named.options))
    with Counted("parity", "pictures") as shown:
        report = prove.prove(opened, frozen, choices, shown.progress)
    people = said_to_people(json)
    if data is not None or good is not None:
        report = prove.with_earlier(opened, report)
        report = prove.waived(report, by, waive) if by and waive else report
        prove.keep(opened, report)
        people.print(f"{opened.path / REPORT}: written; its hash is in the manifest")
    _print_report(people, report)
    write_json(report.model_dump(mode="json"), json)
    if not report.ok:
        raise typer.Exit(1)


def _print_report(people: Console, report: Report) -> None:
    from pipeline.lab import card

    table = Table("artefact", "runtime", "flips", "no twin", "mAP50-95 lost", "speed", "twice")
    for name, checked in report.artefacts.items():
        for run, found in checked.runs.items():
            figures = found.figures
            if not figures:
                table.add_row(name, run, "failed")
                continue
            unmatched = figures["boxes"]["unmatched"]
            lost = figures.get("map50_95_lost")
            table.add_row(
                name,
                run,
                str(len(found.flips)),
                f"{unmatched['count']} of {unmatched['of']}",
                "-" if lost is None else f"{lost:.4f}",
                f"{card.speed_up(figures):.2f} x",
                card.twice(figures),
            )
    people.print(table)
    for name, checked in report.artefacts.items():
        for run, found in checked.runs.items():
            for why in found.failures:
                people.print(f"{name} on {run}: {why}", style="red")
            for flip in found.flips[:MAX_FLIPS_SHOWN]:
                people.print(f"{name} on {run}: {flip.picture}: {flip.reference} became {flip.got}")
        for kind, why in checked.skipped.items():
            people.print(f"{name} on {kind}: not compared: {why}", style="dim")
    for what, why in report.withdrawn.items():
        people.print(f"withdrawn: {what}: {why}", style="yellow")
    people.print("green" if report.ok else "RED", style="bold green" if report.ok else "bold red")


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

    JSON keys: set, pictures, map33, map50, map50_95, per_class.LABEL.ap33|ap50|ap50_95|recall,
    weakest, escapes, overkill, false_alarms, unsure, false_alarm_rate, bundle, runtime; a share
    is count, of, share, interval.
    """
    from pipeline.lab.datasets import read_dataset

    opened = open_bundle(bundle)
    options = plugins.load("runtimes", runtime).Options()
    detector = open_detector(
        opened, runtime, options, artefact, min_score=evaluation.LEAST_SCORE, unproved=True
    )
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
    said = ("mAP33", "mAP50", "mAP50-95")
    keys = ("map33", "map50", "map50_95")
    people.print(
        "   ".join(f"{name} {figures[key]:.4f}" for name, key in zip(said, keys, strict=True)),
        style="bold",
    )
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
