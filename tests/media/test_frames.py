"""Frame selection: the table of Intel's service, and every edge of its rules."""

from __future__ import annotations

import numpy as np
import pytest

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Clip
from omnivec.media.frames import check, choose

BOTTLE = (1189, 179 / 6)
CAR = (377, 12.5)
SMALL = (33, 405504 / 17071)


def oracle(
    total: int, rate: float, start: float = 0, duration: float = -1, **keys: object
) -> list[int]:
    """The service's own formula, as its description gives it."""
    s = int(rate * start)
    e = total if duration == -1 else min(total, s + int(rate * duration))
    fps, count = keys.get("fps"), keys.get("frames", 64)
    wanted = [one for one in keys.get("indexes", ()) if s <= one < e]  # type: ignore[union-attr]
    if wanted:
        return sorted(set(wanted))
    if fps and "indexes" not in keys:
        got, at = set(), float(s)
        while at < e:
            got.add(int(at))
            at += rate / fps  # type: ignore[operator]
        return sorted(got)
    return sorted(set(np.linspace(s, e, num=count or e - s, endpoint=False, dtype=int).tolist()))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("video", "clip", "rows", "begins", "ends"),
    [
        (BOTTLE, Clip(), 64, [0, 18, 37, 55, 74, 92], [1151, 1170]),
        (BOTTLE, Clip(frames=8), 8, [0, 148, 297, 445, 594, 743], [891, 1040]),
        (BOTTLE, Clip(start=1, duration=2), 59, [29, 30], [86, 87]),
        (BOTTLE, Clip(start=5, duration=5, frames=8), 8, [149, 167, 186, 204, 223], [260, 279]),
        (BOTTLE, Clip(fps=1), 40, [0, 29, 59, 89, 119, 149], [1133, 1163]),
        (BOTTLE, Clip(fps=2.5, duration=10), 25, [0, 11, 23, 35, 47, 59], [274, 286]),
        (BOTTLE, Clip(indexes=(20, 1, 10, 10)), 3, [1, 10], [10, 20]),
        (BOTTLE, Clip(indexes=(99999,)), 64, [0, 18, 37], [1151, 1170]),
        (CAR, Clip(fps=1), 31, [0, 12, 25, 37, 50, 62], [362, 375]),
        (CAR, Clip(start=1, duration=2), 25, [12, 13], [35, 36]),
        (SMALL, Clip(), 33, [0, 1], [31, 32]),
        (SMALL, Clip(indexes=(32,)), 1, [32], [32]),
        (BOTTLE, Clip(frames=0), 1189, [0, 1], [1187, 1188]),
        (BOTTLE, Clip(interval=5, frames=0), 238, [0, 5], [1180, 1185]),
        (BOTTLE, Clip(start=1, duration=1, interval=10), 3, [29, 39, 49], [39, 49]),
        (BOTTLE, Clip(duration=0), 1, [0], [0]),
        (BOTTLE, Clip(start=2, duration=0, fps=1), 1, [59], [59]),
        (BOTTLE, Clip(duration=1e18, frames=2), 2, [0, 594], [0, 594]),
        (BOTTLE, Clip(duration=float("inf"), frames=2), 2, [0, 594], [0, 594]),
        (BOTTLE, Clip(start=39.8), 2, [1187, 1188], [1187, 1188]),
        (BOTTLE, Clip(frames=10**9), 1189, [0, 1], [1187, 1188]),
        (BOTTLE, Clip(fps=1e9), 1189, [0, 1], [1187, 1188]),
        (BOTTLE, Clip(fps=1e-300), 1, [0], [0]),
        (BOTTLE, Clip(indexes=(-1, 2**63, 7, 10**30)), 1, [7], [7]),
        (BOTTLE, Clip(start=1, duration=1, indexes=(1, 30, 500), fps=1), 1, [30], [30]),
        (BOTTLE, Clip(indexes=(5000,), fps=1, frames=2), 2, [0, 594], [0, 594]),
        (BOTTLE, Clip(fps=1, interval=2, frames=3), 40, [0, 29], [1133, 1163]),
        (BOTTLE, Clip(interval=10**30), 1, [0], [0]),
        ((1, 25.0), Clip(), 1, [0], [0]),
    ],
)
def test_rows(
    video: tuple[int, float], clip: Clip, rows: int, begins: list[int], ends: list[int]
) -> None:
    check(clip, 4096)
    chosen = choose(clip, *video, 4096)
    assert len(chosen) == rows
    assert list(chosen[: len(begins)]) == begins
    assert list(chosen[-len(ends) :]) == ends


def test_the_formula_of_the_service_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(400):
        total, rate = int(rng.integers(1, 900)), float(rng.uniform(1, 120))
        start, duration = float(rng.uniform(0, 9)), float(rng.uniform(0.1, 9))
        keys = [
            {"frames": int(rng.integers(0, 100))},
            {"fps": float(rng.uniform(0.1, 90))},
            {"indexes": tuple(rng.integers(0, 400, 5).tolist())},
        ][int(rng.integers(3))]
        expected = oracle(total, rate, start, duration, **keys)
        if expected and int(rate * start) < total and int(rate * duration):
            clip = Clip(start=start, duration=duration, **keys)  # type: ignore[arg-type]
            assert list(choose(clip, total, rate, 4096)) == expected
            compared += 1
    assert compared > 150


@pytest.mark.parametrize(
    "clip",
    [
        Clip(start=-1),
        Clip(start=float("nan")),
        Clip(start=float("inf")),
        Clip(duration=-1),
        Clip(duration=float("nan")),
        Clip(fps=0),
        Clip(fps=-1),
        Clip(fps=float("nan")),
        Clip(fps=float("inf")),
        Clip(interval=0),
        Clip(interval=-5),
        Clip(frames=-1),
        Clip(indexes=tuple(range(4097))),
    ],
)
def test_what_is_wrong_by_itself(clip: Clip) -> None:
    with pytest.raises(BadRequest):
        check(clip, 4096)


@pytest.mark.parametrize(
    ("clip", "total", "rate"),
    [
        (Clip(start=40), *BOTTLE),
        (Clip(start=1e300), *BOTTLE),
        (Clip(start=1e308), 10, 1e6),
        (Clip(frames=0), 2_000_000, 25.0),
        (Clip(frames=10**9), 2_000_000, 25.0),
        (Clip(frames=4097), 2_000_000, 25.0),
        (Clip(fps=1e9), 2_000_000, 25.0),
        (Clip(fps=20), 2_000_000, 25.0),
        (Clip(interval=2), 2_000_000, 25.0),
    ],
)
def test_what_is_wrong_with_this_video(clip: Clip, total: int, rate: float) -> None:
    check(clip, 4096)
    with pytest.raises(BadRequest):
        choose(clip, total, rate, 4096)
