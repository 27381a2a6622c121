"""Takes a board once more: as another board of the same layout lies and is etched and lit."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synth.optics import BINARY, Image, Look, photograph

Mask = NDArray[np.bool_]
Field = NDArray[np.float32]

SHIFT_PX = 3.0  # of DeepPCB's 500 test boards and their templates, 3 px is the largest
TURN_DEG = 0.4
STRETCH = 0.006
WARP_PX = 1.3  # standard deviation, over a grid of 5 x 5 nodes
BENT_SHARE, BENT_TIMES = 0.15, 3.0  # of boards that are warped more, and how many times at most
ETCH_BLUR_PX = 1.2
ETCH_SHARE = 0.22  # by which an edge's level varies: about +- 1 px, in patches and in grain


def retaken(copper: Mask, rng: np.random.Generator) -> Mask:
    """Return the copper of the same layout, taken anew.

    It lies up to 3 px elsewhere, a little turned, stretched and warped, and its edges are etched
    a pixel further or less far.

    Args:
        copper: bool (H, W).
        rng: the only source of chance.
    """
    height, width = copper.shape
    xs, ys = _places(height, width, rng)
    cover = cv2.GaussianBlur(copper.astype(np.float32), (0, 0), ETCH_BLUR_PX)
    moved = cv2.remap(cover, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    patches, grain = _field(height, width, 6, rng), _field(height, width, width // 4, rng)
    level = 0.5 + ETCH_SHARE * rng.uniform(0, 1) * patches + ETCH_SHARE / 2 * grain
    return np.asarray(moved > np.clip(level, 0.15, 0.85), np.bool_)


def photograph_again(copper: Mask, look: Look, rng: np.random.Generator) -> Image:
    """Take the picture of another board of the same layout, on another day: the lamp has aged.

    Args:
        copper: bool (H, W).
        look: of the first picture.
        rng: the only source of chance.

    Returns:
        uint8 (H, W, 3), BGR.
    """
    again = retaken(copper, rng)
    if look == BINARY:
        return photograph(again, look, rng)
    gain, shading = rng.uniform(0.85, 1.15), rng.uniform(0.5, 1.2)
    lit = replace(look, gain=look.gain * float(gain), shading=look.shading * float(shading))
    return photograph(again, lit, rng)


def _places(height: int, width: int, rng: np.random.Generator) -> tuple[Field, Field]:
    """Return for every pixel of the new take where it lay, x and y, float32 (H, W)."""
    turn = np.deg2rad(rng.normal(0, TURN_DEG / 2))
    scale = 1 + rng.normal(0, STRETCH / 2)
    shift = rng.normal(0, SHIFT_PX / 3, 2).clip(-SHIFT_PX, SHIFT_PX)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    xs, ys = xs - width / 2, ys - height / 2
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    is_bent = rng.random() < BENT_SHARE
    warp = WARP_PX * float(rng.uniform(1, BENT_TIMES) if is_bent else rng.uniform(0, 1))
    new_x = cos * xs - sin * ys + width / 2 + shift[0] + warp * _field(height, width, 5, rng)
    new_y = sin * xs + cos * ys + height / 2 + shift[1] + warp * _field(height, width, 5, rng)
    return new_x.astype(np.float32), new_y.astype(np.float32)


def _field(height: int, width: int, nodes: int, rng: np.random.Generator) -> Field:
    """Return a smooth field of chance, mean 0, standard deviation about 1 at its nodes."""
    coarse = rng.standard_normal((nodes, nodes), np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
