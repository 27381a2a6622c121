"""An output that writes every command into a file: a witness of its own beside the ledger."""

import json
import os
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import ConfigError, OutputError
from pipeline.plugins import ConfigPath
from pipeline.plugins import Options as BaseOptions
from pipeline.types import Inspection, Verdict


class Options(BaseOptions):
    """Where the lines go.

    Attributes:
        path: the file; it is appended to, and made if it is not there.
    """

    path: ConfigPath


class JournalOutput:
    """Appends a line per command: process, start, monotonic time, and the command.

    A line is one system call: it outlives the process at once, whatever kills it, but is no proof
    against a power cut. The ledger is that; this is what a reject gate saw.
    """

    def __init__(self, options: Options, clock: Clock) -> None:
        self._path = options.path
        self._clock = clock
        self._start = f"{os.getpid()}-{clock.now_ns()}"
        try:
            self._file = os.open(options.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        except OSError as error:
            raise ConfigError(
                f"{options.path}: {error.strerror}; name a file in a folder that may be written to"
            ) from error
        self._closed = False

    def act(self, inspection: Inspection) -> None:
        rejected = inspection.decision.verdict is not Verdict.PASS
        self._write({"part": inspection.part.id, "rejected": rejected})

    def ready(self, is_ready: bool) -> None:
        self._write({"ready": is_ready})

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._file)

    def _write(self, said: dict[str, Any]) -> None:
        if self._closed:
            return
        line = {"pid": os.getpid(), "start": self._start, "t_ns": self._clock.now_ns(), **said}
        try:
            os.write(self._file, json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}; make room there") from error


def create(options: Options, clock: Clock) -> JournalOutput:
    """Open the journal.

    Raises:
        ConfigError: the file cannot be written.
    """
    return JournalOutput(options, clock)
