"""Draws and encodes a clip: ``-m pipeline.bench.clip FILE WIDTH HEIGHT FRAMES``.

OpenCV's wheels bring no H.264 encoder (the patent's owners want a licence), so PyAV's is used, and
OpenCV's own where a build of it has one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# OpenCV tells of every encoder that it tries; the last line of ours is what counts.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from pipeline.bench.pictures import setup
from pipeline.errors import ConfigError, MissingExtra
from pipeline.plugins import vendor
from pipeline.synth.line import BeltScene
from pipeline.types import Image

FPS = 30
BOARD_PX = 640


def write(file: Path, width: int, height: int, frames: int) -> None:
    """Write a clip, whole or not at all.

    Raises:
        MissingExtra: neither PyAV nor OpenCV can encode H.264 here.
    """
    part = file.with_suffix(".part.mp4")
    belt = setup(width, height, min(BOARD_PX, width, height))
    scene = BeltScene(7, belt)
    images = (scene.frame(n + belt.travel_frames) for n in range(frames))
    try:
        with suppress(MissingExtra):
            _with_pyav(part, width, height, images)
            part.replace(file)
            return
        _with_opencv(part, width, height, images)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _with_pyav(file: Path, width: int, height: int, images: Iterator[Image]) -> None:
    av = vendor("av", "bench")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())


def _with_opencv(file: Path, width: int, height: int, images: Iterator[Image]) -> None:
    fourcc = cv2.VideoWriter.fourcc(*"avc1")
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, fourcc, FPS, (width, height))
    if not writer.isOpened():
        raise ConfigError("neither PyAV nor this OpenCV can encode H.264")
    for image in images:
        writer.write(image)
    writer.release()


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:5]))
    except ConfigError as error:
        sys.exit(str(error))
