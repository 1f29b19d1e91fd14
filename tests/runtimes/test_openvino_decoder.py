"""Decoders as graphs of our own, against transformers on tiny random checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from adapters import BASE, build_adapter, peft_answer, peft_model
from decoders import DECODERS, build_decoder, edit
from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.steps import Contrast, Head, Pool
from omnivec.runtimes._openvino.sizes import reaches
from omnivec.runtimes.openvino import PLUGIN
from omnivec.runtimes.torch import PLUGIN as TORCH

LAST = Head("pooled", (Pool(("last",)),))
SHAPES = ((1, 1), (3, 7), (1, 40), (4, 33), (2, 70))
VARIANTS = {
    **{kind: (kind, {}) for kind in DECODERS},
    "one head of keys": ("qwen3", {"num_key_value_heads": 1}),
    "a head of keys for each": ("qwen2", {"num_key_value_heads": 4}),
    "a wide head": ("qwen3", {"head_dim": 24}),
    "another base": ("qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "a window everywhere": ("mistral", {"sliding_window": 5}),
    "no window": ("mistral", {"sliding_window": None}),
    "a window in some layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "biases": ("qwen3", {"attention_bias": True}),
    "three layers": ("qwen3", {"num_hidden_layers": 3, "tie_word_embeddings": True}),
    "an exact gelu": ("gemma", {"hidden_act": "gelu"}),
    "capped nowhere": ("gemma2", {"attn_logit_softcapping": None}),
    "no second window": ("gemma2", {"layer_types": ["full_attention"] * 2}),
    "every sixth layer": ("gemma3_text", {"num_hidden_layers": 7, "layer_types": None}),
    "a window of both sides": ("gemma3_text", {"use_bidirectional_attention": True}),
    "an odd window": ("gemma3_text", {"use_bidirectional_attention": True, "sliding_window": 9}),
}


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    """`decoder(variant, **options)`: the folder, built once."""
    built = {}

    def build(variant, **options):
        key = (variant, json.dumps(options, sort_keys=True))
        if key not in built:
            kind, config = VARIANTS[variant]
            folder = tmp_path_factory.mktemp("decoder")
            built[key] = build_decoder(kind, folder, config=config, **options)
        return built[key]

    return build


def opened(folder, head=LAST, dtype="f32", runtime=PLUGIN):
    return runtime.open(Checkpoint("tiny", folder), "main", head, "cpu", dtype)


def batch(rows, width, side):
    """Each row a third shorter than the one before."""
    lengths = [max(1, width - row * width // 3) for row in range(rows)]
    mask = np.array([[1] * n + [0] * (width - n) for n in lengths], np.int64)
    if side == "left":
        mask = mask[:, ::-1].copy()
    ids = np.random.default_rng(rows * width).integers(5, 300, mask.shape)
    return {"input_ids": np.where(mask, ids, 0), "attention_mask": mask}


def hidden_states(folder, arrays, **config):
    # the default attention of transformers leaves out Gemma 2's cap
    told = {"dtype": torch.float32, "attn_implementation": "eager", **config}
    model = transformers.AutoModel.from_pretrained(folder, **told).eval()
    with torch.no_grad():
        told = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return model(**told).last_hidden_state.numpy()


def last(hidden, mask):
    places = mask.shape[1] - 1 - mask[:, ::-1].argmax(1)
    return hidden[np.arange(len(mask)), places]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_token_is_that_of_transformers(decoder, variant, side):
    folder = decoder(variant)
    session = opened(folder)
    for shape in SHAPES:
        arrays = batch(*shape, side)
        expected = last(hidden_states(folder, arrays), arrays["attention_mask"])
        got = session.run(arrays)["output"]
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5, err_msg=str(shape))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "variant", ["qwen3", "a window everywhere", "gemma2", "a window of both sides"]
)
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_other_poolings_read_every_token(decoder, variant, side, mode):
    folder = decoder(variant)
    arrays = batch(4, 33, side)
    mask = arrays["attention_mask"]
    hidden = hidden_states(folder, arrays)
    first = hidden[np.arange(4), mask.argmax(1)]
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    got = opened(folder, Head("pooled", (Pool((mode,)),))).run(arrays)["output"]
    np.testing.assert_allclose(got, first if mode == "cls" else mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["qwen3", "gemma", "gemma2", "a window of both sides"])
def test_a_batch_is_its_rows(decoder, variant):
    session = opened(decoder(variant))
    arrays = batch(4, 33, "right")
    together = session.run(arrays)["output"]
    for row in range(4):
        count = arrays["attention_mask"][row].sum()
        alone = {name: array[row : row + 1, :count] for name, array in arrays.items()}
        np.testing.assert_allclose(session.run(alone)["output"][0], together[row], atol=5e-6)


def test_no_token_sees_a_later_one(decoder):
    session = opened(decoder("qwen3"), Head("tokens"))
    arrays = batch(2, 20, "left")
    before = session.run(arrays)["output"]
    arrays["input_ids"][0, 12] += 1
    changed = np.abs(session.run(arrays)["output"] - before).max(1) > 0
    assert changed[:20].tolist() == [False] * 12 + [True] * 8
    assert not changed[20:].any()


@pytest.mark.parametrize("variant", ["qwen3", "gemma2"])
def test_a_kept_token_that_none_attends_to_sees_the_others(decoder, variant):
    folder = decoder(variant)
    session, arrays = opened(folder, Head("tokens")), batch(1, 12, "right")
    whole = session.run(arrays)["output"]
    arrays["attention_mask"] = arrays["attention_mask"].copy()
    arrays["attention_mask"][0, 9:] = 0
    kept = session.run({**arrays, "output_mask": np.ones((1, 12), np.int64)})["output"]
    np.testing.assert_allclose(kept[:9], whole[:9], atol=2e-6)
    assert np.abs(kept[9:] - whole[9:]).max() > 1e-3  # they do not see themselves
    arrays["output_mask"] = np.ones((1, 12), np.int64)
    torch_too = opened(folder, Head("tokens"), runtime=TORCH).run(arrays)["output"]
    np.testing.assert_allclose(torch_too, kept, atol=1e-5)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_attention_may_look_both_ways(tmp_path, side, runtime):
    """gte-Qwen2 was trained so, and its config.json says `is_causal: false`."""
    folder = build_decoder("qwen2", tmp_path, config={"is_causal": False})
    assert json.loads((folder / "config.json").read_text())["is_causal"] is False
    arrays = batch(4, 33, side)
    expected = last(hidden_states(folder, arrays), arrays["attention_mask"])
    causal = last(hidden_states(folder, arrays, is_causal=True), arrays["attention_mask"])
    assert np.abs(causal - expected).max() > 1e-2
    got = opened(folder, runtime=runtime).run(arrays)["output"]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("gemma", "use_bidirectional_attention", True),
        ("gemma2", "use_bidirectional_attention", True),
        ("gemma2", "is_causal", False),
        ("gemma3_text", "is_causal", False),
    ],
)
def test_both_sides_in_words_that_a_gemma_has_no_meaning_for(tmp_path, runtime, kind, key, value):
    for told, refused in ((value, True), (not value, False)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, key: told}))
        why = runtime.can(Checkpoint("tiny", tmp_path), "main", LAST, "cpu")
        assert (why is not None and repr(key) in why) if refused else why is None


def test_llamas_do_not_know_gemmas_word(tmp_path):
    folder = build_decoder("llama", tmp_path, config={"use_bidirectional_attention": True})
    arrays = batch(4, 33, "right")
    expected = last(hidden_states(folder, arrays), arrays["attention_mask"])
    got = opened(folder).run(arrays)["output"]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("minus", [None, 9])
def test_a_contrast_is_the_difference_of_two_logits(tmp_path, runtime, tied, minus):
    config = {"tie_word_embeddings": tied}
    folder = build_decoder("qwen3", tmp_path, ending="ForCausalLM", config=config)
    arrays = batch(4, 33, "left")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        told = {name: torch.from_numpy(array) for name, array in arrays.items()}
        logits = model(**told).logits[:, -1].numpy()
    expected = logits[:, 7] - (0 if minus is None else logits[:, minus])
    head = Head("pooled", (Pool(("last",)), Contrast(7, minus)))
    got = opened(folder, head, runtime=runtime).run(arrays)["output"]
    assert got.shape == (4, 1)
    np.testing.assert_allclose(got[:, 0], expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
def test_a_contrast_of_words_that_are_not_there_is_refused(tmp_path, runtime):
    folder = build_decoder("qwen3", tmp_path, ending="ForCausalLM")
    head = Head("pooled", (Pool(("last",)), Contrast(7, 10_000)))
    with pytest.raises(CheckpointError, match="answers are tokens"):
        opened(folder, head, runtime=runtime)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
def test_without_output_embeddings_there_is_no_contrast(decoder, runtime):
    head = Head("pooled", (Pool(("last",)), Contrast(7, 9)))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        opened(decoder("qwen3"), head, runtime=runtime)


@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama", "gemma"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_classifier_reads_the_last_token_that_is_no_padding(tmp_path, kind, side):
    folder = build_decoder(
        kind, tmp_path, ending="ForSequenceClassification", config={"num_labels": 1}
    )
    arrays = batch(4, 33, side)
    if side == "right":  # judged by its id, whatever the mask says
        arrays["input_ids"][0, -1] = 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        told = {name: torch.from_numpy(array) for name, array in arrays.items()}
        expected = model(**told).logits.numpy()
    got = opened(folder, Head("logits")).run(arrays)["output"]
    np.testing.assert_allclose(got, expected, atol=2e-5, rtol=1e-5)


def test_half_precision_weights_are_read_as_they_lie(tmp_path):
    folder = build_decoder("qwen3", tmp_path, dtype="bfloat16")
    arrays = batch(4, 33, "left")
    expected = last(hidden_states(folder, arrays), arrays["attention_mask"])
    got = opened(folder).run(arrays)["output"]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["auto", "int8"])
def test_positions_of_long_texts_survive_half_precision(decoder, dtype):
    folder = decoder("qwen3")
    arrays = batch(1, 700, "left")
    exact, half = (opened(folder, dtype=one).run(arrays)["output"][0] for one in ("f32", dtype))
    alike = exact @ half / np.linalg.norm(exact) / np.linalg.norm(half)
    assert alike > 0.99


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "gemma3_text"])
def test_gemma_bears_bf16(decoder, kind):
    folder = decoder(kind)
    arrays = batch(4, 33, "left")
    exact, half = (opened(folder, dtype=one).run(arrays)["output"] for one in ("f32", "auto"))
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(half, axis=1)
    assert ((exact * half).sum(1) / lengths).min() > 0.999


@pytest.mark.parametrize(
    ("spelling", "bases"),
    [
        ({"rope_theta": 5e5, "rope_local_base_freq": 2e4}, (2e4, 5e5, 2e4)),
        ({}, (1e4, 1e6, 1e4)),
    ],
)
def test_gemma_3_has_a_base_for_each_kind_of_layer(tmp_path, spelling, bases):
    """In the spelling of older files, or where they say nothing."""
    folder = build_decoder("gemma3_text", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps({**config, **spelling}))
    read = Checkpoint("tiny", folder).config
    assert tuple(reach.theta for reach in reaches(read)) == bases
    arrays = batch(4, 33, "left")
    expected = last(hidden_states(folder, arrays), arrays["attention_mask"])
    got = opened(folder).run(arrays)["output"]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("told", [{"attn_logit_softcapping": 1e3}, {"sliding_window": 99}], ids=str)
def test_what_gemma_2_bends_and_narrows_is_felt(tmp_path, decoder, told, runtime):
    arrays = batch(1, 40, "left")
    other = build_decoder("gemma2", tmp_path, config=told)
    got, loose = (
        opened(one, runtime=runtime).run(arrays)["output"] for one in (decoder("gemma2"), other)
    )
    assert np.abs(got - loose).max() > 1e-3


@pytest.mark.parametrize(
    "told",
    [
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}},
    ],
)
def test_scaled_positions_are_left_to_torch(tmp_path, told):
    folder = build_decoder("qwen3", tmp_path)
    edit(folder, **told)
    why = PLUGIN.can(Checkpoint("tiny", folder), "main", LAST, "cpu")
    assert "scaled positions" in str(why)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("head", [LAST, Head("tokens")], ids=["last", "tokens"])
@pytest.mark.parametrize("kind", ["qwen3", "gemma", "gemma3_text"])
def test_each_row_may_have_an_adapter_of_its_own(tmp_path, runtime, head, kind):
    """In the last layer, too, where one token of each row may stand for all."""
    folder = build_decoder(kind, tmp_path / "m")
    made = {
        name: build_adapter(folder, tmp_path / name, seed=seed, r=2 + seed, target_modules=which)
        for seed, (name, which) in enumerate({"one": "all-linear", "two": ["q_proj"]}.items())
    }
    names, arrays = ["two", BASE, "one", "one"], batch(4, 33, "left")
    expected = peft_answer(peft_model(folder, made), arrays, names)
    mask = arrays["attention_mask"]
    expected = last(expected, mask) if head is LAST else expected[mask == 1]
    adapters = [Adapter(name, place) for name, place in made.items()]
    checkpoint = Checkpoint("tiny", folder, adapters=adapters)
    session = runtime.open(checkpoint, "main", head, "cpu", "f32")
    numbers = np.array([[BASE, *made].index(name) for name in names])
    got = session.run({**arrays, "adapter": numbers})["output"]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)
