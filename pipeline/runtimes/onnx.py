"""Runs an ONNX file with ONNX Runtime, on the processor or on an NVIDIA GPU."""

import os
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.errors import BundleError, ModelError
from pipeline.plugins import vendor
from pipeline.runtimes import Options as BaseOptions
from pipeline.types import Tensor

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
_NEEDS = {
    "cpu": "pip install 'lineguard[cpu]'",
    "cuda": "pip install 'lineguard[gpu]', beside an NVIDIA driver, CUDA and cuDNN",
    "tensorrt": "pip install 'lineguard[gpu]', beside CUDA and TensorRT 10",
}
_LOG_ERRORS_ONLY = 3


class Options(BaseOptions):
    """Where it runs.

    Attributes:
        device: cpu, cuda or tensorrt (ONNX Runtime's own use of TensorRT).
        threads: threads of one inference; 0 takes one per core.
    """

    device: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    threads: Annotated[int, Field(ge=0, le=256)] = 0


class OnnxRuntime:
    """A model in ONNX Runtime; see the Runtime protocol."""

    def __init__(self, ort: ModuleType, options: Options, model: Path) -> None:
        self._errors = _errors_of(ort)
        self._session: Any = _open(ort, options, model, self._errors)
        self.name = f"onnx/{options.device}"
        self._input, self.input_shape = _checked_input(self._session, model)

    def infer(self, tensor: Tensor) -> tuple[Tensor, ...]:
        if self._session is None:
            raise ModelError(f"{self.name}: the model is closed")
        try:
            return tuple(self._session.run(None, {self._input: tensor}))
        except self._errors as error:
            raise ModelError(f"{self.name}: inference failed: {_one_line(error)}") from error

    def close(self) -> None:
        self._session = None


def create(options: Options, model: Path) -> OnnxRuntime:
    """Load an ONNX file.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ModelError: the file cannot be loaded, or the device that is asked for is not there.
        BundleError: the model's input is not uint8 (1, H, W, 3).
    """
    # From 1.29 on, importing it on Linux writes a device id to the cache folder and reports to
    # Microsoft; only this variable prevents both. disable_telemetry_events() comes too late.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    ort = vendor("onnxruntime", "gpu" if options.device != "cpu" else "cpu")
    ort.disable_telemetry_events()  # older versions know this alone
    return OnnxRuntime(ort, options, model)


def _open(
    ort: ModuleType, options: Options, model: Path, errors: tuple[type[Exception], ...]
) -> Any:
    providers = _PROVIDERS[options.device]
    _check_in_use(options, providers[0], ort.get_available_providers())
    if options.device != "cpu" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA and cuDNN where pip has put them
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = _LOG_ERRORS_ONLY
    # Spinning keeps every core at 100 % between two parts, and takes them from capture and disk.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # From bytes: weights in a second file, which no hash covers, are refused.
        session = ort.InferenceSession(model.read_bytes(), settings, providers=providers)
    except OSError as error:
        raise ModelError(f"{model}: {error.strerror}") from error
    except errors as error:
        raise ModelError(f"{model}: ONNX Runtime cannot load it: {_one_line(error)}") from error
    _check_in_use(options, providers[0], session.get_providers())
    return session


def _check_in_use(options: Options, provider: str, in_use: list[str]) -> None:
    """Refuse to run elsewhere than asked: ONNX Runtime falls back to the processor silently."""
    if provider not in in_use:
        raise ModelError(
            f"onnx: the device '{options.device}' cannot be used here; it needs: "
            f"{_NEEDS[options.device]}"
        )


def _checked_input(session: Any, model: Path) -> tuple[str, tuple[int, ...]]:
    inputs = session.get_inputs()
    shape = tuple(inputs[0].shape) if inputs else ()
    fixed = len(shape) == 4 and all(isinstance(n, int) for n in shape)
    fits = fixed and shape[0] == 1 and shape[3] == 3 and inputs[0].type == "tensor(uint8)"
    if len(inputs) != 1 or not fits:
        said = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)
        raise BundleError(
            f"{model}: the model must take one uint8 input (1, H, W, 3), not [{said}]; "
            "export it with: lineguard lab export"
        )
    return str(inputs[0].name), shape


def _errors_of(ort: ModuleType) -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises: a dozen classes without a base of their own."""
    state = ort.capi.onnxruntime_pybind11_state
    own = [c for c in vars(state).values() if isinstance(c, type) and issubclass(c, Exception)]
    return (*own, RuntimeError, ValueError)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
