"""What runs a network: one file per runtime, all behind the Runtime protocol; tensors only."""

from typing import Protocol

from typing_extensions import Self

from pipeline import plugins
from pipeline.types import Tensor


class Options(plugins.Options):
    """Base of every runtime's options."""

    def meant_for(self, precision: str) -> Self:
        """Return the options with which an artefact of this precision is run; these, mostly.

        A precision may be one of the arithmetic and not of the file: such an artefact is not
        itself if it is run otherwise.
        """
        return self

    def in_full(self) -> Self:
        """Return these options with exact arithmetic: for what looks again in doubt."""
        return self


class Runtime(Protocol):
    """Runs one model.

    A plugin file holds ``class Options(runtimes.Options)`` and
    ``create(options, model: Path) -> Runtime``.

    Attributes:
        name: runtime, device and precision that are really in use, e.g. ``onnx/CPU/fp32``.
        input_shape: shape of the one input, as the model file states it.
    """

    name: str
    input_shape: tuple[int, ...]

    def infer(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the model's outputs, in the order of the model file.

        Args:
            tensor: C-contiguous, of ``input_shape`` and the model's dtype; it may be read-only.

        Raises:
            ModelError: the runtime failed.
        """

    def close(self) -> None:
        """Free the model; may be called twice."""
