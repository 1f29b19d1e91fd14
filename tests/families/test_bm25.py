"""BM25's sparse vectors, by hand-computed values: there is no model to compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import Image, Part, Sparse, Text, Tokens, Unit, Url, Vectors
from omnivec.engine.catalog import MODELS, catalog, resolve
from omnivec.families import bm25
from omnivec.families.bm25 import Bm25, murmur3

FOLDER = MODELS / "bm25"


@pytest.fixture(scope="module")
def model() -> Bm25:
    return Bm25(Checkpoint("omnivec/bm25", FOLDER))


def sparse(model: Bm25, text: str, role: str | None = None) -> Sparse:
    features = model.prepare([Unit(parts=(Text(text),), role=role)])
    (output,) = model.forward(features)
    assert isinstance(output, Vectors)
    assert output.dense is None
    assert output.sparse is not None
    return output.sparse


def place(word: str) -> int:
    return abs(murmur3(word.encode()))


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        ("", 0),
        ("foo", -156908512),
        ("hello", 613153351),
        ("hello, world", 345750399),
        ("The quick brown fox jumps over the lazy dog", 776992547),
    ],
)
def test_the_hash_is_murmur3_with_its_published_values(text: str, hashed: int) -> None:
    assert murmur3(text.encode()) == hashed


def test_a_document_has_the_formulas_values(model: Bm25) -> None:
    found = sparse(model, "The cats and the cat were running")
    # cat, cat, run: two of "cat" among 3 stems, the rest is stopped
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / 256)
    wanted = {place("cat"): 2 * 2.2 / (2 + norm), place("run"): 2.2 / (1 + norm)}
    assert found.indices.dtype == np.int32
    assert found.values.dtype == np.float32
    assert found.indices.tolist() == sorted(wanted)
    assert dict(zip(found.indices.tolist(), found.values.tolist(), strict=True)) == pytest.approx(
        wanted
    )


def test_a_querys_values_are_one(model: Bm25) -> None:
    found = sparse(model, "running cats, running dogs", "query")
    assert found.indices.tolist() == sorted(map(place, ("cat", "dog", "run")))
    assert found.values.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("text", ["", "the of and", "!?! ...", "x" * 41])
def test_a_text_without_words_is_empty(model: Bm25, text: str) -> None:
    found = sparse(model, text)
    assert len(found.indices) == len(found.values) == 0


def test_words_of_other_scripts_have_places(model: Bm25) -> None:
    assert len(sparse(model, "Übergröße 快速的 棕色").indices) == 3


@pytest.mark.parametrize(
    ("part", "fault"),
    [(Tokens((0,)), BadRequest), (Image(Url("http://x/y.png")), Unsupported)],
)
def test_what_is_no_text_is_refused(model: Bm25, part: Part, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        model.prepare([Unit(parts=(part,))])


def test_it_is_built_in() -> None:
    spec = catalog().spec("omnivec/bm25")
    checkpoint = Checkpoint(spec.name, Path(spec.source))
    assert bm25.PLUGIN.claims(checkpoint)
    card = bm25.PLUGIN.card(checkpoint)
    assert (card.kinds, card.dims, card.sparse_dims) == (("sparse",), None, None)
    served = [card.__class__(name=spec.name, aliases=spec.aliases)]
    assert resolve("Qdrant/bm25", served) == resolve("bm25", served) == "omnivec/bm25"


def test_a_query_under_any_of_its_names_has_ones(model: Bm25) -> None:
    for role in ("query", "search_query"):
        assert set(sparse(model, "red car car car", role).values.tolist()) == {1.0}
