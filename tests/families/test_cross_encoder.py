"""Cross-encoders against sentence-transformers' CrossEncoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from checkpoints import IDENTITY, SENTENCES
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import BadRequest, TooLong, Unsupported
from omnivec.core.nouns import Text, Unit
from omnivec.core.steps import Head
from omnivec.families.cross_encoder import PLUGIN, relevance

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "which fox jumps over the dog?"
DOCUMENTS = [*SENTENCES, "", "fox", " ".join(SENTENCES)]
SIGMOID = "torch.nn.modules.activation.Sigmoid"


def reference(folder: Path, query: str, documents: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The logits, and what CrossEncoder.predict answers by default."""
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    pairs = [(query, document) for document in documents]
    raw = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    return raw, model.predict(pairs, show_progress_bar=False)


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "xlm_roberta", "camembert", "distilbert", "mpnet", "modernbert"]
)
@pytest.mark.parametrize("query", [QUERY, "fox " * 100, ""])
def test_every_architecture(tiny, opened, kind: str, query: str) -> None:
    folder = tiny(kind, num_labels=1)
    scores = opened(folder).score(query, DOCUMENTS)
    raw, value = reference(folder, query, DOCUMENTS)
    np.testing.assert_allclose([score.raw for score in scores], raw, rtol=0, atol=1e-5)
    np.testing.assert_allclose([score.value for score in scores], value, rtol=0, atol=1e-5)
    assert np.std(raw) > 1e-3


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("activation", [IDENTITY, SIGMOID])
def test_scores_are_within_0_and_1_whatever_the_activation(
    tiny, opened, spelling: str, activation: str
) -> None:
    folder = tiny("bert", num_labels=1, activation=activation, spelling=spelling)
    scores = opened(folder).score(QUERY, DOCUMENTS)
    raw, default = reference(folder, QUERY, DOCUMENTS)
    np.testing.assert_allclose([score.raw for score in scores], raw, rtol=0, atol=1e-5)
    expected = 1 / (1 + np.exp(-raw.astype(np.float64)))
    np.testing.assert_allclose([score.value for score in scores], expected, rtol=0, atol=1e-5)
    same = raw if activation == IDENTITY else expected
    np.testing.assert_allclose(default, same, rtol=0, atol=1e-5)


def test_alone_or_in_any_batch(tiny, opened) -> None:
    model = opened(tiny("bert", num_labels=1))
    together = [score.raw for score in model.score(QUERY, DOCUMENTS)]
    alone = [model.score(QUERY, [document])[0].raw for document in DOCUMENTS]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_segments_only_where_the_architecture_has_them(tiny, opened) -> None:
    unit = Unit(parts=(Text("f f"),), other=(Text("f"),))
    (bert,) = opened(tiny("bert", num_labels=1)).model.prepare([unit])
    assert bert.arrays["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1]
    (xlm,) = opened(tiny("xlm_roberta", num_labels=1)).model.prepare([unit])
    assert set(xlm.arrays) == {"input_ids"}


def test_different_queries_share_a_batch(tiny, opened) -> None:
    model = opened(tiny("bert", num_labels=1))
    units = [
        Unit(parts=(Text(query),), other=(Text(document),))
        for query in ("fox", "dog", "fox")
        for document in ("lazy dog", "river")
    ]
    raw = [score.raw for score in model.model.forward(model.model.prepare(units))]
    assert raw[:2] == pytest.approx(raw[4:], abs=1e-6)
    assert raw[0] != pytest.approx(raw[2], abs=1e-4)


def test_tokens_are_counted_and_a_cut_is_told(tiny, opened) -> None:
    model = opened(tiny("bert", num_labels=1)).model
    units = [Unit(parts=(Text("f f"),), other=(Text(document),)) for document in ("f", "f " * 1000)]
    short, long = model.prepare(units)
    assert (short.tokens, short.cut) == (6, False)
    assert (long.tokens, long.cut) == (64, True)


def test_faults_name_the_query_or_the_unit(tiny, opened) -> None:
    model = opened(tiny("bert", num_labels=1))
    fox = (Text("fox"),)
    with pytest.raises(TooLong, match="window of 64 tokens") as caught:
        model.score("fox", ["a", "f " * 62], overflow="refuse")
    assert caught.value.param == "[1]"
    with pytest.raises(BadRequest) as caught:
        model.score("\ud800", ["a"])
    assert caught.value.param == "query"
    with pytest.raises(BadRequest) as caught:
        model.score("a", ["a", "\ud800"])
    assert caught.value.param == "[1]"
    with pytest.raises(Unsupported, match="pairs"):
        model.model.prepare([Unit(parts=fox)])


def test_the_card(tiny, opened) -> None:
    card = opened(tiny("xlm_roberta", num_labels=1)).card
    assert (card.tasks, card.scoring, card.max_tokens) == (("score",), "cross-encoder", 64)
    assert (card.architecture, card.dims) == ("xlm-roberta", None)


def test_claims(tiny) -> None:
    assert PLUGIN.claims(Checkpoint("x", tiny("bert", num_labels=1)))
    assert not PLUGIN.claims(Checkpoint("x", tiny("bert", num_labels=3)))
    assert not PLUGIN.claims(Checkpoint("x", tiny("bert")))
    made = PLUGIN.graphs(Checkpoint("x", tiny("bert", num_labels=1)))
    assert made == {"main": Head(kind="logits")}


@pytest.mark.parametrize("logit", [-1e6, -40.0, 0.0, 40.0, 1e6])
def test_far_logits_do_not_overflow(logit: float) -> None:
    score = relevance(logit)
    assert 0 <= score.value <= 1
    assert score.raw == logit
