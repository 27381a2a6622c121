"""No wrong export passes: each mutant of the shipped model is red, each sound run is green."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pipeline import plugins
from pipeline.assembly import build
from pipeline.bundle import Bundle, Recheck, open_bundle, sha256_of
from pipeline.clock import SystemClock
from pipeline.config import load
from pipeline.detector import Detector, open_detector
from pipeline.errors import BundleError, ConfigError
from pipeline.lab import parity, pictures, prove, quantize
from pipeline.lab.evaluate import LEAST_SCORE
from pipeline.lab.export import tensors_of
from pipeline.proof import REPORT, Checked, Report, Run
from pipeline.shipped import shipped
from pipeline.types import Detections
from tests import mutants, tiny
from tests.doubles import without_bf16

BOARDS, PROBES, CALIBRATION = 6, 2, 4
Made = dict[str, Run]


@pytest.fixture(scope="module")
def boards() -> Bundle:
    return open_bundle(shipped("models/boards-n"))


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(scope="module")
def drawn(boards: Bundle) -> list[pictures.Sample]:
    return list(pictures.drawn(boards.manifest.labels, BOARDS))


@pytest.fixture(scope="module")
def quantised(
    boards: Bundle, drawn: list[pictures.Sample], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Return the shipped model as ONNX with INT8 inside."""
    pytest.importorskip("onnxruntime")
    size = (boards.manifest.input.height, boards.manifest.input.width)
    shown = [sample.load()[0] for sample in drawn[:CALIBRATION]]
    source = boards.checked_file(boards.manifest.artefacts["fp32"])
    out = tmp_path_factory.mktemp("int8") / "int8.onnx"
    return onnx.load(quantize.int8_for_processors(source, out, list(tensors_of(shown, size))))


