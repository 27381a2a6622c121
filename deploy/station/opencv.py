"""Takes OpenCV's headless build where the full one cannot be loaded, for want of libGL.

Both are built from the same release and give the same module ``cv2``; the full one draws windows,
which a station does not. It runs with the Python of the environment that it works on.
"""

import subprocess
import sys
from importlib.metadata import version

FULL, HEADLESS = "opencv-python", "opencv-python-headless"


def main() -> int:
    """Swap the builds if need be."""
    if loads():
        return 0
    same = f"{HEADLESS}=={version(FULL)}"
    sys.stdout.write(f"{FULL} does not load here (no libGL?); taking {same} instead\n")
    pip("uninstall", "--yes", FULL)
    pip("install", "--no-compile", "--no-deps", same)
    return 0 if loads() else 1


def loads() -> bool:
    """Tell whether a fresh process can import OpenCV."""
    done = subprocess.run([sys.executable, "-c", "import cv2"], capture_output=True, check=False)
    return done.returncode == 0


def pip(*arguments: str) -> None:
    """Run pip for this environment; its errors are shown."""
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", *arguments, *quiet], check=True)


if __name__ == "__main__":
    sys.exit(main())
