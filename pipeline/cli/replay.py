"""``lineguard replay``: a recording through the whole station, against truth or golden records."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline import replay as replaying
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Rate, line_of, said_to_people
from pipeline.config import StationConfig
from pipeline.quality import golden
from pipeline.quality import truth as truths
from pipeline.tally import Tally
from pipeline.types import Record

Source = Annotated[Path, typer.Argument(help="A video file, a picture, or a folder of pictures.")]
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The station file.")]


def replay(
    source: Source,
    config: ConfigFile,
    fast: Annotated[
        bool, typer.Option("--fast/--real-time", help="As fast as it goes, or at its own pace.")
    ] = True,
    truth: Annotated[
        Path | None, typer.Option(help="Truth of the recording (.truth.jsonl): count escapes.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Golden records: exit 1 if any verdict differs.")
    ] = None,
    update_golden: Annotated[
        Path | None, typer.Option(help="Write the golden records of this replay here.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Another runtime than the station file's: onnx, openvino.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="latency: one picture at a time; throughput: one per core at once."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Keep the records in this folder; else they are dropped.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Play a recording through the whole station and say what it decided.

    JSON keys: parts, pass, fail, unsure, frames.captured|inspected|dropped|lost_exposures,
    latency_ms.p50|p99, cpu_ms_per_part; with --truth: true_parts, missed, double, phantom, escapes,
    overkill, escape_rate, overkill_rate, rejected_good_rate; with --against: differences.
    """
    people = said_to_people(json)
    known = truths.read_truth(truth) if truth else None
    expected = golden.read_golden(against) if against else None
    with tempfile.TemporaryDirectory(prefix="lineguard-") as scratch:
        station = replaying.load_for_replay(
            config, source, store or Path(scratch), realtime=not fast, runtime=runtime, mode=mode
        )
        done = _with_progress(station, known)
    parts = golden.golden_parts(done.records)
    if update_golden:
        golden.write_golden(update_golden, parts)
    found = golden.differences(expected, parts) if expected is not None else ()
    say_replay(people, done)
    for difference in found:
        people.print(str(difference), style="bold red")
    compared = {"differences": [str(d) for d in found]} if expected is not None else {}
    write_json(done.figures() | compared, json)
    if found:
        raise typer.Exit(1)


def say_replay(people: Console, done: replaying.Replay) -> None:
    """Print what a replay gave."""
    f = done.figures()
    people.print(
        f"{f['parts']} parts: {f['pass']} pass, {f['fail']} fail, {f['unsure']} unsure",
        style="bold",
    )
    if done.truth:
        people.print(f"escapes:  {done.truth.escapes}")
        people.print(f"overkill: {done.truth.overkill}")
        people.print(
            f"truth:    {done.truth.parts} parts; {done.truth.missed} missed, "
            f"{done.truth.double} counted twice, {done.truth.phantom} that were none"
        )
    n, t = f["frames"], f["latency_ms"]
    people.print(
        f"frames:   {n['captured']} captured = {n['inspected']} inspected + {n['dropped']} dropped"
    )
    if t["p50"] is not None:
        people.print(
            f"latency:  p50 {t['p50']} ms, p99 {t['p99']} ms from exposure to reject command"
        )
    if done.cpu_ms_per_part is not None:
        people.print(f"processor: {done.cpu_ms_per_part} ms per part, all threads")


def _with_progress(
    station: StationConfig, known: tuple[truths.TruePart, ...] | None
) -> replaying.Replay:
    with Rate("replay", "frames") as rate:

        def begin(tally: Tally, total: int | None) -> None:
            rate.watch(lambda: tally.inspected, total)

        def say(record: Record) -> None:
            rate.print(line_of(record))

        return replaying.replay(station, known, begin, say)
