"""Outputs after the model: cut, then normalised, alone as beside others."""

from __future__ import annotations

import numpy as np
import pytest

from omnivec.core.nouns import Class, Findings, Sparse, Vectors
from omnivec.engine.outputs import dot, finish, is_finite, maxsim, unbounded


def rows(count: int, dims: int = 48) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    return list(np.random.default_rng(7).normal(size=(count, dims)).astype(np.float32) * 5)


@pytest.mark.parametrize("dims", [None, 16])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_vector_alone_is_finished_as_one_of_many(dims: int | None, normalize: bool) -> None:
    vectors = rows(9)
    together = finish(vectors, dims, normalize=normalize)
    alone = [finish([vector], dims, normalize=normalize)[0] for vector in vectors]
    assert together.dtype == alone[0].dtype == np.float32
    assert together.shape == (9, dims or 48)
    assert (np.stack(alone) == together).all()


def test_it_is_cut_before_it_is_normalised() -> None:
    finished = finish(rows(1), 16, normalize=True)[0]
    assert np.linalg.norm(finished) == pytest.approx(1, abs=1e-6)


def test_zeros_stay_zeros_and_the_models_own_row_stays_as_it_was() -> None:
    assert not finish([np.zeros(4, np.float32)], None, normalize=True).any()
    (vector,) = rows(1)
    before = vector.copy()
    finish([vector], None, normalize=True)
    assert (vector == before).all()


def vectors(*places: tuple[int, float]) -> Vectors:
    indices = np.array([place for place, _ in places], np.int32)
    return Vectors(sparse=Sparse(indices, np.array([value for _, value in places], np.float32)))


def test_sparse_vectors_are_compared_where_both_have_something() -> None:
    query = vectors((3, 1.0), (7, 2.0))
    others = [vectors((3, 0.5), (9, 9.0)), vectors((7, 0.25), (3, 1.0)), vectors()]
    assert dot(query, others) == [0.5, 1.5, 0.0]


def test_maxsim_adds_up_each_query_tokens_best() -> None:
    rows = [[[1, 0], [0, 1]], [[1, 0], [0.5, 0.5]], [[0, 1]], np.zeros((0, 2))]
    query, *others = [Vectors(multivector=np.array(one, np.float32)) for one in rows]
    assert maxsim(query, others) == [1.5, 1.0, 0.0]


def test_scores_without_an_end_keep_their_order_within_one() -> None:
    scores = [relevance.value for relevance in unbounded([-1.0, 0.0, 1.0, 3.0, 1000.0])]
    assert scores == pytest.approx([0.0, 0.0, 0.5, 0.75, 1000 / 1001])
    assert [relevance.raw for relevance in unbounded([3.0])] == [3.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_of_every_kind_must_be_finite(bad: float) -> None:
    rows = np.array([[1, bad]], np.float32)
    assert not is_finite(Vectors(multivector=rows))
    assert not is_finite(vectors((1, bad)))
    assert not is_finite(Findings((Class("a", 0.5), Class("b", bad))))
    assert is_finite(Findings((Class("a", 0.5),)))
    assert is_finite(vectors((1, 2.0)))
    assert is_finite(vectors())
