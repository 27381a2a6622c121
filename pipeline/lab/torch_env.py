"""Gets torch and ultralytics ready: offline, silent, and beside a torchvision that cannot load."""

import importlib
import os
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.plugins import vendor
from pipeline.vision.geometry import iou

# The PyPI wheel of torchvision wants CUDA libraries; beside a torch for processors its import
# ends with this, and training and validation with it.
_BROKEN = "operator torchvision::nms does not exist"

_SETTINGS = {
    "ORT_DISABLE_TELEMETRY": "1",
    "YOLO_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "0",
    "YOLO_VERBOSE": "0",
    # Checkpoints are pickles: only known classes are built from them, no code is run.
    "ULTRALYTICS_SAFE_LOAD": "1",
}
_keeps_alive: list[Any] = []

UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""Restricted unpickling trips over broken bytes in as many ways as there are bytes."""


def prepare_torch(extra: str = "lab") -> ModuleType:
    """Import torch, with a torchvision beside it that can be imported.

    Raises:
        MissingExtra: torch is not installed; ``extra`` brings it.
    """
    torch = vendor("torch", extra)
    _mend_torchvision(torch)
    return torch


def prepare() -> ModuleType:
    """Import ultralytics so that it neither reports, downloads, installs nor writes to the home.

    Its settings go to ``$XDG_CACHE_HOME/lineguard`` (or ``~/.cache/lineguard``). Must be called
    before anything else imports ultralytics.

    Returns:
        The module ``ultralytics``.

    Raises:
        MissingExtra: torch or ultralytics is not installed.
    """
    os.environ.update(_SETTINGS)
    os.environ.setdefault("YOLO_CONFIG_DIR", str(_cache_dir()))
    prepare_torch()
    ultralytics = vendor("ultralytics", "lab")
    ultralytics.settings.update({"sync": False})
    return ultralytics


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "lineguard"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _mend_torchvision(torch: ModuleType) -> None:
    """Register the operators that torchvision misses, if it cannot be imported without them."""
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return  # absent: vendor("ultralytics") says what to install
    except RuntimeError as error:
        if _BROKEN not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", _nms, "CPU")
        _keeps_alive.append(library)  # the operators vanish with it
        importlib.import_module("torchvision")
        extension: Any = importlib.import_module("torchvision.extension")
        extension._has_ops = lambda: True


def _nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Return the indices of the boxes (n, 4) that no stronger one overlaps, strongest first."""
    torch = importlib.import_module("torch")
    order = scores.argsort(descending=True, stable=True)
    xyxy = boxes[order].detach().float().cpu().numpy()
    dead = np.zeros(len(xyxy), bool)
    kept = []
    for i in range(len(xyxy)):
        if not dead[i]:
            kept.append(i)
            dead[i + 1 :] |= iou(xyxy[i : i + 1], xyxy[i + 1 :])[0] > iou_threshold
    return order[torch.as_tensor(kept, dtype=torch.long)]
