"""Runs a LiteRT (TensorFlow Lite) model on processors, small ARM boards included."""

from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.errors import BundleError, ModelError
from pipeline.plugins import vendor
from pipeline.runtimes import Options as BaseOptions
from pipeline.types import Tensor


class Options(BaseOptions):
    """How it runs.

    Attributes:
        threads: threads of the processor.
    """

    threads: Annotated[int, Field(ge=1, le=256)] = 1


class LitertRuntime:
    """A model in LiteRT's interpreter; see the Runtime protocol."""

    def __init__(self, interpreter: ModuleType, options: Options, model: Path) -> None:
        self.name = "litert/cpu"
        self._interpreter: Any = _open(interpreter, options, model)
        source = _checked_input(self._interpreter, model)
        self.input_shape = tuple(int(side) for side in source["shape"])
        self._input = source["index"]
        self._outputs = [row["index"] for row in self._interpreter.get_output_details()]

    def infer(self, tensor: Tensor) -> tuple[Tensor, ...]:
        if self._interpreter is None:
            raise ModelError(f"{self.name}: the model is closed")
        try:
            self._interpreter.set_tensor(self._input, tensor)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self.name}: inference failed: {_one_line(error)}") from error
        return tuple(self._interpreter.get_tensor(index) for index in self._outputs)

    def close(self) -> None:
        self._interpreter = None


def create(options: Options, model: Path) -> LitertRuntime:
    """Load a model.

    Raises:
        MissingExtra: LiteRT is not installed.
        ModelError: the file cannot be loaded.
        BundleError: the model's input is not uint8 (1, H, W, 3).
    """
    return LitertRuntime(vendor("ai_edge_litert.interpreter", "litert"), options, model)


def _open(interpreter: ModuleType, options: Options, model: Path) -> Any:
    try:
        content = model.read_bytes()
        opened = interpreter.Interpreter(model_content=content, num_threads=options.threads)
        opened.allocate_tensors()
    except OSError as error:
        raise ModelError(f"{model}: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{model}: LiteRT cannot load it: {_one_line(error)}") from error
    return opened


def _checked_input(interpreter: Any, model: Path) -> Any:
    inputs = interpreter.get_input_details()
    if len(inputs) == 1 and inputs[0]["dtype"] is np.uint8:
        shape = inputs[0]["shape"]
        if len(shape) == 4 and shape[0] == 1 and shape[3] == 3:
            return inputs[0]
    said = ", ".join(f"{row['dtype'].__name__} {row['shape'].tolist()}" for row in inputs)
    raise BundleError(
        f"{model}: the model must take one uint8 input (1, H, W, 3), not [{said}]; "
        "export it with: lineguard lab export"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
