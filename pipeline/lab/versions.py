"""Which versions of what takes part in training, export and comparison are installed here."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "ai-edge-litert",
    "libreyolo",
    "litert-torch",
    "nncf",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxslim",
    "opencv-python",
    "openvino",
    "tensorrt",
    "torch",
    "ultralytics",
)


def versions() -> dict[str, str]:
    """Return Python's version and those of the packages that are installed, by name."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
