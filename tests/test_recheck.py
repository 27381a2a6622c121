"""A quick model's doubtful answers are looked at again by the exact one, and only those."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import plugins
from pipeline.assembly import build
from pipeline.bundle import Bundle, Threshold, open_bundle, sha256_of
from pipeline.clock import SystemClock
from pipeline.config import load
from pipeline.detector import Detector, open_detector
from pipeline.errors import BundleError, ConfigError
from pipeline.recheck import Recheck
from pipeline.recipe import DefectRule, Recipe, Zone
from pipeline.rules import Rulebook
from pipeline.shipped import shipped
from tests import tiny
from tests.doubles import detections

ODDS = 4.0
EXACT, CLEAR, DOUBTFUL = 0.31, 0.95, 0.6
PICTURES = 3
RUNTIME = plugins.load("runtimes", "scripted").create(
    plugins.load("runtimes", "scripted").Options(), Path()
)


def picture() -> Any:
    return np.zeros((tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)


def two(folder: Path, quick: float, **changes: Any) -> Bundle:
    """Return a bundle of an exact model and a quick one that finds the same box, scored so."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    tiny.save(tiny.e2e_model([EXACT]), folder / "exact.onnx")
    tiny.save(tiny.e2e_model([quick]), folder / "quick.onnx")
    exact, sped = (
        {
            "path": f"{name}.onnx",
            "sha256": sha256_of(folder / f"{name}.onnx"),
            "runtimes": ["onnx"],
            "precision": precision,
        }
        for name, precision in (("exact", "fp32"), ("quick", "int8"))
    )
    sped |= {"recheck": {"artefact": "fp32", "odds": ODDS}} | changes
    return tiny.bundle(folder, artefacts={"fp32": exact, "int8": sped})


def opened(bundle: Bundle, **given: Any) -> Detector:
    options = plugins.load("runtimes", "onnx").Options()
    return open_detector(bundle, "onnx", options, "int8", **given)


