"""A plot of a bench as SVG, written by hand: two panels of lines over the length of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TypeAlias

from omnivec.hosts.measure import Report

Points: TypeAlias = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 420, 320  # of a panel, in pixels
LEFT, TOP, RIGHT, BOTTOM = 64, 56, 16, 48  # around its axes
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}" '
    'font-family="sans-serif" font-size="12">'
)
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd")


def draw(report: Report) -> str:
    """Texts a second and median latency, a line for each number of clients."""
    clients = sorted({cell.clients for cell in report.cells})
    names = {count: f"{count} client{'s' if count > 1 else ''}" for count in clients}
    texts = {
        names[count]: [
            (cell.tokens, cell.texts_per_second) for cell in report.cells if cell.clients == count
        ]
        for count in clients
    }
    waits = {
        names[count]: [
            (cell.tokens, cell.p50_ms)
            for cell in report.cells
            if cell.clients == count and cell.p50_ms
        ]
        for count in clients
    }
    title = f"{report.model}, {report.runtime} on {report.device}, {report.dtype}"
    return "\n".join(
        [
            SVG.format(2 * WIDTH, HEIGHT),
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="{WIDTH}" y="18" text-anchor="middle" font-size="14">{escape(title)}</text>',
            *_panel(0, "texts a second", texts),
            *_panel(WIDTH, "p50 latency in ms", waits, rising=True),
            "</svg>\n",
        ]
    )


def _panel(
    offset: float, title: str, lines: Mapping[str, Points], *, rising: bool = False
) -> Iterator[str]:
    """Both axes are logarithmic: lengths and rates span decades. The names of the lines are
    where a rising or falling line is not."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return
    across = _Axis([x for x, _ in points], offset + LEFT, offset + WIDTH - RIGHT)
    up = _Axis([y for _, y in points], HEIGHT - BOTTOM, TOP, decades=True)
    yield f'<text x="{offset + LEFT}" y="{TOP - 14}" font-weight="bold">{title}</text>'
    for y in up.ticks:
        at = up.at(y)
        yield (
            f'<line x1="{across.start}" x2="{across.end}" y1="{at:.1f}" y2="{at:.1f}" '
            'stroke="#ddd"/>'
            f'<text x="{across.start - 6}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    for x in across.ticks:
        at = across.at(x)
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>'
    middle = (across.start + across.end) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">tokens in a text</text>'
    names, anchor = (across.start + 6, "start") if rising else (across.end, "end")
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        marks = [(across.at(x), up.at(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in marks)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y in marks:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
        yield (
            f'<text x="{names}" y="{TOP + 14 + 16 * number}" text-anchor="{anchor}" '
            f'fill="{colour}">{escape(name)}</text>'
        )


class _Axis:
    """Values to pixels from `start` to `end`, by logarithm. Ticks at the values themselves, or
    at whole powers of ten around them."""

    def __init__(
        self, values: Sequence[float], start: float, end: float, *, decades: bool = False
    ) -> None:
        self.start, self.end = start, end
        self.ticks = sorted(set(values))
        if decades:
            low = math.floor(math.log10(self.ticks[0]))
            high = max(low + 1, math.ceil(math.log10(self.ticks[-1])))
            self.ticks = [10.0**power for power in range(low, high + 1)]
        self._low, self._high = math.log(self.ticks[0]), math.log(self.ticks[-1])

    def at(self, value: float) -> float:
        span = self._high - self._low or 1.0
        return self.start + (math.log(value) - self._low) / span * (self.end - self.start)
