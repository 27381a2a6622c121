"""The lab's way from pictures to a bundle that ships, on a data set small enough for a test."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.bundle import Threshold, open_bundle, sha256_of
from pipeline.cli.bundles import is_permissive
from pipeline.errors import ConfigError, MissingExtra
from pipeline.lab import average, datasets, export, families, synth, thaw, torch_env, train
from pipeline.lab.card import CARD
from pipeline.lab.datasets import read_dataset
from pipeline.lab.release import release

LABELS = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
SIZE = 160


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data.yaml of a few drawn boards, its test part being its val."""
    folder = tmp_path_factory.mktemp("data") / "drawn"
    file = synth.write_dataset(folder, images=10, seed=1, size=SIZE, val_share=0.3)
    page = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(page | {"test": page["val"]}))
    return file


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe that trains for seconds."""
    page = {
        "bundle": {"name": "tiny", "version": "0", "size": [SIZE, SIZE]},
        "model": "yolo26n.yaml",
        "epoch_mix": [5, 3],
        "transpose": 0.5,
        "settings": {"imgsz": SIZE, "batch": 4, "epochs": 1, "seed": 1, "optimizer": "AdamW"},
    }
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(yaml.safe_dump(page))
    return file


def test_trained_weights_become_a_bundle_with_figures_and_a_card(
    drawn: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = synth.write_dataset(tmp_path / "more", images=2, seed=2, size=SIZE, val_share=0)
    try:
        torch_env.prepare()
    except MissingExtra as error:
        pytest.skip(str(error))
    laid = _types_of_the_boxes_learnt_from(monkeypatch)
    epochs: list[int] = []
    done = train.train(
        train.read_recipe(recipe),
        [drawn, more],
        tmp_path / "run",
        on_epoch=lambda epoch, of, figures: epochs.append(epoch),
    )
    assert done.weights.is_file()
    assert set(laid) == {"torch.float32"}, "in bfloat16 a box beyond 512 px has steps of 4 px"
    assert done.made_with["pictures"] == [7, 2]
    assert epochs[:1] == [1]
    out = tmp_path / "bundle"
    made = release(done.weights, recipe, drawn, out)
    bundle = open_bundle(out)
    assert bundle.manifest.labels == LABELS
    assert bundle.manifest.made_with["data_sha256"] == done.made_with["data_sha256"]
    assert list(bundle.manifest.metrics) == list(made.metrics) == ["drawn/test"]
    assert "AGPL-3.0" in bundle.manifest.licence
    assert "drawn/test" in (out / CARD).read_text()
    for artefact in bundle.manifest.artefacts.values():
        assert bundle.checked_file(artefact).is_file()
    assert bundle.report() == made.parity
    assert made.parity.ok
    kept, gone = set(bundle.manifest.artefacts), {w.split()[0] for w in made.parity.withdrawn}
    assert "fp32" in kept
    assert {"fp16", "int8", "int8-openvino"} <= kept | gone
    named = {Path(f.path).stem for f in bundle.manifest.artefacts.values()}
    assert {f.stem for f in out.glob("tiny.*")} == named, "what was withdrawn is deleted"


def test_a_recipe_that_reads_the_classic_head_trains_no_other(
    drawn: Path, recipe: Path, tmp_path: Path
) -> None:
    try:
        torch_env.prepare()
    except MissingExtra as error:
        pytest.skip(str(error))
    page = train.read_recipe(recipe) | {"epoch_mix": [4]}
    page["bundle"] = page["bundle"] | {"decoder": "yolo"}
    done = train.train(page, [drawn], tmp_path / "run")
    network = families.family("ultralytics").load(done.weights, LABELS)
    trained = dict(network.module("yolo").named_parameters())
    assert trained
    assert not [name for name in trained if "one2one" in name]
    assert network.onnx(tmp_path, (SIZE, SIZE), "yolo", export.OPSET).is_file()
    with pytest.raises(ConfigError, match="no head that lists each defect once"):
        network.module("yolo-e2e")
    taught = train.train(page, [drawn], tmp_path / "taught", teacher=done.weights)
    assert taught.made_with["teacher_sha256"] == sha256_of(done.weights)
    assert "train/dis_loss" in (tmp_path / "taught" / "results.csv").read_text()
    kept = dict(
        families.family("ultralytics")
        .load(taught.weights, LABELS)
        .module("yolo")
        .named_parameters()
    )
    assert kept.keys() == trained.keys(), "the teacher is no part of what it taught"
    both = average.average([done.weights, taught.weights], tmp_path / "mean")
    assert both.made_with["mean_of_sha256"] == [sha256_of(w.weights) for w in (done, taught)]
    mean = dict(
        families.family("ultralytics").load(both.weights, LABELS).module("yolo").named_parameters()
    )
    for name, tensor in mean.items():
        halves = (trained[name] + kept[name]) / 2
        assert tensor.allclose(halves, rtol=1e-3, atol=1e-6), name
    assert any(not kept[name].allclose(mean[name], rtol=1e-3, atol=1e-6) for name in mean)


def test_a_bundle_is_trained_on_as_it_is_and_as_one_that_compares(
    drawn: Path, recipe: Path, tmp_path: Path
) -> None:
    try:
        torch = torch_env.prepare_torch()
        torch_env.prepare()
    except MissingExtra as error:
        pytest.skip(str(error))
    page = train.read_recipe(recipe) | {"epoch_mix": [4]}
    page["bundle"] = page["bundle"] | {"decoder": "yolo"}
    first = train.train(page, [drawn], tmp_path / "run")
    _export(first.weights, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    pairs = synth.write_dataset(tmp_path / "pairs", images=6, seed=3, size=SIZE, pairs=True)
    plain, mixed = (
        thaw.thawed(
            bundle,
            page["model"],
            read_dataset(data).pictures("train"),
            tmp_path / f"{name}.pt",
            pairs=name == "pairs",
        )
        for name, data in (("plain", drawn), ("pairs", pairs))
    )
    given = torch.rand(1, 3, SIZE, SIZE)
    beside = given.clone()
    beside[:, :2] = torch.rand(1, 2, SIZE, SIZE)  # difference and template: not looked at yet
    answers = {
        name: families.family("ultralytics").load(file, LABELS).module("yolo")(pixels).detach()
        for name, file, pixels in (
            ("trained", first.weights, given[:, 2:].expand(1, 3, SIZE, SIZE)),
            ("thawed", plain, given[:, 2:].expand(1, 3, SIZE, SIZE)),
            ("comparing", mixed, beside),
        )
    }
    for name in ("thawed", "comparing"):
        assert answers[name][:, 4:].allclose(answers["trained"][:, 4:], atol=1e-3), name
    page["bundle"] = page["bundle"] | {"template": True}
    done = train.train(page, [pairs], tmp_path / "on", start=tmp_path / "bundle", epochs=1)
    assert done.made_with["started_from_sha256"] == sha256_of(tmp_path / "on/weights/start.pt")
    with pytest.raises(ConfigError, match="it is of another network"):
        train.train(
            page | {"model": "yolo11n.yaml"}, [pairs], tmp_path / "x", start=tmp_path / "bundle"
        )
    with pytest.raises(ConfigError, match="starts from a checkpoint"):
        train.train(
            page | {"family": "yolox", "model": "yolox-n"},
            [pairs],
            tmp_path / "y",
            start=tmp_path / "bundle",
        )


def _export(weights: Path, out: Path) -> None:
    export.export_bundle(
        weights,
        out,
        name="tiny",
        version="0",
        labels=LABELS,
        size=(SIZE, SIZE),
        head="yolo",
        thresholds={label: Threshold(fail=0.5, unsure=0.3) for label in LABELS},
    )


def test_the_mean_of_networks_is_that_of_their_floats_and_of_one_shape() -> None:
    try:
        torch = torch_env.prepare_torch()
    except MissingExtra as error:
        pytest.skip(str(error))
    one = {"w": torch.tensor([0.0, 2.0]).half(), "steps": torch.tensor(3)}
    two = {"w": torch.tensor([4.0, 7.0]).half(), "steps": torch.tensor(9)}
    found = families.mean({Path("a.pt"): one, Path("b.pt"): two})
    assert found["w"].tolist() == [2.0, 4.5]
    assert found["steps"].item() == 3
    with pytest.raises(ConfigError, match=r"b\.pt: it is of another network than a\.pt"):
        families.mean({Path("a.pt"): one, Path("b.pt"): {"w": torch.zeros(3)}})


def _types_of_the_boxes_learnt_from(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the types in which the loss compares boxes."""
    loss: Any = importlib.import_module("ultralytics.utils.loss").BboxLoss
    forward, seen = loss.forward, []

    def watched(self: Any, distances: Any, boxes: Any, *rest: Any) -> Any:
        seen.append(str(boxes.dtype))
        return forward(self, distances, boxes, *rest)

    monkeypatch.setattr(loss, "forward", watched)
    return seen


