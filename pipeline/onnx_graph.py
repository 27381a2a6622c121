"""What an ONNX file is made of, read from its outermost fields: bounds before a runtime sees it.

The layout is onnx.proto3 in Protocol Buffers' wire format (https://protobuf.dev/programming-guides/
encoding). Nothing is decoded but field numbers and lengths; weights are stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BundleError

MAX_NODES = 20_000
MAX_FIELDS = 500_000
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
        nodes = _Reader().nodes(memoryview(file.read_bytes()))
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise BundleError(f"{file}: not an ONNX model that can be read: {error}") from error
    if nodes > MAX_NODES:
        raise BundleError(f"{file}: a graph of {nodes} nodes; at most {MAX_NODES} are run")


class _Reader:
    """Walks a file once, with a bound on the steps of the walk."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def nodes(self, model: memoryview) -> int:
        """Return how many nodes the outermost graph has."""
        count = 0
        for number, content in self._fields(model):
            if number == _FUNCTION:
                raise ValueError("it defines functions of its own")
            if number == _OPSET:
                self._check_domain(content)
            if number == _GRAPH:
                count += self._graph(content)
        if not count:
            raise ValueError("it has no graph")
        return count

    def _graph(self, graph: memoryview) -> int:
        count = 0
        for number, content in self._fields(graph):
            count += number == _NODE
            if number == _TENSOR and any(n == _DATA_LOCATION for n, _ in self._fields(content)):
                raise ValueError("it keeps weights in another file")
        return count

    def _check_domain(self, opset: memoryview) -> None:
        parts = [bytes(content) for number, content in self._fields(opset) if number == _DOMAIN]
        domain = b"".join(parts)
        if domain.decode("utf-8") not in DOMAINS:
            raise ValueError(f"it uses operators of the domain {domain!r:.60}")

    def _fields(self, message: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield number and content of each field; a number's content is empty."""
        at = 0
        while at < len(message):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            number, start, at = _field(message, at)
            if at > len(message):
                raise ValueError("it is cut off")
            yield number, message[start:at]


def _field(message: memoryview, at: int) -> tuple[int, int, int]:
    """Return the number of the field at ``at``, and where its content starts and ends."""
    key, start = _varint(message, at)
    kind = key & 7
    if kind == _VARINT:
        _, end = _varint(message, start)
        return key >> 3, end, end
    if kind == _BYTES:
        length, start = _varint(message, start)
        return key >> 3, start, start + length
    if kind not in (_FIXED64, _FIXED32):
        raise ValueError(f"a field of the unknown kind {kind}")
    end = start + (8 if kind == _FIXED64 else 4)
    return key >> 3, end, end


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
