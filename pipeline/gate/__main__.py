"""The guard's process: ``python -m pipeline.gate FOLDER``, the spec in JSON on standard input."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import plugins
from pipeline.clock import SystemClock
from pipeline.errors import LineguardError, OutputError
from pipeline.gate.guard import Guard
from pipeline.gate.wire import LOCK, Spec, short_path
from pipeline.outputs import Carrier

log = logging.getLogger(__name__)

PRIORITY = -10
"""Niceness that the guard asks for: it needs next to nothing, but at once."""


def main(folder: Path) -> int:
    """Open the outputs, say on standard output how that went, and guard the line."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    spec = Spec.model_validate_json(sys.stdin.read())
    try:
        lock = _locked(folder)
        carriers, leading = _opened(spec)
        listener = _listening(folder)
    except (LineguardError, OSError) as error:
        _say({"error": str(error), "exit_code": getattr(error, "exit_code", 69)})
        return getattr(error, "exit_code", 69)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    guard = Guard(spec, carriers, leading, listener, SystemClock())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: guard.stop())
    log.info("the gate guards as process %d", os.getpid())
    _say({"listening": os.getpid()})
    guard.run()
    listener.close()
    os.close(lock)
    return 0


def _locked(folder: Path) -> int:
    """Take the folder's lock: one guard per store, whatever became of the ones before."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{folder}: another guard holds this store; end it first") from error
    return descriptor


def _opened(spec: Spec) -> tuple[list[Carrier], int | None]:
    carriers: list[Carrier] = []
    leading = None
    try:
        for i, output in enumerate(spec.outputs):
            plugin = plugins.load("outputs", output.kind)
            options: Any = plugin.Options.model_validate_json(json.dumps(output.options))
            carriers.append(plugin.create(options))
            leading = i if options.listen else leading
    except LineguardError:
        for carrier in carriers:
            carrier.close()
        raise
    return carriers, leading


def _listening(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(folder) as path:
        # The lock is ours: what lies there was left by a guard that was killed.
        Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
    listener.listen()
    return listener


def _say(message: dict[str, Any]) -> None:
    """Say the one line that the station waits for; then let go of its pipe.

    A station that was killed meanwhile is no reason to end: the next one finds this guard.
    """
    with suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
