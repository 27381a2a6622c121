"""What an ONNX file is made of, read from its outermost fields: bounds before a runtime sees it.

The layout is onnx.proto3 in Protocol Buffers' wire format (https://protobuf.dev/programming-guides/
encoding). Nothing is decoded but field numbers and lengths; weights are stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BundleError

MAX_NODES = 20_000
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that the runtimes bring themselves; any other domain needs code from somewhere."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _OPSET, _FUNCTION = 7, 8, 25  # of ModelProto
_NODE, _TENSOR = 1, 5  # of GraphProto
_DATA_LOCATION = 14  # of TensorProto
_DOMAIN = 1  # of OperatorSetIdProto


def check_graph(file: Path) -> None:
    """Refuse a graph that is too large, or that wants other files or unknown operators.

    Raises:
        BundleError: so, or this is no ONNX file.
    """
    try:
        nodes = _counted(memoryview(file.read_bytes()))
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise BundleError(f"{file}: not an ONNX model that can be read: {error}") from error
    if nodes > MAX_NODES:
        raise BundleError(f"{file}: a graph of {nodes} nodes; at most {MAX_NODES} are run")


def _counted(model: memoryview) -> int:
    """Return how many nodes the outermost graph has."""
    nodes = 0
    for number, content in _fields(model):
        if number == _FUNCTION:
            raise ValueError("it defines functions of its own")
        if number == _OPSET:
            _check_domain(content)
        if number == _GRAPH:
            for part, inner in _fields(content):
                nodes += part == _NODE
                if part == _TENSOR and any(n == _DATA_LOCATION for n, _ in _fields(inner)):
                    raise ValueError("it keeps weights in another file")
    if not nodes:
        raise ValueError("it has no graph")
    return nodes


def _check_domain(opset: memoryview) -> None:
    domain = b"".join(bytes(content) for number, content in _fields(opset) if number == _DOMAIN)
    if domain.decode("utf-8") not in DOMAINS:
        raise ValueError(f"it uses operators of the domain {domain!r:.60}")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each field; a number's content is empty."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind, start = key & 7, at
        if kind == _VARINT:
            _, at = _varint(message, at)
            start = at
        elif kind == _BYTES:
            length, start = _varint(message, at)
            at = start + length
        elif kind in (_FIXED64, _FIXED32):
            start = at = at + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if at > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
