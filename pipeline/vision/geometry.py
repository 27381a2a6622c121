"""Boxes as arrays: how much they overlap and which lie inside another."""

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Box

Boxes = NDArray[np.float32]
"""float32 (n, 4): x0, y0, x1, y1, pixels."""


def areas(xyxy: Boxes) -> NDArray[np.float32]:
    """Return the area of each box, float32 (n,); a box turned inside out has none."""
    sides = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1], np.float32)


def iou(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Return the intersection over union of every box of ``a`` with every box of ``b``.

    Args:
        a: (n, 4).
        b: (m, 4).

    Returns:
        float32 (n, m), 0..1; 0 where both boxes have no area.
    """
    width = np.minimum(a[:, 2, None], b[:, 2]) - np.maximum(a[:, 0, None], b[:, 0])
    height = np.minimum(a[:, 3, None], b[:, 3]) - np.maximum(a[:, 1, None], b[:, 1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    union = areas(a)[:, None] + areas(b)[None, :] - common
    return np.asarray(
        np.divide(common, union, out=np.zeros_like(union), where=union > 0), np.float32
    )


def centred_in(xyxy: Boxes, box: Box) -> NDArray[np.bool_]:
    """Return which boxes have their centre inside ``box``, bool (n,); left and upper edge count."""
    x = (xyxy[:, 0] + xyxy[:, 2]) / 2
    y = (xyxy[:, 1] + xyxy[:, 3]) / 2
    return np.asarray((x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1))
