"""Load a model for the first time in a child process, whose death harms nobody.

A model file may crash its runtime, fill the memory or never return. The child has a limit on
memory and time, loads the model as the station would, and runs the self-test. The station loads
what came through, and a receipt saves it the child the next time.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
    name: str
    sha256: str
    runtime: str
    options: dict[str, Any]
    artefact: str
    min_score: float
    memory_mb: int = Field(gt=0)
    seconds: int = Field(gt=0)

    @property
    def where(self) -> str:
        """What is tried, for messages."""
        return f"bundle '{self.name}', {self.artefact}"


def order_for(
    bundle: Bundle, runtime: str, options: Any, artefact: str, min_score: float, bounds: Bounds
) -> Order:
    """Return what a child is told.

    Args:
        runtime: kind of the runtime plugin, with its ``options``.
        artefact: name of the artefact.
    """
    return Order(
        bundle=bundle.path.resolve(),
        name=bundle.manifest.name,
        sha256=bundle.sha256,
        runtime=runtime,
        options=options.model_dump(mode="json"),
        artefact=artefact,
        min_score=min_score,
        memory_mb=bounds.memory_mb,
        seconds=bounds.seconds,
    )


def try_model(order: Order) -> int:
    """Load a model and run its self-test in a child process.

    Returns:
        How many golden pictures were asked.

    Raises:
        LineguardError: what the child raised.
        ModelError: the child died, took too much memory, or did not end in time.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.trial"],
            input=order.model_dump_json().encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=order.seconds + 5,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"{order.where}: the model was not loaded within {order.seconds} s; "
            "it is damaged, or raise model.trial.seconds"
        ) from error
    return _judged(done, order)


@contextmanager
def tried_once(
    order: Order, folder: Path | None, attempt: Callable[[Order], object] = try_model
) -> Iterator[None]:
    """Try a model in a child unless exactly it has come through before; then load it within.

    The receipt is taken away before the ``with`` block and given back after it: a station that
    dies while it loads a model finds none at its next start, and tries the model in a child again.

    Args:
        folder: of the receipts; None keeps none.
    """
    receipt = None if folder is None else folder / f"tried-{_key(order)}"
    if receipt is None or not _taken(receipt):
        attempt(order)
    yield
    if receipt is not None:
        with suppress(OSError):  # a full disk costs the next start a second
            receipt.touch()


def receipts() -> Path | None:
    """Return the folder of the receipts; None if there is none that only we may write to.

    A forged receipt starts no other model, for every hash and the self-test are looked at all the
    same: it only lets a model that may crash do so in the station. systemd's CacheDirectory stays
    when the machine restarts, which a receipt allows: it names what could change by that.
    """
    given = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]  # systemd may name several
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"lineguard-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not stat.S_ISDIR(status.st_mode):
        return None  # somebody else could write there
    return folder


def surroundings(paths: Sequence[str]) -> str:
    """Return what decides how a model runs here, beside the model: one page of text.

    Args:
        paths: where Python's packages are; the names of their ``.dist-info`` have the versions.
    """
    system = os.uname()
    return "\n".join(
        [
            *sorted({f.name for path in paths if path for f in Path(path).glob("*.dist-info")}),
            sys.version,
            sys.prefix,
            *(system.sysname, system.release, system.version, system.machine),
            _read("/sys/module/nvidia/version"),
            *(
                line
                for line in _read("/proc/cpuinfo").partition("\n\n")[0].splitlines()
                if line.startswith(("model name", "flags", "Features", "CPU part"))
            ),
        ]
    )


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _key(order: Order) -> str:
    """Return the hash of what a receipt is for: the same bundle elsewhere is the same.

    The manifest, whose hash this holds, has the hashes of all files.
    """
    page = order.model_dump_json(exclude={"bundle"}) + surroundings(sys.path)
    return hashlib.sha256(page.encode()).hexdigest()


def _taken(receipt: Path) -> bool:
    try:
        receipt.unlink()
    except OSError:
        return False
    return True


def _judged(done: subprocess.CompletedProcess[bytes], order: Order) -> int:
    said = done.stdout[-LARGEST_ANSWER_BYTES:].strip().rpartition(b"\n")[2]
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ModelError(
            f"{order.where}: loading the model ended its process ({_cause(done.returncode)}; "
            f"{order.memory_mb} MiB and {order.seconds} s were allowed); it must not run here"
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
