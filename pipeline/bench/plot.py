"""Plots as plain SVG text: bars with their range, and curves over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, ROW, LEFT, RIGHT, TOP = 720, 26, 190, 90, 44
HEIGHT, BOTTOM = 320, 44
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#475569")
_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#64748b}.t{font-weight:600;font-size:15px}"
    ".g{stroke:#94a3b8;stroke-opacity:.35}.w{stroke:#475569;stroke-width:1.5}</style>"
)

Bar = tuple[str, float, float, float]
"""Label, median, min, max."""


def bars(title: str, rows: Sequence[Bar], unit: str = "", mark: float | None = None) -> str:
    """Return horizontal bars of medians, each with a line from min to max.

    Args:
        mark: where a dashed line stands, e.g. 1 for ratios.
    """
    most = max([*(row[3] for row in rows), mark or 0.0], default=1.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + ROW * len(rows) + 12
    body = []
    if mark is not None:
        x = LEFT + mark * scale
        body.append(
            f'<line class="g" stroke-dasharray="4 3" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" '
            f'y2="{height - 8}"/>'
        )
    for number, (label, median, low, high) in enumerate(rows):
        y = TOP + ROW * number
        middle = y + ROW / 2 - 2
        body += [
            f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{median * scale:.1f}" height="{ROW - 8}" rx="2" '
            f'fill="{COLOURS[0]}" fill-opacity=".8"/>',
            f'<line class="w" x1="{LEFT + low * scale:.1f}" x2="{LEFT + high * scale:.1f}" '
            f'y1="{middle}" y2="{middle}"/>',
            f'<text x="{LEFT + max(high, median) * scale + 6:.1f}" y="{middle + 4}">'
            f"{_short(median)}{escape(unit)}</text>",
        ]
    return _page(title, height, body)


def curves(
    title: str, across: str, series: Mapping[str, Sequence[tuple[float, float]]], unit: str
) -> str:
    """Return curves over two logarithmic axes.

    Args:
        across: name of the horizontal axis.
        series: points (x, y) above 0, by name.
    """
    points = [point for row in series.values() for point in row if min(point) > 0]
    if not points:
        return _page(title, HEIGHT, [])
    xs, ys = _decades([p[0] for p in points]), _decades([p[1] for p in points])
    body = [*_grid(xs, ys), f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}">{escape(across)}</text>']
    for number, (name, row) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        at = [_place(x, y, xs, ys) for x, y in row if min(x, y) > 0]
        body.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" '
            f'points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}"/>'
        )
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
        if at:
            body.append(
                f'<text x="{at[-1][0] + 8:.1f}" y="{at[-1][1] + 4:.1f}" style="fill:{colour}">'
                f"{escape(name)}</text>"
            )
    return _page(f"{title}, {unit}", HEIGHT, body)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _place(x: float, y: float, xs: tuple[int, int], ys: tuple[int, int]) -> tuple[float, float]:
    right, bottom = WIDTH - LEFT, HEIGHT - BOTTOM
    share_x = (math.log10(x) - xs[0]) / (xs[1] - xs[0])
    share_y = (math.log10(y) - ys[0]) / (ys[1] - ys[0])
    return 70 + share_x * (right - 70), bottom - share_y * (bottom - TOP)


def _grid(xs: tuple[int, int], ys: tuple[int, int]) -> list[str]:
    body = []
    for power in range(xs[0], xs[1] + 1):
        x, bottom = _place(10.0**power, 10.0 ** ys[0], xs, ys)
        body.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
        body.append(
            f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{10**power:,}</text>'
        )
    for power in range(ys[0], ys[1] + 1):
        x, y = _place(10.0 ** xs[0], 10.0**power, xs, ys)
        right = _place(10.0 ** xs[1], 10.0**power, xs, ys)[0]
        body.append(f'<line class="g" x1="{x:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text x="62" y="{y + 4:.1f}" text-anchor="end">{_short(10.0**power)}</text>')
    return body


def _page(title: str, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{_STYLE}'
        f'<text class="t" x="12" y="22">{escape(title)}</text>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
