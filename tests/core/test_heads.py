"""The numpy heads against sentence-transformers' own modules."""

from __future__ import annotations

import numpy as np
import pytest

from omnivec.core.heads import (
    ACTIVATIONS,
    activation,
    apply,
    computed,
    kept,
    of_tokens,
    pool,
    words,
)
from omnivec.core.steps import Contrast, Dense, Head, LayerNorm, Normalize, Pool, Vocabulary

NAMES = {"mean_sqrt_len": "mean_sqrt_len_tokens", "last": "lasttoken"}
MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last")
MASKS = {
    "whole": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
    "right": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]],
}


def hidden_states(rows: int = 2, width: int = 5, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, width, size)).astype(np.float32)


def reference(modes, hidden, mask, *, prompt=None):
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    made = Pooling(
        hidden.shape[-1],
        pooling_mode=tuple(NAMES.get(mode, mode) for mode in modes),
        include_prompt=prompt is None,
    )
    features = {
        "token_embeddings": torch.from_numpy(hidden),
        "attention_mask": torch.from_numpy(mask),
    }
    if prompt is not None:
        features["prompt_length"] = prompt
    return made(features)["sentence_embedding"].numpy()


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_pools_as_sentence_transformers_does(mode, padding):
    hidden, mask = hidden_states(), np.array(MASKS[padding])
    ours = apply(Head("pooled", (Pool((mode,)),)), hidden, mask, {})
    np.testing.assert_allclose(ours, reference([mode], hidden, mask), atol=1e-6)


def test_several_modes_stand_side_by_side_in_the_order_they_are_named():
    hidden, mask = hidden_states(), np.array(MASKS["right"])
    modes = ("weightedmean", "cls", "max")
    ours = apply(Head("pooled", (Pool(modes),)), hidden, mask, {})
    assert ours.shape == (2, 24)
    np.testing.assert_allclose(ours, reference(modes, hidden, mask), atol=1e-6)


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_left_out_of_the_pool_keeps_its_place_in_the_weights(mode, padding):
    hidden = hidden_states(1)
    mask = np.array(MASKS[padding][:1])
    kept = mask.copy()
    kept[0, mask[0].argmax() : mask[0].argmax() + 2] = 0
    ours = apply(Head("pooled", (Pool((mode,)),)), hidden, mask, {}, kept)
    np.testing.assert_allclose(ours, reference([mode], hidden, mask, prompt=2), atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_row_with_nothing_to_pool_is_zero(mode):
    mask = np.zeros((2, 5), np.int64)
    assert not pool(Pool((mode,)), hidden_states(), mask, mask).any()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_is_torchs(name):
    import torch

    x = np.linspace(-12, 12, 97, dtype=np.float32)
    torchs = getattr(torch.nn, name)()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](x), torchs, atol=2e-6)


def test_an_activation_goes_by_its_last_name():
    assert activation("torch.nn.modules.linear.Identity") == "Identity"
    with pytest.raises(ValueError, match="Hardshrink"):
        activation("torch.nn.modules.activation.Hardshrink")


def test_a_chain_of_steps_is_that_of_torch():
    import torch

    random = np.random.default_rng(1)
    weights = {
        "2_Dense/model.safetensors": {
            "linear.weight": random.standard_normal((6, 8)).astype(np.float32),
            "linear.bias": random.standard_normal(6).astype(np.float32),
        },
        "3_LayerNorm/model.safetensors": {
            "norm.weight": random.standard_normal(6).astype(np.float32),
            "norm.bias": random.standard_normal(6).astype(np.float32),
        },
    }
    dense, norm = weights
    head = Head(
        "pooled",
        (Pool(("mean",)), Dense(dense, "torch.nn.Tanh"), LayerNorm(norm), Normalize()),
    )
    hidden, mask = hidden_states(), np.array(MASKS["right"])
    x = torch.from_numpy(reference(["mean"], hidden, mask))
    x = torch.tanh(torch.nn.functional.linear(x, *map(torch.from_numpy, weights[dense].values())))
    x = torch.nn.functional.layer_norm(x, (6,), *map(torch.from_numpy, weights[norm].values()))
    x = torch.nn.functional.normalize(x)
    np.testing.assert_allclose(apply(head, hidden, mask, weights), x.numpy(), atol=1e-6)


