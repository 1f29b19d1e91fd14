"""BGE-M3 against its formulas over transformers' XLM-RoBERTa."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from checkpoints import SENTENCES
from multivectors import RUNTIMES, Opened, build_bge_m3, pickle_weights
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import TooLong
from omnivec.core.nouns import Text, Tokens, Unit
from omnivec.families.bge_m3 import KINDS, PLUGIN

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [*SENTENCES, "", "fox fox fox", " ".join(SENTENCES), "☃"]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    return build_bge_m3(tiny, tmp_path_factory.mktemp("m3"))


@pytest.fixture(scope="module", params=RUNTIMES)
def model(request, folder) -> Opened:
    return Opened(PLUGIN, folder, request.param)


@pytest.fixture(scope="module")
def expected(folder) -> list[dict[str, Any]]:
    return reference(folder, TEXTS)


def reference(folder: Path, texts: list[str]) -> list[dict[str, Any]]:
    """As FlagEmbedding has it (BGEM3Model, M3Embedder), one text at a time."""
    from transformers import AutoTokenizer, XLMRobertaModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = XLMRobertaModel.from_pretrained(folder).eval()
    sparse, colbert = (
        torch.load(folder / file, weights_only=True)
        for file in ("sparse_linear.pt", "colbert_linear.pt")
    )
    unused = {tokenizer.cls_token_id, tokenizer.eos_token_id}
    unused |= {tokenizer.pad_token_id, tokenizer.unk_token_id}
    found = []
    for text in texts:
        told = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            hidden = encoder(**told).last_hidden_state[0]
        weights = torch.relu(hidden @ sparse["weight"].T + sparse["bias"])[:, 0]
        lexical: dict[int, float] = {}
        for weight, number in zip(weights.tolist(), told["input_ids"][0].tolist(), strict=True):
            if number not in unused and weight > lexical.get(number, 0):
                lexical[number] = weight
        rows = hidden[1:] @ colbert["weight"].T + colbert["bias"]
        rows = torch.nn.functional.normalize(rows, dim=-1)
        found.append({"dense": hidden[0].numpy(), "sparse": lexical, "rows": rows.numpy()})
    return found


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def check(ours: Any, theirs: dict[str, Any]) -> None:
    close(ours.dense, theirs["dense"])
    assert ours.sparse.indices.dtype == np.int32
    assert ours.sparse.values.dtype == np.float32
    assert ours.sparse.indices.tolist() == sorted(theirs["sparse"])
    close(ours.sparse.values, [theirs["sparse"][place] for place in sorted(theirs["sparse"])])
    close(ours.multivector, theirs["rows"])


def test_all_three_kinds_come_from_one_pass(model, expected) -> None:
    for ours, theirs in zip(model.encode(TEXTS, kinds=KINDS), expected, strict=True):
        check(ours, theirs)
    assert any(theirs["sparse"] for theirs in expected)


def test_one_text_is_as_many(model, expected) -> None:
    for text, theirs in zip(TEXTS, expected, strict=True):
        check(model.encode([text], kinds=KINDS)[0], theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_asked_for_is_made(model, kind: str) -> None:
    for ours in model.encode(TEXTS, kinds=(kind,)):
        assert {name for name in KINDS if getattr(ours, name) is not None} == {kind}


def test_texts_of_one_batch_may_ask_for_different_kinds(model, expected) -> None:
    wishes = [KINDS, ("dense",), ("sparse",), ("multivector",), ("dense", "multivector")]
    units = [
        Unit(parts=(Text(text),), kinds=wishes[at % len(wishes)]) for at, text in enumerate(TEXTS)
    ]
    found = model.model.forward(model.model.prepare(units))
    for unit, ours, theirs in zip(units, found, expected, strict=True):
        assert (ours.dense is None, ours.sparse is None, ours.multivector is None) == tuple(
            kind not in unit.kinds for kind in KINDS
        )
        if ours.multivector is not None:
            close(ours.multivector, theirs["rows"])
        if ours.sparse is not None:
            assert ours.sparse.indices.tolist() == sorted(theirs["sparse"])


def test_an_empty_text_has_no_words_and_one_row(model) -> None:
    (ours,) = model.encode([""], kinds=KINDS)
    assert ours.sparse.indices.shape == ours.sparse.values.shape == (0,)
    assert ours.multivector.shape == (1, 16)  # of </s>
    assert np.isfinite(ours.dense).all()


@pytest.mark.parametrize("bias", [-50.0, 50.0])
def test_words_without_weight_are_left_out(tiny, tmp_path, bias: float) -> None:
    folder = build_bge_m3(tiny, tmp_path, bias=bias)
    ours = Opened(PLUGIN, folder).encode(TEXTS, kinds=("sparse",))
    for one, theirs in zip(ours, reference(folder, TEXTS), strict=True):
        assert one.sparse.indices.tolist() == sorted(theirs["sparse"])
        assert bool(len(one.sparse.indices)) <= (bias > 0)


def test_a_long_text_is_cut_as_the_window_is(model) -> None:
    (whole,) = model.prepare([TEXTS[-2]], kinds=KINDS)
    assert whole.cut
    assert (whole.cost, whole.tokens) == (64, 64)
    (short,) = model.prepare([TEXTS[-2]], kinds=KINDS, max_tokens=9)
    assert short.cut
    assert short.tokens == 9
    assert len(model.model.forward([short])[0].multivector) == 8
    with pytest.raises(TooLong):
        model.prepare([TEXTS[-2]], overflow="refuse")


def test_token_ids_have_no_first_token_to_drop(model) -> None:
    ids = (7, 8, 9, 8)
    unit = Unit(parts=(Tokens(ids),), kinds=KINDS)
    (ours,) = model.model.forward(model.model.prepare([unit]))
    assert len(ours.multivector) == len(ids)
    assert set(ours.sparse.indices.tolist()) <= set(ids)


def test_the_card(model) -> None:
    card = model.card
    assert card.kinds == KINDS
    assert (card.dims, card.token_dims, card.sparse_dims) == (32, 16, card.vocabulary)
    assert (card.scoring, card.pooling, card.max_tokens) == ("cosine", "cls", 64)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_may_be_pickled_where_the_entry_says_so(
    tiny, tmp_path, expected, runtime: str
) -> None:
    folder = build_bge_m3(tiny, tmp_path)
    pickle_weights(folder)
    with pytest.raises(CheckpointError, match="pickle"):
        Opened(PLUGIN, folder, runtime)
    told = Opened(PLUGIN, folder, runtime, overrides={"pickle": True})
    for ours, theirs in zip(told.encode(TEXTS, kinds=KINDS), expected, strict=True):
        check(ours, theirs)


def test_only_a_whole_checkpoint_is_claimed(tiny, folder, tmp_path) -> None:
    assert PLUGIN.claims(Checkpoint("m", folder))
    assert not PLUGIN.claims(Checkpoint("m", tiny("xlm_roberta")))
    made = build_bge_m3(tiny, tmp_path)
    (made / "colbert_linear.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="colbert_linear"):
        PLUGIN.card(Checkpoint("m", made))
    (made / "sparse_linear.pt").unlink()
    assert not PLUGIN.claims(Checkpoint("m", made))
