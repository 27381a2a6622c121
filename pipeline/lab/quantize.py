"""From the float artefact to smaller ones: INT8 for processors and TensorRT, and half floats."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.plugins import vendor
from pipeline.types import Tensor

FLOAT, HALF = 1, 10
"""Types of elements, as ONNX numbers them."""

CONVOLUTION = "Conv"

BODY = (CONVOLUTION, "Sigmoid", "Mul", "Add", "Concat", "Split", "Resize", "MaxPool")
"""What is quantised between the picture and the head's last convolutions, for ONNX Runtime.

Bytes then go from one convolution to the next without becoming floats: boards-n 4 on one thread
runs at 1.93 times fp32, with convolutions alone at 1.43 (OpenVINO, which has an artefact of its
own: 1.64 and 1.94). Behind those convolutions nothing is: boxes (0..640) and scores (0..1) meet in
one tensor there, and one scale for both rounds the scores away (mAP50-95 0.000)."""


def int8_for_processors(source: Path, out: Path, tensors: Sequence[Tensor]) -> Path:
    """Write an ONNX file with Q/DQ pairs as processors want them: activations u8, weights s8.

    ONNX Runtime and OpenVINO run it. All of the body is quantised: see BODY. Symmetric activations
    are twice as slow there as float.

    Args:
        source: the fp32 artefact.
        out: the file to write.
        tensors: inputs of the model (1, H, W, 3) to measure the range of activations on.

    Raises:
        MissingExtra: onnx or ONNX Runtime is not installed.
        ModelError: the file cannot be quantised.
    """
    return _quantise(source, out, tensors, symmetric=False)


def int8_for_tensorrt(source: Path, out: Path, tensors: Sequence[Tensor]) -> Path:
    """Write an ONNX file with Q/DQ pairs as TensorRT wants them: symmetric, biases in float.

    The only form of INT8 that TensorRT 10.3 to 11 all build. Arguments and errors as above.
    """
    return _quantise(source, out, tensors, symmetric=True)


def half_openvino(source: Path, out: Path) -> Path:
    """Write an OpenVINO IR (.xml and .bin) with weights in half floats.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    ov = _openvino()
    ov.save_model(ov.Core().read_model(source), out, compress_to_fp16=True)
    return out


def int8_openvino(source: Path, out: Path, tensors: Sequence[Tensor]) -> Path:
    """Write an OpenVINO IR whose convolutions NNCF has quantised; the head's last stay in float.

    Raises:
        MissingExtra: OpenVINO or NNCF is not installed.
    """
    ov, nncf = _openvino(), vendor("nncf", "lab")
    nncf.set_log_level(logging.ERROR)
    model = ov.Core().read_model(source)
    data = nncf.Dataset(tensors, lambda tensor: [tensor])
    with _quiet():
        quantised = nncf.quantize(
            model,
            data,
            subset_size=len(tensors),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_float_in_openvino(model)),
        )
    ov.save_model(quantised, out, compress_to_fp16=True)
    return out


def half_onnx(source: Path, out: Path) -> Path:
    """Write an ONNX file whose body computes in half floats: strongly typed, as TensorRT 11 asks.

    The first convolution (its weights are divided by 255) and all from the head's last ones but one
    on (boxes up to 640 px have half a pixel of resolution in half floats) stay in float.

    Raises:
        MissingExtra: onnx or ONNX Runtime is not installed.
    """
    onnx, float16 = vendor("onnx", "lab"), vendor("onnxruntime.transformers.float16", "lab")
    model = onnx.load(source)
    first = next(node for node in model.graph.node if node.op_type == CONVOLUTION)
    last = head_convolutions(model)
    before = _convolutions_before(model, [name for node in last for name in node.input])
    stays = [first, *nodes_behind(model.graph, before)]
    stays += [node for node in model.graph.node if node.op_type == "Cast"]
    # By name: the objects that stand for nodes come and go, and with them what id() says.
    named = sorted({node.name for node in stays})
    half = float16.convert_float_to_float16(
        model, keep_io_types=True, node_block_list=named, force_fp16_initializers=True
    )
    # It adds the same cast of a constant for every node that reads it; a graph may hold it once.
    once = {tuple(node.output): node for node in reversed(half.graph.node)}
    kept = [node for node in half.graph.node if once[tuple(node.output)] is node]
    del half.graph.node[:]
    half.graph.node.extend(_without_detours(kept, half.graph.output))
    onnx.save(cast_first(half), out)
    return out


