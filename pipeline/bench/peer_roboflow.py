"""Roboflow's InferencePipeline under measurement, given our model: ``-m ... MODEL SIDE``.

Its own models come over the network; so it is given our file, which flatters it: the model takes
uint8 and needs no conversion on the host.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.bench.peer import serve
from pipeline.errors import MissingExtra
from pipeline.lab.torch_env import prepare

PACKAGES = ("inference-cpu", "supervision", "onnxruntime", "openvino", "numpy")


def run(model: Path, side: int) -> None:
    """Work through clips; every frame becomes the detections that its users get."""
    os.environ.update({"TELEMETRY_OPT_OUT": "True", "METRICS_ENABLED": "False"})
    import cv2
    import numpy as np

    with suppress(MissingExtra):
        prepare()  # beside a torch for processors torchvision cannot be imported as it is
    from inference import InferencePipeline
    from inference.core.interfaces.camera.entities import VideoFrame
    from supervision import Detections

    infer = _openvino(model) if os.environ.get("PEER_RUNTIME") == "openvino" else _onnx(model)
    padded = np.full((1, side, side, 3), 114, np.uint8)

    def on_frames(frames: list[VideoFrame]) -> list[Any]:
        return [look(frame.image) for frame in frames]

    def look(image: Any) -> Detections:
        height, width = image.shape[:2]
        scale = min(side / height, side / width)
        size = (round(width * scale), round(height * scale))
        x, y = (side - size[0]) // 2, (side - size[1]) // 2
        fitted = image if size == (width, height) else cv2.resize(image, size)
        padded[0, y : y + size[1], x : x + size[0]] = fitted
        rows, overlap = rows_of(infer(padded))
        found = Detections(
            xyxy=(rows[:, :4] - (x, y, x, y)) / scale,
            confidence=rows[:, 4],
            class_id=rows[:, 5].astype(int),
        )
        return found.with_nms(threshold=0.5) if overlap else found

    def rows_of(output: Any) -> tuple[Any, bool]:
        """Return (n, 6): corners, score, label; and whether the head leaves overlapping boxes."""
        if output.shape[2] == 6:
            return output[0][output[0][:, 4] >= 0.25], False
        raw = output[0].T
        raw = raw[raw[:, 4:].max(axis=1) >= 0.25]
        centre, half, scores = raw[:, :2], raw[:, 2:4] / 2, raw[:, 4:]
        best = [scores.max(axis=1), scores.argmax(axis=1)]
        return np.column_stack([centre - half, centre + half, *best]), True

    def work(clip: str, frames: int) -> int:
        seen = 0

        def take(predictions: Any, video_frames: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == frames:
                pipeline.terminate()

        pipeline = InferencePipeline.init_with_custom_logic(
            video_reference=clip, on_video_frame=on_frames, on_prediction=take
        )
        pipeline.start(use_main_thread=False)
        pipeline.join()
        return seen

    serve(work, PACKAGES)


def _onnx(model: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0]


def _openvino(model: Path) -> Any:
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(model), "CPU", settings).create_infer_request()
    return lambda tensor: request.infer([tensor], share_inputs=True)[0]


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
