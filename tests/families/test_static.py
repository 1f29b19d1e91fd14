"""Static embeddings against model2vec and sentence-transformers' StaticEmbedding."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from checkpoints import SENTENCES, truncate_weights
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import BadRequest, TooLong
from omnivec.core.nouns import Tokens, Unit
from omnivec.families.static import ENDLESS, PLUGIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

UNKNOWN = "ꙮꙮꙮ"
TEXTS = [*SENTENCES, "", UNKNOWN, f"fox {UNKNOWN} dog", "a\0b 😀", "The fox. " * 2000]


def model2vec(folder: Path, texts: Sequence[str]) -> np.ndarray:
    from model2vec import StaticModel

    return StaticModel.from_pretrained(folder).encode(list(texts), normalize=False)


def transformers(folder: Path, texts: Sequence[str], **wishes: str) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.encode(list(texts), show_progress_bar=False, **wishes)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "told", [{}, {"weights": True}, {"mapping": True}, {"weights": True, "mapping": True}]
)
def test_model2vec(tiny, opened, told: dict, dtype: str) -> None:
    folder = tiny("model2vec", dtype=dtype, **told)
    ours, theirs = opened(folder).embed(TEXTS), model2vec(folder, TEXTS)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 if dtype == "float32" else 2e-3)


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("normalize", [False, True])
def test_static_embedding(tiny, opened, spelling: str, normalize: bool) -> None:
    folder = tiny("static", spelling=spelling, normalize=normalize)
    ours, theirs = opened(folder).embed(TEXTS), transformers(folder, TEXTS)
    if normalize:
        ours /= np.maximum(np.linalg.norm(ours, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_prompts(tiny, opened) -> None:
    folder = tiny("static", prompts={"query": "quick fox "})
    ours = opened(folder).embed(SENTENCES, role="query")
    theirs = transformers(folder, SENTENCES, prompt_name="query")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_nothing_known_is_a_vector_of_zeros(tiny, opened) -> None:
    for kind in ("model2vec", "static"):
        assert (opened(tiny(kind)).embed([""]) == 0).all()
    assert (opened(tiny("model2vec")).embed([UNKNOWN]) == 0).all()
    assert (opened(tiny("static")).embed([UNKNOWN]) != 0).any()


def test_alone_or_in_any_batch(tiny, opened) -> None:
    model = opened(tiny("model2vec", weights=True))
    alone = np.concatenate([model.embed([text]) for text in TEXTS])
    np.testing.assert_array_equal(model.embed(TEXTS), alone)


def test_no_graph_is_needed(tiny) -> None:
    assert PLUGIN.graphs(Checkpoint("x", tiny("model2vec"))) == {}


def test_the_cards(tiny, opened) -> None:
    card = opened(tiny("model2vec", mapping=True)).card
    assert (card.architecture, card.dims, card.max_tokens) == ("model2vec", 32, 512)
    plain = opened(tiny("static", dims=24)).card
    assert (plain.architecture, plain.dims, plain.max_tokens) == ("static", 24, ENDLESS)
    assert (plain.tasks, plain.scoring, plain.pooling) == (("encode", "score"), "cosine", "mean")
    assert card.vocabulary == opened(tiny("model2vec")).card.vocabulary


def test_windows(tiny, opened) -> None:
    model = opened(tiny("model2vec"))
    (found,) = model.prepare(["f " * 20], max_tokens=5)
    assert (found.tokens, found.cut) == (5, True)
    (short,) = model.prepare(["f"])
    assert (short.tokens, short.cut) == (1, False)
    with pytest.raises(TooLong, match="window of 512 tokens") as caught:
        model.prepare(["f", "f " * 1000], overflow="refuse")
    assert caught.value.param == "[1]"


def test_ten_megabytes(tiny, opened) -> None:
    for kind in ("model2vec", "static"):
        model = opened(tiny(kind))
        (found,) = model.prepare(["quick brown fox " * 650_000])
        assert found.cut
        assert found.tokens <= model.card.max_tokens


def test_ids(tiny, opened) -> None:
    model = opened(tiny("model2vec"))
    (text,) = model.prepare(["fox"])
    ids = tuple(text.arrays["input_ids"].tolist())
    (same,) = model.model.prepare([Unit(parts=(Tokens(ids),))])
    assert same.arrays["input_ids"].tolist() == list(ids)
    with pytest.raises(BadRequest):
        model.model.prepare([Unit(parts=(Tokens((10**6,)),))])


def test_broken_weights_say_so(tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("model2vec"), tmp_path, dirs_exist_ok=True)
    truncate_weights(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="download it again"):
        PLUGIN.card(Checkpoint("x", tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        PLUGIN.card(Checkpoint("x", tmp_path))


def test_a_module_that_is_not_supported_is_named(tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("static"), tmp_path, dirs_exist_ok=True)
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed.append({"idx": 1, "name": "1", "path": "1_Dense", "type": "x.Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match="Dense"):
        PLUGIN.card(Checkpoint("x", tmp_path))


def test_claims(tiny) -> None:
    assert PLUGIN.claims(Checkpoint("x", tiny("model2vec", modules=False)))
    assert PLUGIN.claims(Checkpoint("x", tiny("static", spelling="old")))
    assert not PLUGIN.claims(Checkpoint("x", tiny("bert")))
