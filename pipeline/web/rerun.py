"""Shows a stored picture to the model again: in a child with bounds, never in this process."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from pipeline.web.access import Refused
from pipeline.web.board import Board

SECONDS = 90
MEMORY_MB = 4096
NICE = 10
SAID, SAID_OTHERWISE = 0, 1
"""Exit codes of ``lineguard trace``: the same verdict, another one."""

_one_at_a_time = threading.Lock()


def run_again(board: Board, record: dict[str, Any]) -> dict[str, Any]:
    """Return what the model says now of a record's picture, and whether it is the same as then.

    Raises:
        Refused: another part is being run again, there is no picture, the station file names
            another model than the one that decided, or the child did not end well.
    """
    _check(board, record)
    if not _one_at_a_time.acquire(blocking=False):
        raise Refused(503, "another part is being run again; try again in a moment", SECONDS // 10)
    try:
        figures = _traced(board, str(record["id"]))
    finally:
        _one_at_a_time.release()
    return {
        "verdict": figures["verdict_again"],
        "was": record["image_verdict"],
        "same": figures["same"],
        "found": figures["found_again"],
    }


def _check(board: Board, record: dict[str, Any]) -> None:
    """Refuse at once what the child would refuse after it has loaded the model."""
    if board.ledger.picture_file(record["image"]) is None:
        raise Refused(404, "this part's picture was not kept, or was deleted to make room")
    known = {artefact.sha256 for artefact in board.bundle.manifest.artefacts.values()}
    if record["artefact_sha256"] not in known:
        raise Refused(
            400,
            f"the part was decided by {record['bundle']}, of which this bundle has no file; "
            "run it again with: lineguard trace --bundle",
        )


def _traced(board: Board, id: str) -> dict[str, Any]:
    config = board.config
    words = ["trace", id, "--config", str(config.file), "--store", str(config.store_path)]
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words, "--no-chain", "--json", "-"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    _limit(child.pid)
    try:
        said, error = child.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired as late:
        child.kill()
        child.communicate()
        raise Refused(503, f"the model gave no answer within {SECONDS} s") from late
    if child.returncode not in (SAID, SAID_OTHERWISE):
        last = error.strip().rpartition("\n")[2]
        raise Refused(400, last or f"the model's process ended with code {child.returncode}")
    return dict(json.loads(said))


def _limit(pid: int) -> None:
    """Bound a child, and let the station go first; it may have ended already."""
    most = MEMORY_MB << 20
    with suppress(ProcessLookupError, PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
