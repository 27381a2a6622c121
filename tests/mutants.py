"""Wrong exports, each in one way that has happened to somebody; the parity gate must see all."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.detector import Detector
from pipeline.types import Detections, Image, Tensor
from pipeline.vision.decode import Decoder


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


def swapped_colours(model: Any) -> Any:
    """The model takes RGB for BGR."""
    return _with_first_kernel(model, lambda kernel: kernel[:, ::-1])


def wrong_scale(model: Any) -> Any:
    """The division by 255 is done twice."""
    return _with_first_kernel(model, lambda kernel: kernel / np.float32(255))


def permuted_labels(model: Any, classes: int) -> Any:
    """Every class carries the name of the next."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    name = graph.output[0].name
    for node in graph.node:
        for place, made in enumerate(node.output):
            if made == name:
                node.output[place] = "before"
    order = np.array([*range(4), 4 + classes - 1, *range(4, 4 + classes - 1)], np.int64)
    graph.initializer.append(numpy_helper.from_array(order, "order"))
    graph.node.append(helper.make_node("Gather", ["before", "order"], [name], axis=1))
    onnx.checker.check_model(changed)
    return changed


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


def without_suppression(detector: Detector) -> Detector:
    """The host lists every box of a head that shows each defect several times."""

    def read(outputs: tuple[Tensor, ...], min_score: float) -> Detections:
        (rows,) = outputs[0]
        boxes, scores = rows[:4].T, rows[4:].T
        half = boxes[:, 2:] / 2
        xyxy = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
        strong = scores.max(axis=1) >= min_score
        label = scores.argmax(axis=1).astype(np.int32)
        return Detections(xyxy[strong], scores.max(axis=1)[strong], label[strong])

    return Detector(
        detector.labels,
        Decoder(read, lambda outputs: None),
        detector.runtime,
        detector.artefact,
        min_score=detector.min_score,
    )


class Stretching:
    """A detector whose host stretches a picture to the model's input instead of padding it."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self._detector.outputs

    @property
    def rechecks(self) -> int:
        return self._detector.rechecks

    def detect(self, image: Image) -> Detections:
        _, height, width, _ = self._detector.runtime.input_shape
        found = self._detector.detect(np.asarray(cv2.resize(image, (width, height))))
        back = np.array([image.shape[1] / width, image.shape[0] / height] * 2, np.float32)
        return Detections(found.xyxy * back, found.score, found.label)
