"""The head of a graph against the numpy reference, and whole models against
sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoints import IDENTITY, KINDS, MODES, SENTENCES, TANH, laid_out
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import ACTIVATIONS, apply
from omnivec.core.steps import Dense, Head, LayerNorm, Normalize, Pool
from omnivec.runtimes._openvino.weights import Weights
from omnivec.runtimes.openvino import PLUGIN

DENSE, NORM = "2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"


def opened(folder, head):
    return PLUGIN.open(Checkpoint("tiny", folder), "encoder", head, "cpu", "f32")


def batch(mask):
    mask = np.array(mask)
    ids = np.random.default_rng(0).integers(5, 200, mask.shape)
    return {"input_ids": np.where(mask, ids, 0), "attention_mask": mask}


BATCHES = {
    "right": batch([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]),
    "left": batch([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]]),
    "holes": batch([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]]),
}


def check(folder, head, arrays, weights=None):
    plain = {name: array for name, array in arrays.items() if name != "output_mask"}
    hidden = laid_out(opened(folder, Head("tokens")).run(plain)["output"], arrays["attention_mask"])
    masks = arrays["attention_mask"], arrays.get("pool_mask"), arrays.get("output_mask")
    expected = apply(head, hidden, masks[0], weights or {}, *masks[1:])
    got = opened(folder, head).run(arrays)["output"]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", BATCHES)
@pytest.mark.parametrize("mode", MODES)
def test_each_mode(tiny, mode, padding):
    check(tiny("bert"), Head("pooled", (Pool((mode,)),)), BATCHES[padding])


@pytest.mark.parametrize("padding", BATCHES)
def test_all_modes_at_once_without_the_prompt(tiny, padding):
    arrays = BATCHES[padding]
    kept = arrays["attention_mask"].copy()
    kept[:, :2] = 0
    head = Head("pooled", (Pool(MODES), Normalize()))
    check(tiny("bert"), head, {**arrays, "pool_mask": kept})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation(tiny, name):
    path = f"torch.nn.modules.activation.{name}"
    folder = tiny("bert", dense=((24, path),))
    head = Head("pooled", (Pool(("mean",)), Dense(DENSE, path)))
    check(folder, head, BATCHES["right"], loaded(folder, DENSE))


def loaded(folder, *files):
    from safetensors.numpy import load_file

    return {file: load_file(folder / file) for file in files}


def test_a_chain_of_steps(tiny):
    folder = tiny("bert", dense=((24, TANH),), layer_norm=True)
    head = Head("pooled", (Pool(("cls",)), Dense(DENSE, TANH), LayerNorm(NORM), Normalize()))
    check(folder, head, BATCHES["right"], loaded(folder, DENSE, NORM))


def test_steps_on_every_token(tiny):
    folder = tiny("bert", dense=((24, IDENTITY),))
    head = Head("tokens", (Dense(DENSE, IDENTITY), Normalize()))
    check(folder, head, BATCHES["right"], loaded(folder, DENSE))


def test_an_unknown_activation_is_refused(tiny):
    folder = tiny("bert", dense=((24, TANH),))
    head = Head("pooled", (Pool(("cls",)), Dense(DENSE, "torch.nn.Hardshrink")))
    with pytest.raises(CheckpointError, match="Hardshrink"):
        opened(folder, head)


def test_a_head_whose_file_is_missing_names_it(tiny):
    head = Head("pooled", (Pool(("cls",)), Dense("9_Dense/model.safetensors", TANH)))
    with pytest.raises(CheckpointError, match="9_Dense"):
        opened(tiny("bert"), head)


def test_a_head_of_another_width_is_refused(tiny):
    folder = tiny("bert", dense=((24, TANH),))
    head = Head("pooled", (Pool(("cls", "mean")), Dense(DENSE, TANH)))
    with pytest.raises(CheckpointError, match="24 x 32"):
        opened(folder, head)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_is_that_of_sentence_transformers(tiny, kind):
    from sentence_transformers import SentenceTransformer

    pooling = ("cls", "weightedmean")
    folder = tiny(kind, pooling=pooling, dense=((24, TANH),), layer_norm=True)
    head = Head("pooled", (Pool(pooling), Dense(DENSE, TANH), LayerNorm(NORM), Normalize()))
    model = SentenceTransformer(str(folder), device="cpu")
    told = model.tokenizer(list(SENTENCES), padding=True, truncation=True, return_tensors="np")
    expected = model.encode(list(SENTENCES), batch_size=len(SENTENCES))
    got = opened(folder, head).run(dict(told))["output"]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_the_reference_reads_what_the_graph_reads(tiny):
    folder = tiny("bert", dense=((24, TANH),))
    ours = Weights("tiny", [folder / DENSE]).take("linear.weight", 24, 32)
    np.testing.assert_array_equal(ours, loaded(folder, DENSE)[DENSE]["linear.weight"])
