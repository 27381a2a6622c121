"""Plain cv2.dnn under measurement: read, blob, forward, threshold. ``-m ... MODEL SIDE``."""

from __future__ import annotations

import sys

import cv2

from pipeline.bench.peer import serve

PACKAGES = ("opencv-python", "opencv-python-headless", "numpy")


def run(model: str, side: int) -> None:
    """Work through clips as the tutorials do."""
    network = cv2.dnn.readNetFromONNX(model)

    def work(clip: str, frames: int) -> int:
        capture = cv2.VideoCapture(clip)
        seen = found = 0
        while seen < frames:
            read, image = capture.read()
            if not read:
                break
            blob = cv2.dnn.blobFromImage(image, 1 / 255, (side, side), swapRB=True)
            network.setInput(blob)
            rows = network.forward()[0]
            found += int((rows[:, 4] >= 0.25).sum())
            seen += 1
        capture.release()
        return seen

    serve(work, PACKAGES)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
