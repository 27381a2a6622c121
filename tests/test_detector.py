"""From picture to detections, with the runtime that follows a script and with real ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import plugins
from pipeline.detector import Detector, open_detector
from pipeline.errors import BundleError, ConfigError, ModelError
from pipeline.types import Box
from tests import tiny
from tests.doubles import without_bf16

Rows = tuple[tuple[float, ...], ...]


def scripted(folder: Path, *script: Rows, **given: Any) -> Detector:
    options = plugins.load("runtimes", "scripted").Options(
        script=script, height=tiny.HEIGHT, width=tiny.WIDTH, **given
    )
    return open_detector(tiny.bundle(folder), "scripted", options)


def frame(height: int, width: int) -> Any:
    return np.zeros((height, width, 3), np.uint8)


def test_a_smaller_picture_is_not_scaled(tmp_path: Path) -> None:
    detector = scripted(tmp_path, ((14, 11, 24, 16, 0.9, 1),))
    found = detector.detect(frame(tiny.HEIGHT - 10, tiny.WIDTH - 20))
    assert found.xyxy.tolist() == [[4, 6, 14, 11]]
    assert (found.score.tolist(), found.label.tolist()) == ([pytest.approx(0.9)], [1])


def test_a_smaller_picture_fills_the_input_of_a_model_that_learned_it_so(tmp_path: Path) -> None:
    size = {"height": tiny.HEIGHT, "width": tiny.WIDTH}
    bundle = tiny.bundle(tmp_path, input={**size, "enlarge": True})
    options = plugins.load("runtimes", "scripted").Options(
        script=(((12, 8, 24, 16, 0.9, 1),),), height=tiny.HEIGHT, width=tiny.WIDTH
    )
    detector = open_detector(bundle, "scripted", options)
    found = detector.detect(frame(tiny.HEIGHT // 2, tiny.WIDTH // 2))
    assert found.xyxy.tolist() == [[6, 4, 12, 8]]


def test_a_report_of_another_scale_lets_nothing_run(tmp_path: Path) -> None:
    size = {"height": tiny.HEIGHT, "width": tiny.WIDTH}
    page = tiny.bundle(tmp_path).manifest.model_dump(mode="json")
    with pytest.raises(BundleError, match="parity"):
        changed = tiny.bundle(tmp_path, **{**page, "input": {**size, "enlarge": True}})
        open_detector(
            changed, "scripted", plugins.load("runtimes", "scripted").Options(script=((),), **size)
        )


def test_a_larger_picture_is_scaled_down_and_its_boxes_up(tmp_path: Path) -> None:
    detector = scripted(tmp_path, ((12, 8, 24, 16, 0.9, 1),))
    found = detector.detect(frame(tiny.HEIGHT * 3, tiny.WIDTH * 3))
    assert found.xyxy.tolist() == [[36, 24, 72, 48]]


def test_a_part_is_looked_at_in_its_own_window(tmp_path: Path) -> None:
    inside = (tiny.WIDTH / 2 - 2, tiny.HEIGHT / 2 - 2, tiny.WIDTH / 2 + 2, tiny.HEIGHT / 2 + 2)
    detector = scripted(tmp_path, ((*inside, 0.9, 0),))
    found = detector.detect_at(frame(400, 600), Box(290, 190, 310, 210))
    assert found.xyxy.tolist() == [[298, 198, 302, 202]]


def test_a_neighbour_in_the_window_does_not_leak_in(tmp_path: Path) -> None:
    neighbour = (0.0, 0.0, 6.0, 6.0, 0.9, 0.0)
    detector = scripted(tmp_path, (neighbour,))
    assert len(detector.detect_at(frame(400, 600), Box(290, 190, 310, 210))) == 0


def test_a_part_larger_than_the_window_is_seen_whole(tmp_path: Path) -> None:
    detector = scripted(tmp_path, ((0, 0, tiny.WIDTH, tiny.HEIGHT, 0.9, 0),))
    box = Box(100, 50, 100 + 2 * tiny.WIDTH, 50 + 2 * tiny.HEIGHT)
    assert detector.detect_at(frame(400, 600), box).xyxy.tolist() == [
        [box.x0, box.y0, box.x1, box.y1]
    ]


@pytest.mark.parametrize("box", [Box(900, 0, 920, 20), Box(-90, -90, -70, -70)])
def test_a_part_outside_the_frame_is_an_error_not_a_pass(box: Box, tmp_path: Path) -> None:
    detector = scripted(tmp_path)
    with pytest.raises(ModelError, match="outside the frame"):
        detector.detect_at(frame(400, 600), box)


def test_weak_detections_are_dropped_at_the_limit_that_was_asked_for(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path, tiny.e2e_model(scores=(0.9, 0.1, 0.01)))
    options = plugins.load("runtimes", "scripted").Options(
        script=(((0, 0, 4, 4, 0.02, 0),),), height=tiny.HEIGHT, width=tiny.WIDTH
    )
    for limit, count in ((0.05, 0), (0.02, 1)):
        detector = open_detector(bundle, "scripted", options, min_score=limit)
        assert len(detector.detect(frame(8, 8))) == count


@pytest.mark.parametrize("label", [-1, 2])
def test_a_class_without_a_label_is_an_error(label: int, tmp_path: Path) -> None:
    detector = scripted(tmp_path, ((0, 0, 4, 4, 0.9, label),))
    with pytest.raises(ModelError, match="manifest names 2"):
        detector.detect(frame(8, 8))


def test_a_failing_runtime_is_not_hidden(tmp_path: Path) -> None:
    detector = scripted(tmp_path, fail_at=2)
    detector.detect(frame(8, 8))
    with pytest.raises(ModelError, match="call 2 fails"):
        detector.detect(frame(8, 8))


@pytest.mark.parametrize(("kind", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_real_runtime_finds_what_the_model_says(kind: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    plugin = plugins.load("runtimes", kind)
    detector = open_detector(tiny.bundle(tmp_path), kind, plugin.Options(threads=1))
    found = detector.detect(frame(tiny.HEIGHT, tiny.WIDTH))
    assert found.label.tolist() == [0, 1]
    np.testing.assert_allclose(found.xyxy, [[4, 6, 10, 14], [12, 6, 18, 14]], atol=1e-4)
    assert detector.artefact.precision == "fp32"
    assert detector.runtime.name.startswith(kind)
    detector.close()
    detector.close()


def test_a_precision_that_a_processor_does_not_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    plugin = plugins.load("runtimes", "openvino")
    without_bf16(openvino, monkeypatch)
    with pytest.raises(ConfigError, match="computes in f32 here, not in bf16 as asked; set"):
        open_detector(tiny.bundle(tmp_path), "openvino", plugin.Options(precision="bf16"))


def test_one_thread_of_openvino_is_held_on_no_core(tmp_path: Path) -> None:
    """Two models of one thread each must not share a core, as they do when both hold the first."""
    openvino = pytest.importorskip("openvino")
    plugin = plugins.load("runtimes", "openvino")
    asked: list[dict[str, Any]] = []
    compile_model = openvino.Core.compile_model

    def noted(self: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        compiled = compile_model(self, model, device, settings)
        asked.append({"pinned": compiled.get_property("ENABLE_CPU_PINNING"), **settings})
        return compiled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino.Core, "compile_model", noted)
        open_detector(tiny.bundle(tmp_path), "openvino", plugin.Options(threads=1)).close()
    assert asked[0]["INFERENCE_NUM_THREADS"] == 1
    assert asked[0]["pinned"] is False


def open_onnx(folder: Path, made: Any, **changes: Any) -> Detector:
    pytest.importorskip("onnxruntime")
    plugin = plugins.load("runtimes", "onnx")
    return open_detector(tiny.bundle(folder, made, **changes), "onnx", plugin.Options(threads=1))


@pytest.mark.parametrize(
    ("made", "changes", "said"),
    [
        (tiny.e2e_model(height=16), {}, r"its input is \(1, 16, 48, 3\), the manifest says"),
        (tiny.raw_model(classes=3), {"decoder": "yolo"}, "knows 3 classes, its manifest names 2"),
        (tiny.raw_model(classes=3), {}, "does not fit its manifest"),
        (tiny.e2e_model(scores=(5.0,)), {}, "does not fit its manifest.*scores run from"),
        (tiny.e2e_model(), {"decoder": "detr"}, "there is no decoder 'detr'"),
    ],
)
def test_a_bundle_whose_parts_do_not_fit_is_refused(
    made: Any, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        open_onnx(tmp_path, made, **changes)
    assert "\n" not in str(caught.value)


def test_the_raw_head_runs_too(tmp_path: Path) -> None:
    detector = open_onnx(tmp_path, tiny.raw_model(classes=2), decoder="yolo")
    assert len(detector.detect(frame(8, 8))) == 0


def test_a_changed_model_file_is_refused(tmp_path: Path) -> None:
    bundle = tiny.bundle(tmp_path)
    (tmp_path / "tiny.onnx").write_bytes(b"something else")
    with pytest.raises(BundleError, match="sha256"):
        open_detector(bundle, "onnx", plugins.load("runtimes", "onnx").Options())
