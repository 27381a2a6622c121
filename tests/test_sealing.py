"""Every file of a sealed bundle is covered by a hash, and nothing else lies beside them."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import plugins, sealing
from pipeline.bundle import Bundle, open_bundle
from pipeline.detector import Detector, open_detector
from pipeline.drill import DAMAGES, drill
from pipeline.errors import BundleError, ConfigError, LineguardError, ModelError
from pipeline.onnx_graph import check_graph
from pipeline.selftest import ask, questions_of
from pipeline.signing import Trust, generate, read_trust
from pipeline.trial import Bounds, Order, order_for, surroundings, tried_once, try_model
from tests import tiny
from tests.conftest import REPOSITORY

BOUNDS = Bounds(memory_mb=2048, seconds=60)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """Return a sealed bundle with a card and one golden picture."""
    pytest.importorskip("onnxruntime", reason="pip install 'lineguard[cpu]'")
    folder = tmp_path / "bundle"
    folder.mkdir()
    tiny.bundle(folder)
    (folder / "README.md").write_text("A card.")
    sealing.add_golden(folder, [picture(tmp_path / "grey.png", 100)])
    sealing.seal(folder)
    return folder


def picture(file: Path, level: int) -> Path:
    cv2.imwrite(str(file), np.full((tiny.HEIGHT, tiny.WIDTH, 3), level, np.uint8))
    return file


def detector_of(bundle: Bundle) -> Detector:
    return open_detector(bundle, "onnx", plugins.load("runtimes", "onnx").Options())


def rewrite(folder: Path, **changes: Any) -> Bundle:
    page = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(page))
    return open_bundle(folder)


def tried(folder: Path) -> int:
    options = plugins.load("runtimes", "onnx").Options()
    return try_model(order_for(open_bundle(folder), "onnx", options, "fp32", 0.05, BOUNDS))


def test_a_sealed_bundle_is_well(sealed: Path) -> None:
    opened = open_bundle(sealed)
    opened.check()
    assert opened.manifest.files is not None
    assert set(opened.manifest.files) == {"README.md"}


@pytest.mark.parametrize("name", ["README.md", "golden/01-grey.png", "tiny.onnx"])
def test_a_changed_file_is_refused(sealed: Path, name: str) -> None:
    with (sealed / name).open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(BundleError, match="do not match the manifest"):
        open_bundle(sealed).check()


def test_a_file_that_the_manifest_does_not_name_is_refused(sealed: Path) -> None:
    (sealed / "more.bin").write_bytes(b"1")
    with pytest.raises(BundleError, match=r"more\.bin: the manifest does not name"):
        open_bundle(sealed).check()


def test_a_link_is_refused(sealed: Path) -> None:
    (sealed / "card").symlink_to(sealed / "README.md")
    with pytest.raises(BundleError, match="no links"):
        open_bundle(sealed).check()


def test_the_weights_of_an_openvino_model_are_covered(tmp_path: Path) -> None:
    file, weights = tmp_path / "tiny.xml", tmp_path / "tiny.bin"
    file.write_text("<net/>")
    weights.write_bytes(b"weights")
    artefact: dict[str, Any] = {
        "path": file.name,
        "sha256": tiny.sha256_of(file),
        "runtimes": ["openvino"],
        "precision": "fp32",
    }
    tiny.bundle(tmp_path)
    with pytest.raises(BundleError, match=r"needs the weights_sha256 of its \.bin"):
        rewrite(tmp_path, artefacts={"ir": artefact})
    artefact["weights_sha256"] = tiny.sha256_of(weights)
    rewrite(tmp_path, artefacts={"ir": artefact})
    sealed = sealing.seal(tmp_path)
    assert sealed.checked_file(sealed.manifest.artefacts["ir"]) == file
    weights.write_bytes(b"WEIGHTS")
    with pytest.raises(BundleError, match="do not match"):
        sealed.checked_file(sealed.manifest.artefacts["ir"])


def test_writing_golden_pictures_takes_a_signature_away(sealed: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="pip install 'lineguard[signing]'")
    generate(tmp_path / "key", tmp_path / "key.pub")
    sealing.sign(sealed, tmp_path / "key")
    sealing.add_golden(sealed, [picture(tmp_path / "white.png", 255)])
    assert not (sealed / "manifest.sig").exists()
    assert [g.path for g in open_bundle(sealed).manifest.golden] == ["golden/01-white.png"]


# --- receipts of a trial


class Attempts:
    """Counts how often a model is tried."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, order: Order) -> None:
        self.made += 1


