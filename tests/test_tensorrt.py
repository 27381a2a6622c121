"""TensorRT's calls, in their order and with the right memory, against a double; no GPU is needed.

What a double cannot show, that TensorRT takes the model and computes as the reference does, is
what ``lineguard lab parity`` shows on the device.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from pipeline import plugins
from pipeline.errors import BundleError, ConfigError, MissingExtra, ModelError
from pipeline.runtimes import tensorrt
from pipeline.runtimes._cuda import open_gpu
from tests import tiny, trt_double


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.save(tiny.e2e_model(), tmp_path / "tiny.onnx")


def opened(
    model: Path, gpu: trt_double.Gpu | None = None, trt: Any = None
) -> tensorrt.TensorrtRuntime:
    gpu = gpu or trt_double.Gpu()
    options = tensorrt.Options(cache_dir=model.parent / "engines")
    return tensorrt.TensorrtRuntime(trt or trt_double.module(gpu), gpu, options, model)


def picture(value: int) -> Any:
    return np.full((1, tiny.HEIGHT, tiny.WIDTH, 3), value, np.uint8)


def test_every_picture_gets_its_own_answer(model: Path) -> None:
    runtime = opened(model)
    assert runtime.name == "tensorrt/Double/10.16.1"
    assert runtime.input_shape == (1, tiny.HEIGHT, tiny.WIDTH, 3)
    dark, bright = runtime.infer(picture(0))[0], runtime.infer(picture(255))[0]
    np.testing.assert_allclose(dark[0, :, 4], [0.9, 0.1], atol=1e-6)
    np.testing.assert_allclose(bright[0, :, 4], [0.91, 0.11], atol=1e-6)


def test_an_engine_is_built_once(model: Path) -> None:
    trt = trt_double.module(gpu := trt_double.Gpu())
    for _ in range(2):
        opened(model, gpu, trt).close()
    assert trt.state.builds == 1


@pytest.mark.parametrize("what", ["model", "gpu", "version"])
def test_another_model_gpu_or_version_gets_an_engine_of_its_own(what: str, model: Path) -> None:
    opened(model)
    if what == "model":
        tiny.save(tiny.e2e_model(scores=(0.8, 0.2)), model)
    gpu = trt_double.Gpu("Other" if what == "gpu" else "Double")
    trt = trt_double.module(gpu, "11.4.0" if what == "version" else "10.16.1")
    opened(model, gpu, trt)
    assert trt.state.builds == 1


def test_an_engine_that_cannot_be_loaded_is_built_anew(model: Path) -> None:
    opened(model)
    (kept,) = (model.parent / "engines").glob("*.engine")
    kept.write_bytes(b"from another age")
    opened(model).infer(picture(0))
    assert kept.read_bytes().startswith(b"plan")


def test_an_engine_that_others_may_change_is_not_loaded(model: Path) -> None:
    opened(model)
    (kept,) = (model.parent / "engines").glob("*.engine")
    assert kept.stat().st_mode & 0o077 == 0
    kept.chmod(0o666)
    trt = trt_double.module(gpu := trt_double.Gpu())
    opened(model, gpu, trt)
    assert trt.state.builds == 1


def test_a_model_that_tensorrt_cannot_read_is_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"this is no model")
    with pytest.raises(ModelError, match=r"broken\.onnx: TensorRT cannot read it: error 0: no"):
        opened(file)


def test_a_model_that_cannot_be_built_says_why_in_one_line(model: Path) -> None:
    model.write_bytes(model.read_bytes() + b"Unbuildable")
    with pytest.raises(ModelError, match="cannot build an engine: no tactic fits"):
        opened(model)


def test_a_model_with_a_float_input_is_refused(tmp_path: Path) -> None:
    file = tiny.save(tiny.float_model(), tmp_path / "float.onnx")
    with pytest.raises(BundleError, match=r"must take one uint8 input \(1, H, W, 3\)"):
        opened(file)


def test_the_wrong_tensor_is_a_model_error(model: Path) -> None:
    with pytest.raises(ModelError, match="inference failed"):
        opened(model).infer(np.zeros((1, 5, 5, 3), np.uint8))


def test_it_may_be_closed_twice_and_then_refuses(model: Path) -> None:
    gpu = trt_double.Gpu()
    runtime = opened(model, gpu)
    runtime.close()
    runtime.close()
    assert gpu.closed == 1
    with pytest.raises(ModelError, match="closed"):
        runtime.infer(picture(0))


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.0.1"])
def test_a_version_with_other_calls_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match=r"install 10.3 to 11"):
        tensorrt.check_version(version)


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_versions_with_the_same_calls_are_taken(version: str) -> None:
    tensorrt.check_version(version)


def test_without_tensorrt_it_is_said_how_to_get_it(model: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    plugin = plugins.load("runtimes", "tensorrt")
    with pytest.raises(MissingExtra, match="python3-libnvinfer") as caught:
        plugin.create(plugin.Options(), model)
    assert "\n" not in str(caught.value)


def test_without_a_gpu_it_is_said_what_is_missing() -> None:
    if Path("/dev/nvidia0").exists() or Path("/dev/nvhost-gpu").exists():
        pytest.skip("there is a GPU here")
    with pytest.raises(
        ConfigError, match=r"GPU 0 cannot be used here|lineguard\[tensorrt\]"
    ) as said:
        open_gpu(0)
    assert "\n" not in str(said.value)
