"""Lays a picture beside the template: what a model is shown that compares the two."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError, ViewError
from pipeline.types import Image
from pipeline.vision.letterbox import check_picture

REACH_PX = 24
"""How far a part may lie from where it lay in the template, at most, in x and in y."""

MOST_BENT = 0.03
"""By which a part may be turned (radians: 1.7 degrees) or stretched (share) beside its template."""

LEAST_LIKENESS = 0.6
"""Structural similarity to the template below which a picture shows something else.

Of 250 boards of DeepPCB's test part, each with its own template, the least alike reads 0.79; with
the template of another board 0.27 at most. Drawn ones of low contrast: 0.93 and 0.53.
"""

_COARSE = 4  # the search begins at a quarter of the scale
_GAIN = (0.5, 2.0)  # exposures that are evened out
_LIT_PX = 97  # side of the square over which light is evened out: larger than a defect
_FAINT = 200.0  # variance, grey levels squared, that both are taken to share: a blank part is one
_LEAST_SIDE = 4 * REACH_PX
_ENDS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-3)
_BETTER = 0.9  # a warp that fits little better only blurs the edges

Grey = NDArray[np.uint8]


class Template:
    """A template, and what others look like beside it.

    Args:
        image: of a part without a defect, uint8, (H, W, 3) BGR or (H, W).

    Raises:
        ModelError: it is no picture, or smaller than 96 x 96 pixels.
    """

    def __init__(self, image: Image) -> None:
        self._grey = _grey(image)
        if min(self._grey.shape) < _LEAST_SIDE:
            raise ModelError(
                f"a template of {self._grey.shape[1]} x {self._grey.shape[0]} pixels is too "
                f"small to be laid on another; {_LEAST_SIDE} x {_LEAST_SIDE} is the least"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self._grey.shape[0], self._grey.shape[1]

    def beside(self, image: Image) -> Image:
        """Return picture, template and their difference as one picture of three channels.

        The template is shifted to where the part lies, turned and stretched a little where that
        fits better, and lit as it is lit there; where it ends, its edge goes on.

        Args:
            image: uint8, (H, W, 3) BGR or (H, W), of the template's size.

        Returns:
            uint8 (H, W, 3): grey picture, grey template, absolute difference.

        Raises:
            ModelError: it is no picture, or of another size.
            ViewError: it does not show what the template shows.
        """
        grey = _grey(image)
        if grey.shape != self._grey.shape:
            raise ModelError(
                f"the picture has {grey.shape[1]} x {grey.shape[0]} pixels, the template "
                f"{self._grey.shape[1]} x {self._grey.shape[0]}: take it anew with this camera"
            )
        bright = _as_bright(self._grey, grey)
        x, y = _place_of(bright, grey)
        laid = _fitted(bright, grey, x, y)
        likeness = _likeness(*(_kept(picture, x, y) for picture in (laid, grey)))
        if likeness < LEAST_LIKENESS:
            raise ViewError(
                f"the picture does not show what the template shows (likeness {likeness:.2f}, "
                f"{LEAST_LIKENESS} is the least): another part, turned, or further away than "
                f"{REACH_PX} pixels"
            )
        template = _lit_as(grey, laid)
        return np.asarray(cv2.merge((grey, template, cv2.absdiff(grey, template))), np.uint8)


def _grey(image: Image) -> Grey:
    check_picture(image)
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def _place_of(template: Grey, grey: Grey) -> tuple[int, int]:
    """Return by how much the part lies elsewhere than in the template, x and y, pixels."""
    x, y, scale, by = 0, 0, _COARSE, REACH_PX // _COARSE
    while scale:
        x, y = _best_near(_shrunk(template, scale), _shrunk(grey, scale), 2 * x, 2 * y, by)
        scale, by = scale // 2, 2
    return x, y


def _shrunk(picture: Grey, scale: int) -> Grey:
    if scale == 1:
        return picture
    size = (picture.shape[1] // scale, picture.shape[0] // scale)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _best_near(template: Grey, grey: Grey, x: int, y: int, by: int) -> tuple[int, int]:
    """Return the shift at which both differ least, among those next to a shift; it itself first."""
    steps = sorted(range(-by, by + 1), key=abs)
    near = ((x + dx, y + dy) for dx in steps for dy in steps)
    return min(near, key=lambda at: _mean_difference(template, grey, *at))


def _mean_difference(template: Grey, grey: Grey, x: int, y: int) -> float:
    one, other = _common(template, grey, x, y)
    return float(cv2.norm(one, other, cv2.NORM_L1)) / one.size


def _likeness(template: Grey, grey: Grey) -> float:
    """Return contrast and structure of the structural similarity of both, as a whole, -1..1.

    Wang, Bovik, Sheikh and Simoncelli, Image Quality Assessment: From Error Visibility to
    Structural Similarity, 2004, equation 13 without its luminance. Of both the light is taken off,
    and noise and edges weigh little at a quarter of the scale.
    """
    one, other = (_unlit(_shrunk(picture, _COARSE)) for picture in (template, grey))
    common = float(np.mean(one * other))
    spread = float(np.mean(one * one) + np.mean(other * other))
    return (2 * common + _FAINT) / (spread + _FAINT)


def _fitted(template: Grey, grey: Grey, x: int, y: int) -> Grey:
    """Return the template shifted, or warped affinely from there, if that fits clearly better.

    The warp maximises the correlation of both (Evangelidis and Psarakis, Parametric Image Alignment
    Using Enhanced Correlation Coefficient Maximization, 2008) at a quarter of the scale.
    """
    shifted = _shifted(template, x, y)
    warp = np.array([[1, 0, -x / _COARSE], [0, 1, -y / _COARSE]], np.float32)
    small, other = (_shrunk(picture, _COARSE) for picture in (template, grey))
    try:
        _, warp = cv2.findTransformECC(other, small, warp, cv2.MOTION_AFFINE, _ENDS)
    except cv2.error:  # nothing to hold on to, or no way to a better fit
        return shifted
    bent = warp[:, :2] - np.eye(2, dtype=np.float32)
    if not np.isfinite(warp).all() or np.abs(bent).max() > MOST_BENT:
        return shifted
    # Pixel centres of both scales: (u + 0.5) * _COARSE = U + 0.5.
    half = np.full(2, (_COARSE - 1) / 2, np.float32)
    warp[:, 2] = _COARSE * warp[:, 2] - warp[:, :2] @ half + half
    size, how = (grey.shape[1], grey.shape[0]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = np.asarray(
        cv2.warpAffine(template, warp, size, flags=how, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
    apart, was = (
        cv2.norm(_kept(laid, x, y), _kept(grey, x, y), cv2.NORM_L1) for laid in (warped, shifted)
    )
    return warped if apart < _BETTER * was else shifted


def _kept(picture: Grey, x: int, y: int) -> Grey:
    """Return what of a picture the template shows that was shifted by (x, y)."""
    height, width = picture.shape
    return picture[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]


def _common(template: Grey, grey: Grey, x: int, y: int) -> tuple[Grey, Grey]:
    """Return what both show once the template is shifted by (x, y)."""
    return _kept(template, -x, -y), _kept(grey, x, y)


def _shifted(template: Grey, x: int, y: int) -> Grey:
    top, bottom, left, right = max(y, 0), max(-y, 0), max(x, 0), max(-x, 0)
    height, width = template.shape
    wide = cv2.copyMakeBorder(template, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return np.asarray(wide[bottom : bottom + height, right : right + width], np.uint8)


def _as_bright(template: Grey, grey: Grey) -> Grey:
    """Give the template the mean and spread of the other: lamps age, exposures differ."""
    (own_mean,), (own_spread,) = (v.ravel() for v in cv2.meanStdDev(template))
    (mean,), (spread,) = (v.ravel() for v in cv2.meanStdDev(grey))
    gain = float(np.clip(spread / own_spread if own_spread else 1.0, *_GAIN))
    table = np.arange(256) * gain + (mean - gain * own_mean)
    return np.asarray(cv2.LUT(template, np.clip(table + 0.5, 0, 255).astype(np.uint8)), np.uint8)


def _lit_as(grey: Grey, template: Grey) -> Grey:
    """Give the template the light of the other, which varies over distances only."""
    light, own = (_light(_shrunk(picture, _COARSE)) for picture in (grey, template))
    size = (grey.shape[1], grey.shape[0])
    more = cv2.resize(light - own, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.add(template, more, dtype=cv2.CV_8U), np.uint8)


def _unlit(small: Grey) -> NDArray[np.float32]:
    return np.asarray(small - _light(small), np.float32)


def _light(small: Grey) -> NDArray[np.float32]:
    """Return the mean around each pixel of a picture at a quarter of the scale."""
    side = _LIT_PX // _COARSE | 1
    return np.asarray(cv2.blur(small.astype(np.float32), (side, side)))
