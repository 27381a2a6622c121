"""Turn the copper of a board into the picture that a camera would take of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Image = NDArray[np.uint8]
Field = NDArray[np.float32]
Colour = tuple[int, int, int]  # BGR


@dataclass(frozen=True)
class Look:
    """How a board and its picture look; without blur the edges are hard, as binarised."""

    copper: Colour
    substrate: Colour
    shading: float = 0.0  # share of light lost from the best lit corner to the worst
    noise_sigma: float = 0.0  # grey levels
    blur_px: float = 0.0  # sigma of the defocus
    motion_px: int = 0  # smear along x during the exposure
    gain: float = 1.0  # exposure
    grain: float = 0.0  # share by which the surface varies

    @property
    def is_grey(self) -> bool:
        return len(set(self.copper)) == 1 and len(set(self.substrate)) == 1


BINARY = Look((0, 0, 0), (255, 255, 255))
PALETTES: Mapping[str, tuple[Colour, Colour]] = {
    "copper on green": ((72, 128, 208), (50, 98, 30)),
    "copper on blue": ((72, 128, 208), (112, 62, 26)),
    "copper on fr4": ((52, 98, 182), (122, 182, 196)),
    "silver on green": ((200, 206, 206), (50, 98, 30)),
    "silver on blue": ((204, 206, 200), (122, 66, 24)),
    "gold on black": ((92, 178, 222), (40, 40, 38)),
    "lacquered green": ((84, 152, 70), (44, 88, 24)),
    "lacquered red": ((72, 74, 196), (36, 30, 118)),
}
DEMO = Look(*PALETTES["copper on green"], shading=0.18, noise_sigma=3.0, blur_px=0.8, grain=0.03)
LOOKS: Mapping[str, Look] = {
    "binary": BINARY,
    "grey": Look((38, 38, 38), (215, 215, 215), shading=0.08, noise_sigma=1.8, blur_px=0.5),
    "green": DEMO,
    "blue": replace(DEMO, copper=PALETTES["silver on blue"][0], substrate=(122, 66, 24)),
    "black": replace(DEMO, copper=PALETTES["gold on black"][0], substrate=(40, 40, 38)),
}
FAMILIES = ("binary", "grey", "colour")


def random_look(rng: np.random.Generator, family: str | None = None) -> Look:
    """Draw a look in which a person still sees every defect.

    Args:
        rng: the only source of chance.
        family: one of FAMILIES; drawn when None.
    """
    family = family or str(rng.choice(FAMILIES))
    if family == "binary":
        return BINARY
    if family == "grey":
        dark, light = int(rng.integers(15, 80)), int(rng.integers(165, 240))
        pair = (dark, light) if rng.random() < 0.65 else (light, dark)
        copper, substrate = (pair[0],) * 3, (pair[1],) * 3
    else:
        name = str(rng.choice(sorted(PALETTES)))
        copper, substrate = (_varied(colour, rng) for colour in PALETTES[name])
    return Look(
        copper,
        substrate,
        shading=float(rng.uniform(0, 0.4)),
        noise_sigma=float(rng.uniform(0.5, 9)),
        blur_px=float(rng.uniform(0.4, 1.5)),
        motion_px=int(rng.choice((0, 0, 0, 3, 5))),
        gain=float(rng.uniform(0.75, 1.2)),
        grain=float(rng.uniform(0, 0.04)),
    )


def photograph(copper: Mask, look: Look, rng: np.random.Generator) -> Image:
    """Take the picture of a board.

    Args:
        copper: bool (H, W).
        look: palette and optics.
        rng: the only source of chance, for grain, shading and noise.

    Returns:
        uint8 (H, W, 3), BGR.
    """
    cover = _blurred(copper.astype(np.uint8) * 255, look)
    image = _coloured(cover, look)
    if look.grain or look.shading or look.gain != 1 or look.noise_sigma:
        light = look.gain * shading(copper.shape, look.shading, rng)
        if look.grain:
            light *= 1 + look.grain * _texture(copper.shape, rng)
        lit = image * light[..., None]
        if look.noise_sigma:
            lit += look.noise_sigma * rng.standard_normal(lit.shape, np.float32)
        image = np.clip(lit + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def shading(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> Field:
    """Uneven lighting: a slope and a fall-off, float32 (H, W) from 1 - strength to 1."""
    ys, xs = np.mgrid[-1:1:32j, -1:1:32j]
    turn = float(rng.uniform(0, 2 * np.pi))
    centre = rng.uniform(-0.5, 0.5, 2)
    slope = xs * np.cos(turn) + ys * np.sin(turn)
    fall = (xs - centre[0]) ** 2 + (ys - centre[1]) ** 2
    loss = float(rng.uniform(0.2, 1)) * slope + fall
    loss = (loss - loss.min()) / np.ptp(loss)
    coarse = (1 - strength * loss).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0])), np.float32)


def _blurred(cover: Image, look: Look) -> Image:
    if look.blur_px:
        cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), look.blur_px), np.uint8)
    if look.motion_px > 1:
        cover = np.asarray(cv2.blur(cover, (look.motion_px, 1)), np.uint8)
    return cover


def _coloured(cover: Image, look: Look) -> Image:
    """Mix copper and substrate by cover: one look-up per pixel; one channel for a grey look."""
    share = np.linspace(0, 1, 256)[:, None]
    table = share * np.asarray(look.copper) + (1 - share) * np.asarray(look.substrate)
    table = np.round(table).astype(np.uint8)
    if look.is_grey:
        return np.asarray(cv2.LUT(cover, table[:, 0].copy()), np.uint8)[..., None]
    return np.asarray(cv2.LUT(cv2.merge((cover, cover, cover)), table[:, None]), np.uint8)


def _texture(shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    """Surface of the laminate: brushed streaks and broad clouds, standard deviation 1."""
    streaks = rng.standard_normal((shape[0], shape[1]), np.float32)
    streaks = cv2.GaussianBlur(streaks, (0, 0), 2.5, sigmaY=0.8)
    clouds = cv2.resize(rng.standard_normal((12, 12), np.float32), (shape[1], shape[0]))
    both = 0.6 * streaks / streaks.std() + clouds / clouds.std()
    return np.asarray(both / both.std(), np.float32)


def _varied(colour: Colour, rng: np.random.Generator) -> Colour:
    blue, green, red = np.clip(np.asarray(colour) * rng.uniform(0.88, 1.12, 3), 0, 255)
    return int(blue), int(green), int(red)