def _without_detours(nodes: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """Return nodes that pass floats on to each other as floats.

    The converter casts what each node in float gives to half floats, and back for the next one: a
    box of 531.0 px becomes one of 531.5.
    """
    casts = {node.output[0]: node for node in nodes if node.op_type == "Cast"}

    def target(node: Any) -> int:
        return int(next(a.i for a in node.attribute if a.name == "to"))

    straight = {
        name: casts[node.input[0]].input[0]
        for name, node in casts.items()
        if target(node) == FLOAT and node.input[0] in casts
        if target(casts[node.input[0]]) == HALF
    }
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = straight.get(name, name)
    ends = {value.name for value in outputs}
    left = [node for node in nodes if node.output[0] not in straight or node.output[0] in ends]
    for node in left:
        if node.output[0] in straight:  # the output must keep its name: a cast of a float to itself
            node.input[0] = straight[node.output[0]]
    used = {name for node in left for name in node.input} | ends
    return [node for node in left if node.op_type != "Cast" or node.output[0] in used]


def cast_first(model: Any) -> Any:
    """Return an ONNX model that turns the picture into floats before it changes its layout.

    Of a uint8 input TensorRT does nothing but the cast. Processors move bytes faster than floats,
    so that their artefacts keep the other order.
    """
    changed = vendor("onnx", "lab").ModelProto()
    changed.CopyFrom(model)
    name = changed.graph.input[0].name
    first = [node for node in changed.graph.node if name in node.input]
    if [node.op_type for node in first] != ["Transpose"]:
        return changed
    moved = first[0]
    then = [node for node in changed.graph.node if moved.output[0] in node.input]
    if [node.op_type for node in then] != ["Cast"]:
        return changed
    (cast,) = then
    floats, after = f"{name}_as_float", cast.output[0]
    cast.input[0], cast.output[0] = name, floats
    moved.input[0], moved.output[0] = floats, after
    ordered = [n for n in changed.graph.node if n.name not in (moved.name, cast.name)]
    pair = [cast, moved]
    del changed.graph.node[:]
    changed.graph.node.extend([*pair, *ordered])
    return changed


def head_convolutions(model: Any) -> list[Any]:
    """Return the last convolutions of an ONNX graph: between them and the output is none."""
    return _convolutions_before(model, [value.name for value in model.graph.output])


def _convolutions_before(model: Any, names: Sequence[str]) -> list[Any]:
    """Return the convolutions that these values are made of, with no other in between."""
    producers = {name: node for node in model.graph.node for name in node.output}
    found, seen, open_names = [], set(), list(names)
    while open_names:
        node = producers.get(open_names.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        if node.op_type == CONVOLUTION:
            found.append(node)
        else:
            open_names += node.input
    return found


def nodes_behind(graph: Any, convolutions: Sequence[Any]) -> list[Any]:
    """Return convolutions and all nodes that use what they give, in any number of steps."""
    reached = {name for node in convolutions for name in node.output}
    behind = list(convolutions)
    for node in graph.node:  # a graph lists a node after those that it needs
        if reached & set(node.input):
            behind.append(node)
            reached |= set(node.output)
    return behind


def _quantise(source: Path, out: Path, tensors: Sequence[Tensor], *, symmetric: bool) -> Path:
    onnx = vendor("onnx", "lab")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    ort = vendor("onnxruntime.quantization", "lab")
    model = onnx.load(source)
    stays = [node.name for node in nodes_behind(model.graph, head_convolutions(model))]
    if symmetric:
        # A picture is 0..255: without a zero point half of the range would be lost.
        stays.append(next(n.name for n in model.graph.node if n.op_type == CONVOLUTION))
    with tempfile.TemporaryDirectory(prefix="lineguard-quantise-") as scratch, _quiet():
        written = Path(scratch) / out.name
        try:
            ort.quantize_static(
                str(source),
                str(written),
                _reader(ort, model.graph.input[0].name, tensors),
                quant_format=ort.QuantFormat.QDQ,
                op_types_to_quantize=[CONVOLUTION] if symmetric else list(BODY),
                nodes_to_exclude=stays,
                per_channel=True,
                activation_type=ort.QuantType.QInt8 if symmetric else ort.QuantType.QUInt8,
                weight_type=ort.QuantType.QInt8,
                calibrate_method=ort.CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": symmetric,
                    "WeightSymmetric": True,
                    "QuantizeBias": not symmetric,
                },
            )
        except (RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(f"{source}: cannot be quantised: {said}") from error
        made = onnx.load(written)
        onnx.save(cast_first(made) if symmetric else made, out)
    return out


def _reader(ort: Any, name: str, tensors: Iterable[Tensor]) -> Any:
    rows = iter([{name: tensor} for tensor in tensors])

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(rows, None)

    return Reader()


def _float_in_openvino(model: Any) -> list[str]:
    """Return the operations of the head, from its last convolutions on, by their own names."""
    found, names, seen = [], [], set()
    open_nodes = [result.input_value(0).get_node() for result in model.get_results()]
    while open_nodes:
        node = open_nodes.pop()
        name = node.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        kind = node.get_type_name()
        if kind not in ("Constant", "Parameter"):
            names.append(name)
        if kind in ("Convolution", "GroupConvolution"):
            found.append(name)
        else:
            open_nodes += [value.get_node() for value in node.input_values()]
    return names


def _openvino() -> Any:
    from pipeline.runtimes import openvino as runtime

    runtime.silence_telemetry()
    return vendor("openvino", "openvino")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the vendors' progress and warnings to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logging.disable(before)
