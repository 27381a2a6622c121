"""Data for models that compare: real boards healed or beside a template, drawn ones in pairs."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import ConfigError
from pipeline.lab import pictures, synth
from pipeline.lab.datasets import read_dataset, true_boxes
from pipeline.lab.pairs import write_pairs
from pipeline.synth.defects import KINDS

SIZE = 320


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data.yaml of a few damaged black and white boards."""
    folder = tmp_path_factory.mktemp("boards") / "drawn"
    return synth.write_dataset(
        folder,
        images=6,
        good_share=0.0,
        seed=2,
        size=SIZE,
        looks={"binary": 1.0},
        val_share=0.34,
    )


def channels(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = cv2.imread(str(file))
    return image[..., 0], image[..., 1], image[..., 2]


def test_a_board_is_laid_beside_itself_without_its_defects(boards: Path, tmp_path: Path) -> None:
    written = write_pairs(boards, tmp_path / "pairs", good=True, seed=5)
    source, data = read_dataset(boards), read_dataset(written.data)
    assert data.labels == source.labels
    assert written.good is not None
    for part in ("train", "val"):
        files = data.pictures(part)
        assert [f.stem for f in files] == [f.stem for f in source.pictures(part)]
        for before, file in zip(source.pictures(part), files, strict=True):
            picture, template, difference = channels(file)
            assert (picture == cv2.imread(str(before), cv2.IMREAD_GRAYSCALE)).all()
            assert (difference == cv2.absdiff(picture, template)).all()
            true = true_boxes(file, SIZE, SIZE)
            assert true.xyxy.tolist() == true_boxes(before, SIZE, SIZE).xyxy.tolist()
            for x0, y0, x1, y1 in true.xyxy.clip(0, SIZE).astype(int):
                assert difference[y0:y1, x0:x1].max() > 100, "every defect is a difference"
        good = read_dataset(written.good).pictures(part)
        assert len(good) == len(files)
        for file in good:
            assert len(true_boxes(file, SIZE, SIZE)) == 0
    again = write_pairs(boards, tmp_path / "again", seed=5)
    assert again.good is None
    for one, other in zip(files, read_dataset(again.data).pictures("val"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_pictures_take_the_template_of_their_name(boards: Path, tmp_path: Path) -> None:
    first = read_dataset(boards).pictures("train")[0]
    (tmp_path / "templates").mkdir()
    image = cv2.imread(str(first))
    cv2.imwrite(str(tmp_path / "templates" / f"{first.stem}.png"), image)
    written = write_pairs(boards, tmp_path / "named", template=tmp_path / "templates")
    (only,) = read_dataset(written.data).pictures("train")
    assert only.stem == first.stem
    assert channels(only)[2].max() == 0
    assert "val" not in read_dataset(written.data).parts
    one = tmp_path / "templates" / f"{first.stem}.png"
    with pytest.raises(ConfigError, match=r"synth_00.*does not show what the template shows"):
        write_pairs(boards, tmp_path / "all", template=one)
    (tmp_path / "templates" / "other.png").write_bytes(one.read_bytes())
    one.unlink()
    with pytest.raises(ConfigError, match="no template here that a picture of"):
        write_pairs(boards, tmp_path / "none", template=tmp_path / "templates")


def test_a_defect_that_its_template_shows_too_is_none(boards: Path, tmp_path: Path) -> None:
    old = boards.parent / "images" / "train"
    same = write_pairs(boards, tmp_path / "same", template=old, retake=True)
    for file in read_dataset(same.data).pictures("train"):
        assert len(true_boxes(file, SIZE, SIZE)) == 0
        assert channels(file)[2].max() > 100, "the board is taken anew"
    more = synth.add_defects_to(boards.parent, tmp_path / "more", per_image=2, seed=3)
    page = yaml.safe_load(more.read_text())
    more.write_text(yaml.safe_dump({key: page[key] for key in ("path", "train", "names")}))
    new = write_pairs(more, tmp_path / "new", template=old, retake=True)
    before = read_dataset(boards).pictures("train")
    for file, source in zip(read_dataset(new.data).pictures("train"), before, strict=True):
        first = len(true_boxes(source, SIZE, SIZE))
        added = true_boxes(read_dataset(more).pictures("train")[before.index(source)], SIZE, SIZE)
        assert true_boxes(file, SIZE, SIZE).xyxy.tolist() == added.xyxy[first:].tolist()


def test_the_command_writes_both_and_names_them(boards: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    done = CliRunner().invoke(app, ["lab", "pairs", str(boards), "--out", str(out), "--good"])
    assert done.exit_code == 0, done.output
    said = done.output.replace("\n", "")
    assert str(out / "data.yaml").replace("\n", "") in said
    assert "good.yaml" in said
    nothing = CliRunner().invoke(app, ["lab", "pairs", str(boards), "-o", str(out), "--retake"])
    assert "with --template" in str(nothing.exception)
    refused = CliRunner().invoke(app, ["lab", "pairs", str(boards), "--out", str(out)])
    assert "exists and is not empty" in str(refused.exception)


def test_drawn_boards_come_in_pairs(tmp_path: Path) -> None:
    looks = {"binary": 1.0, "grey": 1.0, "colour": 1.0}
    file = synth.write_dataset(
        tmp_path / "pairs", images=6, seed=4, size=SIZE, looks=looks, val_share=0.0, pairs=True
    )
    assert yaml.safe_load(file.read_text())["names"] == dict(enumerate(KINDS))
    for picture in read_dataset(file).pictures("train"):
        one, template, difference = channels(picture)
        assert (difference == cv2.absdiff(one, template)).all()
        assert np.corrcoef(one.ravel(), template.ravel())[0, 1] > 0.5


def test_the_frozen_set_of_a_model_that_compares_is_of_pairs() -> None:
    one, other = (pictures.drawn(KINDS, 2, pairs=pairs) for pairs in (True, False))
    assert {s.name for s in one}.isdisjoint(s.name for s in other)
    image, true = one[1].load()
    assert (image[..., 2] == cv2.absdiff(image[..., 0], image[..., 1])).all()
    plain, same = other[1].load()
    assert true is not None
    assert same is not None
    assert true.xyxy.tolist() == same.xyxy.tolist()
    assert (image[..., 0] == cv2.cvtColor(plain, cv2.COLOR_BGR2GRAY)).all()
