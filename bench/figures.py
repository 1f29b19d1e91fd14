"""Medians, spreads and paired ratios of a run's samples."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Sample = Mapping[str, Any]


class Spread(NamedTuple):
    """The median of several repeats, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        kept = sorted(values)
        return cls(statistics.median(kept), kept[0], kept[-1]) if kept else None


def values(samples: Iterable[Sample], figure: str, **where: object) -> dict[int, float]:
    """The figure by repeat, of the samples that have it and agree with `where`."""
    return {
        int(one["repeat"]): float(one[figure])
        for one in samples
        if figure in one and all(one.get(name) == value for name, value in where.items())
    }


def spread(samples: Iterable[Sample], figure: str, **where: object) -> Spread | None:
    return Spread.of(values(samples, figure, **where).values())


def ratios(
    ours: Mapping[int, float], theirs: Mapping[int, float], *, less_is_better: bool = False
) -> list[float]:
    """How many times better we were in each repeat that both have."""
    pairs = [(ours[at], theirs[at]) for at in sorted(ours.keys() & theirs.keys())]
    if less_is_better:
        pairs = [(other, own) for own, other in pairs]
    return [upper / lower for upper, lower in pairs if lower > 0]


def best_peer(
    found: Mapping[str, Mapping[int, float]], *, less_is_better: bool = False
) -> str | None:
    """The peer with the best median; None without one that has values."""
    medians = {name: statistics.median(by.values()) for name, by in found.items() if by}
    choose: Callable[..., str] = min if less_is_better else max
    return choose(medians, key=lambda name: medians[name]) if medians else None


def plateau(points: Sequence[tuple[float, float]], saturated: float) -> Spread | None:
    """Of (x, rate), the rates from x = `saturated` on, as shares of their highest."""
    rates = [rate for x, rate in points if x >= saturated and rate > 0]
    return Spread.of(rate / max(rates) for rate in rates) if rates else None
