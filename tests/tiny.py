"""Builds tiny models and bundles for tests: one convolution, a few rows, a known answer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle import Bundle, open_bundle, sha256_of
from pipeline.proof import REPORT

LABELS = ("scratch", "dent")
HEIGHT, WIDTH = 32, 48
OPSET = 17
IR_VERSION = 8  # what ONNX Runtime 1.17 reads


def weights(seed: int = 3) -> Any:
    """Return the kernel of the one convolution, float32 (8, 3, 3, 3)."""
    return np.random.default_rng(seed).normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    output: Any,
    constants: Mapping[str, Any],
) -> Any:
    """Return an onnx.ModelProto of one output, checked."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializer=tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = IR_VERSION
    onnx.checker.check_model(made)
    return made


def float_model() -> Any:
    """Return a model as trainers export it: float32 (1, 3, H, W), RGB, 0..1, to one convolution."""
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["raw"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Sigmoid", ["raw"], ["out"]),
    ]
    source = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    target = helper.make_tensor_value_info(
        "out", TensorProto.FLOAT, [1, 8, HEIGHT // 2, WIDTH // 2]
    )
    return model(nodes, [source], target, {"w": weights()})


def e2e_model(scores: Sequence[float] = (0.9, 0.1), height: int = HEIGHT) -> Any:
    """Return a uint8 model with the end-to-end head (1, n, 6).

    The boxes stand still; each score is the given one, plus a trace of the picture's brightness, so
    that two pictures get two answers.
    """
    rows = np.array([[4 + 8 * i, 6, 10 + 8 * i, 14, s, i % 2] for i, s in enumerate(scores)])
    mask = np.zeros((1, len(scores), 6))
    mask[..., 4] = 0.01
    nodes = [
        helper.make_node("Cast", ["picture"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["share"]),
        helper.make_node("Mul", ["mask", "share"], ["trace"]),
        helper.make_node("Add", ["rows", "trace"], ["out"]),
    ]
    source = helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, height, WIDTH, 3])
    target = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, len(scores), 6])
    constants = {
        "rows": rows[None].astype(np.float32),
        "mask": mask.astype(np.float32),
        "white": np.float32(255),
    }
    return model(nodes, [source], target, constants)


def raw_model(classes: int = 2, anchors: int = 5) -> Any:
    """Return a uint8 model with the raw head (1, 4 + classes, n), all scores zero."""
    nodes = [
        helper.make_node("Cast", ["picture"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["rows", "mean"], ["out"]),
    ]
    source = helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])
    shape = [1, 4 + classes, anchors]
    target = helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)
    return model(nodes, [source], target, {"rows": np.zeros(shape, np.float32)})


def bomb_model() -> Any:
    """Return an end-to-end model of some hundred bytes that asks for 64 GB while it runs."""
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0),
        helper.make_node("Cast", ["picture"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["mean"], keepdims=0),
        helper.make_node("Add", ["most", "mean"], ["sum"]),
        helper.make_node("Mul", ["rows", "sum"], ["out"]),
    ]
    source = helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])
    target = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1, 6])
    constants = {"huge": np.array([16_000_000_000], np.int64), "rows": np.zeros((1, 1, 6), "f4")}
    return model(nodes, [source], target, constants)


def save(made: Any, file: Path) -> Path:
    """Write a model and return its path."""
    file.write_bytes(made.SerializeToString())
    return file


def bundle(folder: Path, made: Any | None = None, **changes: Any) -> Bundle:
    """Write a bundle around a model (the end-to-end one) and open it.

    Args:
        folder: an empty folder.
        made: onnx.ModelProto, or None.
        changes: entries of the manifest that are to differ.
    """
    file = save(made or e2e_model(), folder / "tiny.onnx")
    artefact = {
        "path": file.name,
        "sha256": sha256_of(file),
        "runtimes": ["onnx", "openvino", "scripted"],
        "precision": "fp32",
    }
    manifest = {
        "name": "tiny",
        "version": "1",
        "decoder": "yolo-e2e",
        "labels": LABELS,
        "input": {"height": HEIGHT, "width": WIDTH},
        "thresholds": {label: {"fail": 0.5, "unsure": 0.3} for label in LABELS},
        "artefacts": {"fp32": artefact},
        "licence": "CC0-1.0",
    } | changes
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return open_bundle(folder) if "parity" in changes else proved(open_bundle(folder))


RUNS = ("onnx/cpu", "openvino/CPU/f32", "scripted")


def proved(opened: Bundle, **runs: Any) -> Bundle:
    """Give a bundle a parity report, green but for the runs that are given, and open it again."""
    page = opened.manifest.model_dump(mode="json")
    found = {name: {"ok": True} for name in RUNS} | {
        k.replace("_", "/"): v for k, v in runs.items()
    }
    flips = sum(len(run.get("flips", ())) for run in found.values())
    checked = {
        name: {
            "sha256": a.sha256,
            "recheck": None if (by := opened.rechecked(a)) is None else by.model_dump(),
            "precision": a.precision,
            "bytes": 0,
            "runs": found,
        }
        for name, a in opened.manifest.artefacts.items()
    }
    report = {
        "ok": all(run["ok"] for run in found.values()),
        "flips": flips * len(checked),
        "artefacts": checked,
        "reference": {"artefact": "fp32", "run": RUNS[0]},
        "pictures": {},
        "contract_sha256": opened.manifest.contract_sha256,
    }
    file = opened.path / REPORT
    file.write_text(json.dumps(report), encoding="utf-8")
    page["parity"] = {"path": file.name, "sha256": sha256_of(file)}
    (opened.path / "manifest.json").write_text(json.dumps(page), encoding="utf-8")
    return open_bundle(opened.path)
