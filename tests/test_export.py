"""Graphs that take camera pictures, and bundles that are compared before they are written."""

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import plugins
from pipeline.bundle import Threshold, open_bundle
from pipeline.detector import open_detector
from pipeline.errors import BundleError, ConfigError, MissingExtra
from pipeline.lab import export, torch_env
from pipeline.lab.graph import INPUT, Pixels, bake_input
from pipeline.types import Detections
from tests import tiny

SHAPE = [1, 3, tiny.HEIGHT, tiny.WIDTH]


def picture(seed: int = 1) -> Any:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (1, tiny.HEIGHT, tiny.WIDTH, 3), dtype=np.uint8)


def as_floats(tensor: Any) -> Any:
    """Do on the host what baking moves into the graph."""
    return np.ascontiguousarray(tensor[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32) / 255


def as_levels(tensor: Any) -> Any:
    """Do the same for a network that was trained on a camera's own levels and order of colours."""
    return np.ascontiguousarray(tensor.transpose(0, 3, 1, 2)).astype(np.float32)


def run(model: Any, tensor: Any) -> Any:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: tensor})[0]


def convolution(weights: Any, *extra: Any, output: list[int], **attributes: Any) -> Any:
    nodes = [helper.make_node("Conv", ["images", "w"], ["raw"], **attributes), *extra]
    last = nodes[-1].output[0]
    source = helper.make_tensor_value_info("images", TensorProto.FLOAT, SHAPE)
    target = helper.make_tensor_value_info(last, TensorProto.FLOAT, output)
    return tiny.model(nodes, [source], target, {"w": weights})


def pooling() -> Any:
    """A graph that does not start with a convolution."""
    nodes = [
        helper.make_node("Sub", ["images", "mean"], ["centred"]),
        helper.make_node("GlobalAveragePool", ["centred"], ["out"]),
    ]
    source = helper.make_tensor_value_info("images", TensorProto.FLOAT, SHAPE)
    target = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, 1, 1])
    mean = np.array([0.4, 0.5, 0.6], np.float32).reshape(1, 3, 1, 1)
    return tiny.model(nodes, [source], target, {"mean": mean})


def read_twice() -> Any:
    """A graph whose convolution is not the only one that reads the input."""
    size = [tiny.HEIGHT, tiny.WIDTH]
    return convolution(
        tiny.weights()[:3],
        helper.make_node("Add", ["raw", "images"], ["out"]),
        output=[1, 3, *size],
        pads=[1, 1, 1, 1],
    )


def grouped() -> Any:
    """A graph whose first convolution sees one channel at a time."""
    return convolution(
        tiny.weights()[:3, :1], output=[1, 3, tiny.HEIGHT - 2, tiny.WIDTH - 2], group=3
    )


def quantised() -> Any:
    """A graph whose first convolution takes its weights from another node."""
    nodes = [
        helper.make_node("Mul", ["w", "two"], ["w2"]),
        helper.make_node("Conv", ["images", "w2"], ["out"]),
    ]
    source = helper.make_tensor_value_info("images", TensorProto.FLOAT, SHAPE)
    size = [tiny.HEIGHT - 2, tiny.WIDTH - 2]
    target = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8, *size])
    constants = {"w": tiny.weights(), "two": np.float32(2)}
    return tiny.model(nodes, [source], target, constants)


@pytest.mark.parametrize(
    ("model", "is_folded"),
    [
        (tiny.float_model(), True),
        (pooling(), False),
        (read_twice(), False),
        (grouped(), False),
        (quantised(), False),
    ],
    ids=["convolution", "pooling", "read twice", "grouped", "quantised"],
)
def test_a_baked_graph_answers_the_same(model: Any, is_folded: bool) -> None:
    before = model.SerializeToString()
    baked = bake_input(model)
    for seed in range(3):
        wanted = run(model, as_floats(picture(seed)))
        np.testing.assert_allclose(run(baked, picture(seed)), wanted, atol=2e-6)
    kinds = [node.op_type for node in baked.graph.node]
    assert kinds[:2] == ["Transpose", "Cast"]
    assert ("Div" in kinds) is not is_folded
    assert model.SerializeToString() == before


