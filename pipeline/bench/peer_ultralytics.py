"""``ultralytics predict`` under measurement: ``-m ... MODEL SIDE``, or ``--export ...``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pipeline.bench.peer import say, serve
from pipeline.lab.torch_env import prepare

PACKAGES = (
    "ultralytics", "ultralytics-opencv-headless", "torch", "onnxruntime", "openvino", "numpy",
)  # fmt: skip


def run(model: str, side: int) -> None:
    """Predict as its users do: a stream of results, each of which is looked at."""
    loaded = prepare().YOLO(model, task="detect")

    def work(clip: str, frames: int) -> int:
        seen = found = 0
        results = loaded.predict(
            clip, stream=True, imgsz=side, device="cpu", verbose=False, save=False
        )
        for result in results:
            found += len(result.boxes)
            seen += 1
            if seen == frames:
                break
        results.close()
        return seen

    serve(work, PACKAGES)


def export(weights: Path, form: str, folder: Path, side: int) -> None:
    """Export weights as ultralytics does by default, with the head that suppresses by itself."""
    own = folder / f"peer-{form}-{side}{weights.suffix}"
    shutil.copyfile(weights, own)
    say({"model": prepare().YOLO(str(own)).export(format=form, imgsz=side, nms=False)})


if __name__ == "__main__":
    if sys.argv[1] == "--export":
        export(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).resolve(), int(sys.argv[5]))
    else:
        run(sys.argv[1], int(sys.argv[2]))
