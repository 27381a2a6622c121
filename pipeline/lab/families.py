"""The libraries that train and export networks, behind one protocol; a recipe names its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from pipeline.bundle import Bundle
from pipeline.errors import ConfigError
from pipeline.lab.graph import Pixels

ULTRALYTICS = "ultralytics"
"""What a recipe means that names no family."""

_MODULES = {ULTRALYTICS: "ultralytics_family", "yolox": "yolox_family"}


@dataclass(frozen=True, slots=True)
class Job:
    """One training run; its arguments are checked.

    Attributes:
        recipe: as ``read_recipe`` returns it.
        data: data.yaml of the one data set that all of them make.
        pictures: of each data set.
        counts: pictures of each in one epoch, drawn anew; None: all of them, once.
        labels: class names.
        out: folder of the run.
        last: the last checkpoint, in that folder.
        hours, epochs: instead of the recipe's epochs, if not None.
        start: weights to start from instead of random ones.
        teacher: weights of a larger network whose features are learnt as well, or None.
        resume: go on from the last checkpoint.
        device: ``cpu``, or the number of a CUDA device.
        on_epoch: told (epoch, of, figures) after each epoch.
    """

    recipe: dict[str, Any]
    data: Path
    pictures: Sequence[Sequence[Path]]
    counts: tuple[int, ...] | None
    labels: tuple[str, ...]
    out: Path
    last: Path
    hours: float | None
    epochs: int | None
    start: Path | None
    teacher: Path | None
    resume: bool
    device: str
    on_epoch: Callable[[int, int, dict[str, float]], None]

    @property
    def transpose(self) -> float:
        """Share of pictures that are mirrored at the diagonal, 0..1."""
        return float(self.recipe.get("transpose", 0.0))

    @property
    def seed(self) -> int:
        return int(self.recipe["settings"].get("seed", 0))


class Network(Protocol):
    """A trained network."""

    pixels: Pixels

    def module(self, head: str, form: str | None = None) -> Any:
        """Return a torch.nn.Module: float32 (1, 3, H, W) of ``pixels`` -> what the head gives.

        Args:
            head: which head, by the decoder that reads it.
            form: what it is to be traced for, such as ``litert``; None: to be run.
        """
        ...

    def onnx(self, folder: Path, size: tuple[int, int], head: str, opset: int) -> Path:
        """Write the same as ONNX into a folder; return the file."""
        ...


class Family(Protocol):
    """A library that trains networks; the modules ``*_family`` of this package are such."""

    HEADS: Sequence[str]

    def train(self, job: Job) -> None:
        """Train; ``job.last`` is the averaged checkpoint then.

        Raises:
            ConfigError: the library cannot do what the recipe or the command asks.
            MissingExtra: the library is not installed.
        """
        ...

    def average(self, weights: Sequence[Path], out: Path) -> None:
        """Write a checkpoint whose tensors are the means of several ones' tensors.

        Raises:
            ConfigError: they are not all of one network of this family.
            MissingExtra: the library is not installed.
        """
        ...

    def thaw(self, job: Job, bundle: Bundle, out: Path) -> Path:
        """Write a checkpoint that computes what a bundle's fp32 artefact does; return it.

        Raises:
            ConfigError: the bundle is not of the recipe's network, or the family cannot do it.
            MissingExtra: the library is not installed.
        """
        ...

    def load(self, weights: Path, labels: Sequence[str]) -> Network:
        """Load a checkpoint.

        Raises:
            ConfigError: it is none of this family, or its labels are others.
            MissingExtra: the library is not installed.
        """
        ...


def family(name: str) -> Family:
    """Return the family that a recipe names.

    Raises:
        ConfigError: there is no such family.
    """
    if name not in _MODULES:
        raise ConfigError(f"family: '{name}' is none of: {', '.join(sorted(_MODULES))}")
    return cast(Family, importlib.import_module(f"pipeline.lab.{_MODULES[name]}"))


def check_there(weights: Path) -> None:
    """Refuse a path without a file.

    Raises:
        ConfigError: there is none.
    """
    if not weights.is_file():
        raise ConfigError(f"{weights}: there are no weights here; train with: lineguard lab train")


def check_labels(weights: Path, known: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse a checkpoint that knows other classes.

    Raises:
        ConfigError: they differ.
    """
    if list(known) != list(labels):
        raise ConfigError(f"{weights}: its labels are {list(known)}, not {list(labels)}")


def mean(states: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of networks' tensors; what counts steps is the first one's.

    Args:
        states: by file, its tensors by name.

    Raises:
        ConfigError: one of them is of another network.
    """
    (first, tensors), *others = states.items()
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for file, other in others:
        if {name: tensor.shape for name, tensor in other.items()} != shapes:
            raise ConfigError(f"{file}: it is of another network than {first}")
    return {
        name: sum(state[name].float() for state in states.values()) / len(states)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in tensors.items()
    }