@pytest.mark.parametrize(("quick", "counts", "times"), [(DOUBTFUL, EXACT, 1), (CLEAR, CLEAR, 0)])
def test_a_doubtful_score_is_that_of_the_exact_model_and_a_clear_one_stays(
    tmp_path: Path, quick: float, counts: float, times: int
) -> None:
    detector = opened(two(tmp_path, quick))
    found = detector.detect(picture())
    assert found.score.tolist() == [pytest.approx(counts)]
    assert detector.rechecks == times
    detector.close()


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_station_says_how_often_it_looked_twice(tmp_path: Path, mode: str) -> None:
    (tmp_path / "bundle").mkdir()
    two(tmp_path / "bundle", DOUBTFUL)
    for number in range(PICTURES):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture())
    page = {
        "camera": {"kind": "images", "path": str(tmp_path)},
        "trigger": {"kind": "every_frame"},
        "model": {
            "bundle": str(tmp_path / "bundle"),
            "runtime": {"kind": "onnx"},
            "artefact": "int8",
            "mode": mode,
            "workers": 2,
        },
        "recipe": {"name": "any"},
        "store": {"path": str(tmp_path / "store"), "reserve_mb": 0},
    }
    station = build(load(shipped("configs/demo.yaml"), page), SystemClock())
    station.run()
    assert station.snapshot().rechecks == PICTURES


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_in_bf16_the_exact_look_is_in_full_precision(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    plugin = plugins.load("runtimes", "openvino")
    exact = two(tmp_path, CLEAR).manifest.artefacts["fp32"].model_dump(mode="json")
    exact["runtimes"] = ["openvino"]
    fast = exact | {"precision": "bf16", "recheck": {"artefact": "fp32", "odds": ODDS}}
    bundle = tiny.bundle(tmp_path, artefacts={"fp32": exact, "bf16": fast})
    asked: list[str] = []
    create = plugin.create

    def noted(options: Any, file: Path) -> Any:
        asked.append(options.precision)
        return create(options, file)

    monkeypatch.setattr(plugin, "create", noted)
    try:
        options = plugin.Options(precision=precision)
        open_detector(bundle, "openvino", options, "bf16", unproved=True).close()
    except ConfigError as error:
        pytest.skip(f"this processor: {error}")
    assert asked == ["bf16", "f32"]


def test_an_exact_model_that_does_not_fit_stops_the_start(tmp_path: Path) -> None:
    bundle = two(tmp_path, CLEAR)
    wrong = tiny.save(tiny.raw_model(), tmp_path / "wrong.onnx")
    exact = bundle.manifest.artefacts["fp32"].model_copy(
        update={"path": wrong.name, "sha256": sha256_of(wrong)}
    )
    artefacts = {"fp32": exact, "int8": bundle.manifest.artefacts["int8"]}
    manifest = bundle.manifest.model_copy(update={"artefacts": artefacts})
    with pytest.raises(BundleError, match="does not fit its manifest"):
        opened(Bundle(bundle.path, manifest, ""), unproved=True, warm=False)


def test_the_weights_beside_an_exact_model_are_a_part_of_what_was_proved(tmp_path: Path) -> None:
    bundle = two(tmp_path, CLEAR)
    exact, quick = (bundle.manifest.artefacts[name] for name in ("fp32", "int8"))
    other = exact.model_copy(update={"weights_sha256": "0" * 64})
    manifest = bundle.manifest.model_copy(update={"artefacts": {"fp32": other, "int8": quick}})
    with pytest.raises(BundleError, match="the parity report says nothing of it"):
        Bundle(bundle.path, manifest, "").require_proof(quick, "onnx/cpu")


def test_the_thresholds_of_a_recipe_say_what_is_doubtful(tmp_path: Path) -> None:
    bands = dict.fromkeys(tiny.LABELS, Threshold(fail=0.97, unsure=0.9))
    detector = opened(two(tmp_path, CLEAR), bands=bands)
    assert detector.detect(picture()).score.tolist() == [pytest.approx(EXACT)]
    detector.close()


@pytest.mark.parametrize(
    ("scores", "one_fails", "asks"),
    [
        ((), True, False),
        ((0.09,), True, False),  # odds 0.10; those of unsure, 0.43, are 4.3 times as high
        ((0.11,), True, True),
        ((0.4,), True, True),
        ((0.79,), True, True),
        ((0.81,), True, False),  # odds 4.3, those of fail are 1
        ((0.81, 0.4), True, False),
        ((0.81, 0.4), False, True),
        ((0.81, 0.09), False, False),
    ],
)
def test_what_lies_near_a_threshold_is_asked_for_again(
    scores: tuple[float, ...], one_fails: bool, asks: bool
) -> None:
    bands = dict.fromkeys(tiny.LABELS, Threshold(fail=0.5, unsure=0.3))
    recheck = Recheck(RUNTIME, tiny.LABELS, bands, ODDS, one_fails=one_fails)
    found = detections(*((0.0, 0.0, 9.0, 9.0, score, 0.0) for score in scores))
    assert recheck.asks(found) is asks


def test_each_class_has_its_own_thresholds() -> None:
    bands = {"scratch": Threshold(fail=0.1, unsure=0.05), "dent": Threshold(fail=0.5, unsure=0.3)}
    recheck = Recheck(RUNTIME, tiny.LABELS, bands, ODDS, one_fails=True)
    at = (0.0, 0.0, 9.0, 9.0, 0.5)
    assert not recheck.asks(detections((*at, 0.0)))
    assert recheck.asks(detections((*at, 1.0)))


@pytest.mark.parametrize(
    ("recipe", "alone"),
    [
        ({}, True),
        ({"defects": {"dent": DefectRule(fail=0.7)}}, True),
        ({"defects": {"dent": DefectRule(allow=1)}}, False),
        ({"defects": {"dent": DefectRule(min_size_px=4)}}, False),
        ({"zones": (Zone(name="hole", xyxy=(0.0, 0.0, 0.5, 0.5)),)}, False),
    ],
)
def test_a_recipe_that_tolerates_something_has_no_defect_that_decides_alone(
    recipe: dict[str, Any], alone: bool
) -> None:
    thresholds = dict.fromkeys(tiny.LABELS, Threshold(fail=0.5, unsure=0.3))
    assert Rulebook(Recipe(name="r", **recipe), thresholds).one_fails is alone


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recheck": {"artefact": "fp16", "odds": ODDS}}, "'fp16' is no artefact that decides"),
        ({"recheck": {"artefact": "int8", "odds": ODDS}}, "'int8' is no artefact that decides"),
        ({"runtimes": ["onnx", "openvino"]}, "'fp32', which looks again, does not run on openv"),
        ({"recheck": {"artefact": "fp32", "odds": 1.0}}, "recheck.odds"),
    ],
)
def test_a_recheck_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        two(tmp_path, CLEAR, **changes)


@pytest.mark.parametrize("recheck", [None, {"artefact": "fp32", "odds": 2.0}])
def test_what_was_proved_with_a_recheck_does_not_run_with_another_or_none(
    tmp_path: Path, recheck: dict[str, Any] | None
) -> None:
    bundle = two(tmp_path, CLEAR)
    page = bundle.manifest.model_dump(mode="json")
    page["artefacts"]["int8"]["recheck"] = recheck
    manifest = type(bundle.manifest).model_validate(page)
    with pytest.raises(BundleError, match="the parity report says nothing of it"):
        opened(Bundle(bundle.path, manifest, ""))
    opened(open_bundle(bundle.path)).close()
