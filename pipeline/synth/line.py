"""Carry drawn boards past a camera on a belt: any frame, and the truth about it, from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.synth.board import draw_board
from pipeline.synth.defects import Box, Defect, damage
from pipeline.synth.optics import DEMO, Look, photograph, shading

Image = NDArray[np.uint8]
Direction = Literal["right to left", "left to right"]

BELT_PERIOD_PX = 2048  # the belt's texture repeats after this much travel
NOISE_SHIFT_PX = 64  # how far the noise tile wanders from frame to frame
KEPT_BOARDS = 32  # 1.2 MB each at 640 px


@dataclass(frozen=True)
class BeltSetup:
    """A belt, what lies on it, and how the camera sees it."""

    width: int = 1280
    height: int = 720
    board_px: int = 640
    belt_px_per_frame: int = 20
    gap_px: tuple[int, int] = (120, 360)  # clear belt between two boards
    good_share: float = 0.5
    defects: tuple[int, int] = (2, 6)  # on a bad board, least and most
    boards: int | None = None  # None: endless
    variety: int = 24  # distinct boards; after these they come again
    layout: int | None = None  # all boards are of this layout; None: each has one of its own
    direction: Direction = "right to left"
    look: Look = DEMO
    belt_level: int = 52

    def __post_init__(self) -> None:
        """Refuse what cannot be shown.

        Raises:
            ConfigError: a number out of range.
        """
        for name in ("width", "height", "belt_px_per_frame", "variety"):
            if getattr(self, name) < 1:
                raise ConfigError(f"belt: {name} is {getattr(self, name)}; it starts at 1")
        if not 160 <= self.board_px <= self.height:
            raise ConfigError(f"belt: board_px {self.board_px} is not within 160..{self.height}")
        if not 0 <= self.gap_px[0] <= self.gap_px[1]:
            raise ConfigError(f"belt: gap_px {self.gap_px} is not a range from 0 upward")
        if not 1 <= self.defects[0] <= self.defects[1]:
            raise ConfigError(f"belt: defects {self.defects} is not a range from 1 upward")
        if not 0 <= self.good_share <= 1:
            raise ConfigError(f"belt: good_share {self.good_share} is not within 0..1")
        if self.boards is not None and self.boards < 1:
            raise ConfigError(f"belt: boards {self.boards} is less than 1")

    @property
    def board_y(self) -> int:
        return (self.height - self.board_px) // 2

    @property
    def travel_frames(self) -> int:
        """Frames from a board's first pixel in view to its centre, rounded up."""
        return -(-(self.width + self.board_px) // 2 // self.belt_px_per_frame) + 1


@dataclass(frozen=True)
class BoardPicture:
    """A board as the camera would see it in even light, and its defects in board coordinates."""

    image: Image
    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class Placed:
    """A board in a frame; its box (xyxy, px) may reach beyond the frame."""

    index: int
    xyxy: Box


class BeltScene:
    """The belt of one seed; frames may be asked for in any order.

    A board is drawn when it is first needed (about 0.1 s); call `warm` to have them all ready.
    """

    def __init__(self, seed: int = 0, setup: BeltSetup | None = None) -> None:
        self.seed = seed
        self.setup = setup or BeltSetup()
        mean_gap = sum(self.setup.gap_px) / 2
        speed = self.setup.belt_px_per_frame
        self._pitch = -(-int(self.setup.board_px + mean_gap) // speed)
        self._sway = (self.setup.gap_px[1] - self.setup.gap_px[0]) // 4 // speed
        self._pictures: dict[int, BoardPicture] = {}
        self._belt = self._draw_belt()
        self._light = self._draw_light()
        self._noise, self._bias = self._draw_noise()

    @property
    def frame_count(self) -> int | None:
        """Frames until the last board has left; None for an endless belt."""
        if self.setup.boards is None:
            return None
        return self.centre_frame(self.setup.boards - 1) + self.setup.travel_frames

    def centre_frame(self, index: int) -> int:
        """The frame in which a board is centred in view."""
        sway = int(self._rng("gap", index).integers(-self._sway, self._sway + 1))
        return self.setup.travel_frames + self._sway + index * self._pitch + sway

    def visible(self, number: int) -> tuple[Placed, ...]:
        """The boards in view in a frame, in the order of their index."""
        setup = self.setup
        reach = setup.travel_frames + self._sway
        first = max(0, (number - setup.travel_frames - self._sway - reach) // self._pitch)
        last = (number - setup.travel_frames - self._sway + reach) // self._pitch + 1
        if setup.boards is not None:
            last = min(last, setup.boards - 1)
        placed = (self._placed(index, number) for index in range(first, last + 1))
        return tuple(p for p in placed if p.xyxy[0] < setup.width and p.xyxy[2] > 0)

    def frame(self, number: int) -> Image:
        """Render a frame.

        Args:
            number: frame number from 0.

        Returns:
            uint8 (H, W, 3), BGR; a new array.
        """
        setup = self.setup
        travel = number * setup.belt_px_per_frame * self._sign
        start = travel % BELT_PERIOD_PX
        scene = self._belt[:, start : start + setup.width].copy()
        for placed in self.visible(number):
            self._paste(scene, placed)
        cv2.multiply(scene, self._light, scene, 1 / 255)
        dx, dy = self._rng("noise", number).integers(0, NOISE_SHIFT_PX, 2)
        noise = self._noise[dy : dy + setup.height, dx : dx + setup.width]
        cv2.add(scene, noise, scene)
        return np.asarray(cv2.subtract(scene, self._bias, scene), np.uint8)

    def truth(self, index: int) -> dict[str, Any]:
        """What is true of a board: its centre frame and its defects in board coordinates."""
        picture = self.picture(index)
        return {
            "index": index,
            "board": f"synth-{self.seed}-{index % self.setup.variety:04d}",
            "good": not picture.defects,
            "centre_frame": self.centre_frame(index),
            "board_y": self.setup.board_y,
            "defects": [{"class": d.kind, "xyxy": list(d.xyxy)} for d in picture.defects],
        }

    def geometry(self) -> dict[str, Any]:
        """What a reader of the frames needs to find a board in them."""
        setup = self.setup
        sign = "+" if self._sign > 0 else "-"
        return {
            "width": setup.width,
            "height": setup.height,
            "board_px": setup.board_px,
            "belt_px_per_frame": setup.belt_px_per_frame,
            "direction": setup.direction,
            "board_left_px_in_frame": f"{setup.width // 2} - {setup.board_px // 2} "
            f"{sign} (centre_frame - frame) * belt_px_per_frame",
        }

    def picture(self, index: int) -> BoardPicture:
        """The picture of a board, drawn once while it is kept."""
        art = index % self.setup.variety
        kept = self._pictures.get(art)
        if kept is None:
            kept = self._draw_board(art)
            if len(self._pictures) >= KEPT_BOARDS:
                self._pictures.pop(next(iter(self._pictures)))
            self._pictures[art] = kept
        return kept

    def warm(self) -> None:
        """Draw the boards ahead, as many as are kept."""
        known = self.setup.variety if self.setup.boards is None else self.setup.boards
        for index in range(min(known, self.setup.variety, KEPT_BOARDS)):
            self.picture(index)

    @property
    def _sign(self) -> int:
        return 1 if self.setup.direction == "right to left" else -1

    def _rng(self, purpose: str, index: int = 0) -> np.random.Generator:
        return np.random.default_rng((self.seed, *purpose.encode(), index))

    def _placed(self, index: int, number: int) -> Placed:
        setup = self.setup
        away = (self.centre_frame(index) - number) * setup.belt_px_per_frame * self._sign
        left = float(setup.width // 2 - setup.board_px // 2 + away)
        top = float(setup.board_y)
        return Placed(index, (left, top, left + setup.board_px, top + setup.board_px))

    def _paste(self, scene: Image, placed: Placed) -> None:
        left, top = int(placed.xyxy[0]), int(placed.xyxy[1])
        start, stop = max(0, left), min(self.setup.width, left + self.setup.board_px)
        image = self.picture(placed.index).image[:, start - left : stop - left]
        scene[top : top + self.setup.board_px, start:stop] = image

    def _draw_board(self, art: int) -> BoardPicture:
        rng = self._rng("board", art)
        layout = self.setup.layout
        drawn = rng if layout is None else np.random.default_rng((layout, *b"layout"))
        copper = draw_board(drawn, self.setup.board_px).copper
        defects: tuple[Defect, ...] = ()
        if rng.random() >= self.setup.good_share:
            low, high = self.setup.defects
            copper, defects = damage(copper, int(rng.integers(low, high + 1)), rng)
        even = replace(self.setup.look, shading=0.0, noise_sigma=0.0)
        return BoardPicture(photograph(copper, even, rng), defects)

    def _draw_belt(self) -> Image:
        rng = self._rng("belt")
        lap = 128
        weave = rng.standard_normal((self.setup.height, BELT_PERIOD_PX + lap), np.float32)
        weave = cv2.GaussianBlur(weave, (0, 0), 1.2)
        clouds = cv2.resize(rng.standard_normal((16, 32), np.float32), weave.shape[::-1])
        texture = 1.6 * weave / weave.std() + 1.2 * clouds / clouds.std()
        # The end of the period fades into its beginning, so that no seam travels with the belt.
        fade = np.sqrt(np.linspace(0, 1, lap, dtype=np.float32))
        tail = texture[:, BELT_PERIOD_PX:] * fade[::-1]
        texture = texture[:, :BELT_PERIOD_PX]
        texture[:, :lap] = texture[:, :lap] * fade + tail
        belt = np.clip(texture + self.setup.belt_level, 0, 255).astype(np.uint8)
        laps = -(-self.setup.width // BELT_PERIOD_PX) + 1
        return np.repeat(np.tile(belt, (1, laps))[..., None], 3, axis=2)

    def _draw_light(self) -> Image:
        shape = (self.setup.height, self.setup.width)
        light = shading(shape, self.setup.look.shading, self._rng("light"))
        return np.repeat(np.round(light * 255).astype(np.uint8)[..., None], 3, axis=2)

    def _draw_noise(self) -> tuple[Image, Image]:
        """Noise raised above zero, as uint8 cannot be negative, and what to take off again."""
        height, width = self.setup.height, self.setup.width
        sigma = self.setup.look.noise_sigma
        raised = round(3.5 * sigma)
        shape = (height + NOISE_SHIFT_PX, width + NOISE_SHIFT_PX, 3)
        noise = sigma * self._rng("grain").standard_normal(shape, np.float32) + raised
        tile = np.clip(np.round(noise), 0, 255).astype(np.uint8)
        return tile, np.full((height, width, 3), raised, np.uint8)
