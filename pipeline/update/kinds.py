"""How a release of a model and one of the program are made and proved."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline import plugins
from pipeline.bundle import open_bundle
from pipeline.errors import LineguardError, UpdateError
from pipeline.trial import Bounds, order_for, try_model

INSTALLER = Path("deploy") / "station" / "install.sh"
WHEELS, PROOF = "wheels", "proof"
LONGEST_S = 1800


class ModelKind:
    """A bundle; proved in a bounded child process by its own golden pictures.

    Args:
        runtime: kind of the runtime that will run it.
        artefact: name of the artefact, or None for the first one that the runtime may run.
        bounds: what the child process may take; an engine that is built takes minutes.
    """

    name = "model"

    def __init__(
        self, runtime: str, artefact: str | None = None, bounds: Bounds | None = None
    ) -> None:
        self._runtime = runtime
        self._bounds = bounds or Bounds()
        self._artefact = artefact

    def stage(self, payload: Path, release: Path) -> None:
        try:
            shutil.copytree(payload, release)
        except OSError as error:
            raise UpdateError(f"{release}: {error}; is the disk full?") from error

    def prove(self, release: Path) -> None:
        try:
            bundle = open_bundle(release)
            bundle.check()
            chosen = bundle.artefact_for(self._runtime, self._artefact)
            least = min(t.unsure for t in bundle.manifest.thresholds.values())
            options = plugins.load("runtimes", self._runtime).Options()
            name = bundle.name_of(chosen)
            try_model(order_for(bundle, self._runtime, options, name, least, self._bounds))
        except LineguardError as error:
            raise UpdateError(f"the new model does not prove itself: {error}") from error


class AppKind:
    """A wheelhouse with the installer that knows it.

    The payload holds ``wheels/``, ``deploy/`` of the same version and, if it wants more proof than
    the installer's own, ``proof/`` with clip.mp4, golden.jsonl and station.yaml for a replay.

    Args:
        target: of deploy/targets.toml.
    """

    name = "app"

    def __init__(self, target: str) -> None:
        self._target = target

    def stage(self, payload: Path, release: Path) -> None:
        installer = payload / INSTALLER
        if not installer.is_file():
            raise UpdateError(
                f"the update holds no {INSTALLER}; build it with the whole of deploy/"
            )
        _run(
            ["bash", installer, "--target", self._target, "--offline", payload / WHEELS,
             "--stage", release.name]
        )  # fmt: skip
        if not (release / "bin" / "lineguard").exists():
            raise UpdateError(f"{release}: the installer of the update made no program there")
        proof = payload / PROOF
        if proof.is_dir():
            shutil.copytree(proof, release / PROOF)

    def prove(self, release: Path) -> None:
        program, proof = release / "bin" / "lineguard", release / PROOF
        _run([program, "--help"])
        if proof.is_dir():
            _run(
                [program, "replay", proof / "clip.mp4", "--config", proof / "station.yaml",
                 "--against", proof / "golden.jsonl"]
            )  # fmt: skip


def _run(command: Sequence[str | Path]) -> None:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=LONGEST_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UpdateError(f"{words[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no word why"]
        raise UpdateError(f"{Path(words[0]).name} ended with {done.returncode}: {said[-1][:300]}")
