"""Takes out of an environment what a station never loads, says what and why, and proves the rest.

    python slim.py                       list it and remove it
    python slim.py --dry-run             list it only
    python slim.py --keep intel-gpu      keep what a device needs that is not plugged in now

It runs with the Python of the environment that it works on. Everything is first put aside; then the
shipped model must run on every installed runtime (verify.py); only then it is deleted, else it is
put back and the exit code is 1. What was taken comes back with
``pip install --force-reinstall --no-deps PACKAGE``.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERIFY = Path(__file__).resolve().parent / "verify.py"
ASIDE = ".slimmed"


@dataclass(frozen=True)
class Rule:
    """Files of an installed package that a station does not load.

    Attributes:
        patterns: relative to site-packages.
        why: for the person who reads the list.
        device: keep them if this device is here or ``--keep`` names it.
    """

    patterns: tuple[str, ...]
    why: str
    device: str = ""


DEVICES = {"intel-gpu": ("/dev/dri", "renderD*"), "intel-npu": ("/dev/accel", "accel*")}
RULES = (
    Rule(
        ("openvino/libs/libopenvino_intel_gpu_plugin.so", "openvino/libs/cache.json"),
        "OpenVINO's plugin for Intel GPUs; there is none here",
        "intel-gpu",
    ),
    Rule(
        ("openvino/libs/libopenvino_intel_npu_plugin.so",),
        "OpenVINO's plugin for Intel NPUs; there is none here",
        "intel-npu",
    ),
    Rule(
        tuple(
            f"openvino/libs/libopenvino_{name}_frontend.so*"
            for name in ("gguf", "jax", "paddle", "pytorch", "tensorflow", "tensorflow_lite")
        ),
        "OpenVINO's readers of formats that no bundle holds (ONNX and IR stay)",
    ),
    Rule(("openvino/include", "openvino/cmake"), "headers for compiling against OpenVINO"),
    Rule(
        ("openvino_telemetry",),
        "reports each import to Google Analytics; OpenVINO runs without it",
    ),
    # numpy/testing itself stays: numpy imports it on demand.
    Rule(("numpy/**/tests",), "numpy's own test suite"),
)


def main() -> int:
    """Thin the environment that this Python belongs to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="list, remove nothing")
    parser.add_argument("--keep", action="append", default=[], choices=sorted(DEVICES))
    asked = parser.parse_args()
    if sys.prefix == sys.base_prefix:
        return refuse(f"{sys.prefix} is the system's Python; run it with a station's own")
    site = Path(sysconfig.get_path("platlib"))
    found = [(rule, paths) for rule in RULES if (paths := due(rule, site, asked.keep))]
    for rule, paths in found:
        say(f"{size_of(paths):6.1f} MiB  {rule.why}")
        for path in paths:
            say(f"            {path.relative_to(site)}")
    everything = [path for _, paths in found for path in paths]
    say(f"{size_of(everything):6.1f} MiB in all")
    if asked.dry_run or not everything:
        return 0
    return remove(everything, site)


def due(rule: Rule, site: Path, keep: list[str]) -> list[Path]:
    """Return what a rule takes here: nothing that lies in something it already takes."""
    if rule.device and (rule.device in keep or present(rule.device)):
        return []
    found = sorted({path for pattern in rule.patterns for path in site.glob(pattern)})
    return [path for path in found if not any(other in path.parents for other in found)]


def present(device: str) -> bool:
    """Return whether this machine has a device now."""
    folder, pattern = DEVICES[device]
    return any(Path(folder).glob(pattern))


def remove(paths: list[Path], site: Path) -> int:
    """Put paths aside, verify, then delete them or put them back."""
    aside = site / ASIDE
    put_back(aside, site)  # of a run that was cut off
    for path in paths:
        target = aside / path.relative_to(site)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    # -B: the bytecode of a thousand modules would come back.
    done = subprocess.run([sys.executable, "-B", str(VERIFY)], check=False)
    if done.returncode:
        put_back(aside, site)
        return refuse("the station does not run without them; all of it was put back")
    shutil.rmtree(aside)
    return 0


def put_back(aside: Path, site: Path) -> None:
    """Undo: move everything under ``aside`` to where it was."""
    for path in list(files_of(aside)):
        target = site / path.relative_to(aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def files_of(path: Path) -> Iterator[Path]:
    """Return the files that a path is or holds."""
    return iter([path]) if path.is_file() else (p for p in path.rglob("*") if p.is_file())


def size_of(paths: list[Path]) -> float:
    """Return how much paths hold, MiB."""
    return sum(p.lstat().st_size for path in paths for p in files_of(path)) / 2**20


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


def refuse(why: str) -> int:
    """Say why nothing was done."""
    sys.stderr.write(f"slim.py: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
