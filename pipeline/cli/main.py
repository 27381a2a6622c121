"""The command ``lineguard``: its commands, its exit codes, and errors of one line."""

import logging
import os
import sys
from typing import Annotated

import typer

from pipeline.errors import LineguardError

# OpenCV's FFmpeg prints its own lines on damaged files; ours say what, where and what to do.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

from pipeline.cli import (
    bench,
    bundles,
    chaos,
    collect,
    demo,
    doctor,
    health,
    lab,
    replay,
    run,
    station_file,
    trace,
    update,
    web,
)

EPILOG = (
    "Exit codes: 0 well; 1 a check found a difference; 2 wrong use; 65 update refused; 69 camera, "
    "broker or output not reachable; 70 internal; 74 disk; 78 configuration or model; "
    "130 interrupted."
)

app = typer.Typer(
    name="lineguard",
    help="A defect-inspection station for production lines that can prove its verdicts.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(name="demo")(demo.demo)
app.command(name="run")(run.run)
app.command(name="health")(health.check_health)
app.command(name="replay")(replay.replay)
app.command(name="chaos")(chaos.chaos)
app.command(name="collect")(collect.collect)
app.command(name="doctor")(doctor.doctor)
app.command(name="trace")(trace.trace)
app.command(name="bench")(bench.bench)
app.command(name="web")(web.web)
app.add_typer(web.accounts, name="accounts")
app.add_typer(bundles.app, name="models")
app.add_typer(station_file.app, name="config")
app.add_typer(update.app, name="update")
app.add_typer(lab.app, name="lab")


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what the station does.")
    ] = False,
) -> None:
    """A defect-inspection station for production lines that can prove its verdicts."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def main() -> None:
    """Run a command; an error that lineguard raises on purpose becomes one line and its code."""
    try:
        app()
    except LineguardError as error:
        print(f"lineguard: {error}", file=sys.stderr)  # noqa: T201 - this is the error output
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
