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
