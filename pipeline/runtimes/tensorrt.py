"""Runs an ONNX file with TensorRT on an NVIDIA GPU; the engine is built there, once."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.errors import BundleError, ConfigError, MissingExtra, ModelError
from pipeline.plugins import ConfigPath, vendor
from pipeline.runtimes import Options as BaseOptions
from pipeline.runtimes._cuda import EXTRA, Gpu, open_gpu
from pipeline.types import Tensor

OLDEST, FIRST_UNKNOWN = (10, 3), (12, 0)


class Options(BaseOptions):
    """Where it runs.

    Attributes:
        gpu: number of the GPU.
        cache_dir: keeps the built engine, which takes minutes to build; None takes
            ``$XDG_CACHE_HOME/lineguard/engines``. An engine is code: only the station may write it.
        workspace_mb: memory that TensorRT may use while it builds.
    """

    gpu: Annotated[int, Field(ge=0, le=63)] = 0
    cache_dir: ConfigPath | None = None
    workspace_mb: Annotated[int, Field(ge=16, le=65536)] = 1024


@dataclass(frozen=True, slots=True)
class _Slot:
    """One input or output: its name in the engine, pinned memory here, an address on the GPU."""

    name: str
    host: Tensor
    address: int


class TensorrtRuntime:
    """A model in TensorRT; see the Runtime protocol.

    The precision is in the model file (half floats, or Q/DQ pairs): engines are strongly typed,
    the one way that TensorRT 10.3 to 11 share.
    """

    def __init__(self, trt: ModuleType, gpu: Gpu, options: Options, model: Path) -> None:
        self._gpu = gpu
        self._log = _Log.of(trt)
        with gpu.current():
            self._engine = _open_engine(trt, gpu, options, model, self._log)
            self._inputs, self._outputs = _slots(trt, gpu, self._engine, model)
            self.name = f"tensorrt/{gpu.name.replace('/', '-')}/{trt.__version__}"
            self.input_shape = tuple(self._inputs[0].host.shape)
            self._context: Any = self._engine.create_execution_context()
            self._run = self._recorded()

    def infer(self, tensor: Tensor) -> tuple[Tensor, ...]:
        if self._context is None:
            raise ModelError(f"{self.name}: the model is closed")
        place = self._inputs[0].host
        if tensor.shape != place.shape or tensor.dtype != place.dtype:
            raise ModelError(
                f"{self.name}: inference failed: the input must be {place.dtype} {place.shape}, "
                f"not {tensor.dtype} {tensor.shape}"
            )
        np.copyto(place, tensor)
        with self._gpu.current():
            try:
                self._run()
                self._gpu.wait()
            except ModelError as error:
                raise ModelError(f"{self.name}: inference failed: {error}") from error
        return tuple(slot.host.copy() for slot in self._outputs)

    def close(self) -> None:
        if self._context is not None:
            self._run = _nothing
            self._context = self._engine = None
            with self._gpu.current():
                self._gpu.close()

    def _recorded(self) -> Callable[[], None]:
        """Run once, as TensorRT asks before its work may be recorded, then record it."""
        for slot in (*self._inputs, *self._outputs):
            self._context.set_tensor_address(slot.name, slot.address)
        self._queue()
        self._gpu.wait()
        return self._gpu.recorded(self._queue)

    def _queue(self) -> None:
        for slot in self._inputs:
            self._gpu.to_gpu(slot.address, slot.host)
        if not self._context.execute_async_v3(self._gpu.stream):
            raise ModelError(self._log.last() or "TensorRT does not say why")
        for slot in self._outputs:
            self._gpu.to_host(slot.host, slot.address)


def create(options: Options, model: Path) -> TensorrtRuntime:
    """Build the engine of an ONNX file, or take it from the cache, and load it.

    Raises:
        MissingExtra: TensorRT, or both PyCUDA and cuda-bindings, are not installed.
        ConfigError: there is no such GPU, or TensorRT is too old or unknown.
        ModelError: the engine cannot be built or loaded.
        BundleError: the model's input is not uint8 (1, H, W, 3).
    """
    try:
        trt = vendor("tensorrt", EXTRA)
    except MissingExtra as error:
        raise MissingExtra(
            f"TensorRT cannot be imported ({error.__cause__}); on a Jetson install "
            "python3-libnvinfer and make the environment with --system-site-packages, "
            "elsewhere: pip install tensorrt"
        ) from error
    check_version(trt.__version__)
    return TensorrtRuntime(trt, open_gpu(options.gpu), options, model)


def check_version(version: str) -> None:
    """Refuse a TensorRT whose calls are not those that are used here.

    Raises:
        ConfigError: it is older than 10.3, or 12 or newer.
    """
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if not OLDEST <= numbers < FIRST_UNKNOWN:
        raise ConfigError(f"tensorrt: version {version} cannot be used; install 10.3 to 11.x")


def engine_file(folder: Path, model: bytes, gpu: str, version: str) -> Path:
    """Return where the engine of a model is kept: an engine fits one GPU and one TensorRT only.

    The precision is in the model's bytes.
    """
    key = hashlib.sha256()
    for part in (model, gpu.encode(), version.encode()):
        key.update(hashlib.sha256(part).digest())
    return folder / f"{key.hexdigest()}.engine"


def _open_engine(trt: ModuleType, gpu: Gpu, options: Options, model: Path, log: "_Log") -> Any:
    try:
        data = model.read_bytes()
    except OSError as error:
        raise ModelError(f"{model}: {error.strerror}") from error
    file = engine_file(_folder(options), data, gpu.name, trt.__version__)
    runtime = trt.Runtime(log.vendor)
    if _is_ours(file):
        engine = runtime.deserialize_cuda_engine(file.read_bytes())
        if engine is not None:
            return engine
    plan = _build(trt, data, options, model, log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ModelError(f"{model}: TensorRT cannot load its own engine: {log.last()}")
    _keep(file, plan)
    return engine


def _is_ours(file: Path) -> bool:
    """Say whether an engine is there and nobody else could have put it there: it is code."""
    if not file.is_file() or file.is_symlink():
        return False
    known = file.stat()
    return known.st_uid in (0, os.geteuid()) and not known.st_mode & 0o022


def _folder(options: Options) -> Path:
    if options.cache_dir is not None:
        return options.cache_dir
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "lineguard" / "engines"


def _build(trt: ModuleType, data: bytes, options: Options, model: Path, log: "_Log") -> bytes:
    builder = trt.Builder(log.vendor)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.vendor)
    if not parser.parse(data):
        said = parser.get_error(0).desc() if parser.num_errors else log.last()
        raise ModelError(f"{model}: TensorRT cannot read it: {_one_line(said)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(f"{model}: TensorRT cannot build an engine: {_one_line(log.last())}")
    return bytes(plan)


def _keep(file: Path, plan: bytes) -> None:
    """Write an engine so that it is there whole or not at all, and only its owner may change it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
            scratch.write(plan)
        Path(scratch.name).replace(file)
    except OSError as error:
        raise ModelError(
            f"{file.parent}: {error.strerror}; the engine must be kept there, set cache_dir"
        ) from error


