"""The option ``--json``, which commands have in common; nothing of a terminal is loaded here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import ConfigError

JsonFile = Annotated[
    Path | None,
    typer.Option("--json", help="Write the figures as JSON to this file; - for standard output."),
]


def write_json(figures: Any, file: Path | None) -> None:
    """Write figures as JSON where ``--json`` asks for it."""
    if file is None:
        return
    text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
    if str(file) == "-":
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; cannot write the figures") from error
