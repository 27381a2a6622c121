"""What a station at work prints: lines of a log, or, on a terminal, in colours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol, TextIO

from pipeline.types import Record


class Says(Protocol):
    """Somewhere to say what the station does, a line each."""

    def print(self, line: str) -> None: ...

    def tell(self, record: Record) -> None: ...


class Log:
    """Plain lines, however long: a console would wrap them at 80 columns, and takes longer."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def print(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    def tell(self, record: Record) -> None:
        verdict, why, more = words_of(record)
        self.print(f"part {record.part:>4}  {verdict}  {record.latency_ms:6.0f} ms  {why}{more}")


def words_of(record: Record) -> tuple[str, str, str]:
    """Return verdict, reasons, and how many there are more, as a line shows them."""
    more = len(record.reasons) - 2
    said = f" (+{more})" if more > 0 else ""
    return f"{record.verdict.value:<6}", "; ".join(record.reasons[:2]), said


def said_while_running(file: Path | None) -> Says:
    """Return where lines go: to the side if standard output carries JSON.

    Colours are loaded for a terminal alone: they take a tenth of a start, and a service has none.
    """
    stream = sys.stderr if file is not None and str(file) == "-" else sys.stdout
    if not stream.isatty():
        return Log(stream)
    from pipeline.cli.output import Coloured, said_to_people

    return Coloured(said_to_people(file))
