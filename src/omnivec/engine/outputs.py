"""What happens to outputs after the model: cut, normalise, compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from omnivec.core.nouns import (
    Array,
    Card,
    Findings,
    Floats,
    Kind,
    Output,
    Relevance,
    Score,
    Sparse,
    Vectors,
)
from omnivec.core.outputs import dense
from omnivec.engine.work import COMPARED, compared


def is_finite(output: Output) -> bool:
    if isinstance(output, Vectors):
        sparse = output.sparse.values if output.sparse is not None else None
        return all(map(_is_finite, (output.dense, sparse, output.multivector)))
    if isinstance(output, Findings):
        return all(math.isfinite(one.score) for one in output.classes)
    return math.isfinite(output.value) and math.isfinite(output.raw)


def _is_finite(numbers: Array | None) -> bool:
    """In one pass without a temporary: a NaN or an infinity survives into the sum of squares."""
    return numbers is None or math.isfinite(float(np.vdot(numbers, numbers)))


def finish(vectors: Sequence[Floats], dims: int | None, *, normalize: bool) -> Floats:
    """[d] each to one float32 [n, dims]: cut first (Matryoshka), then L2-normalised.

    Decision 13's order. A vector of zeros, which a static model makes of an empty text,
    stays zero.
    """
    if len(vectors) == 1:  # nearly every request, and a fifth of the time
        row = np.asarray(vectors[0], np.float32)[:dims]
        return (row / _length(row) if normalize else np.ascontiguousarray(row))[None]
    matrix = np.stack(vectors).astype(np.float32, copy=False)[:, :dims]
    if normalize:
        matrix = matrix / np.array([_length(row) for row in matrix], np.float32)[:, None]
    return np.ascontiguousarray(matrix)


def _length(row: Floats) -> float:
    return max(1e-12, math.sqrt(np.vdot(row, row)))


def cosine(query: Floats, documents: Sequence[Floats]) -> list[float]:
    """Cosine of one [d] vector to each of the others, within -1..1."""
    matrix = finish([query, *documents], None, normalize=True)
    scores: list[float] = np.clip(matrix[1:] @ matrix[0], -1.0, 1.0).tolist()
    return scores


def mixed(
    weights: Sequence[tuple[Kind, float]], query: Vectors, documents: Sequence[Vectors]
) -> list[Output]:
    """The weighted mean of what each kind of vector says, as `Score` has it (BGE-M3's hybrid
    score, arXiv 2402.03216)."""
    total = math.fsum(weight for _, weight in weights)
    scores = np.zeros(len(documents))
    for kind, weight in weights:
        scores += weight / total * np.array(_ALIKE[kind](query, documents))
    if any(kind == "sparse" for kind, _ in weights):
        return unbounded(scores.tolist())
    return relevance(np.minimum(scores, 1).tolist())


def _cosine(query: Vectors, documents: Sequence[Vectors]) -> list[float]:
    rows = dense([query, *documents])
    return cosine(rows[0], rows[1:])


def dot(query: Vectors, documents: Sequence[Vectors]) -> list[float]:
    """Of one sparse vector with each of the others: the sum over the places both have."""
    if query.sparse is None:
        return []
    asked = dict(zip(query.sparse.indices.tolist(), query.sparse.values.tolist(), strict=True))
    return [_dot(asked, one.sparse) for one in documents if one.sparse is not None]


def _dot(asked: Mapping[int, float], document: Sparse) -> float:
    pairs = zip(document.indices.tolist(), document.values.tolist(), strict=True)
    return math.fsum(asked.get(place, 0.0) * value for place, value in pairs)


def maxsim(query: Vectors, documents: Sequence[Vectors]) -> list[float]:
    """Late interaction (ColBERT, arXiv 2004.12832): for each token of the query its best
    product with a token of the document, added up. 0 for a document without tokens."""
    rows = query.multivector
    if rows is None:
        return []
    others = [one.multivector for one in documents if one.multivector is not None]
    return [float((rows @ other.T).max(axis=1).sum()) if len(other) else 0.0 for other in others]


def _mean_maxsim(query: Vectors, documents: Sequence[Vectors]) -> list[float]:
    count = 0 if query.multivector is None else len(query.multivector)
    return [score / max(1, count) for score in maxsim(query, documents)]


_ALIKE: Mapping[Kind, Callable[[Vectors, Sequence[Vectors]], list[float]]] = {
    "dense": _cosine,
    "sparse": dot,
    "multivector": _mean_maxsim,
}


def unbounded(scores: Sequence[float]) -> list[Output]:
    """Scores without an upper end, for clients that filter by thresholds within 0..1: their
    order is kept by s / (1 + s)."""
    return [Relevance(value=max(0.0, score) / (1 + max(0.0, score)), raw=score) for score in scores]


def relevance(cosines: Sequence[float]) -> list[Output]:
    """Cosines as scores: clients filter by thresholds within 0..1, so `value` is cut there."""
    return [Relevance(value=max(0.0, score), raw=score) for score in cosines]


def scores(task: Score, card: Card, vectors: Sequence[Vectors]) -> tuple[Output, ...]:
    """Of the documents, the first of the vectors being the query's."""
    query, documents = vectors[0], vectors[1:]
    if task.weights and compared(task, card) != COMPARED.get(card.scoring):
        return tuple(mixed(task.weights, query, documents))
    if card.scoring == "dot":
        return tuple(unbounded(dot(query, documents)))
    if card.scoring == "maxsim":
        return tuple(unbounded(maxsim(query, documents)))
    rows = dense(vectors)
    return tuple(relevance(cosine(rows[0], rows[1:])))