@pytest.mark.parametrize("model", [tiny.float_model(), pooling()], ids=["convolution", "pooling"])
def test_a_network_that_takes_a_cameras_levels_gets_them_as_they_are(model: Any) -> None:
    baked = bake_input(model, Pixels(rgb=False, white=255.0))
    wanted = run(model, as_levels(picture()))
    np.testing.assert_allclose(run(baked, picture()), wanted, rtol=1e-5, atol=1e-5)
    assert not {"Gather", "Div"} & {node.op_type for node in baked.graph.node}


def test_a_folded_convolution_follows_the_formula() -> None:
    """Compare with a convolution written out in numpy, so that no runtime checks itself."""
    tensor, kernel = picture(), tiny.weights()
    padded = np.pad(as_floats(tensor)[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    y, x = 5, 7
    raw = (kernel * padded[None, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]).sum(axis=(1, 2, 3))
    got = run(bake_input(tiny.float_model()), tensor)[0, :, y, x]
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-raw)), atol=2e-6)


def test_weights_that_are_used_twice_stay_as_they_were() -> None:
    total = helper.make_node("ReduceSum", ["w"], ["sum"], keepdims=0)
    out = helper.make_node("Add", ["raw", "sum"], ["out"])
    size = [tiny.HEIGHT - 2, tiny.WIDTH - 2]
    model = convolution(tiny.weights(), total, out, output=[1, 8, *size])
    wanted = run(model, as_floats(picture()))
    np.testing.assert_allclose(run(bake_input(model), picture()), wanted, rtol=1e-5, atol=1e-5)


def test_a_baked_graph_states_its_input() -> None:
    (value,) = bake_input(tiny.float_model()).graph.input
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    assert (value.name, shape) == (INPUT, [1, tiny.HEIGHT, tiny.WIDTH, 3])
    assert value.type.tensor_type.elem_type == TensorProto.UINT8


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (TensorProto.UINT8, [1, 3, 8, 8]),
        (TensorProto.FLOAT, [1, 1, 8, 8]),
        (TensorProto.FLOAT, [2, 3, 8, 8]),
        (TensorProto.FLOAT, ["batch", 3, 8, 8]),
        (TensorProto.FLOAT, [1, 3, "height", "width"]),
        (TensorProto.FLOAT, [1, 3, 8]),
    ],
)
def test_a_graph_of_another_form_is_refused(kind: int, shape: list[Any]) -> None:
    source = helper.make_tensor_value_info("images", kind, shape)
    target = helper.make_tensor_value_info("out", kind, shape)
    model = tiny.model([helper.make_node("Identity", ["images"], ["out"])], [source], target, {})
    with pytest.raises(BundleError, match="must take one float32 input"):
        bake_input(model)


def test_baking_twice_is_refused() -> None:
    with pytest.raises(BundleError, match="must take one float32 input"):
        bake_input(bake_input(tiny.float_model()))


