"""Load a model for the first time in a child process, whose death harms nobody.

A model file may crash its runtime, fill the memory or never return. The child has a limit on
memory and time, loads the model as the station would, and runs the self-test. The station loads
what came through.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline import plugins, selftest
from pipeline.bundle import Bundle, open_bundle
from pipeline.detector import open_detector
from pipeline.errors import BundleError, ConfigError, LineguardError, MissingExtra, ModelError

LARGEST_ANSWER_BYTES = 64 << 10
_ERRORS = {
    kind.__name__: kind
    for kind in (BundleError, ConfigError, MissingExtra, ModelError, LineguardError)
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a child may take: memory that it writes to, MiB, and time, s."""

    memory_mb: int = 4096
    seconds: int = 120


class Order(BaseModel):
    """What a child is told, on its standard input."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    bundle: Path
    sha256: str
    runtime: str
    options: dict[str, Any]
    artefact: str
    min_score: float
    memory_mb: int = Field(gt=0)
    seconds: int = Field(gt=0)


def try_model(
    bundle: Bundle,
    runtime: str,
    options: Any,
    artefact: str,
    min_score: float,
    bounds: Bounds,
) -> int:
    """Load a model and run its self-test in a child process.

    Args:
        runtime: kind of the runtime plugin, with its ``options``.
        artefact: name of the artefact.

    Returns:
        How many golden pictures were asked.

    Raises:
        LineguardError: what the child raised.
        ModelError: the child died, took too much memory, or did not end in time.
    """
    order = Order(
        bundle=bundle.path.resolve(),
        sha256=bundle.sha256,
        runtime=runtime,
        options=options.model_dump(mode="json"),
        artefact=artefact,
        min_score=min_score,
        memory_mb=bounds.memory_mb,
        seconds=bounds.seconds,
    )
    where = f"bundle '{bundle.manifest.name}', {artefact}"
    mark = _mark(order)
    if mark is not None and mark.is_file():
        return len(selftest.questions_of(bundle, artefact))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.trial"],
            input=order.model_dump_json().encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=bounds.seconds + 5,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"{where}: the model was not loaded within {bounds.seconds} s; "
            "it is damaged, or raise model.trial.seconds"
        ) from error
    asked = _judged(done, where, bounds)
    if mark is not None:
        mark.touch()
    return asked


def _mark(order: Order) -> Path | None:
    """Return the file whose presence says that exactly this has come through before.

    It saves a second whenever a station comes back after a crash. It lies where a restart of the
    machine clears it; None if there is no such folder of our own.
    """
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]  # systemd may name several
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"lineguard-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not stat.S_ISDIR(status.st_mode):
        return None  # somebody else could write there
    page = order.model_dump_json(exclude={"bundle"}) + sys.prefix
    return folder / f"tried-{hashlib.sha256(page.encode()).hexdigest()}"


def _judged(done: subprocess.CompletedProcess[bytes], where: str, bounds: Bounds) -> int:
    said = done.stdout[-LARGEST_ANSWER_BYTES:].strip().rpartition(b"\n")[2]
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ModelError(
            f"{where}: loading the model ended its process ({_cause(done.returncode)}; "
            f"{bounds.memory_mb} MiB and {bounds.seconds} s were allowed); it must not run here"
        )
    if "error" in answer:
        raise _ERRORS.get(answer["kind"], ModelError)(answer["error"])
    return int(answer["pictures"])


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """Be the child: do what the order on standard input says and answer with one JSON line."""
    order = Order.model_validate_json(sys.stdin.buffer.read())
    _limit(order)
    try:
        answer: dict[str, Any] = {"pictures": _carried_out(order)}
    except LineguardError as error:
        answer = {"kind": type(error).__name__, "error": str(error)}
    except MemoryError:
        answer = {
            "kind": "ModelError",
            "error": f"{order.bundle}: the model wants more than {order.memory_mb} MiB; refused",
        }
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # what a runtime does at its end no longer matters


def _limit(order: Order) -> None:
    """Bound memory by RLIMIT_DATA: the address space counts reservations that cost nothing."""
    most = order.memory_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (order.seconds * (os.cpu_count() or 1),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _carried_out(order: Order) -> int:
    bundle = open_bundle(order.bundle)
    if bundle.sha256 != order.sha256:
        raise BundleError(f"{order.bundle}: its manifest was changed while it was loaded")
    options = plugins.load("runtimes", order.runtime).Options
    detector = open_detector(
        bundle,
        order.runtime,
        options.model_validate_json(json.dumps(order.options)),
        artefact=order.artefact,
        min_score=order.min_score,
    )
    questions = selftest.questions_of(bundle, order.artefact)
    selftest.ask(detector, questions)
    return len(questions)


if __name__ == "__main__":
    main()