def test_a_dense_without_bias_has_none():
    weights = {"f": {"linear.weight": np.eye(8, dtype=np.float32)[:3]}}
    head = Head("tokens", (Dense("f", "torch.nn.Identity"),))
    hidden = hidden_states()
    ours = apply(head, hidden, np.ones((2, 5)), weights)
    np.testing.assert_array_equal(ours, hidden.reshape(10, 8)[:, :3])


def test_of_single_tokens_only_those_kept_are_given_row_after_row():
    hidden, mask = hidden_states(), np.array(MASKS["right"])
    kept = np.array([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]])  # the second is attended to by nobody
    ours = apply(Head("tokens"), hidden, mask, {}, output_mask=kept)
    np.testing.assert_array_equal(ours, hidden[[0, 1], [1, 3]])
    assert apply(Head("tokens"), hidden, mask, {}, output_mask=0 * kept).shape == (0, 8)


def test_without_a_mask_the_main_output_keeps_what_is_attended_to_and_others_nothing():
    mask = np.array(MASKS["right"])
    head = Head("tokens", also={"more": Head("tokens"), "pooled": Head("pooled")})
    assert of_tokens(head) == ["output", "more"]
    np.testing.assert_array_equal(kept("output", {"attention_mask": mask}), mask == 1)
    assert not kept("more", {"attention_mask": mask}).any()
    arrays = {"attention_mask": mask, "more_mask": mask[::-1]}
    np.testing.assert_array_equal(computed(of_tokens(head), arrays), (mask | mask[::-1]) == 1)


def test_normalising_nothing_gives_nothing():
    head = Head("tokens", (Normalize(),))
    assert not apply(head, np.zeros((1, 2, 4), np.float32), np.ones((1, 2)), {}).any()


def test_a_classification_head_is_not_done_here():
    with pytest.raises(ValueError, match="architecture"):
        apply(Head("logits"), hidden_states(), np.ones((2, 5)), {})


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("function", ["relu", "log1p_relu"])
@pytest.mark.parametrize("mode", ["max", "sum"])
def test_words_are_weighed_as_sentence_transformers_does(mode, function, padding):
    import torch
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    logits, mask = hidden_states(), np.array(MASKS[padding])
    features = {
        "token_embeddings": torch.from_numpy(logits.copy()),
        "attention_mask": torch.from_numpy(mask),
    }
    theirs = SpladePooling(mode, function).eval()(features)["sentence_embedding"].numpy()
    names = {"relu": "log1p_relu", "log1p_relu": "log1p_log1p_relu"}
    ours = words(Vocabulary(mode, names[function]), logits, mask)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_words_of_a_row_that_keeps_none_are_zero():
    for mode in ("max", "sum"):
        mask = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
        ours = words(Vocabulary(mode, "relu"), hidden_states(), mask)
        assert not ours[0].any()
        np.testing.assert_array_equal(ours[1], np.maximum(hidden_states()[1, 0], 0))


@pytest.mark.parametrize("minus", [None, 2])
def test_a_contrast_is_the_difference_of_two_logits(minus):
    hidden, mask = hidden_states(), np.ones(hidden_states().shape[:2], np.int64)
    table = np.random.default_rng(5).standard_normal((6, hidden.shape[-1])).astype(np.float32)
    head = Head("pooled", (Pool(("last",)), Contrast(4, minus)))
    logits = hidden[:, -1] @ table.T
    expected = logits[:, [4]] - (0 if minus is None else logits[:, [minus]])
    got = apply(head, hidden, mask, {"": {"lm_head.weight": table}})
    np.testing.assert_allclose(got, expected, atol=1e-5)
