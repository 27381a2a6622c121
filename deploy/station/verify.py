"""Checks an installed station where it is installed: does every runtime run the shipped model?

    python verify.py                  runtimes run, no torch, nothing left behind
    python verify.py --image          and of an image: not root, no compiler, not writable
    python verify.py --device cuda    the runtime must really use this device

It runs with the Python of the environment that it checks and needs nothing but lineguard.
Exit 1 if anything is wrong; each line says what.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
NEVER = ("torch", "torchvision", "ultralytics")
COMPILERS = ("cc", "gcc", "g++", "clang", "nvcc", "make")
LEFT_BEHIND = "left in its home folder by a run: "

INFER = """
import sys
from pipeline import plugins
from pipeline.bundle import open_bundle
from pipeline.detector import open_detector
from pipeline.shipped import shipped
kind, device = sys.argv[1:]
plugin = plugins.load("runtimes", kind)
options = plugin.Options.model_validate({"device": device} if device else {})
bundle = open_bundle(shipped("models/boards-n"))
detector = open_detector(bundle, kind, options)
detector.check()
print(detector.runtime.name)
"""


def main() -> int:
    """Print one line per check; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", action="store_true", help="check a container image as well")
    parser.add_argument("--device", default="", help="device that the runtime must use")
    asked = parser.parse_args()
    found = list(infers(asked.device))
    found += packages()
    found += image() if asked.image else []
    for well, said in found:
        sys.stdout.write(f"{'well  ' if well else 'WRONG '} {said}\n")
    return 0 if all(well for well, _ in found) else 1


def infers(device: str = "") -> Iterator[tuple[bool, str]]:
    """Run the shipped model once on every runtime that is installed, in a home of its own."""
    installed = [kind for kind, package in RUNTIMES.items() if importlib.util.find_spec(package)]
    if not installed:
        yield False, "no runtime is installed; install lineguard[cpu] or lineguard[openvino]"
    for kind in installed:
        with tempfile.TemporaryDirectory(prefix="lineguard-verify-") as home:
            done = subprocess.run(
                [sys.executable, "-c", INFER, kind, device],
                env={**os.environ, "HOME": home, "XDG_CACHE_HOME": f"{home}/.cache"},
                capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
            left = sorted(str(p.relative_to(home)) for p in Path(home).rglob("*"))
        if done.returncode:
            yield False, f"runtime {kind}: {last_line(done.stderr)}"
        else:
            yield True, f"runtime {kind}: the shipped model runs on {done.stdout.strip()}"
        if left:
            yield False, f"runtime {kind}: {LEFT_BEHIND}{', '.join(left[:3])}"


def packages() -> list[tuple[bool, str]]:
    """Check that nothing is there that a station must not have."""
    found = [name for name in NEVER if importlib.util.find_spec(name)]
    return [(not found, f"a station without {', '.join(NEVER)}" if not found else f"{found} here")]


def image() -> list[tuple[bool, str]]:
    """Check what makes an image hard to misuse."""
    compilers = [name for name in COMPILERS if shutil.which(name)]
    writable = os.access(sys.prefix, os.W_OK)
    return [
        (os.getuid() != 0, f"it runs as user {os.getuid()}"),
        (not compilers, f"no compiler{' but ' + ', '.join(compilers) if compilers else ''}"),
        (not writable, f"{sys.prefix} {'can' if writable else 'cannot'} be written"),
    ]


def last_line(text: str) -> str:
    """Return the last line of an error output."""
    return (text.strip().splitlines() or ["no error output"])[-1]


if __name__ == "__main__":
    sys.exit(main())
