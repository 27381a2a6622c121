"""Draws each epoch's pictures anew from several data sets, and turns some of them over."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.plugins import vendor


class EpochDraw:
    """Draws so many pictures of each data set per epoch, in a new order each time.

    A data set that is asked for more pictures than it has gives each of them as often as it must,
    and the rest by chance.

    Args:
        members: per data set, the places of its pictures in the whole list.
        counts: pictures of each data set in one epoch.
        seed: of the only source of chance.
    """

    def __init__(self, members: Sequence[Sequence[int]], counts: Sequence[int], seed: int) -> None:
        self._members = members
        self._counts = counts
        self._rng = random.Random(seed)

    def __len__(self) -> int:
        return sum(self._counts)

    def __iter__(self) -> Iterator[int]:
        drawn: list[int] = []
        for places, count in zip(self._members, self._counts, strict=True):
            whole, rest = divmod(count, len(places))
            drawn += [*places] * whole + self._rng.sample(places, rest)
        self._rng.shuffle(drawn)
        return iter(drawn)


class Transpose:
    """Mirrors a square picture and its boxes at the diagonal: with both flips, all quarter turns.

    Args:
        share: of pictures that are mirrored, 0..1.
    """

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        image = labels["img"]
        if not turned(image.shape, self._share):
            return labels
        labels["img"] = image.transpose(1, 0, 2).copy()
        boxes = labels["instances"].bboxes  # (n, 4) xyxy or xywh: x and y change places in both
        boxes[:] = boxes[:, [1, 0, 3, 2]]
        return labels


def turned(shape: tuple[int, ...], share: float) -> bool:
    """Say by chance whether a picture of this shape is mirrored at the diagonal: only squares."""
    return shape[0] == shape[1] and random.random() < share


def shares(recipe: Mapping[str, Any], sets: int) -> tuple[int, ...] | None:
    """Return how many pictures of each data set make an epoch; None: all of them, once.

    Raises:
        ConfigError: the recipe's ``epoch_mix`` does not fit the data sets of the command.
    """
    counts = recipe.get("epoch_mix")
    if counts is None:
        return None
    if not isinstance(counts, list) or any(type(n) is not int or n < 1 for n in counts):
        raise ConfigError(f"epoch_mix: {counts!r} is not a list of numbers from 1 upward")
    if len(counts) != sets:
        raise ConfigError(
            f"epoch_mix: the recipe mixes {len(counts)} data sets, the command names {sets}"
        )
    return tuple(counts)


def trainer(
    sets: Sequence[Sequence[Path]], counts: Sequence[int] | None, transpose: float, seed: int
) -> type[Any]:
    """Return ultralytics' detection trainer, reading these pictures in this mixture.

    Args:
        sets: pictures of each data set, in the order of ``counts``.
        counts: pictures of each in one epoch; None: all of them, once.
        transpose: share of pictures that are mirrored at the diagonal, 0..1.
        seed: of the draw.
    """
    base: Any = vendor("ultralytics.models.yolo.detect", "lab").DetectionTrainer
    build = vendor("ultralytics.data.build", "lab")

    class MixtureTrainer(base):  # type: ignore[misc]
        def get_dataloader(
            self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train"
        ) -> Any:
            loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
            if mode != "train":
                return loader
            dataset = loader.dataset
            _turn_over(dataset, transpose)
            if counts is None:
                return loader
            return build.InfiniteDataLoader(
                dataset,
                batch_size=batch_size,
                sampler=EpochDraw(members(dataset.im_files, sets), counts, seed),
                num_workers=loader.num_workers,
                collate_fn=dataset.collate_fn,
                worker_init_fn=build.seed_worker,
            )

        def _close_dataloader_mosaic(self) -> None:
            super()._close_dataloader_mosaic()  # builds the transforms anew
            _turn_over(self.train_loader.dataset, transpose)

    return MixtureTrainer


def _turn_over(dataset: Any, share: float) -> None:
    if share:
        steps = dataset.transforms.transforms
        steps.insert(len(steps) - 1, Transpose(share))  # before they become tensors


def members(files: Sequence[str], sets: Sequence[Sequence[Path]]) -> list[list[int]]:
    """Return, per data set, where its pictures stand among the files that training reads."""
    belongs = {str(path): number for number, pictures in enumerate(sets) for path in pictures}
    members: list[list[int]] = [[] for _ in sets]
    for place, file in enumerate(files):
        members[belongs[file]].append(place)
    return members
