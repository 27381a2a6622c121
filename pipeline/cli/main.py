"""The command ``lineguard``: its commands, its exit codes, and errors of one line."""

import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typer.main import get_group

from pipeline.errors import LineguardError

# OpenCV's FFmpeg prints its own lines on damaged files; ours say what, where and what to do.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
# Else pydantic looks for plugins in every package that is installed, and loads what it finds.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

COMMANDS: Mapping[str, str] = {
    "demo": "demo:demo",
    "run": "run:run",
    "health": "health:check_health",
    "replay": "replay:replay",
    "chaos": "chaos:chaos",
    "collect": "collect:collect",
    "doctor": "doctor:doctor",
    "trace": "trace:trace",
    "template": "template:template",
    "bench": "bench:bench",
    "web": "web:web",
    "accounts": "web:accounts",
    "models": "bundles:app",
    "config": "station_file:app",
    "update": "update:app",
    "lab": "lab:app",
}
"""Module and name of each command, or of the group of its commands, in the order of the help."""

EPILOG = (
    "Exit codes: 0 well; 1 a check found a difference; 2 wrong use; 65 update refused; 69 camera, "
    "broker or output not reachable; 70 internal; 74 disk; 78 configuration or model; "
    "130 interrupted."
)


MISUSE: Any = typer.BadParameter.__bases__[0]
"""UsageError of the click that typer brings along or depends on, as its version goes."""


class Imported(Mapping[str, Any]):
    """The commands, each imported when it is asked for: a station must not wait for the others."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(importlib.import_module(f"pipeline.cli.{module}"), attribute)
        holder = typer.Typer(add_completion=False, callback=lambda: None)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
        else:
            holder.command(name=name)(found)
        return get_group(holder).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Commands(TyperGroup):
    """The group of all commands; only the one that is named is imported."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = cast(Any, Imported())

    def list_commands(self, ctx: Any) -> list[str]:
        """Return their names in the order of the help; ``ctx`` is click's and not used."""
        return list(self.commands)


app = typer.Typer(
    name="lineguard",
    cls=Commands,
    help="A defect-inspection station for production lines that can prove its verdicts.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what the station does.")
    ] = False,
) -> None:
    """A defect-inspection station for production lines that can prove its verdicts."""
    gc.enable()  # the command that was named is imported by now
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def main() -> None:
    """Run a command; wrong use and an error that lineguard raises become one line and its code."""
    gc.disable()  # what is imported stays: looking for garbage in it takes a tenth of the start
    try:
        sys.exit(app(prog_name="lineguard", standalone_mode=False))
    except LineguardError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except MISUSE as error:
        _say_misuse(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _say_misuse(error: Any) -> None:
    said = error.format_message().rstrip(".")
    if "\n" in said:
        error.show()
    elif said:  # else a group was named alone, and its help is shown
        command = error.ctx.command_path if error.ctx else "lineguard"
        _say(f"{said}; see: {command} --help")


def _say(error: str) -> None:
    print(f"lineguard: {error}", file=sys.stderr)  # noqa: T201 - this is the error output
