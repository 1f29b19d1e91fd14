"""What is read of an adapter's folder, and what is refused before any model is opened."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters import change_config
from checkpoints import drop_tensor, truncate_weights
from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAYER = "encoder.layer.0.attention.self.query"
KEY = f"base_model.model.{LAYER}.lora_{{}}.weight"
SHAPES = {f"encoder.layer.{n}.attention.self.query": (32, 32) for n in (0, 1)}


@pytest.fixture
def folder(adapter: Callable[..., Path], tmp_path: Path) -> Path:
    made = adapter("bert", seed=1, r=4, lora_alpha=8, target_modules=["query"])
    return shutil.copytree(made, tmp_path / "adapter")


def rewrite(folder: Path, **tensors: np.ndarray) -> None:
    """Puts tensors into its file, `A` and `B` meaning those of LAYER."""
    file = folder / "adapter_model.safetensors"
    named = {KEY.format(name) if len(name) == 1 else name: one for name, one in tensors.items()}
    save_file({**load_file(file), **named}, file)


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Adapter("mine", folder).updates(SHAPES)
    assert str(caught.value).startswith("adapter mine: ")
    return str(caught.value)


def test_what_is_added_to_each_layer(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    found = Adapter("mine", folder).updates(SHAPES)
    assert set(found) == set(SHAPES)
    np.testing.assert_array_equal(found[LAYER].a, tensors[KEY.format("A")])
    np.testing.assert_array_equal(found[LAYER].b, tensors[KEY.format("B")] * 2)  # 8 / 4


def test_one_part_of_the_path_may_be_missing_on_either_side(folder: Path) -> None:
    found = Adapter("mine", folder).updates({f"bert.{name}": SHAPES[name] for name in SHAPES})
    assert set(found) == {f"bert.{name}" for name in SHAPES}
    tensors = load_file(folder / "adapter_model.safetensors")
    prefixed = {key.replace("model.encoder", "model.bert.encoder"): tensors[key] for key in tensors}
    save_file(prefixed, folder / "adapter_model.safetensors")
    assert set(Adapter("mine", folder).updates(SHAPES)) == set(SHAPES)


def test_its_base_is_what_it_says(folder: Path) -> None:
    change_config(folder, base_model_name_or_path="org/base")
    assert Adapter("mine", folder).base == "org/base"
    change_config(folder, base_model_name_or_path=None)
    assert Adapter("mine", folder).base == ""


def test_a_pooler_that_the_base_has_not_is_left_out(folder: Path) -> None:
    a, b = np.ones((4, 32), np.float32), np.ones((32, 4), np.float32)
    path = "base_model.model.pooler.dense.lora_{}.weight"
    rewrite(folder, **{path.format("A"): a, path.format("B"): b})
    assert set(Adapter("mine", folder).updates(SHAPES)) == set(SHAPES)
    shapes = {**SHAPES, "bert.pooler.dense": (32, 32)}
    assert "bert.pooler.dense" in Adapter("mine", folder).updates(shapes)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"use_dora": True}, "it has DoRA ('use_dora')"),
        ({"bias": "lora_only"}, "it has trained biases ('bias')"),
        ({"lora_bias": True}, "biases of its own"),
        ({"modules_to_save": ["classifier"]}, "whole modules of its own ('modules_to_save')"),
        ({"trainable_token_indices": [1]}, "word embeddings of its own"),
        ({"init_lora_weights": "pissa"}, "a changed base ('init_lora_weights')"),
        ({"peft_type": "IA3"}, "its type is 'IA3'; accepted: 'LORA'"),
        ({"peft_type": None}, "its type is None; accepted: 'LORA'"),
        ({"r": 5}, f"'{LAYER}' has not the rank 5 that adapter_config.json says"),
        ({"rank_pattern": {"query": 3}}, "has not the rank 3"),
        ({"r": "many"}, "no r or lora_alpha that is a number"),
        ({"lora_alpha": None}, "no r or lora_alpha that is a number"),
        ({"alpha_pattern": {"(": 2}}, "no r or lora_alpha that is a number"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_applied_is_named(folder: Path, changes: dict[str, Any], what: str) -> None:
    change_config(folder, **changes)
    assert what in refusal(folder)


def test_only_a_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "is only there as a pickle, which can run code" in refusal(folder)
    (folder / "adapter_model.bin").unlink()
    assert "adapter_model.safetensors is missing" in refusal(folder)


def test_a_folder_that_is_none(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")
    assert "adapter_config.json is not valid JSON" in refusal(folder)
    assert "has no adapter_config.json that can be read" in refusal(folder / "nowhere")


@pytest.mark.parametrize("letter", "AB")
def test_a_half_that_is_missing(folder: Path, letter: str) -> None:
    drop_tensor(folder / "adapter_model.safetensors", KEY.format(letter))
    assert f"'{LAYER}' has no lora_{letter}" in refusal(folder)


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.embeddings.word_embeddings.lora_embedding_A",
        f"base_model.model.{LAYER}.lora_magnitude_vector",
        "base_model.model.classifier.weight",
        f"base_model.model.{LAYER}.lora_B.bias",
    ],
)
def test_a_tensor_that_is_no_linear_layer_s(folder: Path, key: str) -> None:
    rewrite(folder, **{key: np.ones(4, np.float32)})
    assert f"{key!r} is no matrix of a linear layer" in refusal(folder)


def test_shapes_that_do_not_fit(folder: Path) -> None:
    rewrite(folder, A=np.ones((4, 48), np.float32))
    assert f"'{LAYER}' is 32 x 48, and 32 x 32 in the model that is served" in refusal(folder)
    rewrite(folder, A=np.ones((4, 32), np.float32), B=np.ones((32, 3), np.float32))
    assert "has not the rank 4" in refusal(folder)
    rewrite(folder, A=np.ones(4, np.float32), B=np.ones((32, 4), np.float32))
    assert "has not the rank 4" in refusal(folder)
    rewrite(folder, A=np.ones((4, 32), np.float32), B=np.ones((), np.float32))
    assert "has not the rank 4" in refusal(folder)


def test_a_file_that_is_cut_short(folder: Path) -> None:
    truncate_weights(folder / "adapter_model.safetensors")
    assert "is not a whole safetensors file" in refusal(folder)


def test_halves_of_sixteen_bits(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({key: one.to(torch.bfloat16) for key, one in load_file(file).items()}, file)
    found = Adapter("mine", folder).updates(SHAPES)[LAYER]
    expected = load_file(file)[KEY.format("B")].float().numpy() * 2
    np.testing.assert_array_equal(found.b, expected)
    assert found.a.dtype == np.float32
