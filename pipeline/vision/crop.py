"""Cuts the place of a part out of a frame."""

import math

import cv2
import numpy as np

from pipeline.errors import ViewError
from pipeline.types import Box, Image

SLACK_PX = 4
"""A part's box may be this much too large; scaling it down would blur what needs no scaling."""


def window_at(image: Image, box: Box, height: int, width: int) -> tuple[Image, tuple[int, int]]:
    """Cut a window centred on a part, clipped to the frame.

    A part that is larger than the window in either direction is cut out whole instead: losing a
    part of it would pass defects that nobody looked at.

    Args:
        image: (H, W, 3) or (H, W).
        box: the part, pixels of the image.
        height, width: size of the window, pixels.

    Returns:
        A view of the image (no copy; empty if the box lies outside the frame), and its upper left
        corner (x, y) in pixels of the image.
    """
    if box.width > width + SLACK_PX or box.height > height + SLACK_PX:
        x0, x1 = math.floor(box.x0), math.ceil(box.x1)
        y0, y1 = math.floor(box.y0), math.ceil(box.y1)
    else:
        x0, y0 = round(box.centre[0] - width / 2), round(box.centre[1] - height / 2)
        x1, y1 = x0 + width, y0 + height
    x0, x1 = _within(x0, x1, image.shape[1])
    y0, y1 = _within(y0, y1, image.shape[0])
    return image[y0:y1, x0:x1], (x0, y0)


def cut_around(image: Image, box: Box, height: int, width: int) -> tuple[Image, tuple[int, int]]:
    """Cut a picture of a fixed size centred on a part; beyond the frame its edge goes on.

    Args:
        image: (H, W, 3) or (H, W).
        box: the part, pixels of the image.
        height, width: size of the cut, pixels.

    Returns:
        The cut, and its upper left corner (x, y) in pixels of the image; it may be negative.

    Raises:
        ViewError: the part does not lie whole within the frame and the cut.
    """
    x0, y0 = round(box.centre[0] - width / 2), round(box.centre[1] - height / 2)
    rows, columns = image.shape[:2]
    is_whole = min(box.x0, box.y0, columns - box.x1, rows - box.y1) >= -SLACK_PX
    if not is_whole or box.width > width + SLACK_PX or box.height > height + SLACK_PX:
        raise ViewError(
            f"the part at {box.as_list()} does not lie whole within the frame {image.shape} and "
            f"a template of {width} x {height} pixels"
        )
    left, top = max(-x0, 0), max(-y0, 0)
    right, bottom = max(x0 + width - columns, 0), max(y0 + height - rows, 0)
    inside = image[y0 + top : y0 + height - bottom, x0 + left : x0 + width - right]
    if left or top or right or bottom:
        inside = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return np.asarray(inside, np.uint8), (x0, y0)


def _within(low: int, high: int, limit: int) -> tuple[int, int]:
    return min(max(low, 0), limit), min(max(high, 0), limit)