def found(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def test_the_order_of_detections_does_not_count_in_a_comparison() -> None:
    a, b = (0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.5, 0)
    parity = export.compare([found(a, b)], [found(b, a)])
    assert (parity.box_px, parity.score, parity.is_good) == (0, 0, True)


def test_a_comparison_tells_the_largest_differences() -> None:
    one, other = found((0, 0, 10, 10, 0.9, 0)), found((0, 0.5, 10, 10, 0.8, 0))
    parity = export.compare([one], [other])
    assert parity.box_px == pytest.approx(0.5)
    assert parity.score == pytest.approx(0.1)
    assert not parity.is_good


@pytest.mark.parametrize(
    "rows", [(), ((0, 0, 10, 10, 0.9, 1),), ((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.9, 1))]
)
def test_a_detection_without_a_twin_is_never_good(rows: tuple[tuple[float, ...], ...]) -> None:
    one = found((0, 0, 10, 10, 0.9, 0))
    for pair in ((one, found(*rows)), (found(*rows), one)):
        assert not export.compare([pair[0]], [pair[1]]).is_good


def test_what_is_far_below_any_threshold_is_not_compared() -> None:
    parity = export.compare([found((0, 0, 10, 10, 0.005, 0))], [found()])
    assert (parity.detections, parity.is_good) == (0, True)


# --- with torch


@pytest.fixture(scope="module")
def ultralytics() -> Any:
    try:
        return torch_env.prepare()
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def weights(ultralytics: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint that was never trained, with two classes."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    tasks = importlib.import_module(f"{ultralytics.__name__}.nn.tasks")
    network = tasks.DetectionModel("yolo26n.yaml", nc=2, verbose=False)
    network.names = dict(enumerate(tiny.LABELS))
    network.args = {"task": "detect"}
    file = tmp_path_factory.mktemp("weights") / "last.pt"
    torch.save({"model": network, "train_args": {"task": "detect"}}, file)
    return file


def export_tiny(weights: Path, out: Path, **changes: Any) -> export.Parity:
    arguments = {
        "name": "tiny",
        "version": "1",
        "labels": tiny.LABELS,
        "size": (64, 96),
        "thresholds": {label: Threshold(fail=0.5, unsure=0.3) for label in tiny.LABELS},
    } | changes
    return export.export_bundle(weights, out, **arguments)


def test_an_exported_bundle_equals_torch_and_runs(weights: Path, tmp_path: Path) -> None:
    parity = export_tiny(weights, tmp_path / "tiny", made_with={"seed": 1})
    assert parity.is_good
    bundle = open_bundle(tmp_path / "tiny")
    assert bundle.manifest.licence.startswith("AGPL-3.0")
    assert {"torch", "onnx", "seed", "weights_sha256"} <= set(bundle.manifest.made_with)
    options = plugins.load("runtimes", "onnx").Options()
    detector = open_detector(bundle, "onnx", options, unproved=True)
    detector.detect(np.zeros((64, 96, 3), np.uint8))


def test_equal_weights_give_equal_bytes(weights: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_tiny(weights, tmp_path / name)
    one, other = (open_bundle(tmp_path / name).sha256 for name in ("a", "b"))
    assert one == other


def test_other_labels_than_the_weights_have_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its labels are"):
        export_tiny(weights, tmp_path / "out", labels=("dent", "scratch"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"", b"this is no checkpoint"])
def test_what_is_no_checkpoint_is_refused(
    ultralytics: Any, content: bytes | None, tmp_path: Path
) -> None:
    del ultralytics
    file = tmp_path / "broken.pt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.pt") as caught:
        export_tiny(file, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_preparing_writes_into_the_cache_folder_only(ultralytics: Any, tmp_path: Path) -> None:
    del ultralytics
    program = textwrap.dedent("""
        from pipeline.lab import torch_env
        import torch
        assert torch_env.prepare().settings["sync"] is False
        import torchvision
        boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]])
        kept = torchvision.ops.nms(boxes, torch.tensor([.5, .9, .1]), 0.5)
        assert kept.tolist() == [1, 2], kept
    """)
    dropped = {"XDG_CACHE_HOME", "YOLO_CONFIG_DIR"}
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = {p.relative_to(tmp_path).parts[:2] for p in tmp_path.rglob("*") if p.is_file()}
    assert written <= {(".cache", "lineguard")}


def test_without_torch_the_error_names_the_extra() -> None:
    program = textwrap.dedent("""
        import sys
        sys.modules["torch"] = None
        from pipeline.lab import torch_env
        torch_env.prepare()
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "MissingExtra" in done.stderr
    assert "lineguard[lab]" in done.stderr


def test_the_kernel_of_the_tiny_model_is_not_symmetric() -> None:
    """Were it so, a forgotten swap of colours would pass unnoticed."""
    kernel = numpy_helper.to_array(tiny.float_model().graph.initializer[0])
    assert not np.allclose(kernel, kernel[:, ::-1])
