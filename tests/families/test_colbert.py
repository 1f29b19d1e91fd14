"""ColBERT models against sentence-transformers' MultiVectorEncoder, which reads the same
folders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from checkpoints import SENTENCES
from multivectors import (
    RUNTIMES,
    Opened,
    build_pylate,
    build_stanford,
    pickle_weights,
    write_json,
)
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import TooLong, Unsupported
from omnivec.core.nouns import Text, Unit
from omnivec.families.colbert import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEXTS = [*SENTENCES, "", "fox", "...", " ".join(SENTENCES), "a fox, a dog: no!"]

runtimes = pytest.mark.parametrize("runtime", RUNTIMES)


def reference(folder: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)


def close(ours: Sequence[np.ndarray], theirs: Sequence[Any]) -> None:
    assert [one.shape for one in ours] == [tuple(one.shape) for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, np.asarray(other), rtol=0, atol=1e-5)


def check(folder: Path, runtime: str = "openvino", texts: Sequence[str] = TEXTS) -> Opened:
    oracle, model = reference(folder), Opened(PLUGIN, folder, runtime)
    queries = oracle.encode_query(list(texts), batch_size=4, show_progress_bar=False)
    documents = oracle.encode_document(list(texts), batch_size=4, show_progress_bar=False)
    close(model.rows(texts, role="query"), queries)
    close(model.rows(texts, role="document"), documents)
    close(model.rows(texts), documents)
    for role, expected in (("query", queries), ("document", documents)):
        close([model.rows([text], role=role)[0] for text in texts[:4]], expected[:4])
    return model


# ── Stanford's layout ────────────────────────────────────────────────────────────────────


@runtimes
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"attend_to_mask_tokens": True},
        {"mask_punctuation": False},
        {"query_maxlen": 12, "doc_maxlen": 9},
        {"query_token_id": None, "doc_token_id": None, "doc_maxlen": None},
    ],
    ids=str,
)
def test_stanford(tiny, tmp_path, runtime: str, told: dict[str, Any]) -> None:
    model = check(build_stanford(tiny, tmp_path, **told), runtime)
    assert model.card.token_dims == 16
    assert model.card.max_tokens == (told.get("doc_maxlen", 40) or 64)


def test_stanford_without_metadata(tiny, tmp_path) -> None:
    folder = build_stanford(tiny, tmp_path)
    (folder / "artifact.metadata").unlink()
    check(folder)


@runtimes
def test_stanford_pickled(tiny, tmp_path, runtime: str) -> None:
    folder = build_stanford(tiny, tmp_path)
    expected = Opened(PLUGIN, folder, runtime).rows(TEXTS)
    pickle_weights(folder)
    with pytest.raises(CheckpointError, match="pickle"):
        Opened(PLUGIN, folder, runtime)
    close(Opened(PLUGIN, folder, runtime, overrides={"pickle": True}).rows(TEXTS), expected)


# ── PyLate's ─────────────────────────────────────────────────────────────────────────────


@runtimes
@pytest.mark.parametrize("kind", ["bert", "modernbert", "distilbert", "xlm_roberta", "mpnet"])
def test_pylate_over_every_architecture(tiny, tmp_path, kind: str, runtime: str) -> None:
    check(build_pylate(tiny, tmp_path, kind), runtime)


@pytest.mark.parametrize(
    "told",
    [
        {"do_query_expansion": False},
        {"attend_to_expansion_tokens": True},
        {"query_length": 9, "document_length": 7},
        {"skiplist_words": None},
        {"skiplist_words": []},
        {"skiplist_words": ["fox", "no such word"]},
        {"prompts": {"query": "find it: ", "document": "[D] text: "}},
        {"query_prefix": "question: ", "document_prefix": None},
    ],
    ids=str,
)
def test_what_pylate_says_is_done(tiny, tmp_path, told: dict[str, Any]) -> None:
    check(build_pylate(tiny, tmp_path, **told))


def test_markers_that_are_no_tokens_are_text(tiny, tmp_path) -> None:
    check(build_pylate(tiny, tmp_path, added=False))


# ── sentence-transformers' own ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "expansion",
    [
        None,
        {"strategy": "fixed", "length": 24, "attend": True},
        {"strategy": "min", "length": 12},
        {"strategy": "min", "length": 12, "token": "[SEP]"},
    ],
    ids=str,
)
def test_what_sentence_transformers_writes_itself(tiny, tmp_path, expansion: Any) -> None:
    made = reference(build_pylate(tiny, tmp_path / "old"))
    made[0].query_expansion = expansion
    made[0].query_length = None if expansion and expansion["strategy"] == "fixed" else 20
    made[0].document_length = 30
    made.save(str(tmp_path / "new"))
    assert json.loads((tmp_path / "new/modules.json").read_text())[2]["path"]
    check(tmp_path / "new")


# ── the rest ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def stanford(tiny, tmp_path_factory) -> Path:
    return build_stanford(tiny, tmp_path_factory.mktemp("stanford"))


def test_queries_and_documents_share_a_batch(stanford) -> None:
    model = Opened(PLUGIN, stanford)
    roles = ["query" if at % 2 else "document" for at in range(len(TEXTS))]
    units = [Unit((Text(text),), role=role) for text, role in zip(TEXTS, roles, strict=True)]
    found = model.model.forward(model.model.prepare(units))
    alone = [model.rows([t], role=role)[0] for t, role in zip(TEXTS, roles, strict=True)]
    close([one.multivector for one in found], alone)


def test_a_document_of_punctuation_alone_keeps_its_special_tokens(stanford) -> None:
    assert len(Opened(PLUGIN, stanford).rows(["..."])[0]) == 3  # [CLS], [unused1], [SEP]


def test_lengths(stanford) -> None:
    model, long = Opened(PLUGIN, stanford), " ".join(SENTENCES)
    (asked,) = model.prepare(["fox"], role="query")
    assert (asked.cost, asked.tokens, asked.cut) == (32, 6, False)
    (asked,) = model.prepare([long], role="query")
    assert (asked.cost, asked.tokens, asked.cut) == (32, 32, True)
    (told,) = model.prepare([long])
    assert (told.cost, told.tokens, told.cut) == (40, 40, True)
    (asked,) = model.prepare(["fox"], role="query", max_tokens=9)
    assert (asked.cost, asked.tokens) == (9, 6)
    with pytest.raises(TooLong):
        model.prepare([long], role="query", overflow="refuse")


def test_the_card(stanford) -> None:
    card = Opened(PLUGIN, stanford).card
    assert (card.kinds, card.scoring, card.token_dims) == (("multivector",), "maxsim", 16)
    assert card.tasks == ("encode", "score")
    assert card.dims is None


def test_a_role_that_there_is_not(stanford) -> None:
    with pytest.raises(Unsupported) as fault:
        Opened(PLUGIN, stanford).prepare(["fox"], role="banner")
    assert fault.value.param == "role"


def test_what_is_claimed(tiny, stanford, tmp_path) -> None:
    assert PLUGIN.claims(Checkpoint("m", stanford))
    assert not PLUGIN.claims(Checkpoint("m", tiny("bert")))
    assert not PLUGIN.claims(Checkpoint("m", tiny("bert", num_labels=1)))
    old = build_pylate(tiny, tmp_path)
    config = json.loads((old / "config_sentence_transformers.json").read_text())
    del config["model_type"]
    write_json(old / "config_sentence_transformers.json", config)
    assert PLUGIN.claims(Checkpoint("m", old))
    check(old, texts=TEXTS[:2])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("1_Dense/config.json", {"out_features": 16, "use_residual": True}, "residual"),
        ("1_Dense/config.json", {}, "not as ColBERT"),
        ("1_Dense/config.json", {"out_features": 16, "activation_function": "x"}, "not as"),
        ("config_sentence_transformers.json", {"model_type": "ColBERT", "prompts": 3}, "not as"),
        ("tokenizer_config.json", {"mask_token": "[NONE]"}, "filled with"),
        ("modules.json", [{"idx": 0, "path": "", "type": "x.StaticEmbedding"}], "Transformer"),
    ],
    ids=str,
)
def test_files_that_are_wrong_are_said_to_be(
    tiny, tmp_path, file: str, content: Any, said: str
) -> None:
    folder = build_pylate(tiny, tmp_path)
    write_json(folder / file, content)
    with pytest.raises(CheckpointError, match=said):
        Opened(PLUGIN, folder)


def test_a_projection_that_is_missing_is_named(tiny, tmp_path) -> None:
    folder = build_pylate(tiny, tmp_path)
    (folder / "1_Dense/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1_Dense"):
        Opened(PLUGIN, folder)
