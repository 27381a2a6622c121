"""Damage a signed bundle in every way that comes to mind and see that each copy is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bundle import MANIFEST, SIGNATURE, bundle_files, sha256_of
from pipeline.detector import Detector
from pipeline.errors import LineguardError
from pipeline.types import Detections

CHECK_EVERY = 25
"""Damaged copies after which the running model must still answer as before."""

Damage = Callable[[Path, random.Random], str]


@dataclass(slots=True)
class Outcome:
    """What became of the damaged bundles.

    Attributes:
        refused: by kind of damage.
        accepted: what was done to those that were not refused.
        unharmed: the running model answered the same, bit for bit, all the time.
        said: one refusal of each kind.
    """

    refused: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    unharmed: bool = True
    said: dict[str, str] = field(default_factory=dict)


def drill(
    bundle: Path,
    scratch: Path,
    load: Callable[[Path], Detector],
    count: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Try to load ``count`` damaged copies of a bundle while the bundle itself runs.

    Args:
        bundle: the whole one, signed.
        scratch: an empty folder; each copy lies there for a moment.
        load: opens a bundle as the station would.

    Raises:
        LineguardError: the whole bundle is refused.
    """
    running = load(bundle)
    before = _answers(running)
    outcome, chance = Outcome(), random.Random(seed)
    kinds = list(DAMAGES)
    for i in range(count):
        kind, copy = kinds[i % len(kinds)], scratch / "damaged"
        shutil.copytree(bundle, copy)
        done = DAMAGES[kind](copy, chance)
        _try(kind, done, copy, load, outcome)
        shutil.rmtree(copy)
        if i % CHECK_EVERY == 0 or i == count - 1:
            outcome.unharmed &= _same(before, _answers(running))
        progress(i + 1, count)
    running.close()
    return outcome


def _try(
    kind: str, done: str, copy: Path, load: Callable[[Path], Detector], outcome: Outcome
) -> None:
    try:
        load(copy).close()
    except LineguardError as error:
        outcome.refused[kind] += 1
        outcome.said.setdefault(kind, str(error))
    else:
        outcome.accepted.append(f"{kind}: {done}")


def _answers(detector: Detector) -> list[Detections]:
    """Return what the running model finds in pictures of noise."""
    pictures = np.random.default_rng(7).integers(0, 256, (2, 240, 320, 3), np.uint8)
    return [detector.detect(picture) for picture in pictures]


def _same(a: list[Detections], b: list[Detections]) -> bool:
    return all(
        np.array_equal(x.xyxy, y.xyxy)
        and np.array_equal(x.score, y.score)
        and np.array_equal(x.label, y.label)
        for x, y in zip(a, b, strict=True)
    )


# -- damages: each changes a copy and says what it did ----------------------------------------


def _flip(copy: Path, chance: random.Random) -> str:
    file = _any_file(copy, chance)
    data = bytearray(file.read_bytes())
    at, bit = chance.randrange(len(data)), chance.randrange(8)
    data[at] ^= 1 << bit
    file.write_bytes(data)
    return f"bit {bit} of byte {at} of {file.name}"


def _truncate(copy: Path, chance: random.Random) -> str:
    file = _any_file(copy, chance)
    size = chance.randrange(file.stat().st_size)
    os.truncate(file, size)
    return f"{file.name} cut to {size} bytes"


def _swap(copy: Path, chance: random.Random) -> str:
    one, other = chance.sample([*bundle_files(copy), copy / MANIFEST, copy / SIGNATURE], 2)
    aside = copy / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    return f"{one.name} and {other.name} swapped"


def _wrong_classes(copy: Path, chance: random.Random) -> str:
    page = _page(copy)
    labels = list(page["labels"])
    if len(labels) > 1 and chance.random() < 0.5:
        page["labels"] = labels[1:] + labels[:1]
    else:
        old, new = labels[0], f"class-{chance.randrange(10**6)}"
        page["labels"][0] = new
        page["thresholds"][new] = page["thresholds"].pop(old)
    _write_page(copy, page)
    return f"labels {', '.join(page['labels'])}"


def _blunt(copy: Path, chance: random.Random) -> str:
    page = _page(copy)
    label = chance.choice(page["labels"])
    page["thresholds"][label] = {"fail": 1.0, "unsure": round(chance.uniform(0.9, 1.0), 6)}
    _write_page(copy, page)
    return f"nothing is a defect of the class {label}"


def _forge(copy: Path, chance: random.Random) -> str:
    """Exchange the weights as somebody would who may write the folder, but has no key."""
    page = _page(copy)
    artefact = page["artefacts"][chance.choice(sorted(page["artefacts"]))]
    file = copy / artefact["path"]
    data = bytearray(file.read_bytes())
    at = chance.randrange(len(data))
    data[at] ^= 0xFF
    file.write_bytes(data)
    artefact["sha256"] = sha256_of(file)
    _write_page(copy, page)
    return f"byte {at} of {file.name}, hashes made to fit"


def _add(copy: Path, chance: random.Random) -> str:
    name = f"more-{chance.randrange(10**6)}.bin"
    (copy / name).write_bytes(chance.randbytes(64))
    return f"{name} added"


def _link(copy: Path, chance: random.Random) -> str:
    file = _any_file(copy, chance)
    aside = copy.parent / "aside"
    shutil.copy(file, aside)
    file.unlink()
    file.symlink_to(aside)
    return f"{file.name} is a link to the same bytes"


def _remove(copy: Path, chance: random.Random) -> str:
    file = _any_file(copy, chance)
    file.unlink()
    return f"{file.name} removed"


DAMAGES: Mapping[str, Damage] = {
    "bit flip": _flip,
    "truncated": _truncate,
    "swapped": _swap,
    "wrong classes": _wrong_classes,
    "blunted thresholds": _blunt,
    "forged weights": _forge,
    "added file": _add,
    "link": _link,
    "removed": _remove,
}


def _any_file(copy: Path, chance: random.Random) -> Path:
    return chance.choice([*bundle_files(copy), copy / MANIFEST, copy / SIGNATURE])


def _page(copy: Path) -> Any:
    return json.loads((copy / MANIFEST).read_bytes())


def _write_page(copy: Path, page: Any) -> None:
    (copy / MANIFEST).write_text(json.dumps(page), encoding="utf-8")
