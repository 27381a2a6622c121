"""Wrong exports, each in one way that has happened to somebody; the parity gate must see all."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.detector import Detector
from pipeline.types import Detections, Image, Tensor


def _first_convolution(model: Any) -> Any:
    name = next(n for n in model.graph.node if n.op_type == "Conv").input[1]
    return next(t for t in model.graph.initializer if t.name == name)


def _with_first_kernel(model: Any, change: Callable[[Any], Any]) -> Any:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    kernel = _first_convolution(changed)
    values = np.ascontiguousarray(change(numpy_helper.to_array(kernel)))
    kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
    return changed


def _with_output(model: Any, nodes: list[Any], constants: dict[str, Any], rows: int) -> Any:
    """Return a model whose output 'before' goes through nodes that give 'after'."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    name = graph.output[0].name
    for node in graph.node:
        for place, made in enumerate(node.output):
            if made == name:
                node.output[place] = "before"
    nodes[-1].output[0] = name
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()
    )
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = rows
    onnx.checker.check_model(changed)
    return changed


def _rows(model: Any) -> int:
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def swapped_colours(model: Any) -> Any:
    """The model takes RGB for BGR."""
    return _with_first_kernel(model, lambda kernel: kernel[:, ::-1])


def wrong_scale(model: Any) -> Any:
    """The division by 255 is done twice."""
    return _with_first_kernel(model, lambda kernel: kernel / np.float32(255))


def without_suppression(model: Any) -> Any:
    """Every defect is listed twice, a little apart, as a head without suppression does."""
    shift = np.array([1, 1, 1, 1, -0.004, 0], np.float32).reshape(1, 1, 6)
    nodes = [
        helper.make_node("Add", ["before", "shift"], ["moved"]),
        helper.make_node("Clip", ["moved", "least"], ["shown"]),
        helper.make_node("Concat", ["before", "shown"], ["after"], axis=1),
    ]
    constants = {"shift": shift, "least": np.float32(0)}
    return _with_output(model, nodes, constants, 2 * _rows(model))


def permuted_labels(model: Any, classes: int) -> Any:
    """Every class carries the name of the next."""
    step = np.array([0, 0, 0, 0, 0, 1], np.float32).reshape(1, 1, 6)
    # Only the last column is taken modulo the classes; the others are far below this number.
    around = np.array([1e9, 1e9, 1e9, 1e9, 1e9, classes], np.float32).reshape(1, 1, 6)
    nodes = [
        helper.make_node("Add", ["before", "step"], ["next"]),
        helper.make_node("Mod", ["next", "around"], ["after"], fmod=1),
    ]
    return _with_output(model, nodes, {"step": step, "around": around}, _rows(model))


def broken_scales(model: Any, factor: float = 8.0) -> Any:
    """The scales of every fourth activation of a quantised model are too small: values clip."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weights = {t.name: t for t in changed.graph.initializer}
    scales = {
        node.input[1]
        for node in changed.graph.node
        if node.op_type == "QuantizeLinear" and node.input[1] in weights
    }
    assert scales, "this model is not quantised"
    for name in sorted(scales)[::4]:
        values = numpy_helper.to_array(weights[name]) / np.float32(factor)
        weights[name].CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), name))
    return changed


class Stretching:
    """A detector whose host stretches a picture to the model's input instead of padding it."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self._detector.outputs

    def detect(self, image: Image) -> Detections:
        _, height, width, _ = self._detector.runtime.input_shape
        found = self._detector.detect(np.asarray(cv2.resize(image, (width, height))))
        back = np.array([image.shape[1] / width, image.shape[0] / height] * 2, np.float32)
        return Detections(found.xyxy * back, found.score, found.label)
