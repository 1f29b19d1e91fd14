"""Graphs on ONNX Runtime against transformers and sentence-transformers: our own, and those that
a checkpoint brings along."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import KINDS, MODES, SENTENCES, TANH
from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Dense, Head, LayerNorm, Normalize, Pool, Vocabulary
from omnivec.runtimes._onnx.parts import KINDS as OURS
from omnivec.runtimes.onnx import PLUGIN

torch.set_num_threads(1)

WRITTEN = [kind for kind in KINDS if kind.replace("xlm_", "xlm-") in OURS]
POSITIONS = 48
DENSE, NORM = "2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"
MEAN = Head("pooled", (Pool(("mean",)), Normalize()))


def opened(folder, head=MEAN, dtype="f32", **options: Any):
    return PLUGIN.open(Checkpoint("tiny", folder, **options), "encoder", head, "cpu", dtype)


def batch(kind, rows, width, *, left=False):
    lengths = np.maximum(width - 3 * np.arange(rows), 1)[:, None]
    places = np.arange(width)[None]
    mask = (places >= width - lengths if left else places < lengths).astype(np.int64)
    ids = np.random.default_rng(rows).integers(5, 200, mask.shape)
    return {"input_ids": np.where(mask, ids, int(KINDS[kind].offset > 0)), "attention_mask": mask}


def reference(folder, arrays, name="AutoModel"):
    import transformers

    model = getattr(transformers, name).from_pretrained(folder)
    told = {key: torch.from_numpy(arrays[key]) for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        return model(**told)


def close(got, expected):
    assert got.dtype == np.float32
    scale = max(1.0, float(np.abs(expected).max()))  # language heads give numbers of about 30
    np.testing.assert_allclose(got, expected, atol=1e-5 * scale, rtol=0)


# ── graphs of our own ────────────────────────────────────────────────────────────────────


def test_the_architectures_are_those_that_are_promised():
    assert {"bert", "roberta", "xlm_roberta", "distilbert", "mpnet"} <= set(WRITTEN)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", WRITTEN)
def test_hidden_states_are_those_of_transformers(tiny, kind, left):
    folder = tiny(kind, positions=POSITIONS)
    session = opened(folder, Head("tokens"))
    for rows, width in ((1, 1), (3, 20), (5, POSITIONS)):
        arrays = batch(kind, rows, width, left=left)
        expected = reference(folder, arrays).last_hidden_state.numpy()
        got = session.run(arrays)["output"]
        close(got, expected[arrays["attention_mask"] == 1])


@pytest.mark.parametrize("kind", WRITTEN)
def test_logits_are_those_of_transformers(tiny, kind):
    for labels in (1, 3):
        folder = tiny(kind, positions=POSITIONS, num_labels=labels)
        arrays = batch(kind, 4, 30)
        expected = reference(folder, arrays, "AutoModelForSequenceClassification").logits.numpy()
        close(opened(folder, Head("logits")).run(arrays)["output"], expected)


@pytest.mark.parametrize("step", [Vocabulary("max", "log1p_relu"), Vocabulary("sum", "relu")])
@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_words_are_those_of_transformers(sparse, kind, step):
    folder, arrays = sparse(kind, layout="bare"), batch(kind, 3, 12)
    arrays["pool_mask"] = arrays["attention_mask"].copy()
    arrays["pool_mask"][:, 2:4] = 0
    logits = reference(folder, arrays, "AutoModelForMaskedLM").logits.numpy()
    expected = heads.words(step, logits, arrays["pool_mask"])
    found = opened(folder, Head("words", (step,))).run(arrays)
    got = np.zeros_like(expected)
    got[found["rows"], found["columns"]] = found["output"]
    assert (found["output"] > 0).all()
    close(got, expected)


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_whole_model_is_that_of_sentence_transformers(tiny, kind):
    from sentence_transformers import SentenceTransformer

    pooling = ("cls", "weightedmean")
    folder = tiny(kind, pooling=pooling, dense=((24, TANH),), layer_norm=True)
    head = Head("pooled", (Pool(pooling), Dense(DENSE, TANH), LayerNorm(NORM), Normalize()))
    model = SentenceTransformer(str(folder), device="cpu")
    told = model.tokenizer(list(SENTENCES), padding=True, truncation=True, return_tensors="np")
    expected = model.encode(list(SENTENCES), batch_size=len(SENTENCES))
    close(opened(folder, head).run(dict(told))["output"], expected)


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_row_is_the_same_alone_and_in_any_batch(tiny, kind):
    session, arrays = opened(tiny(kind, positions=POSITIONS)), batch(kind, 5, 40)
    together = session.run(arrays)["output"]
    for row, length in enumerate(arrays["attention_mask"].sum(1)):
        alone = session.run({name: array[row : row + 1, :length] for name, array in arrays.items()})
        close(alone["output"][0], together[row])


@pytest.mark.parametrize("act", ["gelu_new", "relu", "silu", "tanh"])
def test_other_activations(tiny, act):
    folder, arrays = tiny("bert", config={"hidden_act": act}), batch("bert", 2, 9)
    expected = reference(folder, arrays).last_hidden_state.numpy()
    got = opened(folder, Head("tokens")).run(arrays)["output"]
    close(got, expected[arrays["attention_mask"] == 1])


def test_a_row_without_tokens_gives_zeros(tiny):
    session = opened(tiny("bert"), Head("pooled", (Pool(MODES), Normalize())))
    arrays = batch("bert", 3, 12)
    arrays["attention_mask"][1] = 0
    got = session.run(arrays)["output"]
    assert np.isfinite(got).all()
    assert not got[1].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_widened(tiny, dtype):
    folder, arrays = tiny("bert", dtype=dtype), batch("bert", 2, 9)
    expected = opened(folder, Head("tokens")).run(arrays)["output"]
    full = reference(folder, arrays)
    assert full.last_hidden_state.dtype == getattr(torch, dtype)
    whole = full.last_hidden_state.float().numpy()[arrays["attention_mask"] == 1]
    np.testing.assert_allclose(expected, whole, atol=0.1, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_padding_may_reach_past_the_last_position(tiny, kind):
    session, arrays = opened(tiny(kind, positions=30)), batch(kind, 2, 30)
    wide = {name: np.pad(array, ((0, 0), (0, 2))) for name, array in arrays.items()}
    wide["input_ids"][:, 30:] = int(KINDS[kind].offset > 0)
    close(session.run(wide)["output"], session.run(arrays)["output"])
