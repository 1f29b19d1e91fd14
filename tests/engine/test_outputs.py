"""Outputs after the model: cut, then normalised, alone as beside others."""

from __future__ import annotations

import numpy as np
import pytest

from omnivec.engine.outputs import finish


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
