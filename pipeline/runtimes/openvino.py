"""Runs an ONNX file or an OpenVINO IR with OpenVINO, on processors, GPUs and NPUs."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import Self

from pipeline.errors import BundleError, ConfigError, ModelError
from pipeline.plugins import ConfigPath, vendor
from pipeline.runtimes import Options as BaseOptions
from pipeline.types import Tensor


class Options(BaseOptions):
    """Where and how it runs.

    Attributes:
        device: AUTO, CPU, GPU or NPU.
        threads: threads of the processor; 0 takes one per core.
        precision: of the arithmetic: f32, bf16 or f16.
        mode: latency (one picture at a time on all cores) or throughput.
        cache_dir: keeps the compiled model there, so that the next start is faster.
    """

    device: Literal["AUTO", "CPU", "GPU", "NPU"] = "CPU"
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    precision: Literal["f32", "bf16", "f16"] = "f32"
    mode: Literal["latency", "throughput"] = "latency"
    cache_dir: ConfigPath | None = None

    def meant_for(self, precision: str) -> Self:
        """Return these options, for an artefact in bf16 with that arithmetic."""
        return self.model_copy(update={"precision": "bf16"}) if precision == "bf16" else self

    def in_full(self) -> Self:
        """Return these options with f32, whatever the station file asks for."""
        return self.model_copy(update={"precision": "f32"})


class OpenvinoRuntime:
    """A model in OpenVINO; see the Runtime protocol."""

    def __init__(self, ov: ModuleType, options: Options, model: Path) -> None:
        compiled = _open(ov, options, model)
        self.name = f"openvino/{_device(compiled)}/{_precision(compiled, options)}"
        self.input_shape = _checked_input(compiled, model)
        self._request: Any = compiled.create_infer_request()

    def infer(self, tensor: Tensor) -> tuple[Tensor, ...]:
        if self._request is None:
            raise ModelError(f"{self.name}: the model is closed")
        try:
            # The results are copies: a view would be overwritten by the next inference.
            results = self._request.infer([tensor], share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise ModelError(f"{self.name}: inference failed: {_one_line(error)}") from error
        return tuple(results.values())

    def close(self) -> None:
        self._request = None


def create(options: Options, model: Path) -> OpenvinoRuntime:
    """Load and compile a model.

    Raises:
        MissingExtra: OpenVINO is not installed.
        ConfigError: the device does not compute in the precision that is asked for.
        ModelError: the file cannot be loaded, or the device that is asked for is not there.
        BundleError: the model's input is not uint8 (1, H, W, 3).
    """
    silence_telemetry()
    return OpenvinoRuntime(vendor("openvino", "openvino"), options, model)


def silence_telemetry() -> None:
    """Keep OpenVINO from reporting its import to Google Analytics, which it does unasked.

    It imports ``openvino_telemetry`` if it can, writes a client id to ~/intel and sends an event;
    without that package it works the same. None in sys.modules makes the import fail.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def _open(ov: ModuleType, options: Options, model: Path) -> Any:
    core = ov.Core()
    devices = core.available_devices
    if options.device != "AUTO" and not any(d.split(".")[0] == options.device for d in devices):
        raise ModelError(
            f"openvino: there is no device '{options.device}' here, only: {', '.join(devices)}; "
            "is its driver installed?"
        )
    try:
        # From bytes: weights in a second file, which no hash covers, are refused. An IR has its
        # weights in a second file by nature, and the manifest has the hash of that too.
        source = model if model.suffix == ".xml" else model.read_bytes()
        return core.compile_model(core.read_model(source), options.device, _settings(options))
    except OSError as error:
        raise ModelError(f"{model}: {error.strerror}") from error
    except RuntimeError as error:
        raise ModelError(f"{model}: OpenVINO cannot load it: {_one_line(error)}") from error


def _settings(options: Options) -> dict[str, Any]:
    """Return OpenVINO's configuration.

    The precision is always set: left alone, the CPU takes bf16 where it can, and says nothing.
    """
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": options.precision,
        "PERFORMANCE_HINT": options.mode.upper(),
    }
    if options.threads:
        settings["INFERENCE_NUM_THREADS"] = options.threads
        if options.device == "CPU":
            # Else the threads of several models are all held on the same first cores.
            settings["ENABLE_CPU_PINNING"] = False
    if options.cache_dir is not None:
        settings["CACHE_DIR"] = str(options.cache_dir)
    return settings


def _device(compiled: Any) -> str:
    return "+".join(d.strip("()") for d in compiled.get_property("EXECUTION_DEVICES"))


def _precision(compiled: Any, options: Options) -> str:
    """Return the precision in use; refuse another than the one asked for (f16 may become bf16)."""
    try:
        in_use = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    except RuntimeError:
        return options.precision  # AUTO passes the setting on, but does not tell
    if in_use != options.precision:
        raise ConfigError(
            f"openvino: {_device(compiled)} computes in {in_use} here, not in {options.precision} "
            f"as asked; set precision to {in_use}, or take another artefact (model.artefact)"
        )
    return in_use


def _checked_input(compiled: Any, model: Path) -> tuple[int, ...]:
    shapes = [i.partial_shape for i in compiled.inputs]
    kinds = [i.element_type.get_type_name() for i in compiled.inputs]
    if kinds == ["u8"] and shapes[0].is_static:
        shape = tuple(int(n) for n in shapes[0].to_shape())
        if len(shape) == 4 and shape[0] == 1 and shape[3] == 3:
            return shape
    said = ", ".join(f"{kind} {shape}" for kind, shape in zip(kinds, shapes, strict=True))
    raise BundleError(
        f"{model}: the model must take one uint8 input (1, H, W, 3), not [{said}]; "
        "export it with: lineguard lab export"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
