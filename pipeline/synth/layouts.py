"""Lay out copper as board designers do, one function for each style of layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from pipeline.synth.sheet import Area, Disc, Line, Point, Shape, Sheet

RING_PX = 5  # copper around a drill hole; roughness would break a thinner ring


def _step(start: Point, heading: float, length: float) -> Point:
    return start[0] + length * float(np.cos(heading)), start[1] + length * float(np.sin(heading))


def _path(sheet: Sheet, start: Point, heading: float, bends: int, leg: float) -> tuple[Point, ...]:
    """Walk in legs that turn by 45 degrees and never face backwards."""
    points, turn = [start], 0
    for _ in range(bends + 1):
        points.append(_step(points[-1], heading + turn * np.pi / 4, leg * sheet.uniform(0.4, 1.4)))
        turn = int(np.clip(turn + sheet.rng.choice((-1, 1)), -1, 1))
    return tuple(points)


def _crossing(sheet: Sheet, width: float) -> Line:
    """A trace from one side of the frame to beyond the other."""
    start = (-2 * width, sheet.uniform(0, sheet.size))
    path = _path(sheet, start, 0.0, 5, 0.4 * sheet.size)
    return Line((*path, _step(path[-1], 0.0, 1.5 * sheet.size)), width)


def _offset(path: Sequence[Point], by: float) -> tuple[Point, ...]:
    """Move a path sideways, keeping its legs parallel."""
    points = np.asarray(path)
    legs = np.diff(points, axis=0)
    legs /= np.linalg.norm(legs, axis=1, keepdims=True)
    normals = np.stack((-legs[:, 1], legs[:, 0]), axis=1)
    before = np.vstack((normals[:1], normals))
    after = np.vstack((normals, normals[-1:]))
    mitre = (before + after) / (1 + (before * after).sum(axis=1, keepdims=True))
    return tuple((float(x), float(y)) for x, y in points + by * mitre)


def _block(centre: Point, width: float, height: float, radius: float) -> Area:
    x, y = centre
    half_w, half_h = max(width / 2 - radius, 0.5), max(height / 2 - radius, 0.5)
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return Area(tuple((x + half_w * sx, y + half_h * sy) for sx, sy in corners), radius)


def _pad(sheet: Sheet, centre: Point, extent: float, drilled: bool) -> Shape:
    """One pad, round, square or oblong; its hole is drilled when the layout is complete."""
    kind = sheet.rng.integers(4)
    if drilled and extent >= 21:
        drift = extent * 0.1 if extent > 36 and sheet.chance(0.15) else 0.0
        hole = (centre[0] + drift, centre[1])
        radius = min(max(5.5, extent * sheet.uniform(0.17, 0.3)), extent / 2 - RING_PX)
        sheet.drills.append(Disc(hole, radius))
    if kind <= 1:
        return Disc(centre, extent / 2)
    if kind == 2:
        return _block(centre, extent, extent, sheet.uniform(0, 4))
    along = (extent * sheet.uniform(0.2, 0.5), 0.0) if sheet.chance(0.5) else (0.0, extent * 0.4)
    ends = tuple((centre[0] + s * along[0], centre[1] + s * along[1]) for s in (-1, 1))
    return Line(ends, extent)


def _outside(sheet: Sheet, at: Point, margin: float) -> bool:
    return not all(-margin <= value <= sheet.size + margin for value in at)


def _route(sheet: Sheet, pad: Shape, start: Point, heading: float, width: float) -> bool:
    """Lead a trace away from a pad, to another pad or out of the frame."""
    leg = sheet.uniform(40, 220)
    path = _path(sheet, start, heading, int(sheet.rng.integers(0, 4)), leg)
    shapes: list[Shape] = [Line(path, width)]
    if not _outside(sheet, path[-1], width):
        extent = max(15.0, width * sheet.uniform(1.6, 2.8))
        holes = len(sheet.drills)
        end = _pad(sheet, path[-1], extent, sheet.chance(0.4))
        if sheet.is_free(end) and sheet.place(
            [*shapes, end, *_tear(path[-1], path[-2], width, extent)], pad
        ):
            return True
        del sheet.drills[holes:]
        return False
    return sheet.place(shapes, pad)


def _tear(at: Point, toward: Point, width: float, extent: float) -> list[Shape]:
    """A tear drop: the trace widens into its pad."""
    run = np.subtract(toward, at)
    length = float(np.hypot(*run))
    if extent < 24 or length < extent * 1.4:
        return []
    along = run / length
    side = np.array((-along[1], along[0]))
    tip, flank = at + along * extent * 1.1, at + along * extent * 0.2
    corners = (
        tip + side * width / 2,
        tip - side * width / 2,
        flank - side * extent * 0.44,
        flank + side * extent * 0.44,
    )
    return [Area(tuple((float(x), float(y)) for x, y in corners))]


def scatter(sheet: Sheet) -> None:
    """A lone pad or via, now and then with traces."""
    centre = sheet.point(12)
    extent = sheet.uniform(15, 24) if sheet.chance(0.6) else sheet.uniform(24, 70)
    holes = len(sheet.drills)
    pad = _pad(sheet, centre, extent, sheet.chance(0.6))
    if not sheet.place([pad]):
        del sheet.drills[holes:]
        return
    for _ in range(int(sheet.rng.choice((0, 1, 3)))):
        width = min(sheet.trace * sheet.uniform(0.7, 1.3), extent * 0.7)
        _route(sheet, pad, centre, sheet.heading(), max(4.0, width))


def _bundles(sheet: Sheet) -> None:
    """Parallel traces with 45 degree bends; some bundles end in fingers."""
    for _ in range(int(sheet.rng.integers(1, 4))):
        pitch = sheet.trace + sheet.gap * sheet.uniform(0.9, 1.5)
        count = int(sheet.rng.integers(3, max(4, min(22, round(420 / pitch)))))
        heading = float(sheet.rng.integers(4)) * np.pi / 2 + np.pi / 4 * sheet.chance(0.25)
        start = _step(sheet.point(-80), heading + np.pi, sheet.size * 1.1)
        spread = count * pitch
        leg = max(spread * 1.2, sheet.size * sheet.uniform(0.3, 0.8))
        path = _path(sheet, start, heading, 4, leg)
        if sheet.chance(0.25):
            path = path[:3]
        for index in range(count):
            if sheet.chance(0.07):
                continue
            track = _offset(path, (index - count / 2) * pitch)
            shapes: list[Shape] = [Line(track, sheet.trace)]
            if len(path) == 3:
                finger = sheet.trace + 0.5 * max(0.0, pitch - sheet.trace - 7)
                tip = _step(track[-1], heading, 50)
                shapes += [Line((track[-1], tip), finger), Disc(tip, sheet.trace / 2 + 2.5)]
            sheet.place(shapes)


def _power(sheet: Sheet) -> None:
    """Wide bars and areas with chamfered corners, round cut-outs and drill holes."""
    for _ in range(int(sheet.rng.choice((4, 9, 18)))):
        centre = sheet.point(80)
        width, height = sheet.uniform(50, 460), sheet.uniform(50, 460)
        cut = sheet.uniform(0, 0.35) * min(width, height) * sheet.chance(0.7)
        w, h = width / 2, height / 2
        outline = (
            (-w + cut, -h),
            (w, -h),
            (w, h - cut),
            (w - cut, h),
            (-w, h),
            (-w, -h + cut),
        )
        area = Area(
            tuple((centre[0] + x, centre[1] + y) for x, y in outline),
            float(sheet.rng.choice((0, 3, 10))),
        )
        if not sheet.place([area]):
            continue
        for _ in range(int(sheet.rng.choice((0, 1, 3, 5)))):
            _cut_out(sheet, centre, (w - cut, h - cut))
        if sheet.chance(0.7):
            _route(sheet, area, centre, sheet.heading(), sheet.uniform(1, 3) * sheet.trace)
    for _ in range(int(sheet.rng.integers(0, 4))):
        sheet.place([_crossing(sheet, sheet.uniform(24, 90))])


def _cut_out(sheet: Sheet, centre: Point, reach: Point) -> None:
    radius = float(sheet.rng.choice((6, 9, 12, 20, 34)))
    room_x, room_y = reach[0] - radius - 14, reach[1] - radius - 14
    if min(room_x, room_y) <= 0:
        return
    at = (
        centre[0] + sheet.uniform(-room_x, room_x),
        centre[1] + sheet.uniform(-room_y, room_y),
    )
    if all(np.hypot(*np.subtract(at, _middle(hole))) > radius + 50 for hole in sheet.drills):
        sheet.drills.append(Disc(at, radius))


def _middle(hole: Disc | Line) -> Point:
    return hole.centre if isinstance(hole, Disc) else hole.points[0]


def _through_hole(sheet: Sheet) -> None:
    """Rows of drilled pads with traces between and away from them."""
    extent = sheet.uniform(26, 76)
    pitch = extent + sheet.gap * sheet.uniform(1.3, 4)
    left, top = sheet.point(20)
    rows, columns = int(sheet.rng.integers(1, 4)), int(sheet.rng.integers(2, 9))
    hole = extent * sheet.uniform(0.2, 0.36)
    crescent = (extent / 2 - hole + 3.0) * sheet.chance(0.25)
    linked = 0.35 * sheet.chance(0.6)
    for row in range(rows):
        placed: list[tuple[Point, Shape]] = []
        for column in range(columns):
            centre = (left + column * pitch - 200, top + row * pitch * 1.3 - 100)
            first = row + column == 0
            pad: Shape = Disc(centre, extent / 2)
            if first:
                pad = _block(centre, extent, extent, 3)
            if not sheet.place([pad]):
                continue
            placed.append((centre, pad))
            if hole >= 5.5:
                sheet.drills.append(Disc((centre[0] + crescent, centre[1]), hole))
            if sheet.chance(0.6) and not crescent:
                width = max(4.0, min(sheet.trace, extent * 0.6))
                _route(sheet, pad, centre, sheet.heading(), width)
        _necks(sheet, placed, pitch, extent, linked)


def _necks(
    sheet: Sheet, pads: Sequence[tuple[Point, Shape]], pitch: float, extent: float, share: float
) -> None:
    """Join neighbours of a row by a short straight trace, as nets that share two pads do."""
    for (a, first), (b, second) in pairwise(pads):
        if np.hypot(b[0] - a[0], b[1] - a[1]) > 1.1 * pitch or not sheet.chance(share):
            continue
        width = max(5.0, extent * sheet.uniform(0.12, 0.6))
        sheet.place([Line((a, b), width)], first, second)


def _smd(sheet: Sheet) -> None:
    """Rows of chip pads, each with a trace that leaves along the pad."""
    for _ in range(int(sheet.rng.integers(1, 5))):
        wide, long = sheet.uniform(14, 48), sheet.uniform(24, 110)
        pitch = wide + max(9.0, sheet.gap * sheet.uniform(0.9, 2))
        left, top = sheet.point(20)
        radius = float(sheet.rng.choice((0, 0, 4, wide / 2)))
        upright = sheet.chance(0.7)
        placed: list[tuple[Point, Shape]] = []
        for index in range(int(sheet.rng.integers(2, 12))):
            centre = (left + index * pitch, top) if upright else (left, top + index * pitch)
            width, height = (wide, long) if upright else (long, wide)
            pad = _block(centre, width, height, radius)
            if not sheet.place([pad]):
                continue
            placed.append((centre, pad))
            for side in (-1, 1):
                if sheet.chance(0.55):
                    heading = side * np.pi / 2 if upright else np.pi / 2 * (1 - side)
                    trace = max(4.0, min(sheet.trace, wide * 0.6))
                    _route(sheet, pad, centre, heading, trace)
        _necks(sheet, placed, pitch, long, 0.25)


def _meanders(sheet: Sheet) -> None:
    """Traces that fold back and forth to a wanted length, and stepped ones."""
    for _ in range(int(sheet.rng.integers(1, 5))):
        swing = sheet.uniform(2, 9) * (sheet.trace + sheet.gap)
        fold = (sheet.trace + sheet.gap) * sheet.uniform(1.0, 2.5)
        x, y = sheet.point(-20)
        points: list[Point] = [(x - sheet.uniform(30, 200), y)]
        for index in range(int(sheet.rng.integers(3, 16))):
            level = y + swing * (index % 2)
            points += [(x, y + swing - swing * (index % 2)), (x, level)] if index else [(x, y)]
            x += fold
        points.append((x + sheet.uniform(30, 200), points[-1][1]))
        upright = sheet.chance(0.5)
        path = tuple((b, a) for a, b in points) if upright else tuple(points)
        sheet.place([Line(path, sheet.trace)])


def _cells(sheet: Sheet) -> None:
    """A grid of copper areas with slits between; some neighbours are joined by a bar."""
    wide, high = sheet.uniform(50, 260), sheet.uniform(50, 260)
    slit = sheet.gap * sheet.uniform(1.0, 2.2)
    corner = float(sheet.rng.choice((0, 3, 12)))
    left, top = sheet.point(-40)
    columns, rows = (int(n) for n in sheet.rng.integers(2, 6, 2))
    for row in range(rows):
        placed: list[tuple[Point, Shape]] = []
        for column in range(columns):
            centre = (left + (column - 1.5) * (wide + slit), top + (row - 1.5) * (high + slit))
            cell = _block(centre, wide, high, corner)
            if sheet.place([cell]):
                placed.append((centre, cell))
            if placed and sheet.chance(0.5):
                _cut_out(sheet, centre, (wide / 2, high / 2))
        _necks(sheet, placed, wide + slit, high, 0.4)


def _sparse(sheet: Sheet) -> None:
    """A nearly empty region: a few vias and one or two traces that cross it."""
    for _ in range(int(sheet.rng.integers(3, 14))):
        scatter(sheet)
    for _ in range(int(sheet.rng.integers(1, 4))):
        sheet.place([_crossing(sheet, sheet.trace)])


STYLES: tuple[Callable[[Sheet], None], ...] = (
    _bundles,
    _power,
    _through_hole,
    _smd,
    _sparse,
    _meanders,
    _cells,
)
STYLE_SHARES = (0.22, 0.24, 0.14, 0.16, 0.06, 0.08, 0.10)
