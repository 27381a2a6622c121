"""Makes the tiny LiteRT models of the runtime tests; needs litert-torch, which the tests do not.

python tests/litert/make.py
"""

from pathlib import Path
from typing import Any

import litert_torch
import torch

HEIGHT, WIDTH = 32, 48
ROWS = ((4.0, 6.0, 10.0, 14.0, 0.9, 0.0), (12.0, 6.0, 18.0, 14.0, 0.1, 1.0))


class Tiny(torch.nn.Module):
    """Two rows that stand still; their scores take a trace of the picture's brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor([ROWS]))
        mask = torch.zeros(1, 2, 6)
        mask[..., 4] = 0.01
        self.register_buffer("mask", mask)

    def forward(self, picture: Any) -> Any:
        share = picture.float().mean() / 255
        return self.rows + self.mask * share


class Two(torch.nn.Module):
    """Takes two pictures, which no runtime of a station does."""

    def forward(self, first: Any, second: Any) -> Any:
        return first.float() + second.float()


def main() -> None:
    here = Path(__file__).parent
    picture = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    for name, module, given in (
        ("tiny", Tiny(), (picture,)),
        ("float", Tiny(), (picture.float(),)),
        ("two", Two(), (picture, picture)),
    ):
        litert_torch.convert(module.eval(), given).export(str(here / f"{name}.tflite"))


if __name__ == "__main__":
    main()
