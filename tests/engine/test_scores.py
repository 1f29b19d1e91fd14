"""Scores of a model that makes several kinds of vectors, through the whole engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import SENTENCES
from multivectors import Opened, build_bge_m3, build_stanford
from omnivec.core.errors import Unsupported
from omnivec.core.nouns import Encode, Item, Kind, Relevance, Result, Score, Task, Text, Vectors
from omnivec.core.settings import Settings
from omnivec.families.bge_m3 import KINDS, PLUGIN
from omnivec.families.colbert import PLUGIN as COLBERT
from omnivec.hosts.assemble import local_engine

QUERY, DOCUMENTS = SENTENCES[0], [*SENTENCES[:4], "", "fox", " ".join(SENTENCES)]
HYBRID: tuple[tuple[Kind, float], ...] = (("dense", 0.4), ("sparse", 0.2), ("multivector", 0.4))


@pytest.fixture(scope="module")
def folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bge_m3(tiny, tmp_path_factory.mktemp("m3"))


def run(model: str, *tasks: Task) -> list[Result]:
    async def scenario() -> list[Result]:
        engine = local_engine(Settings(models=(model,), dtype="f32"))
        await engine.load()
        try:
            return list(await asyncio.gather(*map(engine.run, tasks)))
        finally:
            await engine.close()

    return asyncio.run(scenario())


def items(texts: list[str]) -> tuple[Item, ...]:
    return tuple(Item((Text(text),)) for text in texts)


def score(weights: tuple[tuple[Kind, float], ...]) -> Score:
    return Score(query=items([QUERY])[0], items=items(DOCUMENTS), weights=weights)


def reference(folder: Path, weights: tuple[tuple[Kind, float], ...]) -> list[float]:
    """FlagEmbedding's compute_score: each kind's own score, and their weighted mean."""
    query, *documents = Opened(PLUGIN, folder).encode([QUERY, *DOCUMENTS], kinds=KINDS)
    told = dict(zip(query.sparse.indices.tolist(), query.sparse.values.tolist(), strict=True))
    scores = []
    for one in documents:
        words = zip(one.sparse.indices.tolist(), one.sparse.values.tolist(), strict=True)
        parts = {
            "dense": query.dense
            @ one.dense
            / np.linalg.norm(query.dense)
            / np.linalg.norm(one.dense),
            "sparse": sum(told.get(word, 0) * value for word, value in words),
            "multivector": (query.multivector @ one.multivector.T).max(1).mean(),
        }
        total = sum(weight for _, weight in weights)
        scores.append(sum(weight * parts[kind] for kind, weight in weights) / total)
    return scores


@pytest.mark.parametrize(
    "weights",
    [
        (("dense", 1.0),),
        (("sparse", 1.0),),
        (("multivector", 1.0),),
        HYBRID,
        (("dense", 1.0), ("sparse", 0.3), ("multivector", 1.0)),
        (("dense", 2.0), ("multivector", 2.0)),
    ],
    ids=str,
)
def test_the_weighted_mean_of_what_each_kind_says(folder: Path, weights: Any) -> None:
    (result,) = run(f"m3={folder}", score(weights))
    raws = [one.raw for one in result.outputs if isinstance(one, Relevance)]
    np.testing.assert_allclose(raws, reference(folder, weights), rtol=0, atol=1e-5)
    values = [one.value for one in result.outputs if isinstance(one, Relevance)]
    assert all(0 <= value <= 1 for value in values)
    positive = [at for at, raw in enumerate(raws) if raw > 0]
    order = sorted(positive, key=lambda at: -raws[at])
    assert order == sorted(positive, key=lambda at: -values[at])
    assert result.usage.items == len(DOCUMENTS)


def test_without_weights_it_is_the_cosine(folder: Path) -> None:
    plain, dense = run(f"m3={folder}", score(()), score((("dense", 1.0),)))
    assert plain.outputs == dense.outputs


def test_requests_for_different_kinds_meet_in_one_batch(folder: Path) -> None:
    tasks = [Encode(items(list(SENTENCES)), kinds=(kind,)) for kind in KINDS]
    tasks.append(Encode(items(list(SENTENCES)), kinds=KINDS))
    *single, whole = run(f"m3={folder}", *tasks)
    for kind, result in zip(KINDS, single, strict=True):
        for one, all_ in zip(result.outputs, whole.outputs, strict=True):
            assert isinstance(one, Vectors)
            assert isinstance(all_, Vectors)
            mine, others = getattr(one, kind), getattr(all_, kind)
            if kind == "sparse":
                assert mine.indices.tolist() == others.indices.tolist()
                mine, others = mine.values, others.values
            np.testing.assert_allclose(mine, others, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["fake:dims=8", "fake-reranker"])
@pytest.mark.parametrize("weights", [HYBRID, (("sparse", 1.0),)], ids=["hybrid", "sparse"])
def test_what_a_model_cannot_compare_is_refused(model: str, weights: Any) -> None:
    with pytest.raises(Unsupported, match="compares") as fault:
        run(model, score(weights))
    assert fault.value.param == "weights"


def test_a_colbert_model_scores_by_maxsim(tiny: Any, tmp_path: Path) -> None:
    folder = build_stanford(tiny, tmp_path)
    model = Opened(COLBERT, folder)
    (query,) = model.rows([QUERY], role="query")
    expected = [float((query @ one.T).max(1).sum()) for one in model.rows(DOCUMENTS)]
    plain, named, other = run(
        f"colbert={folder}",
        score(()),
        score((("multivector", 1.0),)),
        Encode(items([QUERY]), role="query", kinds=("multivector",)),
    )
    raws = [one.raw for one in plain.outputs if isinstance(one, Relevance)]
    np.testing.assert_allclose(raws, expected, rtol=0, atol=1e-4)
    assert plain.outputs == named.outputs
    (encoded,) = other.outputs
    assert isinstance(encoded, Vectors)
    np.testing.assert_allclose(encoded.multivector, query, rtol=0, atol=1e-5)
    with pytest.raises(Unsupported, match="multivector") as fault:
        run(f"colbert={folder}", score(HYBRID))
    assert fault.value.param == "weights"
    with pytest.raises(Unsupported, match="multivector"):
        run(f"colbert={folder}", Encode(items([QUERY]), model="colbert"))