@pytest.fixture(scope="module")
def compared(
    boards: Bundle,
    drawn: list[pictures.Sample],
    quantised: Any,
    stack: ExitStack,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Made, pictures.FrozenSet]:
    """Return the runs of the shipped model, of its mutants, and the set they were compared on."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("mutants")
    artefact = boards.manifest.artefacts["fp32"]
    source = boards.checked_file(artefact)
    model = onnx.load(source)
    size = (boards.manifest.input.height, boards.manifest.input.width)
    half = quantize.half_onnx(source, folder / "half.onnx")

    def detector(name: str, made: Any) -> Detector:
        home = folder / name
        home.mkdir()
        file = tiny.save(made, home / artefact.path)
        named = artefact.model_copy(update={"sha256": sha256_of(file)})
        manifest = boards.manifest.model_copy(update={"artefacts": {name: named}})
        opened = open_detector(
            Bundle(home, manifest, ""),
            "onnx",
            plugins.load("runtimes", "onnx").Options(),
            min_score=LEAST_SCORE,
            unproved=True,
        )
        stack.callback(opened.close)
        return opened

    reference = detector("reference", model)
    classes = len(boards.manifest.labels)
    runs: dict[str, tuple[parity.Looks, str]] = {
        "sound": (detector("sound", model), "fp32"),
        "sound int8": (detector("sound-int8", quantised), "int8"),
        "sound half": (detector("sound-half", onnx.load(half)), "fp16"),
        "colours": (detector("colours", mutants.swapped_colours(model)), "fp32"),
        "scale": (detector("scale", mutants.wrong_scale(model)), "fp32"),
        "scales": (detector("scales", mutants.broken_scales(quantised)), "int8"),
        "doubles": (mutants.without_suppression(detector("doubles", model)), "fp32"),
        "labels": (detector("labels", mutants.permuted_labels(model, classes)), "fp32"),
        "stretched": (mutants.Stretching(reference), "fp32"),
    }
    frozen = pictures.FrozenSet((*drawn, *pictures.probes(drawn, size, PROBES)), {})
    return parity.compare(boards, reference, runs, frozen.samples), frozen


def test_half_floats_of_a_model_are_the_same_each_time(boards: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    source = boards.checked_file(boards.manifest.artefacts["fp32"])
    files = [quantize.half_onnx(source, tmp_path / f"{n}.onnx").read_bytes() for n in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize("export", ["sound", "sound half"])
def test_a_sound_export_is_green(export: str, compared: tuple[Made, pictures.FrozenSet]) -> None:
    run = compared[0][export]
    assert run.ok, run
    assert run.figures["boxes"]["unmatched"]["of"] > 20, "the pictures show too little"


MUTANTS = ("colours", "scale", "scales", "doubles", "labels", "stretched")


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_export_is_red(mutant: str, compared: tuple[Made, pictures.FrozenSet]) -> None:
    run = compared[0][mutant]
    assert not run.ok
    assert run.failures, "it must be seen in what is found, not by a lucky flip alone"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_limits_of_int8_let_no_wrong_export_through_either(
    mutant: str, compared: tuple[Made, pictures.FrozenSet]
) -> None:
    assert parity.failures(compared[0][mutant].figures, parity.LIMITS["int8"])


def test_quantised_scales_are_what_makes_the_broken_one_red(
    compared: tuple[Made, pictures.FrozenSet],
) -> None:
    sound, broken = compared[0]["sound int8"].figures, compared[0]["scales"].figures
    assert sound["tensors"]["median"] < broken["tensors"]["median"] / 3


def test_the_body_of_an_int8_model_computes_in_bytes_and_its_head_in_floats(quantised: Any) -> None:
    made_by = {name: node for node in quantised.graph.node for name in node.output}
    behind = quantize.nodes_behind(quantised.graph, quantize.head_convolutions(quantised))
    head = {node.name for node in behind}
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in behind}
    body = [n for n in quantised.graph.node if n.op_type in quantize.BODY and n.name not in head]
    floats = [n.name for n in body if made_by[n.input[0]].op_type != "DequantizeLinear"]
    assert len(body) > 250
    assert floats == []


def test_what_is_for_tensorrt_casts_the_picture_before_all_else(boards: Bundle) -> None:
    model = onnx.load(boards.checked_file(boards.manifest.artefacts["fp32"]))
    changed = quantize.cast_first(model)
    onnx.checker.check_model(changed)
    (first,) = [n for n in changed.graph.node if changed.graph.input[0].name in n.input]
    assert first.op_type == "Cast"


def test_the_head_ends_in_its_six_last_convolutions(boards: Bundle) -> None:
    model = onnx.load(boards.checked_file(boards.manifest.artefacts["fp32"]))
    names = [node.name for node in quantize.head_convolutions(model)]
    assert len(names) == 6
    last = {name.split("/")[-2] for name in names}
    assert last == {f"{branch}.{level}.2" for branch in ("cv2", "cv3") for level in range(3)}


# --- the report


def report_of(tmp_path: Path, **runs: Any) -> Bundle:
    return tiny.proved(tiny.bundle(tmp_path), **runs)


FLIPPED = {"ok": False, "flips": [{"picture": "a.png", "reference": "FAIL", "got": "PASS"}]}
WRONG = {"ok": False, "failures": ["its outputs are 3 off; 0.001 is allowed"]}


def run_onnx(bundle: Bundle) -> None:
    plugin = plugins.load("runtimes", "onnx")
    open_detector(bundle, "onnx", plugin.Options(threads=1)).close()


def test_a_green_artefact_runs(tmp_path: Path) -> None:
    run_onnx(report_of(tmp_path))


@pytest.mark.parametrize(
    ("run", "said"),
    [(FLIPPED, "flips 1 verdicts, e.g. of a.png"), (WRONG, "differs from the reference")],
)
def test_a_red_artefact_does_not_run(run: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        run_onnx(report_of(tmp_path, onnx_cpu=run))
    assert "\n" not in str(caught.value)


def test_an_artefact_runs_on_no_runtime_on_which_it_was_not_compared(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    plugin = plugins.load("runtimes", "openvino")
    bundle = tiny.bundle(tmp_path)
    page = json.loads((tmp_path / REPORT).read_text())
    del page["artefacts"]["fp32"]["runs"]["openvino/CPU/f32"]
    bundle = written(bundle, page)
    with pytest.raises(BundleError, match="not compared on 'openvino/CPU/f32'"):
        open_detector(bundle, "openvino", plugin.Options(threads=1))


def written(bundle: Bundle, page: Any) -> Bundle:
    """Write another report into a bundle, with its hash in the manifest."""
    (bundle.path / REPORT).write_text(json.dumps(page))
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["parity"] = {"path": REPORT, "sha256": sha256_of(bundle.path / REPORT)}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    return open_bundle(bundle.path)


def _unlist(page: Any) -> None:
    page["parity"] = None


def _move_threshold(page: Any) -> None:
    page["thresholds"]["dent"]["fail"] = 0.95


def _other_bytes(page: Any) -> None:
    page["parity"]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_unlist, "has no parity report"),
        (_move_threshold, "thresholds have changed since"),
        (_other_bytes, "do not match the manifest"),
    ],
)
def test_a_report_that_is_not_about_this_bundle_does_not_count(
    change: Callable[[Any], None], said: str, tmp_path: Path
) -> None:
    bundle = tiny.bundle(tmp_path)
    page = json.loads((bundle.path / "manifest.json").read_text())
    change(page)
    (bundle.path / "manifest.json").write_text(json.dumps(page))
    with pytest.raises(BundleError, match=said):
        run_onnx(open_bundle(bundle.path))


def test_a_deleted_report_is_a_missing_one(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path)
    (tmp_path / REPORT).unlink()
    with pytest.raises(BundleError, match="it is missing"):
        run_onnx(bundle)


def test_a_report_that_calls_itself_green_over_flips_is_refused(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path)
    page = json.loads((tmp_path / REPORT).read_text())
    page["artefacts"]["fp32"]["runs"]["onnx/cpu"] = FLIPPED | {"ok": True}
    with pytest.raises(BundleError, match="contradicts the flips"):
        run_onnx(written(bundle, page))


def test_a_station_does_not_start_on_a_red_bundle(tmp_path: Path) -> None:
    bundle = report_of(tmp_path, onnx_cpu=FLIPPED)
    config = load(
        shipped("configs/demo.yaml"),
        {
            "camera": {"kind": "synthetic", "boards": 1},
            "model": {"bundle": str(bundle.path), "runtime": {"kind": "onnx"}},
            "recipe": {"name": "any"},
            "store": {"path": str(tmp_path / "store")},
        },
    )
    with pytest.raises(BundleError, match="flips 1 verdicts"):
        build(config, SystemClock())
    assert not (tmp_path / "store").exists()


def test_flips_can_be_waived_by_a_named_person_and_nothing_else_can(tmp_path: Path) -> None:
    red = report_of(tmp_path, onnx_cpu=FLIPPED)
    waived = prove.waived(red.report(), "A. Person", "a scratch on a test board")
    assert not waived.ok
    run_onnx(prove.keep(red, waived))
    (waiver,) = waived.artefacts["fp32"].waivers
    assert (waiver.run, waiver.flips, waiver.by) == ("onnx/cpu", 1, "A. Person")


def test_what_differs_in_more_than_verdicts_cannot_be_waived(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to waive"):
        prove.waived(report_of(tmp_path, onnx_cpu=WRONG).report(), "A. Person", "because")


def test_a_waiver_does_not_cover_other_flips(tmp_path: Path) -> None:
    red = report_of(tmp_path, onnx_cpu=FLIPPED)
    page = prove.waived(red.report(), "A. Person", "why").model_dump(mode="json")
    page["artefacts"]["fp32"]["runs"]["onnx/cpu"]["flips"].append(
        {"picture": "b.png", "reference": "FAIL", "got": "PASS"}
    )
    page["flips"] = 2
    with pytest.raises(BundleError, match="flips 2 verdicts"):
        run_onnx(written(red, page))


# --- the gate as a command

FEW = pictures.FrozenSet(pictures.drawn(("a", "b"), 3), {"drawn": 3})


def test_without_a_data_set_boards_are_drawn(tmp_path: Path) -> None:
    frozen = prove.frozen_set(tiny.bundle(tmp_path))
    assert frozen.sets["drawn"] == prove.DRAWN
    assert {s.name.split()[0] for s in frozen.samples if not s.judged} == {
        "tinted",
        "wide",
        "noise",
    }


def unproved(folder: Path) -> Bundle:
    """Return a bundle for the runtimes that run it, without a report."""
    pytest.importorskip("onnxruntime")
    bundle = tiny.bundle(folder, parity=None)
    artefact = bundle.manifest.artefacts["fp32"].model_copy(
        update={"runtimes": ("onnx", "openvino")}
    )
    return prove.rewrite(bundle, artefacts={"fp32": artefact})


def test_the_gate_finds_a_bundle_of_equals_green_and_writes_its_report(tmp_path: Path) -> None:
    bundle = unproved(tmp_path)
    report = prove.prove(bundle, FEW)
    assert report.ok, report
    assert report.pictures["judged"] == 3
    kept = prove.keep(bundle, report)
    assert kept.report() == report
    run_onnx(kept)


def test_a_red_artefact_is_taken_out_before_a_bundle_ships(tmp_path: Path) -> None:
    bundle = unproved(tmp_path)
    other = tiny.save(tiny.e2e_model(scores=(0.4, 0.1)), tmp_path / "other.onnx")
    named = bundle.manifest.artefacts["fp32"].model_copy(
        update={"path": other.name, "sha256": sha256_of(other), "precision": "int8"}
    )
    bundle = prove.rewrite(bundle, artefacts={**bundle.manifest.artefacts, "int8": named})
    report = prove.prove(bundle, FEW)
    assert not report.ok
    assert report.flips >= 3
    manifest, report = prove.without_red(bundle.manifest, report)
    assert (list(manifest.artefacts), report.ok, report.flips) == (["fp32"], True, 0)
    assert "int8 on onnx/cpu" in report.withdrawn
    prove.rewrite(bundle, artefacts=manifest.artefacts)
    assert not other.exists()


def test_a_file_that_two_artefacts_share_stays_with_the_other(tmp_path: Path) -> None:
    bundle = unproved(tmp_path)
    exact = bundle.manifest.artefacts["fp32"]
    fast = exact.model_copy(update={"recheck": Recheck(artefact="fp32", odds=1.5)})
    bundle = prove.rewrite(bundle, artefacts={"fp32": exact, "bf16": fast})
    prove.rewrite(bundle, artefacts={"fp32": exact})
    assert bundle.checked_file(exact).exists()


def test_what_cannot_be_compared_here_does_not_ship_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    bundle = unproved(tmp_path)
    exact = bundle.manifest.artefacts["fp32"]
    recheck = Recheck(artefact="fp32", odds=1.5)
    fast = exact.model_copy(
        update={"runtimes": ("openvino",), "precision": "bf16", "recheck": recheck}
    )
    bundle = prove.rewrite(bundle, artefacts={"fp32": exact, "bf16": fast})
    without_bf16(openvino, monkeypatch)
    report = prove.prove(bundle, FEW)
    assert report.ok
    manifest, report = prove.without_red(bundle.manifest, report)
    assert list(manifest.artefacts) == ["fp32"]
    assert "computes in f32 here, not in bf16" in report.withdrawn["bf16 on openvino"]


def test_an_artefact_goes_where_what_rechecks_it_is_red(tmp_path: Path) -> None:
    bundle = unproved(tmp_path)
    exact = bundle.manifest.artefacts["fp32"]
    quick = exact.model_copy(update={"recheck": Recheck(artefact="fp32", odds=4.0)})
    bundle = prove.rewrite(bundle, artefacts={"fp32": exact, "int8": quick})
    good, bad = {"ok": True}, {"ok": False, "failures": ["its scores are off"]}
    report = Report(
        ok=False,
        flips=0,
        artefacts={
            name: Checked(
                sha256=exact.sha256,
                recheck=bundle.rechecked(artefact),
                precision="fp32",
                bytes=1,
                runs={
                    "onnx/cpu": Run.model_validate(good),
                    f"openvino/CPU/{'f32' if name == 'fp32' else 'bf16'}": Run.model_validate(
                        bad if name == "fp32" else good
                    ),
                },
            )
            for name, artefact in bundle.manifest.artefacts.items()
        },
        reference={"artefact": "fp32", "run": "onnx/cpu"},
        pictures={},
        contract_sha256=bundle.manifest.contract_sha256,
    )
    manifest, report = prove.without_red(bundle.manifest, report)
    assert {name: a.runtimes for name, a in manifest.artefacts.items()} == {
        "fp32": ("onnx",),
        "int8": ("onnx",),
    }
    assert "'fp32', which looks again" in report.withdrawn["int8 on openvino/CPU/bf16"]
    assert prove.rewrite(bundle, artefacts=manifest.artefacts).manifest == manifest


def test_what_an_earlier_report_says_of_other_machines_is_kept(tmp_path: Path) -> None:
    bundle = unproved(tmp_path)
    report = prove.prove(bundle, FEW)
    page = report.model_dump(mode="json")
    page["artefacts"]["fp32"]["runs"]["tensorrt/Orin/10.16.1"] = {"ok": True}
    bundle = written(bundle, page)
    merged = prove.with_earlier(bundle, report)
    assert set(merged.artefacts["fp32"].runs) == {
        *report.artefacts["fp32"].runs,
        "tensorrt/Orin/10.16.1",
    }


def test_the_same_pictures_have_the_same_hash_and_others_another() -> None:
    labels = ("a", "b")
    one, same, other = (
        pictures.FrozenSet(pictures.drawn(labels, 2, seed), {}).as_dict()["sha256"]
        for seed in (1, 1, 2)
    )
    assert one == same != other


# --- the comparison itself


def found(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


HERE, BESIDE, THERE = (0, 0, 10, 10), (1, 0, 11, 10), (50, 50, 60, 60)


@pytest.mark.parametrize(
    ("these", "others", "unmatched"),
    [
        (found((*HERE, 0.9, 0)), found((*BESIDE, 0.8, 0)), 0),
        (found((*HERE, 0.9, 0)), found((*BESIDE, 0.8, 1)), 2),
        (found((*HERE, 0.9, 0)), found((*THERE, 0.9, 0)), 2),
        (found((*HERE, 0.9, 0)), found((*HERE, 0.9, 0), (*BESIDE, 0.89, 0)), 1),
        (found((*HERE, 0.9, 0)), found((*HERE, 0.2, 0)), 0),
        (found((*HERE, 0.9, 0)), found((*HERE, 0.1, 0)), 1),
        (found((*HERE, 0.25, 0)), found(), 0),
    ],
    ids=["moved", "another class", "elsewhere", "a double", "weaker", "far weaker", "weak"],
)
def test_detections_have_one_twin_each(
    these: Detections, others: Detections, unmatched: int
) -> None:
    assert parity.twins(these, others, 0.3).unmatched == unmatched
    assert parity.twins(others, these, 0.3).unmatched == unmatched


def test_raw_outputs_are_compared_without_regard_to_the_order_of_rows() -> None:
    tensor = np.random.default_rng(1).random((1, 20, 6)).astype(np.float32)
    assert parity.tensor_distance([tensor], [tensor[:, ::-1]]) == 0
    assert parity.tensor_distance([tensor], [tensor * 1.1]) == pytest.approx(0.1, rel=1e-4)
    assert parity.tensor_distance([tensor], [tensor[:, :5]]) == float("inf")


def test_every_shipped_artefact_has_a_green_report_on_real_pictures() -> None:
    for manifest in shipped("models").glob("*/manifest.json"):
        bundle = open_bundle(manifest.parent)
        report = bundle.report()
        assert report.ok
        assert report.flips == 0
        assert set(report.artefacts) == set(bundle.manifest.artefacts)
        assert report.pictures["judged"] >= 1000
        for artefact in bundle.manifest.artefacts.values():
            arithmetic = "bf16" if artefact.precision == "bf16" else "f32"
            names = {"onnx": "onnx/cpu", "openvino": f"openvino/CPU/{arithmetic}"}
            for kind in set(artefact.runtimes) & names.keys():
                bundle.require_proof(artefact, names[kind])
