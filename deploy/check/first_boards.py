"""Cuts the repository's clip to its first boards, without loss: an emulated processor is slow.

    python first_boards.py CLIP GOLDEN COUNT FOLDER

FOLDER gets pictures/, which `lineguard replay` takes as a recording, and golden.jsonl with the
records of these boards. It needs OpenCV.
"""

import json
import sys
from pathlib import Path

import cv2

AFTER = 4
"""Pictures after a board's last look: it must be seen to have left."""


def main(clip: str, golden: str, count: int, folder: Path) -> None:
    """Write the pictures and the records of the first boards."""
    records = Path(golden).read_text().splitlines()[:count]
    (folder / "golden.jsonl").write_text("\n".join(records) + "\n")
    pictures = folder / "pictures"
    pictures.mkdir()
    reader = cv2.VideoCapture(clip)
    for number in range(json.loads(records[-1])["last_frame"] + AFTER):
        got, picture = reader.read()
        if not got:
            sys.exit(f"{clip}: it ends at picture {number}")
        cv2.imwrite(str(pictures / f"{number:05}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
