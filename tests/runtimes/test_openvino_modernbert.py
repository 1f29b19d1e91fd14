"""ModernBERT's windows and positions, on tiny random checkpoints and texts longer than both."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from checkpoints import laid_out
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head
from omnivec.runtimes.openvino import PLUGIN

LONGEST = 700
# In an order that makes the batch grow and shrink, over blocks of 64 and one more or less.
SHAPES = ((1, 1), (1, 63), (3, 40), (1, 64), (1, 65), (2, 300), (1, 127), (5, 130), (1, 129))
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2}


def opened(folder, dtype="f32"):
    return PLUGIN.open(Checkpoint("tiny", folder), "encoder", Head("tokens"), "cpu", dtype)


def transformers_model(folder):
    import transformers

    return transformers.AutoModel.from_pretrained(folder).eval()


def reference(model, arrays):
    import torch

    with torch.no_grad():
        told = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return model(**told).last_hidden_state.numpy()


def ids_for(mask):
    random = np.random.default_rng(mask.size)
    ids = np.where(mask, random.integers(5, 200, mask.shape), 0)
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


def right(rows, width):
    """Each row 17 tokens shorter than the one before."""
    return np.arange(width)[None] < np.maximum(1, width - 17 * np.arange(rows))[:, None]


def left(rows, width):
    return right(rows, width)[:, ::-1]


def holes(rows, width):
    mask = right(rows, width).copy()
    mask[:, width // 3] = mask[:, width // 2 : width // 2 + width // 8] = False
    mask[:, -1] = True
    return mask


@pytest.mark.parametrize("pad", [right, left, holes])
@pytest.mark.parametrize("local", [1, 2, 7, 32, 128, 4 * LONGEST])
def test_a_window_is_what_transformers_makes_of_it(tiny, local, pad):
    folder = tiny("modernbert", positions=LONGEST, config={"local_attention": local, **LAYERS})
    model, session = transformers_model(folder), opened(folder)
    for shape in SHAPES:
        arrays = ids_for(pad(*shape))
        real = arrays["attention_mask"] == 1
        got, expected = session.run(arrays)["output"], reference(model, arrays)[real]
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=3e-6, err_msg=str(shape))


def test_tokens_outside_of_every_window_change_nothing(tiny, tmp_path):
    folder = shutil.copytree(tiny("modernbert", positions=LONGEST, config=LAYERS), tmp_path / "m")
    told = json.loads((folder / "config.json").read_text())
    told |= {"local_attention": 8, "layer_types": ["sliding_attention"] * 2}
    (folder / "config.json").write_text(json.dumps(told))  # transformers would not write this
    session = opened(folder)
    arrays = ids_for(right(2, 200))
    before = session.run(arrays)["output"]
    arrays["input_ids"][0, 100] = 201
    changed = np.abs(session.run(arrays)["output"] - before).max(-1, keepdims=True) > 0
    changed = laid_out(changed, arrays["attention_mask"])[..., 0]
    assert np.flatnonzero(changed[0]).tolist() == list(range(92, 109))  # two layers, 4 places each
    assert not changed[1].any()


@pytest.mark.parametrize("kind", ["modernbert", "nomic_bert"])
def test_positions_of_long_texts_survive_half_precision(tiny, kind):
    """Angles of hundreds of radians do not fit bf16's 8 bits. Without such a processor both
    sessions compute in float32."""
    config = {"initializer_range": 0.3, "num_hidden_layers": 2}
    config |= LAYERS if kind == "modernbert" else {}
    folder = tiny(kind, positions=LONGEST, config=config)
    arrays = ids_for(right(1, LONGEST))
    exact, half = (opened(folder, dtype).run(arrays)["output"] for dtype in ("f32", "auto"))
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(half, axis=1)
    alike = (exact * half).sum(1) / norms
    assert alike[300:].min() > 0.999
