"""Finish a bundle before it leaves the lab: golden pictures, a hash for every file, a signature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import plugins, signing
from pipeline.bundle import (
    MANIFEST,
    SIGNATURE,
    Artefact,
    Bundle,
    GoldenPicture,
    bundle_files,
    open_bundle,
    sha256_of,
)
from pipeline.detector import Detector, open_detector
from pipeline.errors import ConfigError
from pipeline.selftest import LEAST_SCORE, MAX_GOLDEN_PIXELS, rows_of
from pipeline.vision.picture import encode_png, read_picture

GOLDEN = "golden"


def seal(path: Path) -> Bundle:
    """Write the hash of every file into the manifest; a signature that it had is taken away.

    Raises:
        BundleError: a model file or a golden picture differs from what the manifest says already.
    """
    bundle = open_bundle(path)
    named = dict(bundle.named())
    others = [str(f.relative_to(path)) for f in bundle_files(path)]
    files = {name: sha256_of(path / name) for name in others if name not in named}
    sealed = rewritten(bundle, files=files)
    sealed.check()
    return sealed


def sign(path: Path, private: Path) -> Bundle:
    """Seal a bundle and sign its manifest.

    Args:
        path: folder of the bundle.
        private: file of the private key.

    Raises:
        BundleError: as ``seal``.
        ConfigError: the key cannot be used.
    """
    bundle = seal(path)
    page = signing.sign((path / MANIFEST).read_bytes(), private, signing.BUNDLE)
    _write(path / SIGNATURE, page)
    return bundle


def add_golden(path: Path, pictures: Sequence[Path]) -> Bundle:
    """Copy pictures into a bundle and write down what each artefact finds in them.

    They take the place of those it had. An artefact that cannot be run here, because its runtime is
    not installed or knows no such precision, gets no answers, and its self-test then asks for
    nothing.

    Raises:
        ConfigError: a picture cannot be read, or no artefact can be run here.
    """
    bundle = open_bundle(path)
    images = {
        f"{GOLDEN}/{i:02d}-{file.stem}.png": read_picture(file, MAX_GOLDEN_PIXELS)
        for i, file in enumerate(pictures, 1)
    }
    answers: dict[str, dict[str, Any]] = {name: {} for name in images}
    for name, artefact in bundle.manifest.artefacts.items():
        if (detector := _runnable(bundle, name, artefact)) is None:
            continue
        for picture, image in images.items():
            answers[picture][name] = rows_of(detector.detect(image), detector.labels)
        detector.close()
    if not any(answers.values()):
        raise ConfigError(f"{path}: no runtime of its artefacts is installed; see lineguard doctor")
    for golden in bundle.manifest.golden:
        (path / golden.path).unlink(missing_ok=True)
    made = []
    for picture, image in images.items():
        data = encode_png(image)
        _write(path / picture, data)
        made.append(
            GoldenPicture(
                path=picture, sha256=hashlib.sha256(data).hexdigest(), expect=answers[picture]
            )
        )
    return rewritten(bundle, golden=tuple(made))


def _runnable(bundle: Bundle, name: str, artefact: Artefact) -> Detector | None:
    """Open an artefact with the first of its runtimes that can run it on this machine."""
    for kind in artefact.runtimes:
        try:
            options = plugins.load("runtimes", kind).Options()
            return open_detector(
                bundle, kind, options, artefact=name, min_score=LEAST_SCORE, unproved=True
            )
        except ConfigError:  # not installed, or not in this precision
            continue
    return None


def rewritten(bundle: Bundle, **changes: Any) -> Bundle:
    """Write a bundle's manifest with changes and open it; seal and signature are taken away."""
    manifest = bundle.manifest.model_copy(update={"files": None, **changes})
    text = json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n"
    _write(bundle.path / MANIFEST, text.encode())
    (bundle.path / SIGNATURE).unlink(missing_ok=True)
    return open_bundle(bundle.path)


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    half = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(exist_ok=True)
        half.write_bytes(data)
        half.replace(file)
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}; the bundle's folder must be writable"
        ) from error
