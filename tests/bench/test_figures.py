"""Medians, spreads, paired ratios."""

from __future__ import annotations

import pytest
from bench.figures import Spread

from bench import figures

SAMPLES = [
    {"server": "ours", "workload": "w", "repeat": 0, "rate": 100.0},
    {"server": "ours", "workload": "w", "repeat": 1, "rate": 60.0},
    {"server": "peer", "workload": "w", "repeat": 0, "rate": 20.0},
    {"server": "peer", "workload": "w", "repeat": 1, "rate": 10.0},
    {"server": "peer", "workload": "other", "repeat": 0, "rate": 1.0},
    {"server": "peer", "workload": "w", "repeat": 2},
]


def test_a_spread_is_median_lowest_highest() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert Spread.of([4.0, 1.0]) == (2.5, 1.0, 4.0)
    assert Spread.of([]) is None


def test_values_are_by_repeat_and_only_where_asked() -> None:
    assert figures.values(SAMPLES, "rate", server="peer", workload="w") == {0: 20.0, 1: 10.0}
    assert figures.spread(SAMPLES, "rate", server="nobody") is None


def test_ratios_pair_the_same_repeat() -> None:
    ours = figures.values(SAMPLES, "rate", server="ours")
    theirs = figures.values(SAMPLES, "rate", server="peer", workload="w")
    assert figures.ratios(ours, theirs) == [5.0, 6.0]
    assert figures.ratios({0: 2.0, 1: 9.0}, {0: 10.0}, less_is_better=True) == [5.0]
    assert figures.ratios({0: 2.0}, {0: 0.0}) == []


def test_the_best_peer_depends_on_the_direction() -> None:
    found = {"a": {0: 1.0}, "b": {0: 2.0}, "absent": {}}
    assert figures.best_peer(found) == "b"
    assert figures.best_peer(found, less_is_better=True) == "a"
    assert figures.best_peer({"absent": {}}) is None


def test_a_plateau_is_judged_past_saturation() -> None:
    points = [(1.0, 10.0), (16.0, 90.0), (64.0, 100.0), (256.0, 80.0)]
    level = figures.plateau(points, 16)
    assert level is not None
    assert level.low == pytest.approx(0.8)
    assert figures.plateau(points, 1000) is None
