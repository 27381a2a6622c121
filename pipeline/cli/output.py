"""What all commands print alike: lines and progress for people, JSON for programs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from typing_extensions import Self

from pipeline.cli.lines import words_of
from pipeline.types import Record

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)

STYLES = {"PASS": "green", "FAIL": "bold red", "UNSURE": "yellow"}
REFRESH_S = 0.2


def said_to_people(file: Path | None) -> Console:
    """Return where text for people goes: to the side if standard output carries JSON."""
    return error_console if file is not None and str(file) == "-" else console


def line_of(record: Record) -> str:
    """Return one record as a line, with markup for a terminal."""
    verdict, why, more = words_of(record)
    coloured = f"[{STYLES[record.verdict.value]}]{verdict}[/]"
    faint = f"[dim]{more}[/]" if more else ""
    return f"part {record.part:>4}  {coloured}  {record.latency_ms:6.0f} ms  {escape(why)}{faint}"


class Coloured:
    """Lines on a terminal; see ``lines.Says``."""

    def __init__(self, people: Console) -> None:
        self._people = people

    def print(self, line: str) -> None:
        self._people.print(line)

    def tell(self, record: Record) -> None:
        self._people.print(line_of(record))


class Rate:
    """A progress bar with count, rate and time left, on the side; lines scroll above it."""

    def __init__(self, description: str, unit: str) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} " + unit + "/s"),
            TimeRemainingColumn(),
            console=error_console,
            transient=True,
        )
        self._task = self._bar.add_task(description, total=None, rate=0.0)
        self._count: Callable[[], int] = lambda: 0
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def watch(self, count: Callable[[], int], total: int | None) -> None:
        """Show what ``count`` returns, of ``total`` if that is known."""
        self._count = count
        self._started = time.monotonic()
        self._bar.update(self._task, total=total)

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line)

    def __enter__(self) -> Self:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._bar.stop()

    def _refresh(self) -> None:
        while not self._ended.wait(REFRESH_S):
            count = self._count()
            rate = count / max(time.monotonic() - self._started, 1e-3)
            self._bar.update(self._task, completed=count, rate=rate)


class Counted(Rate):
    """A bar for functions that report (done, total)."""

    def __init__(self, description: str, unit: str) -> None:
        super().__init__(description, unit)
        self._done = 0
        self._total: int | None = None

    def progress(self, done: int, total: int) -> None:
        """Take a report."""
        self._done = done
        if total != self._total:
            self._total = total
            self.watch(lambda: self._done, total)
