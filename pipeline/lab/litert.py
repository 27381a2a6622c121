"""From trained weights to a LiteRT file, which small ARM boards run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.lab.families import Network
from pipeline.plugins import vendor


def float_litert(trained: Network, out: Path, size: tuple[int, int], head: str) -> Path:
    """Write a LiteRT file that takes uint8 (1, H, W, 3), BGR, as the ONNX artefacts do.

    Args:
        trained: the network.
        out: the file to write.
        size: height and width of the input, pixels.
        head: which of the network's heads, as in ``export_bundle``.

    Raises:
        MissingExtra: torch or litert-torch is not installed.
    """
    litert_torch = vendor("litert_torch", "lab-litert")
    torch = vendor("torch", "lab")
    picture = torch.zeros((1, *size, 3), dtype=torch.uint8)
    with torch.no_grad():
        module = _taking_pictures(torch, trained, head).eval()
        litert_torch.convert(module, (picture,)).export(str(out))
    return out


def _taking_pictures(torch: Any, trained: Network, head: str) -> Any:
    """Put layout, colour order and scale before the network."""
    pixels = trained.pixels

    class TakingPictures(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = trained.module(head, "litert")

        def forward(self, picture: Any) -> Any:
            ordered = picture.permute(0, 3, 1, 2)
            ordered = ordered.flip(1) if pixels.rgb else ordered
            return self.network(ordered.float() / float(pixels.divisor))

    return TakingPictures()
