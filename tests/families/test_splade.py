"""Learned sparse encoders against sentence-transformers' SparseEncoder and against transformers
by hand, on both runtimes."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from checkpoints import KINDS, SENTENCES
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import TooLong
from omnivec.core.nouns import Features, Text, Tokens, Unit, Vectors
from omnivec.core.steps import Head, Vocabulary
from omnivec.families.encoder import PLUGIN as ENCODER
from omnivec.families.splade import PLUGIN, Splade
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from omnivec.runtimes.torch import PLUGIN as TORCH

if TYPE_CHECKING:
    from collections.abc import Sequence

torch.set_num_threads(1)

TEXTS = [*SENTENCES, "", "fox", " ".join(SENTENCES)]
RUNTIMES = {"openvino": OPENVINO, "torch": TORCH}
PROMPTS = {"query": "the question asked: ", "document": "quick brown fox, "}


@cache
def opened(folder: Path, runtime: str = "openvino", **overrides: Any) -> Splade:
    checkpoint = Checkpoint("tiny", folder, overrides=overrides)
    ((graph, head),) = PLUGIN.graphs(checkpoint).items()
    session = RUNTIMES[runtime].open(checkpoint, graph, head, "cpu", "f32")
    return PLUGIN.ready(checkpoint, {graph: session})


def prepare(model: Splade, texts: Sequence[str], **wishes: Any) -> list[Features]:
    return model.prepare([Unit(parts=(Text(text),), **wishes) for text in texts])


def dense(outputs: Sequence[Any], size: int) -> np.ndarray:
    rows = np.zeros((len(outputs), size), np.float32)
    for row, output in zip(rows, outputs, strict=True):
        assert isinstance(output, Vectors)
        assert output.dense is None
        assert output.sparse is not None
        assert output.sparse.indices.dtype == np.int32
        assert output.sparse.values.dtype == np.float32
        assert (np.diff(output.sparse.indices) > 0).all()
        assert (output.sparse.values != 0).all()
        row[output.sparse.indices] = output.sparse.values
    return rows


def embed(model: Splade, texts: Sequence[str], size: int, **wishes: Any) -> np.ndarray:
    return dense(model.forward(prepare(model, texts, **wishes)), size)


def reference(folder: Path, texts: Sequence[str], **wishes: Any) -> np.ndarray:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    return model.encode(
        list(texts), show_progress_bar=False, convert_to_sparse_tensor=False, **wishes
    ).numpy()


def by_hand(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The greatest log(1 + relu(logit)) of each text's tokens."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    rows = []
    with torch.inference_mode():
        for text in texts:
            logits = model(**tokens(text, truncation=True, return_tensors="pt")).logits[0]
            rows.append(logits.relu().log1p().amax(0).numpy())
    return np.stack(rows)


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)
    assert ((ours != 0) == (theirs != 0))[np.abs(theirs) > 1e-6].all()
    assert 0 < (ours != 0).mean() < 1


# ── numbers ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture(sparse, kind: str, runtime: str) -> None:
    folder = sparse(kind)
    theirs = reference(folder, TEXTS)
    assert_same(embed(opened(folder, runtime), TEXTS, theirs.shape[1]), theirs)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("function", ["relu", "log1p_relu"])
@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_every_pooling(sparse, strategy: str, function: str, runtime: str) -> None:
    folder = sparse("bert", strategy=strategy, function=function)
    theirs = reference(folder, TEXTS)
    assert_same(embed(opened(folder, runtime), TEXTS, theirs.shape[1]), theirs)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "xlm_roberta"])
def test_a_decoder_of_its_own(sparse, kind: str, runtime: str) -> None:
    folder = sparse(kind, untied=True, layout="bare")
    theirs = by_hand(folder, TEXTS)
    assert_same(embed(opened(folder, runtime), TEXTS, theirs.shape[1]), theirs)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_bare_language_model_is_spladed(sparse, kind: str) -> None:
    folder = sparse(kind, layout="bare")
    theirs = by_hand(folder, TEXTS)
    assert_same(embed(opened(folder), TEXTS, theirs.shape[1]), theirs)
    summed = embed(opened(folder, pooling="sum"), TEXTS, theirs.shape[1])
    assert (summed >= theirs - 1e-5).all()
    assert summed.sum() > 2 * theirs.sum()
    twice = embed(opened(folder, pooling="max+log1p_log1p_relu"), TEXTS, theirs.shape[1])
    np.testing.assert_allclose(twice, np.log1p(theirs), rtol=0, atol=1e-5)
    plain = embed(opened(folder, pooling="max+relu"), TEXTS, theirs.shape[1])
    np.testing.assert_allclose(plain, np.expm1(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_that_torch_saved(sparse, tmp_path, runtime: str) -> None:
    from safetensors.torch import load_file

    folder = sparse("bert", layout="bare")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    torch.save(load_file(file), tmp_path / "pytorch_model.bin")
    file.unlink()
    ours = embed(opened(tmp_path, runtime, pickle=True), TEXTS, 400)
    np.testing.assert_allclose(ours, embed(opened(folder, runtime), TEXTS, 400), atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_text_is_the_same_alone_and_in_any_batch(sparse, runtime: str) -> None:
    model = opened(sparse("bert"), runtime)
    together = embed(model, TEXTS, 400)
    for text, row in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(embed(model, [text], 400)[0], row, rtol=0, atol=1e-5)


def test_bf16_is_near_f32(sparse) -> None:
    folder = sparse("bert")
    checkpoint = Checkpoint("tiny", folder)
    ((graph, head),) = PLUGIN.graphs(checkpoint).items()
    model = PLUGIN.ready(checkpoint, {graph: OPENVINO.open(checkpoint, graph, head, "cpu", "auto")})
    ours, exact = embed(model, TEXTS, 400), embed(opened(folder), TEXTS, 400)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(exact, axis=1)
    assert ((ours * exact).sum(1) / norms > 0.999).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_row_that_attends_to_nothing_has_no_words(sparse, runtime: str) -> None:
    checkpoint = Checkpoint("tiny", sparse("bert"))
    for mode in ("max", "sum"):
        head = Head("words", (Vocabulary(mode, "log1p_relu"),))
        session = RUNTIMES[runtime].open(checkpoint, "main", head, "cpu", "f32")
        ids = np.full((3, 9), 7, np.int64)
        mask = np.ones_like(ids)
        mask[1] = 0
        found = session.run({"input_ids": ids, "attention_mask": mask})
        assert set(found["rows"].tolist()) == {0, 2}
        none = session.run({"input_ids": ids, "attention_mask": np.zeros_like(mask)})
        assert set(none) == {"output", "rows", "columns"}
        assert all(array.shape == (0,) for array in none.values())
        session.close()


def test_only_the_strongest_words_are_kept(sparse) -> None:
    folder = sparse("bert", active=7)
    theirs = reference(folder, TEXTS)
    ours = embed(opened(folder), TEXTS, theirs.shape[1])
    assert_same(ours, theirs)
    assert ((ours != 0).sum(1) == 7).all()


@pytest.mark.parametrize("longest", [8, 64])
def test_truncation(sparse, longest: int) -> None:
    folder = sparse("bert", positions=longest)
    theirs = reference(folder, TEXTS)
    model = opened(folder)
    assert_same(embed(model, TEXTS, theirs.shape[1]), theirs)
    (features,) = prepare(model, TEXTS[-1:])
    assert features.cut
    assert features.tokens == longest
    with pytest.raises(TooLong):
        prepare(model, TEXTS[-1:], overflow="refuse")


def test_prompts(sparse) -> None:
    folder = sparse("bert", prompts=PROMPTS)
    for role in ("query", "document"):
        theirs = reference(folder, SENTENCES, prompt_name=role)
        ours = embed(opened(folder), SENTENCES, theirs.shape[1], role=role)
        assert_same(ours, theirs)


def test_token_ids_are_taken_as_they_are(sparse) -> None:
    model = opened(sparse("bert"))
    (features,) = prepare(model, [SENTENCES[0]])
    ids = Tokens(tuple(features.arrays["input_ids"].tolist()))
    ours = dense(model.forward(model.prepare([Unit(parts=(ids,))])), 400)
    np.testing.assert_array_equal(ours, embed(model, [SENTENCES[0]], 400))


# ── queries by weights of their own ──────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("root", [False, True])
def test_a_router(sparse, root: bool, runtime: str) -> None:
    folder = sparse("distilbert", layout="router", function="log1p_relu", root=root)
    model = opened(folder, runtime)
    for role in ("query", "document"):
        theirs = reference(folder, TEXTS, task=role)
        assert_same(embed(model, TEXTS, theirs.shape[1], role=role), theirs)


def test_queries_and_documents_come_in_one_request_and_leave_in_two_batches(sparse) -> None:
    model = opened(sparse("bert", layout="router"))
    roles = ("query", None)
    units = [Unit(parts=(Text(text),), role=role) for text in ("fox", "dog") for role in roles]
    features = model.prepare(units)
    assert [one.group for one in features] == ["static", None, "static", None]
    apart = embed(model, ["fox", "dog"], 400, role="query")
    np.testing.assert_array_equal(dense(model.forward(features[::2]), 400), apart)


def test_open_search_by_idf(sparse) -> None:
    folder = sparse("distilbert", layout="idf")
    model = opened(folder)
    theirs = by_hand(folder, TEXTS)
    theirs[:, :5] = 0  # special tokens
    assert_same(embed(model, TEXTS, theirs.shape[1]), theirs)
    weights = json.loads((folder / "idf.json").read_text())
    ours = embed(model, ["fox dog, dog"], theirs.shape[1], role="query")[0]
    tokens = model._queries.tokeniser.library.encode("fox dog, dog", add_special_tokens=False)
    wanted = np.zeros_like(ours)
    for number, token in zip(tokens.ids, tokens.tokens, strict=True):
        wanted[number] = weights.get(token, 0)
    np.testing.assert_allclose(ours, wanted, rtol=1e-6)
    assert wanted.any()
    assert not embed(model, [""], theirs.shape[1], role="query").any()


# ── which files are whose ────────────────────────────────────────────────────────────────


def test_the_old_spelling(sparse) -> None:
    folder = sparse("bert", spelling="old")
    theirs = reference(folder, TEXTS)
    assert_same(embed(opened(folder), TEXTS, theirs.shape[1]), theirs)
    assert PLUGIN.card(Checkpoint("tiny", folder)).max_tokens == 32


@pytest.mark.parametrize("layout", ["chain", "router", "bare", "idf"])
def test_the_card(sparse, layout: str) -> None:
    checkpoint = Checkpoint("tiny", sparse("bert", layout=layout))
    assert PLUGIN.claims(checkpoint)
    card = PLUGIN.card(checkpoint)
    assert (card.kinds, card.dims, card.scoring) == (("sparse",), None, "dot")
    assert card.tasks == ("encode", "score")
    assert card.sparse_dims == card.vocabulary
    assert (card.architecture, card.max_tokens, card.pooling) == ("bert", 64, "max+log1p_relu")
    assert PLUGIN.rank < ENCODER.rank


@pytest.mark.parametrize("kind", ["bert", "model2vec", "static"])
def test_other_checkpoints_are_left_to_others(tiny, kind: str) -> None:
    assert not PLUGIN.claims(Checkpoint("tiny", tiny(kind)))
    assert not PLUGIN.claims(Checkpoint("tiny", tiny("bert", num_labels=1)))


def changed(folder: Path, to: Path, file: str, text: str) -> Checkpoint:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    (to / file).write_text(text)
    return Checkpoint("tiny", to)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("1_SpladePooling/config.json", '{"pooling_strategy": "mean"}', "max or sum"),
        ("1_SpladePooling/config.json", '{"activation_function": "gelu"}', "log1p_relu"),
        (
            "modules.json",
            '[{"type": "a.Transformer"}, {"type": "a.Dense"}, {"type": "a.SpladePooling"}]',
            "Dense",
        ),
        ("modules.json", '[{"type": "a.Router"}]', "router_config.json"),
    ],
)
def test_what_is_not_supported_is_named(sparse, tmp_path, file, text, told) -> None:
    with pytest.raises(CheckpointError, match=told):
        PLUGIN.graphs(changed(sparse("bert"), tmp_path, file, text))


def test_a_query_side_that_is_not_known_is_named(sparse, tmp_path) -> None:
    folder = sparse("bert", layout="router")
    config = json.loads((folder / "router_config.json").read_text())
    config["structure"]["query"] = ["document_1_SpladePooling"]
    with pytest.raises(CheckpointError, match="SparseStaticEmbedding"):
        PLUGIN.card(changed(folder, tmp_path, "router_config.json", json.dumps(config)))


def test_queries_weights_that_are_missing_are_named(sparse, tmp_path) -> None:
    folder = sparse("bert", layout="router")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "query_0_SparseStaticEmbedding" / "model.safetensors"
    file.write_bytes(b"no tensors")
    checkpoint = Checkpoint("tiny", tmp_path)
    ((graph, head),) = PLUGIN.graphs(checkpoint).items()
    session = OPENVINO.open(checkpoint, graph, head, "cpu", "f32")
    with pytest.raises(CheckpointError, match="has no weight"):
        PLUGIN.ready(checkpoint, {graph: session})
    file.unlink()
    with pytest.raises(CheckpointError, match=r"idf\.json"):
        PLUGIN.ready(checkpoint, {graph: session})
    session.close()
