"""Stands in for TensorRT and a GPU: engines are ONNX Runtime sessions, GPU memory lies in the host.

It shows that the runtime makes TensorRT's calls in their order and with the right memory; it cannot
show that TensorRT takes the model.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime


class Gpu:
    """Queues work as a stream does: nothing happens before ``wait``."""

    stream = 7

    def __init__(self, name: str = "Double") -> None:
        self.name = name
        self.closed = 0
        self.queue: list[Callable[[], None]] = []
        self._kept: list[Any] = []

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.zeros(shape, dtype)

    def memory(self, size: int) -> int:
        self._kept.append(np.zeros(size, np.uint8))
        return int(self._kept[-1].ctypes.data)

    def to_gpu(self, address: int, host: Any) -> None:
        self.queue.append(lambda: ctypes.memmove(address, host.ctypes.data, host.nbytes) and None)

    def to_host(self, host: Any, address: int) -> None:
        self.queue.append(lambda: ctypes.memmove(host.ctypes.data, address, host.nbytes) and None)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        assert not self.queue, "work is under way"
        work()
        graph, self.queue = self.queue, []
        return lambda: self.queue.extend(graph)

    def wait(self) -> None:
        for step in self.queue:
            step()
        self.queue.clear()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        self.closed += 1


def _array(address: int, shape: Any, dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


class _Context:
    def __init__(self, engine: "_Engine") -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine = self._engine
        assert stream == engine.gpu.stream
        engine.gpu.queue.append(self._run)
        return not engine.fails

    def _run(self) -> None:
        engine = self._engine
        views = {
            name: _array(self._addresses[name], engine.shapes[name], engine.kinds[name])
            for name in engine.names
        }
        (source,) = engine.session.get_inputs()
        answers = engine.session.run(None, {source.name: views[source.name]})
        for value, answer in zip(engine.session.get_outputs(), answers, strict=True):
            views[value.name][...] = answer


class _Engine:
    def __init__(self, plan: bytes, gpu: Gpu) -> None:
        self.gpu, self.fails = gpu, False
        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        values = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.names = [v.name for v in values]
        self.shapes = {v.name: v.shape for v in values}
        known = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
        self.kinds = {v.name: known[v.type] for v in values}
        self.num_io_tensors = len(values)

    def get_tensor_name(self, place: int) -> str:
        return self.names[place]

    def get_tensor_mode(self, name: str) -> Any:
        given = {v.name for v in self.session.get_inputs()}
        return Mode.INPUT if name in given else Mode.OUTPUT

    def get_tensor_shape(self, name: str) -> Any:
        return self.shapes[name]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.kinds[name]

    def create_execution_context(self) -> _Context:
        return _Context(self)


class Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class _Flag(IntEnum):
    STRONGLY_TYPED = 1


class _Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class _Logger:
    Severity = _Severity


class _Runtime:
    def __init__(self, gpu: Gpu, log: Any) -> None:
        self._gpu, self._log = gpu, log

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        if not plan.startswith(b"plan"):
            self._log.log(_Severity.ERROR, "no plan")
            return None
        return _Engine(plan[4:], self._gpu)


class _OnnxParser:
    num_errors = 1

    def __init__(self, state: Any, network: Any) -> None:
        assert network == 1 << _Flag.STRONGLY_TYPED
        self._state = state

    def parse(self, data: bytes) -> bool:
        self._state.model = data
        return len(data) > 50

    def get_error(self, place: int) -> Any:
        return SimpleNamespace(desc=lambda: f"error {place}:\nno model")


class _Builder:
    def __init__(self, state: Any, log: Any) -> None:
        self._state, self._log = state, log

    def create_network(self, flags: int) -> int:
        return flags

    def create_builder_config(self) -> Any:
        return SimpleNamespace(set_memory_pool_limit=lambda pool, size: None)

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        if b"Unbuildable" in self._state.model:
            self._log.log(_Severity.ERROR, "no tactic\nfits")
            return None
        self._state.builds += 1
        return b"plan" + bytes(self._state.model)


def module(gpu: Gpu, version: str = "10.16.1") -> Any:
    """Return what ``import tensorrt`` would give; ``state.builds`` counts engines built."""
    state = SimpleNamespace(builds=0, model=b"")
    return SimpleNamespace(
        __version__=version,
        ILogger=_Logger,
        Runtime=lambda log: _Runtime(gpu, log),
        Builder=lambda log: _Builder(state, log),
        OnnxParser=lambda network, log: _OnnxParser(state, network),
        NetworkDefinitionCreationFlag=_Flag,
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        TensorIOMode=Mode,
        nptype=lambda kind: kind,
        state=state,
    )
