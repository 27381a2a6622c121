"""Makes the lock of every target: each package of a station with its version and hashes.

    python deploy/locks/make.py               all targets; needs `uv` (lineguard[deploy])
    python deploy/locks/make.py cpu           one of them
    python deploy/locks/make.py --upgrade     the newest of each package; else what is locked stays

The first line of a lock names the requirements that it was made from; a test compares it with
pyproject.toml and targets.toml, so a lock cannot silently fall behind.
"""

import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LOCKS = REPOSITORY / "deploy" / "locks"
sys.path.insert(0, str(REPOSITORY / "deploy" / "station"))

import table  # noqa: E402

MARK = "# requirements sha256: "
PACKAGE = re.compile(r"^[a-z0-9._-]+==", re.M)
ARM = "aarch64-manylinux_2_28"
# JetPack 6: NVIDIA's packages for it were built against numpy 1; OpenCV 5 needs numpy 2; its driver
# knows CUDA 12.
BOUNDS = {"jetson-jp62": ("numpy<2", "opencv-python-headless<5", "cuda-bindings<13")}


def project() -> dict[str, Any]:
    """Return what pyproject.toml says of the project."""
    # Before Python 3.11 pip brings the same reader.
    reader = "tomllib" if sys.version_info >= (3, 11) else "pip._vendor.tomli"
    page = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    return dict(importlib.import_module(reader).loads(page)["project"])


def requirements(target: str, page: dict[str, Any], extras: list[str]) -> list[str]:
    """Return what a target installs: what pyproject.toml asks for, for a machine without a screen.

    opencv-python needs libGL; its headless build, of the same release, has the same module cv2.
    """
    wanted = [w.replace("opencv-python>", "opencv-python-headless>") for w in page["dependencies"]]
    for extra in extras:
        wanted += page["optional-dependencies"][extra]
    return sorted({*wanted, *BOUNDS.get(target, ())})


def mark_of(wanted: list[str], pythons: list[str]) -> str:
    """Return the first line of a lock that is made from these requirements."""
    text = json.dumps([wanted, pythons]).encode()
    return MARK + hashlib.sha256(text).hexdigest()


def make(name: str, target: dict[str, Any], page: dict[str, Any], upgrade: bool) -> None:
    """Resolve one target and write its lock; a package that is locked keeps its version."""
    wanted = requirements(name, page, target["extras"])
    lock = LOCKS / target["lock"]
    # One platform and one Python: pinned for it. More than one: a lock with markers for all.
    platform = ["--python-platform", ARM] if target["arch"] == ["arm64"] else ["--universal"]
    with tempfile.TemporaryDirectory() as folder:
        wishes = Path(folder) / "requirements.in"
        wishes.write_text("\n".join(wanted) + "\n")
        made = Path(folder) / "lock.txt"
        if not upgrade:
            shutil.copyfile(lock, made)
        done = subprocess.run(
            ["uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header",
             "--no-annotate", "--only-binary", ":all:", "--no-config",
             "--python-version", min(target["python"], key=_number), *platform,
             "--output-file", str(made), str(wishes)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{name}: uv cannot resolve it: {done.stderr.strip()}")
        text = made.read_text()
    lock.write_text(f"{mark_of(wanted, target['python'])}\n{text}")
    sys.stdout.write(f"{lock.relative_to(REPOSITORY)}: {len(PACKAGE.findall(text))} packages\n")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main(words: list[str]) -> None:
    """Make the locks of these targets, or of all."""
    names, page = [word for word in words if word != "--upgrade"], project()
    for name, target in table.read(table.FILES["targets"]).items():
        if not names or name in names:
            make(name, target, page, "--upgrade" in words)


if __name__ == "__main__":
    main(sys.argv[1:])