def order_of(folder: Path, **options: Any) -> Order:
    settings = plugins.load("runtimes", "onnx").Options(**options)
    return order_for(open_bundle(folder), "onnx", settings, "fp32", 0.05, BOUNDS)


def load(order: Order, folder: Path | None, attempts: Attempts) -> None:
    with tried_once(order, folder, attempts):
        pass


def test_a_model_that_came_through_is_not_tried_again(sealed: Path, tmp_path: Path) -> None:
    attempts = Attempts()
    for _ in range(3):
        load(order_of(sealed), tmp_path, attempts)
    assert attempts.made == 1


def test_a_bundle_that_differs_in_one_byte_is_tried_again(sealed: Path, tmp_path: Path) -> None:
    attempts = Attempts()
    load(order_of(sealed), tmp_path, attempts)
    with (sealed / "README.md").open("a") as card:
        card.write("!")
    sealing.seal(sealed)
    load(order_of(sealed), tmp_path, attempts)
    load(order_of(sealed, threads=1), tmp_path, attempts)
    assert attempts.made == 3


def test_a_copy_of_the_bundle_elsewhere_needs_no_trial(sealed: Path, tmp_path: Path) -> None:
    attempts = Attempts()
    load(order_of(sealed), tmp_path, attempts)
    shutil.copytree(sealed, tmp_path / "copy")
    load(order_of(tmp_path / "copy"), tmp_path, attempts)
    assert attempts.made == 1


def test_a_load_that_did_not_end_well_costs_the_receipt(sealed: Path, tmp_path: Path) -> None:
    attempts = Attempts()
    load(order_of(sealed), tmp_path, attempts)
    with (
        pytest.raises(ModelError, match="died"),
        tried_once(order_of(sealed), tmp_path, attempts),
    ):
        assert not list(tmp_path.glob("tried-*")), "a station that is killed here must leave none"
        raise ModelError("died")
    load(order_of(sealed), tmp_path, attempts)
    assert attempts.made == 2


def test_a_refused_model_leaves_no_receipt(sealed: Path, tmp_path: Path) -> None:
    def refused(order: Order) -> None:
        raise ModelError("refused")

    with (
        pytest.raises(ModelError, match="refused"),
        tried_once(order_of(sealed), tmp_path, refused),
    ):
        pass
    assert not list(tmp_path.glob("tried-*"))


def test_without_a_folder_of_our_own_every_load_is_tried(sealed: Path) -> None:
    attempts = Attempts()
    for _ in range(2):
        load(order_of(sealed), None, attempts)
    assert attempts.made == 2


