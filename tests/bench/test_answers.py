"""Which answers make a row void."""

from __future__ import annotations

import numpy as np
from bench.answers import compare, compare_scores

RIGHT = np.random.default_rng(0).standard_normal((6, 16))


def test_the_same_directions_are_right() -> None:
    verdict = compare(3 * RIGHT, RIGHT)
    assert verdict.right
    assert verdict.cosine > 0.999999


def test_two_vectors_changed_about_are_wrong() -> None:
    swapped = compare(RIGHT[[1, 0, 2, 3, 4, 5]], RIGHT)
    assert not swapped.right
    assert swapped.strays == 2


def test_nearly_parallel_references_still_show_a_swap() -> None:
    """As random weights give them: every cosine passes, the order does not."""
    close = np.ones((4, 64)) + 0.01 * np.random.default_rng(1).standard_normal((4, 64))
    verdict = compare(close[[1, 0, 2, 3]], close)
    assert verdict.cosine > 0.999
    assert not verdict.right


def test_missing_vectors_and_numbers_are_wrong() -> None:
    assert not compare(RIGHT[:5], RIGHT).right
    assert not compare(np.where(RIGHT > 2, np.nan, RIGHT), RIGHT).right


def test_scores_must_agree_and_lie_on_the_same_scale() -> None:
    scores = np.linspace(0.1, 0.9, 9)
    assert compare_scores(scores + 0.001, scores).right
    assert not compare_scores(10 * scores, scores).right
    assert not compare_scores(scores[::-1], scores).right
    assert not compare_scores(np.full(9, 0.5), scores).right
