"""Two kinds of plot as SVG by hand: bars of ratios, and lines over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#6c567b", "#8d96a3")
STYLE = "font: 12px system-ui, sans-serif; fill: #333"
BACK = '<rect width="100%" height="100%" fill="#fff"/>'
Points = Sequence[tuple[float, float]]


def bars(title: str, unit: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """A group of horizontal bars for each row, one for each name in it."""
    names = list(dict.fromkeys(name for _, group in rows for name in group))
    highest = max((value for _, group in rows for value in group.values()), default=1.0) or 1.0
    left, width, bar = 330, 380, 14
    parts, y = [_text(10, 22, title, bold=True), _text(left, 40, unit)], 54
    for label, group in rows:
        parts.append(_text(10, y + 11, label))
        for name, value in group.items():
            long = max(1.0, width * value / highest)
            parts.append(_box(left, y, long, bar - 2, COLOURS[names.index(name) % len(COLOURS)]))
            parts.append(_text(left + long + 5, y + 10, f"{name} {value:,.3g}"))
            y += bar
        y += 10
    return _svg(900, y + 10, parts)


def lines(title: str, across: str, up: str, series: Mapping[str, Points]) -> str:
    """Lines over a logarithmic x; y begins at 0."""
    every = [point for points in series.values() for point in points]
    top = max((y for _, y in every), default=1.0) * 1.1 or 1.0
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    reach = math.log(last / first) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return 80 + 640 * math.log(x / first) / reach, 320 - 260 * y / top

    parts = [_text(10, 22, title, bold=True), _text(80, 44, up), _text(600, 356, across)]
    parts += _grid(sorted({x for x, _ in every}), top, place)
    for at, (name, points) in enumerate(series.items()):
        colour = COLOURS[at % len(COLOURS)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (place(*one) for one in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [_dot(*place(*one), colour) for one in points]
        parts.append(_box(740, 60 + 20 * at, 10, 10, colour) + _text(755, 70 + 20 * at, name))
    return _svg(900, 370, parts)


def _grid(xs: Sequence[float], top: float, place: object) -> list[str]:
    assert callable(place)
    parts = []
    for step in range(5):
        px, py = place(xs[0], top * step / 4)
        parts.append(f'<line x1="{px}" x2="720" y1="{py:.1f}" y2="{py:.1f}" stroke="#ddd"/>')
        parts.append(_text(10, py + 4, f"{top * step / 4:,.4g}"))
    return [*parts, *(_text(place(x, 0)[0] - 8, 338, f"{x:g}") for x in xs)]


def _svg(width: int, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}">'
    return "\n".join([head, BACK, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, said: str, *, bold: bool = False) -> str:
    weight = "; font-weight: 600" if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{STYLE}{weight}">{escape(said)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    size = f'width="{width:.1f}" height="{height}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"/>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
