"""Makes what an emulated machine can look at in time: a small clip, a bundle of a small model.

    python deploy/check/small.py CLIP FOLDER     in the repository's root, with its test extras

One look of the shipped model takes an emulated processor half a minute; of this one, milliseconds.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from tests import tiny

SIZE = (320, 180)


def main(clip: str, folder: Path) -> None:
    """Write small.avi, bundle/ and picture.png (for a golden answer) into a folder."""
    reader = cv2.VideoCapture(clip)
    motion_jpeg = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(folder / "small.avi"), motion_jpeg, 30, SIZE)
    while (got := reader.read())[0]:
        writer.write(cv2.resize(got[1], SIZE, interpolation=cv2.INTER_AREA))
    writer.release()
    (folder / "bundle").mkdir()
    tiny.bundle(folder / "bundle")
    noise = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "picture.png"), noise)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
