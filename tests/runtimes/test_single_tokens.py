"""Heads of single tokens, in every runtime: which they give, and what is not attended to."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoints import IDENTITY, KINDS, TANH, laid_out
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.heads import apply
from omnivec.core.steps import Dense, Head, Normalize, Pool
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from omnivec.runtimes.openvino import WORTH
from omnivec.runtimes.torch import PLUGIN as TORCH

DENSE = "2_Dense/model.safetensors"
RUNTIMES = {"openvino": OPENVINO, "torch": TORCH}
FIRST = Head(
    "pooled",
    (Pool(("cls",)),),
    also={
        "weight": Head("tokens", (Dense(DENSE, "torch.nn.ReLU"),)),
        "each": Head("tokens", (Dense(DENSE, IDENTITY), Normalize())),
    },
)

runtimes = pytest.mark.parametrize("runtime", RUNTIMES)


def opened(runtime, folder, head=None, dtype="f32"):
    checkpoint = Checkpoint("tiny", folder)
    return RUNTIMES[runtime].open(checkpoint, "main", head or Head("tokens"), "cpu", dtype)


def batch(*lengths, width=12, padding=0):
    mask = (np.arange(width)[None] < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(width).integers(5, 100, mask.shape)
    return {"input_ids": np.where(mask, ids, padding), "attention_mask": mask}


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)


@runtimes
@pytest.mark.parametrize("kind", ["bert", "modernbert", "mpnet"])
def test_several_outputs_come_from_one_pass(tiny, runtime, kind):
    from safetensors.numpy import load_file

    folder = tiny(kind, dense=((24, TANH),))
    weights = {DENSE: load_file(folder / DENSE)}
    session, plain = opened(runtime, folder, FIRST), opened(runtime, folder)
    for lengths in ((12, 7, 1), (3, 3), (12,), (1, 9, 4, 2, 8)):
        arrays = batch(*lengths, padding=1 if kind == "mpnet" else 0)
        mask = arrays["attention_mask"]
        hidden = laid_out(plain.run(arrays)["output"], mask)
        wanted = mask * (np.arange(12) % 2)
        wanted[0] = 0
        output = session.run({**arrays, "weight_mask": mask, "each_mask": wanted})
        close(output["output"], hidden[:, 0])
        for name, kept in (("weight", mask), ("each", wanted)):
            expected = apply(FIRST.also[name], hidden, mask, weights, output_mask=kept)
            assert output[name].shape == (kept.sum(), 24)
            close(output[name], expected)


@runtimes
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_nothing_may_be_kept_now_and_then(tiny, runtime, dtype):
    session = opened(runtime, tiny("bert", dense=((24, TANH),)), FIRST, dtype)
    arrays = batch(12, 7, 1)
    mask = arrays["attention_mask"]
    expected = session.run({**arrays, "each_mask": mask})
    for masks in ({}, {"each_mask": 0 * mask}, {"each_mask": mask}, {}, {"each_mask": mask}):
        for alone in (False, True):
            output = session.run({**arrays, **masks}, alone=alone)
            kept = int(masks.get("each_mask", 0 * mask).sum())
            assert (output["weight"].shape, output["each"].shape) == ((0, 24), (kept, 24))
            np.testing.assert_allclose(output["output"], expected["output"], atol=1e-5)
            np.testing.assert_allclose(output["each"], expected["each"][:kept], atol=1e-5)


def test_a_graph_for_one_batch_on_all_cores_gives_the_same(tiny):
    session = opened("openvino", tiny("bert", dense=((24, TANH),)), FIRST)
    arrays = batch(12, 7, 1)
    arrays["each_mask"] = arrays["attention_mask"]
    for _ in range(WORTH + 1):
        session.run(arrays, alone=True)
    if session.streams > 1:
        session._widening.join()
        assert not session._wide.empty()
    together, alone = session.run(arrays), session.run(arrays, alone=True)
    for name, output in together.items():
        assert output.shape == alone[name].shape
        close(alone[name], output)


@runtimes
@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_attends_to_is_computed_where_it_is_kept(tiny, runtime, kind):
    import torch
    import transformers

    folder = tiny(kind, config={"local_attention": 64} if kind == "modernbert" else {})
    model = transformers.AutoModel.from_pretrained(folder).eval()
    arrays = batch(12, 7, 1, padding=int(model.config.pad_token_id))
    mask = arrays["attention_mask"]
    kept = mask | (np.arange(12) % 3 == 0)
    arrays["input_ids"] = np.where(mask, arrays["input_ids"], 9)  # not the padding's id
    with torch.inference_mode():
        told = {name: torch.from_numpy(array) for name, array in arrays.items()}
        hidden = model(**told).last_hidden_state.numpy()
    arrays["output_mask"] = kept
    close(opened(runtime, folder).run(arrays)["output"], hidden[kept == 1])


@runtimes
@pytest.mark.parametrize("width", [12, 40, 90])
def test_a_token_that_sees_none_is_what_transformers_makes_of_it(tiny, runtime, width):
    """A window of 4 places to either side: most of what is only kept sees nothing there."""
    import torch
    import transformers

    folder = tiny("modernbert", positions=128)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    arrays = batch(width, 3, 8, width=width)
    mask = arrays["attention_mask"]
    arrays["input_ids"] = np.where(mask, arrays["input_ids"], 9)
    with torch.inference_mode():
        told = {name: torch.from_numpy(array) for name, array in arrays.items()}
        hidden = model(**told).last_hidden_state.numpy()
    session = opened(runtime, folder)
    kept = np.ones_like(mask)
    together = session.run({**arrays, "output_mask": kept})["output"]
    np.testing.assert_allclose(together, hidden[kept == 1], atol=1e-5, rtol=3e-6)
    alone = {name: array[1:2] for name, array in {**arrays, "output_mask": kept}.items()}
    close(session.run(alone)["output"], together[width : 2 * width])


@runtimes
def test_a_mask_of_another_shape_is_refused(tiny, runtime):
    session, arrays = opened(runtime, tiny("bert")), batch(12, 7)
    with pytest.raises(ValueError, match=r"share one shape|broadcast"):
        session.run({**arrays, "output_mask": np.ones((2, 3), np.int64)})
    assert session.run(arrays)["output"].shape == (19, 32)


@runtimes
def test_positions_end_for_what_is_only_kept_as_well(tiny, runtime):
    session, arrays = opened(runtime, tiny("bert", positions=64)), batch(12, width=65)
    last = (np.arange(65) == 64)[None].astype(np.int64)
    with pytest.raises(ValueError, match=r"64 tokens|0 to 63"):
        session.run({**arrays, "output_mask": last})
