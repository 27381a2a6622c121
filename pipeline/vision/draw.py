"""Draws what was found onto a copy of a picture, for people."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.types import Box, Defect, Detections, Image, Verdict

Colour = tuple[int, int, int]
"""Blue, green, red."""

_FONT = cv2.FONT_HERSHEY_DUPLEX
_WHITE: Colour = (255, 255, 255)
_DARK: Colour = (28, 24, 22)
# Okabe and Ito's palette: told apart by colour-blind people too; without its black.
_PALETTE: tuple[Colour, ...] = (
    (0, 159, 230),
    (233, 180, 86),
    (66, 228, 240),
    (167, 121, 204),
    (115, 158, 0),
    (0, 94, 213),
    (178, 114, 0),
)
_UNDECIDED: Colour = (120, 110, 104)
_VERDICTS: dict[Verdict, Colour] = {
    Verdict.PASS: (74, 128, 22),
    Verdict.FAIL: (38, 38, 200),
    Verdict.UNSURE: (12, 104, 194),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A box to draw.

    Attributes:
        xyxy: pixels of the picture.
        text: what stands at it, ASCII.
        colour: number of its colour; equal numbers look equal.
    """

    xyxy: tuple[float, float, float, float]
    text: str
    colour: int = 0


def marks_of(found: Detections, labels: Sequence[str]) -> tuple[Mark, ...]:
    """Return a mark with label and score for each detection."""
    return tuple(
        Mark((x0, y0, x1, y1), f"{labels[label]} {score:.2f}", label)
        for (x0, y0, x1, y1), score, label in zip(
            found.xyxy.tolist(), found.score.tolist(), found.label.tolist(), strict=True
        )
    )


def marks_of_defects(
    defects: Sequence[Defect], part: Box, labels: Sequence[str]
) -> tuple[Mark, ...]:
    """Return a mark for each defect of a part that lies at ``part`` in the picture, pixels."""
    order = {label: i for i, label in enumerate(labels)}
    marks = []
    for defect in defects:
        x0, y0, x1, y1 = defect.xyxy
        place = (x0 + part.x0, y0 + part.y0, x1 + part.x0, y1 + part.y0)
        text = f"{defect.label} {defect.score:.2f}"
        marks.append(Mark(place, text, order.get(defect.label, 0)))
    return tuple(marks)


def annotate(
    image: Image,
    marks: Sequence[Mark] = (),
    verdict: Verdict | None = None,
    caption: str = "",
    texts: bool = True,
) -> Image:
    """Return a copy of a picture with boxes and, under it, a banner with the verdict.

    The banner is added below, so that it hides no pixel and coordinates stay as they are.

    Args:
        image: uint8, (H, W, 3) BGR or (H, W).
        marks: boxes to draw.
        verdict: adds the banner; None leaves it away.
        caption: stands in the banner, ASCII; cut off where it does not fit.
        texts: False draws the boxes alone.

    Returns:
        uint8 (H + banner, W, 3), BGR.
    """
    picture = image.copy() if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    scale = _scale_for(picture)
    for mark in marks:
        _draw_box(picture, mark, scale)
    taken: list[tuple[int, int, int, int]] = []
    for mark in marks if texts else ():
        _draw_label(picture, mark, scale, taken)
    if verdict is None:
        return np.asarray(picture, np.uint8)
    banner = _banner(picture.shape[1], verdict, caption, scale)
    return np.concatenate([picture, banner], axis=0)


