"""How an epoch is mixed from several data sets: so many of each, drawn anew, some mirrored."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.lab.mixture import EpochDraw, Transpose, shares
from pipeline.lab.yolox_family import Turned

SETS = (range(10), range(10, 13))


def test_an_epoch_takes_so_many_pictures_of_each_data_set() -> None:
    drawn = list(EpochDraw(SETS, (4, 2), seed=1))
    assert sum(place < 10 for place in drawn) == 4
    assert sum(place >= 10 for place in drawn) == 2
    assert len(set(drawn)) == len(drawn) == len(EpochDraw(SETS, (4, 2), seed=1))


def test_a_small_data_set_gives_every_picture_as_often_as_it_must() -> None:
    drawn = list(EpochDraw(SETS, (1, 7), seed=1))
    assert sorted(drawn.count(place) for place in SETS[1]) == [2, 2, 3]


def test_every_epoch_is_drawn_anew_and_the_same_seed_draws_the_same() -> None:
    first, second = EpochDraw(SETS, (4, 2), seed=1), EpochDraw(SETS, (4, 2), seed=1)
    epochs = [list(first), list(first)]
    assert epochs[0] != epochs[1]
    assert epochs == [list(second), list(second)]


def labels(height: int, width: int) -> dict[str, Any]:
    image = np.zeros((height, width, 3), np.uint8)
    image[2:4, 5:9] = 255
    boxes = np.array([[5, 2, 9, 4]], np.float32)
    return {"img": image, "instances": SimpleNamespace(bboxes=boxes)}


def test_a_mirrored_picture_keeps_its_box_on_its_mark() -> None:
    turned = Transpose(1.0)(labels(12, 12))
    x0, y0, x1, y1 = turned["instances"].bboxes[0].astype(int)
    assert turned["img"][y0:y1, x0:x1].min() == 255
    assert turned["img"].sum() == turned["img"][y0:y1, x0:x1].sum()


def test_the_second_family_mirrors_in_the_same_way() -> None:
    given = labels(12, 12)
    rows = np.hstack([given["instances"].bboxes, [[3]]])
    image, targets = Turned(lambda image, rows, size: (image, rows), 1.0)(
        given["img"], rows, (12, 12)
    )
    x0, y0, x1, y1, label = targets[0].astype(int)
    assert image[y0:y1, x0:x1].min() == 255
    assert image.sum() == image[y0:y1, x0:x1].sum()
    assert label == 3


@pytest.mark.parametrize(("share", "width"), [(0.0, 12), (1.0, 16)])
def test_a_picture_that_is_not_to_be_mirrored_or_not_square_stays(share: float, width: int) -> None:
    before = labels(12, width)["img"]
    assert np.array_equal(Transpose(share)(labels(12, width))["img"], before)


def test_without_a_mixture_every_picture_is_read_once() -> None:
    assert shares({}, 3) is None


@pytest.mark.parametrize(
    ("mix", "said"),
    [([1, 2, 3], "mixes 3 data sets, the command names 2"), ([0, 1], "from 1"), (5, "not a list")],
)
def test_a_mixture_that_does_not_fit_is_refused(mix: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        shares({"epoch_mix": mix}, 2)