def test_another_version_of_any_package_voids_the_receipts(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime-1.30.0.dist-info").mkdir()
    before = surroundings([str(tmp_path)])
    assert surroundings([str(tmp_path)]) == before
    (tmp_path / "onnxruntime-1.30.0.dist-info").rename(tmp_path / "onnxruntime-1.31.0.dist-info")
    assert surroundings([str(tmp_path)]) != before


# --- self-test


def test_the_model_that_the_answers_were_made_with_passes(sealed: Path) -> None:
    opened = open_bundle(sealed)
    detector = detector_of(opened)
    questions = questions_of(opened, "fp32")
    ask(detector, questions)
    assert len(questions) == 1
    assert len(questions[0].expect) == 1


def test_another_model_under_the_same_name_fails(sealed: Path) -> None:
    file = tiny.save(tiny.e2e_model(scores=(0.6, 0.1)), sealed / "tiny.onnx")
    page = json.loads((sealed / "manifest.json").read_text())
    page["artefacts"]["fp32"]["sha256"] = tiny.sha256_of(file)
    opened = tiny.proved(rewrite(sealed, artefacts=page["artefacts"]))
    detector = detector_of(opened)
    with pytest.raises(ModelError, match=r"self-test: .*'scratch' of score .* was not found"):
        ask(detector, questions_of(opened, "fp32"))


def test_exchanged_labels_fail(sealed: Path) -> None:
    opened = tiny.proved(rewrite(sealed, labels=["dent", "scratch"]))
    detector = detector_of(opened)
    with pytest.raises(ModelError, match="must not run"):
        ask(detector, questions_of(opened, "fp32"))


def test_an_answer_with_a_strange_label_is_refused(sealed: Path) -> None:
    page = json.loads((sealed / "manifest.json").read_text())
    page["golden"][0]["expect"]["fp32"][0]["label"] = "hole"
    opened = rewrite(sealed, golden=page["golden"])
    with pytest.raises(BundleError, match="names the label 'hole'"):
        questions_of(opened, "fp32")


def test_no_picture_no_golden(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(ConfigError, match="not a picture"):
        sealing.add_golden(sealed, [tmp_path / "no.png"])


# --- the first load, in a child


def test_a_whole_model_comes_through_its_trial(sealed: Path) -> None:
    assert tried(sealed) == 1


def test_a_model_that_wants_all_memory_dies_alone(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'lineguard[cpu]'")
    tiny.bundle(tmp_path, tiny.bomb_model())
    with pytest.raises(LineguardError) as said:
        tried(tmp_path)
    assert "\n" not in str(said.value)


def test_a_model_whose_answers_differ_does_not_come_through(sealed: Path) -> None:
    tiny.proved(rewrite(sealed, labels=["dent", "scratch"]))
    with pytest.raises(ModelError, match="self-test"):
        tried(sealed)


# --- bounds on the graph


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an ONNX model"),
        (b"\x00" * 40, "not an ONNX model"),
        (b"no model", "not an ONNX model"),
        (b"\x3a\xff\xff\xff\xff\x0f", "cut off"),
        (b"\x3a\x02\x0a\x00" * 1, ""),
        (b"\x3a\x00", "it has no graph"),
        (b"\x42\x05\x0a\x03evl" + b"\x3a\x02\x0a\x00", "of the domain"),
        (b"\xca\x01\x00" + b"\x3a\x02\x0a\x00", "functions of its own"),
    ],
)
def test_an_onnx_file_is_bounded_before_it_is_loaded(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    if not said:
        check_graph(file)
        return
    with pytest.raises(BundleError, match=said):
        check_graph(file)


def test_a_graph_of_too_many_nodes_is_refused(tmp_path: Path) -> None:
    nodes = b"\x0a\x00" * 20_001
    file = tmp_path / "model.onnx"
    file.write_bytes(b"\x3a" + bytes([0x80 | len(nodes) & 0x7F, 0x80 | len(nodes) >> 7 & 0x7F,
                                      len(nodes) >> 14]) + nodes)  # fmt: skip
    with pytest.raises(BundleError, match="a graph of 20001 nodes"):
        check_graph(file)


def test_a_field_count_without_end_is_refused_soon(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"\x08\x00" * 1_000_000)
    with pytest.raises(BundleError, match="more than 500000 fields"):
        check_graph(file)


# --- the drill


def test_every_damaged_bundle_is_refused_and_the_running_model_is_unharmed(
    sealed: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="pip install 'lineguard[signing]'")
    generate(tmp_path / "key", tmp_path / "key.pub")
    sealing.sign(sealed, tmp_path / "key")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    trust = read_trust([tmp_path / "key.pub"])
    outcome = drill(sealed, scratch, lambda folder: loaded(folder, trust), 180)
    assert outcome.accepted == []
    assert outcome.refused == dict.fromkeys(DAMAGES, 180 // len(DAMAGES))
    assert outcome.unharmed


def loaded(folder: Path, trust: Trust) -> Detector:
    opened = open_bundle(folder, trust)
    opened.check()
    detector = detector_of(opened)
    ask(detector, questions_of(opened, "fp32"))
    return detector


def test_the_shipped_bundles_are_as_they_were_sealed() -> None:
    for manifest in (REPOSITORY / "models").glob("*/manifest.json"):
        opened = open_bundle(manifest.parent)
        opened.check()
        assert opened.manifest.golden, f"{manifest.parent}: no golden pictures to ask for"
