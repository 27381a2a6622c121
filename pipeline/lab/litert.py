"""From trained weights to a LiteRT file, which small ARM boards run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.lab import torch_env
from pipeline.plugins import vendor


def float_litert(weights: Path, out: Path, size: tuple[int, int], head: str) -> Path:
    """Write a LiteRT file that takes uint8 (1, H, W, 3), BGR, as the ONNX artefacts do.

    Args:
        weights: checkpoint of ultralytics (.pt).
        out: the file to write.
        size: height and width of the input, pixels.
        head: which of the network's heads, as in ``export_bundle``.

    Raises:
        MissingExtra: torch, ultralytics or litert-torch is not installed.
    """
    litert_torch = vendor("litert_torch", "lab-litert")
    torch = vendor("torch", "lab")
    network = torch_env.prepare().YOLO(str(weights), task="detect").model.float().eval()
    network.end2end = head == "yolo-e2e"
    for module in network.modules():
        if hasattr(module, "export"):
            module.export, module.format = True, "litert"
    picture = torch.zeros((1, *size, 3), dtype=torch.uint8)
    with torch.no_grad():
        litert_torch.convert(_taking_pictures(torch, network).eval(), (picture,)).export(str(out))
    return out


def _taking_pictures(torch: Any, network: Any) -> Any:
    """Put layout, colour order and scale before the network."""

    class TakingPictures(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, picture: Any) -> Any:
            rgb = picture.permute(0, 3, 1, 2).flip(1).float() / 255
            output = self.network(rgb)
            return output[0] if isinstance(output, tuple) else output

    return TakingPictures()