def outline(image: Image, box: Box, text: str, verdict: Verdict | None) -> Image:
    """Return a copy of a picture with a part framed in its verdict's colour, grey before it.

    Args:
        image: uint8, (H, W, 3) BGR or (H, W).
        box: the part, pixels; it may reach beyond the picture.
        text: stands at the part's upper left corner, ASCII.
    """
    picture = image.copy() if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    colour = _VERDICTS[verdict] if verdict else _UNDECIDED
    scale = _scale_for(picture)
    line = max(2, round(3 * scale))
    low, high = _corner(picture, (box.x0, box.y0), 0), _corner(picture, (box.x1, box.y1), 0)
    cv2.rectangle(picture, low, high, colour, line)
    size, pad = 0.75 * scale, round(6 * scale)
    (width, height), base = cv2.getTextSize(text, _FONT, size, 1)
    x, y = min(low[0], picture.shape[1] - width - 2 * pad), low[1]
    cv2.rectangle(picture, (x, y), (x + width + 2 * pad, y + height + base + pad), colour, -1)
    place = (x + pad, y + height + pad // 2 + 1)
    cv2.putText(picture, text, place, _FONT, size, _WHITE, 1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def _scale_for(picture: Image) -> float:
    """Return the size of text and lines: the same share of a small picture and of a large one."""
    return float(np.clip(max(picture.shape[:2]) / 1000, 0.45, 3.0))


def _draw_box(picture: Image, mark: Mark, scale: float) -> None:
    """Draw a coloured frame between two dark ones: seen on any ground; the defect stays free."""
    line = max(2, round(2 * scale))
    low = _corner(picture, mark.xyxy[:2], -line - 1)
    high = _corner(picture, mark.xyxy[2:], line + 1)
    cv2.rectangle(picture, low, high, _DARK, line + 2)
    cv2.rectangle(picture, low, high, _PALETTE[mark.colour % len(_PALETTE)], line)


def _corner(picture: Image, point: tuple[float, ...], outward: int) -> tuple[int, int]:
    x, y = (round(v) + outward for v in point)
    return max(0, min(x, picture.shape[1] - 1)), max(0, min(y, picture.shape[0] - 1))


def _draw_label(
    picture: Image, mark: Mark, scale: float, taken: list[tuple[int, int, int, int]]
) -> None:
    """Write a mark's text on a plate of its colour: above its box, else below, else inside."""
    size = 0.62 * scale
    (width, height), base = cv2.getTextSize(mark.text, _FONT, size, 1)
    pad = max(2, round(4 * scale))
    plate = (width + 2 * pad, height + base + pad)
    x, y = _free_place(picture, mark, plate, round(5 * scale), taken)
    taken.append((x, y, x + plate[0], y + plate[1]))
    colour = _PALETTE[mark.colour % len(_PALETTE)]
    cv2.rectangle(picture, (x - 1, y - 1), (x + plate[0], y + plate[1]), _DARK, -1)
    cv2.rectangle(picture, (x, y), (x + plate[0] - 1, y + plate[1] - 1), colour, -1)
    ink = _DARK if _luminance(colour) > 110 else _WHITE
    place = (x + pad, y + height + pad // 2)
    cv2.putText(picture, mark.text, place, _FONT, size, ink, 1, cv2.LINE_AA)


def _free_place(
    picture: Image,
    mark: Mark,
    plate: tuple[int, int],
    gap: int,
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int]:
    """Return where a plate lies inside the picture, if possible not upon another one."""
    x0, y0, x1, y1 = (round(v) for v in mark.xyxy)
    width, height = plate
    wanted = [
        (x0 - gap, y0 - gap - height),
        (x0 - gap, y1 + gap),
        (x1 + gap, y0),
        (x0 - gap - width, y0),
    ]
    limits = picture.shape[1] - width, picture.shape[0] - height
    inside = [
        (x, max(0, min(y, limits[1])))
        for x, y in ((max(0, min(x, limits[0])), y) for x, y in wanted)
        if 0 <= y <= limits[1]
    ]
    for x, y in inside:
        if not any(x < t[2] and t[0] < x + width and y < t[3] and t[1] < y + height for t in taken):
            return x, y
    return inside[0] if inside else (max(0, min(x0, limits[0])), max(0, min(y0, limits[1])))


def _luminance(colour: Colour) -> float:
    return 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]


def _banner(width: int, verdict: Verdict, caption: str, scale: float) -> Image:
    """Return a strip (h, width, 3) that says the verdict in colour and in letters."""
    height = round(56 * scale)
    strip = np.full((height, width, 3), _DARK, np.uint8)
    big, small = 1.1 * scale, 0.7 * scale
    weight = max(1, round(2 * scale))
    (wide, high), _ = cv2.getTextSize(verdict.value, _FONT, big, weight)
    pad = round(16 * scale)
    cv2.rectangle(strip, (0, 0), (wide + 2 * pad, height), _VERDICTS[verdict], -1)
    place = (pad, (height + high) // 2)
    cv2.putText(strip, verdict.value, place, _FONT, big, _WHITE, weight, cv2.LINE_AA)
    left = wide + 3 * pad
    text = _cut_to(caption, width - left - pad, small)
    (_, high), _ = cv2.getTextSize("A", _FONT, small, 1)
    cv2.putText(strip, text, (left, (height + high) // 2), _FONT, small, _WHITE, 1, cv2.LINE_AA)
    return strip


def _cut_to(text: str, width: int, size: float) -> str:
    """Return the text, shortened with dots if it is wider than ``width`` pixels."""
    shown = text
    while shown and cv2.getTextSize(shown, _FONT, size, 1)[0][0] > width:
        shown = shown[:-4] + "..." if len(shown) > 4 else ""
    return shown