def _slots(
    trt: ModuleType, gpu: Gpu, engine: Any, model: Path
) -> tuple[tuple[_Slot, ...], tuple[_Slot, ...]]:
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    shapes = {name: tuple(int(n) for n in engine.get_tensor_shape(name)) for name in names}
    kinds = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
    asked = [shapes[n] for n in inputs if kinds[n] == np.uint8]
    if len(inputs) != 1 or len(asked) != 1 or len(asked[0]) != 4 or asked[0][::3] != (1, 3):
        said = ", ".join(f"{n}: {kinds[n]} {shapes[n]}" for n in inputs)
        raise BundleError(
            f"{model}: the model must take one uint8 input (1, H, W, 3), not [{said}]; "
            "export it with: lineguard lab export"
        )

    def slot(name: str) -> _Slot:
        host = gpu.pinned(shapes[name], kinds[name])
        return _Slot(name, host, gpu.memory(host.nbytes))

    return tuple(slot(n) for n in inputs), tuple(slot(n) for n in names if n not in inputs)


class _Log:
    """Keeps what TensorRT says of errors, which it else prints."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self.vendor: Any = None

    def last(self) -> str:
        return self._errors[-1] if self._errors else ""

    @staticmethod
    def of(trt: ModuleType) -> "_Log":
        kept = _Log()

        class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    kept._errors.append(msg)

        kept.vendor = Logger()
        return kept


def _nothing() -> None:
    """What a closed model runs."""


def _one_line(said: str) -> str:
    return " ".join(said.split())[:300] or "it does not say why"
