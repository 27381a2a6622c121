"""A runtime that answers what it was told to; for tests, demos and drills."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.errors import ModelError
from pipeline.runtimes import Options as BaseOptions
from pipeline.types import Tensor

Row = Annotated[tuple[float, ...], Field(min_length=6, max_length=6)]
Side = Annotated[int, Field(gt=0, le=8192)]


class Options(BaseOptions):
    """What it answers.

    Attributes:
        script: per call, the rows (x0, y0, x1, y1, score, label) in pixels of the input.
        after: what follows the end of the script: its last answer again, the script from its
            start, or nothing found.
        warm_ups: calls before the script starts, which find nothing; opening a detector makes one.
        fail_at: number of the call, warm-ups not counted, from 1, that raises ModelError.
        height, width: of the input; they must be those of the bundle.
    """

    script: tuple[tuple[Row, ...], ...] = ()
    after: Literal["repeat", "cycle", "nothing"] = "repeat"
    warm_ups: Annotated[int, Field(ge=0)] = 1
    fail_at: Annotated[int, Field(ge=1)] | None = None
    height: Side = 640
    width: Side = 640


class ScriptedRuntime:
    """Ignores the picture and reads from its script; its answers have the form of ``yolo-e2e``.

    Attributes:
        calls: how often it was asked since the warm-ups.
    """

    name = "scripted"

    def __init__(self, options: Options) -> None:
        self.input_shape = (1, options.height, options.width, 3)
        self.calls = -options.warm_ups
        self._options = options
        self._closed = False

    def infer(self, tensor: Tensor) -> tuple[Tensor, ...]:
        del tensor
        if self._closed:
            raise ModelError("scripted: the model is closed")
        self.calls += 1
        if self.calls == self._options.fail_at:
            raise ModelError(f"scripted: call {self.calls} fails as it was told to")
        return (np.array(self._rows(), np.float32).reshape(1, -1, 6),)

    def close(self) -> None:
        self._closed = True

    def _rows(self) -> tuple[Row, ...]:
        script, turn = self._options.script, self.calls - 1
        if turn < 0 or not script:
            return ()
        if turn < len(script):
            return script[turn]
        return {"repeat": script[-1], "cycle": script[turn % len(script)], "nothing": ()}[
            self._options.after
        ]


def create(options: Options, model: Path) -> ScriptedRuntime:
    """Make a scripted runtime; the model's bytes are ignored."""
    del model
    return ScriptedRuntime(options)
