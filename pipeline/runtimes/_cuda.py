"""Memory, copies, a stream and graphs of an NVIDIA GPU, through PyCUDA or cuda-bindings."""

import contextlib
import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from pipeline.errors import ConfigError, ModelError
from pipeline.plugins import vendor
from pipeline.types import Tensor

EXTRA = "tensorrt"


class Gpu(Protocol):
    """One GPU and one stream of work on it; any thread may call.

    Attributes:
        name: of the GPU, e.g. Orin.
        stream: handle of the stream.
    """

    name: str
    stream: int

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Tensor:
        """Return page-locked memory of the host, from which a copy needs no detour."""

    def memory(self, size: int) -> int:
        """Return the address of ``size`` bytes on the GPU."""

    def to_gpu(self, address: int, host: Tensor) -> None:
        """Queue a copy from pinned memory."""

    def to_host(self, host: Tensor, address: int) -> None:
        """Queue a copy to pinned memory."""

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats the work that ``work`` queues, as a CUDA graph where it can."""

    def wait(self) -> None:
        """Wait until everything that is queued is done."""

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Make the GPU that of the calling thread."""

    def close(self) -> None:
        """Free everything; may be called twice."""


def open_gpu(number: int) -> Gpu:
    """Open a GPU: through PyCUDA if that is installed, else through cuda-bindings.

    Raises:
        MissingExtra: neither is installed.
        ConfigError: there is no such GPU, or no driver for it.
    """
    if importlib.util.find_spec("pycuda") is not None:
        return _Pycuda(vendor("pycuda.driver", EXTRA), number)
    return _Bindings(vendor("cuda.bindings.runtime", EXTRA), number)


class _Bindings:
    """Through the CUDA runtime API of cuda-bindings."""

    def __init__(self, runtime: ModuleType, number: int) -> None:
        self._cuda: Any = runtime
        self._number = number
        try:
            count = self._call("cudaGetDeviceCount")
            if number >= count:
                raise ConfigError(f"{count} found")
            self._call("cudaSetDevice", number)
            self.name = _text(self._call("cudaGetDeviceProperties", number).name)
            self._stream = self._call("cudaStreamCreate")
        except (ConfigError, ModelError) as error:
            raise _no_gpu(number, error) from error
        self.stream = int(self._stream)
        self._frees: list[tuple[str, Any]] = [("cudaStreamDestroy", self._stream)]

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Tensor:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._call("cudaHostAlloc", size, self._cuda.cudaHostAllocDefault)
        self._frees.append(("cudaFreeHost", address))
        memory = (ctypes.c_uint8 * size).from_address(int(address))
        return np.frombuffer(memory, dtype).reshape(shape)

    def memory(self, size: int) -> int:
        address = self._call("cudaMalloc", size)
        self._frees.append(("cudaFree", address))
        return int(address)

    def to_gpu(self, address: int, host: Tensor) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, host.ctypes.data, host.nbytes, kind, self._stream)

    def to_host(self, host: Tensor, address: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host.ctypes.data, address, host.nbytes, kind, self._stream)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        finally:
            graph = self._call("cudaStreamEndCapture", self._stream)
        ready = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        self._frees.append(("cudaGraphExecDestroy", ready))
        return lambda: self._call("cudaGraphLaunch", ready, self._stream)

    def wait(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._call("cudaSetDevice", self._number)
        yield

    def close(self) -> None:
        for free, what in reversed(self._frees):
            self._call(free, what)
        self._frees.clear()

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cuda, name)(*arguments)
        if int(error) != 0:
            raise ModelError(f"{name}: {getattr(error, 'name', error)}")
        return values[0] if values else None


class _Pycuda:
    """Through PyCUDA, which knows no CUDA graphs: the work is queued anew each time."""

    def __init__(self, driver: ModuleType, number: int) -> None:
        self._cuda: Any = driver
        try:
            driver.init()
            device = driver.Device(number)
            self.name = str(device.name())
            self._context = device.retain_primary_context()
            with self.current():
                self._stream = driver.Stream()
        except driver.Error as error:
            raise _no_gpu(number, error) from error
        self.stream = int(self._stream.handle)
        self._kept: list[Any] = []

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Tensor:
        memory = self._cuda.pagelocked_empty(shape, dtype)
        self._kept.append(memory)
        return np.asarray(memory)

    def memory(self, size: int) -> int:
        memory = self._cuda.mem_alloc(size)
        self._kept.append(memory)
        return int(memory)

    def to_gpu(self, address: int, host: Tensor) -> None:
        with self._ours():
            self._cuda.memcpy_htod_async(address, host, self._stream)

    def to_host(self, host: Tensor, address: int) -> None:
        with self._ours():
            self._cuda.memcpy_dtoh_async(host, address, self._stream)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def wait(self) -> None:
        with self._ours():
            self._stream.synchronize()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def close(self) -> None:
        if self._context is not None and self._kept:
            with self.current():
                self._kept.clear()

    @contextlib.contextmanager
    def _ours(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise ModelError(" ".join(str(error).split())[:200]) from error


def _text(name: Any) -> str:
    return name.decode().rstrip("\0") if isinstance(name, bytes) else str(name)


def _no_gpu(number: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"tensorrt: GPU {number} cannot be used here ({' '.join(str(error).split())}); is there "
        "an NVIDIA GPU, its driver, and access to /dev/nvidia* or /dev/nvhost*?"
    )
