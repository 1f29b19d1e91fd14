"""Checkpoints and rows that CTranslate2 would read wrongly by itself."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head, Pool
from omnivec.runtimes.ctranslate2 import PLUGIN

CLS = Head("pooled", (Pool(("cls",)),))


def opened(folder, head=CLS):
    return PLUGIN.open(Checkpoint("tiny", folder), "encoder", head, "cpu", "f32")


def batch(*rows):
    ids = np.array(rows)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_norms_may_have_their_old_names(tiny, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder, arrays = tmp_path / "old", batch([2, 7, 9, 3], [5, 6, 7, 3])
    shutil.copytree(tiny("bert"), folder)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, array in load_file(folder / "model.safetensors").items():
        ending = next((one for one in old if name.endswith(one)), "")
        renamed[name.removesuffix(ending) + old.get(ending, "")] = array
    save_file(renamed, folder / "model.safetensors")
    got = opened(folder).run(arrays)["output"]
    np.testing.assert_array_equal(got, opened(tiny("bert")).run(arrays)["output"])


@pytest.mark.parametrize("padding", [0, 1])
def test_rows_that_hold_the_paddings_token_are_refused_where_no_place_counts_for_it(tiny, padding):
    """RoBERTa gives it and what follows other places than CTranslate2 would."""
    import torch
    import transformers

    folder = tiny("roberta", config={"pad_token_id": padding})
    session, arrays = opened(folder), batch([5, 9, padding, 11, 2])
    with pytest.raises(ValueError, match="as padding only"):
        session.run(arrays)
    arrays["attention_mask"][:, 2:] = 0
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        told = {name: torch.from_numpy(array[:, :2]) for name, array in arrays.items()}
        expected = model(**told).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(session.run(arrays)["output"], expected, atol=1e-5, rtol=0)
    assert opened(tiny("bert")).run(batch([5, 9, padding, 11, 2]))["output"].shape == (1, 32)
