"""A histogram of plain numbers: an observation is a few additions."""

from __future__ import annotations

from bisect import bisect_left


class Histogram:
    """Counts of values up to and including each bound, and of those above the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
