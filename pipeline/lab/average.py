"""Averages the weights of checkpoints of one run: wider optima, which new boards lie in as well.

Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.bundle import sha256_of
from pipeline.errors import ConfigError
from pipeline.lab.families import ULTRALYTICS, check_there, family
from pipeline.lab.train import MADE_WITH, Trained


def average(weights: Sequence[Path], out: Path, family_name: str = ULTRALYTICS) -> Trained:
    """Write the mean of several checkpoints as a run of its own, which ``lab export`` takes.

    Args:
        weights: checkpoints (.pt) of one network, two or more; what the first was made with stays.
        out: folder of the new run.
        family_name: of the network, as a recipe says it.

    Raises:
        ConfigError: there are fewer than two, or they are not of one network and family.
        MissingExtra: the library of the family is not installed.
    """
    if len(weights) < 2:
        raise ConfigError("lab average: name two checkpoints or more")
    for file in weights:
        check_there(file)
    chosen = family(family_name)
    last = out / "weights" / "last.pt"
    last.parent.mkdir(parents=True, exist_ok=True)
    chosen.average(weights, last)
    said = weights[0].parent.parent / MADE_WITH
    made_with: dict[str, Any] = json.loads(said.read_text()) if said.is_file() else {}
    made_with["mean_of_sha256"] = [sha256_of(file) for file in weights]
    (out / MADE_WITH).write_text(json.dumps(made_with, indent=1), encoding="utf-8")
    return Trained(last, made_with)