@pytest.fixture
def yolox() -> dict[str, Any]:
    """Return a recipe of the permissive family that trains for seconds."""
    return {
        "family": "yolox",
        "model": "yolox-n",
        "epoch_mix": [6],
        "transpose": 0.5,
        "settings": {"imgsz": SIZE, "batch": 3, "epochs": 2, "no_aug_epochs": 1, "seed": 1},
    }


def test_a_network_of_the_permissive_family_becomes_a_bundle_that_says_so(
    drawn: Path, yolox: dict[str, Any], tmp_path: Path
) -> None:
    epochs: list[int] = []
    try:
        done = train.train(
            yolox,
            [drawn],
            tmp_path / "run",
            on_epoch=lambda epoch, of, figures: epochs.append(epoch),
        )
    except MissingExtra as error:
        pytest.skip(str(error))
    assert epochs == [1, 2]
    assert done.made_with["recipe"] == yolox
    parity = export.export_bundle(
        done.weights,
        tmp_path / "bundle",
        name="tiny",
        version="0",
        labels=LABELS,
        size=(SIZE, SIZE),
        thresholds={label: Threshold(fail=0.5, unsure=0.3) for label in LABELS},
        family_name="yolox",
        head="yolox",
        licence="Apache-2.0",
        pictures=datasets.read_dataset(drawn).pictures("val"),
    )
    assert parity.is_good
    assert is_permissive(open_bundle(tmp_path / "bundle").manifest.licence)
    with pytest.raises(ConfigError, match="its labels are"):
        families.family("yolox").load(done.weights, ("dent",))
    same = average.average([done.weights, done.weights], tmp_path / "mean", "yolox")
    once, twice = (
        families.family("yolox").load(file, LABELS).module("yolox").state_dict()
        for file in (done.weights, same.weights)
    )
    assert all(once[name].allclose(twice[name]) for name in once)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"family": "none"}, {}, "family: 'none' is none of: ultralytics, yolox"),
        ({"model": "yolox-q"}, {}, "model: 'yolox-q' is none of"),
        ({}, {"hours": 1.0}, "--hours: the family yolox trains by epochs"),
        ({}, {"teacher": Path(__file__)}, "--teacher: the family yolox learns from data alone"),
        ({}, {"teacher": Path("none.pt")}, "none.pt: no weights to learn from"),
    ],
)
def test_what_a_family_cannot_do_is_refused(
    drawn: Path,
    yolox: dict[str, Any],
    changes: dict[str, Any],
    options: dict[str, Any],
    said: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=said):
        train.train(yolox | changes, [drawn], tmp_path / "run", **options)


