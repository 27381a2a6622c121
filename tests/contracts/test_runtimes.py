"""What every runtime promises: tensors in, tensors out, and one clear line when it cannot."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline import plugins
from pipeline.errors import BundleError, ModelError
from pipeline.lab.graph import bake_input
from pipeline.runtimes import Runtime
from pipeline.runtimes.scripted import ScriptedRuntime
from tests import tiny

SCRIPT = (((4, 6, 10, 14, 0.9, 0), (12, 6, 18, 14, 0.1, 1)),)
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
READS_ONNX = ("onnx", "openvino")
KINDS = (*PACKAGES, "scripted")
LITERT_SAYS = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"  # it has no switch for it
LITERT = Path(__file__).parent.parent / "litert"


def options_of(kind: str, **given: Any) -> Any:
    if kind == "scripted":
        given = {"script": SCRIPT, "height": tiny.HEIGHT, "width": tiny.WIDTH, "warm_ups": 0}
    return plugins.load("runtimes", kind).Options(**given)


def create(kind: str, model: Path, **given: Any) -> Runtime:
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind])
    runtime: Runtime = plugins.load("runtimes", kind).create(options_of(kind, **given), model)
    return runtime


def two_inputs() -> Any:
    shape = [1, 8, 8, 3]
    sources = [helper.make_tensor_value_info(n, TensorProto.UINT8, shape) for n in "ab"]
    nodes = [helper.make_node("Add", ["a", "b"], ["out"])]
    target = helper.make_tensor_value_info("out", TensorProto.UINT8, shape)
    return tiny.model(nodes, sources, target, {})


MODELS = {"tiny": tiny.e2e_model, "float": tiny.float_model, "two": two_inputs}


def model_for(kind: str, folder: Path, name: str = "tiny") -> Path:
    """Return a copy of a tiny model in the format that this runtime reads."""
    if kind == "litert":
        return Path(shutil.copy(LITERT / f"{name}.tflite", folder))
    return tiny.save(MODELS[name](), folder / f"{name}.onnx")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_for("onnx", tmp_path)


@pytest.fixture(params=KINDS)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    made = create(request.param, model_for(request.param, tmp_path))
    yield made
    made.close()


def picture(value: int) -> Any:
    return np.full((1, tiny.HEIGHT, tiny.WIDTH, 3), value, np.uint8)


def test_it_states_the_shape_of_its_input(runtime: Runtime) -> None:
    assert runtime.input_shape == (1, tiny.HEIGHT, tiny.WIDTH, 3)


def test_its_name_says_what_runs_where(runtime: Runtime) -> None:
    assert runtime.name in {"onnx/cpu", "openvino/CPU/f32", "litert/cpu", "scripted"}


def test_it_answers_with_one_float_tensor(runtime: Runtime) -> None:
    (output,) = runtime.infer(picture(0))
    assert (output.shape, output.dtype) == ((1, 2, 6), np.float32)
    np.testing.assert_allclose(output[0], SCRIPT[0], atol=1e-6)


def test_the_same_picture_gives_the_same_answer(runtime: Runtime) -> None:
    first, second = runtime.infer(picture(7))[0], runtime.infer(picture(7))[0]
    np.testing.assert_array_equal(first, second)


def test_an_answer_is_not_overwritten_by_the_next(runtime: Runtime) -> None:
    first = runtime.infer(picture(0))[0]
    kept = first.copy()
    second = runtime.infer(picture(255))[0]
    second[:] = -1
    np.testing.assert_array_equal(first, kept)


def test_it_does_not_change_the_picture(runtime: Runtime) -> None:
    tensor = picture(9)
    runtime.infer(tensor)
    assert (tensor == 9).all()


def test_it_reads_a_picture_that_may_not_be_written_wherever_it_lies(runtime: Runtime) -> None:
    """A frame goes into the model as it is, where it fills its input; it is read-only."""
    memory = np.zeros(picture(0).size + 1, np.uint8)
    placed = memory[1:].reshape(picture(0).shape)  # no address that suits wide loads
    placed[:] = picture(90)
    placed.flags.writeable = False
    given, same = (runtime.infer(tensor)[0] for tensor in (placed, placed.copy()))
    assert given.dtype == np.float32
    if not isinstance(runtime, ScriptedRuntime):  # its script goes on
        np.testing.assert_array_equal(given, same)


def test_it_may_be_closed_twice_and_then_refuses(runtime: Runtime) -> None:
    runtime.close()
    runtime.close()
    with pytest.raises(ModelError, match="closed"):
        runtime.infer(picture(0))


@pytest.mark.parametrize("kind", PACKAGES)
@pytest.mark.parametrize("content", ["text", "truncated", "empty", "missing"])
def test_a_file_that_is_no_model_is_refused_in_one_line(
    kind: str, content: str, tmp_path: Path
) -> None:
    model = model_for(kind, tmp_path)
    whole = model.read_bytes()
    broken = {"text": b"this is no model", "truncated": whole[: len(whole) // 2], "empty": b""}
    model.unlink()
    if content in broken:
        model.write_bytes(broken[content])
    with pytest.raises((ModelError, BundleError), match=model.name) as caught:
        create(kind, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_model_with_a_float_input_is_refused(kind: str, tmp_path: Path) -> None:
    file = model_for(kind, tmp_path, "float")
    with pytest.raises(BundleError, match=r"must take one uint8 input \(1, H, W, 3\)"):
        create(kind, file)


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_model_with_two_inputs_is_refused(kind: str, tmp_path: Path) -> None:
    file = model_for(kind, tmp_path, "two")
    with pytest.raises(BundleError, match="must take one uint8 input"):
        create(kind, file)


@pytest.mark.parametrize("kind", PACKAGES)
def test_the_wrong_tensor_is_a_model_error(kind: str, tmp_path: Path) -> None:
    runtime = create(kind, model_for(kind, tmp_path))
    with pytest.raises(ModelError, match="inference failed"):
        runtime.infer(np.zeros((1, 5, 5, 3), np.uint8))


def test_real_runtimes_agree(tmp_path: Path) -> None:
    file = tiny.save(bake_input(tiny.float_model()), tmp_path / "baked.onnx")
    noise = np.random.default_rng(1).integers(0, 256, picture(0).shape, dtype=np.uint8)
    one, other = (create(kind, file, threads=1).infer(noise)[0] for kind in READS_ONNX)
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_openvino_computes_in_the_precision_asked_for_or_not_at_all(
    precision: str, model: Path
) -> None:
    try:
        name = create("openvino", model, precision=precision).name
    except ModelError as error:
        assert f"not in {precision} as asked" in str(error)
    else:
        assert name == f"openvino/CPU/{precision}"


@pytest.mark.parametrize(("kind", "device"), [("onnx", "tensorrt"), ("openvino", "NPU")])
def test_a_device_that_is_not_there_is_named(kind: str, device: str, model: Path) -> None:
    try:
        create(kind, model, device=device)
    except ModelError as error:
        assert device in str(error)
        assert "\n" not in str(error)
    else:
        pytest.skip(f"this machine has a {device}")


@pytest.mark.parametrize(
    ("after", "scores"),
    [
        ("repeat", [0.5, 0.6, 0.6, 0.6]),
        ("cycle", [0.5, 0.6, 0.5, 0.6]),
        ("nothing", [0.5, 0.6, None, None]),
    ],
)
def test_a_script_goes_on_as_it_was_told(
    after: str, scores: list[float | None], model: Path
) -> None:
    plugin = plugins.load("runtimes", "scripted")
    script = (((0, 0, 1, 1, 0.5, 0),), ((0, 0, 1, 1, 0.6, 0),))
    runtime = plugin.create(plugin.Options(script=script, after=after), model)
    answers = [runtime.infer(picture(0))[0] for _ in range(5)]
    assert answers[0].shape == (1, 0, 6), "the warm-up finds nothing"
    assert [round(float(a[0, 0, 4]), 3) if a.size else None for a in answers[1:]] == scores


def test_a_script_fails_at_the_call_it_was_told_to(model: Path) -> None:
    plugin = plugins.load("runtimes", "scripted")
    runtime = plugin.create(plugin.Options(fail_at=2), model)
    runtime.infer(picture(0))
    runtime.infer(picture(0))
    with pytest.raises(ModelError, match="call 2 fails"):
        runtime.infer(picture(0))
    runtime.infer(picture(0))


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_runtime_writes_nothing_into_the_home_folder(kind: str, tmp_path: Path) -> None:
    """Two of the vendors report the import to their makers unless they are kept from it."""
    pytest.importorskip(PACKAGES[kind])
    model = model_for(kind, tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    program = textwrap.dedent(f"""
        import numpy, pathlib
        from pipeline import plugins
        plugin = plugins.load("runtimes", {kind!r})
        runtime = plugin.create(plugin.Options(), pathlib.Path({str(model)!r}))
        runtime.infer(numpy.zeros(runtime.input_shape, numpy.uint8))
        runtime.close()
    """)
    quiet = {"CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {k: v for k, v in os.environ.items() if k not in quiet} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr.replace(LITERT_SAYS, "")
    assert (done.returncode, done.stdout, said) == (0, "", "")
    assert [str(p) for p in home.rglob("*")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_option_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="colour"):
        plugins.load("runtimes", kind).Options(colour="red")


@pytest.mark.parametrize("kind", PACKAGES)
def test_weights_outside_the_hashed_file_are_refused(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "split.onnx"
    onnx.save(
        bake_input(tiny.float_model()),
        file,
        save_as_external_data=True,
        size_threshold=0,
        location="split.data",
    )
    with pytest.raises(ModelError, match="cannot load it"):
        create(kind, file)


def test_openvino_chooses_a_device_itself_if_told_to(model: Path) -> None:
    runtime = create("openvino", model, device="AUTO")
    assert runtime.name.startswith("openvino/")
    assert runtime.infer(picture(0))[0].shape == (1, 2, 6)


def test_openvino_reads_its_own_format(tmp_path: Path, model: Path) -> None:
    ov = plugins.vendor("openvino", "openvino")
    ov.save_model(ov.Core().read_model(model), tmp_path / "tiny.xml")
    (output,) = create("openvino", tmp_path / "tiny.xml").infer(picture(0))
    np.testing.assert_allclose(output[0], SCRIPT[0], atol=1e-3)


def test_openvino_keeps_the_compiled_model_where_it_is_told(tmp_path: Path, model: Path) -> None:
    create("openvino", model, cache_dir=tmp_path / "cache", mode="throughput", threads=1)
    assert any((tmp_path / "cache").iterdir())