def test_the_hash_of_a_data_set_changes_with_one_label(drawn: Path) -> None:
    pictures = datasets.read_dataset(drawn).pictures("train")
    before = train.data_hash(pictures)
    labels = datasets.label_file(pictures[0])
    text = labels.read_text()
    labels.write_text(text + "0 0.5 0.5 0.1 0.1\n")
    after = train.data_hash(pictures)
    labels.write_text(text)
    assert before != after
    assert before == train.data_hash(pictures)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[]", "lacks"), ("model: x", "settings"), ("a: [", "not a readable")],
)
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        train.read_recipe(file)


def test_data_sets_of_other_classes_are_not_mixed(
    drawn: Path, recipe: Path, tmp_path: Path
) -> None:
    try:
        torch_env.prepare()
    except MissingExtra as error:
        pytest.skip(str(error))
    page = yaml.safe_load(drawn.read_text())
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(page | {"names": {0: "scratch"}}))
    with pytest.raises(ConfigError, match="scratch are not those"):
        train.train(train.read_recipe(recipe), [drawn, other], tmp_path / "run")


@pytest.mark.parametrize(
    ("page", "said"),
    [("names: [a]", "no part"), ("- a", "not a YOLO"), ("train: x", "not a YOLO")],
)
def test_a_page_that_is_no_data_set_is_refused(tmp_path: Path, page: str, said: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(page)
    with pytest.raises(ConfigError, match=said):
        datasets.read_dataset(file).pictures("val")


def test_a_label_row_that_is_no_box_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5\n")
    with pytest.raises(ConfigError, match=r"a\.txt"):
        datasets.true_boxes(tmp_path / "images" / "a.png", 10, 10)


def test_the_shipped_card_is_the_one_of_its_manifest() -> None:
    from pipeline.lab.card import card
    from pipeline.shipped import shipped

    for manifest in shipped("models").glob("*/manifest.json"):
        bundle = open_bundle(manifest.parent)
        assert (manifest.parent / CARD).read_text() == card(bundle)
        assert json.loads(manifest.read_text())["metrics"]
