"""ModernBERT (arXiv 2412.13663): rotary, pre-norm, most layers see a window only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openvino import opset15 as ops

from omnivec.core.checkpoint import CheckpointError
from omnivec.runtimes._openvino import blocks, windows
from omnivec.runtimes._openvino.bert import first_token, last_linear
from omnivec.runtimes._openvino.blocks import Attention, Encoded, Inputs, Node, Rotation, axis
from omnivec.runtimes._openvino.windows import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = "embeddings.tok_embeddings.weight"
FULL, WINDOW = "full_attention", "sliding_attention"
THETAS = {FULL: 160_000.0, WINDOW: 10_000.0}
OLD_THETAS = {FULL: "global_rope_theta", WINDOW: "local_rope_theta"}


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    size, heads = config["hidden_size"], config["num_attention_heads"]
    attention = Attention(heads, size // heads, inputs)
    hidden, vocabulary = blocks.word_embedding(weights, "embeddings.tok_embeddings", inputs, size)
    hidden = _norm(hidden, weights, "embeddings.norm", config)
    half = config.get("local_attention", 128) // 2
    views = {FULL: windows.whole(inputs), WINDOW: windows.window(inputs, half)}
    turns = {
        kind: blocks.packed_rotation(inputs, attention.size, theta(config, kind)) for kind in THETAS
    }
    for index, kind in enumerate(layer_types(config)):
        key = f"layers.{index}"
        x = _norm(hidden, weights, f"{key}.attn_norm", config) if index else hidden
        mixed = _attend(x, weights, f"{key}.attn", views[kind], turns[kind], attention, config)
        hidden = ops.add(hidden, mixed)
        x = _norm(hidden, weights, f"{key}.mlp_norm", config)
        hidden = ops.add(hidden, _feed_forward(x, weights, f"{key}.mlp", config))
    return Encoded(_norm(hidden, weights, "final_norm", config), size, vocabulary)


def classify(config: Mapping[str, Any], weights: Weights, encoded: Encoded, inputs: Inputs) -> Node:
    outer, size = weights.outer(), encoded.width
    if config.get("classifier_pooling", "cls") == "mean":
        pooled = _mean(inputs.spread(encoded.hidden), inputs.mask)
    else:
        pooled = first_token(encoded, inputs)
    bias = config.get("classifier_bias", False)
    y = blocks.linear(pooled, outer, "head.dense", size, size, bias=bias)
    y = blocks.activation(y, config.get("classifier_activation", "gelu"))
    return last_linear(_norm(y, outer, "head.norm", config), outer, "classifier", size)


def layer_types(config: Mapping[str, Any]) -> list[str]:
    """Which layers see everything: as config.json lists them, or every third, from the first."""
    listed = config.get("layer_types")
    every = config.get("global_attn_every_n_layers", 3)
    return listed or [WINDOW if i % every else FULL for i in range(config["num_hidden_layers"])]


def theta(config: Mapping[str, Any], kind: str) -> float:
    """The rotary base of a kind of layer, in transformers 5's spelling or the older one.
    Raises CheckpointError for scaled rotary positions."""
    told = (config.get("rope_parameters") or {}).get(kind) or {}
    if told.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"rotary positions of type {told['rope_type']!r} are not built here; "
            "use the torch runtime"
        )
    return float(told.get("rope_theta") or config.get(OLD_THETAS[kind]) or THETAS[kind])


def _norm(x: Node, weights: Weights, key: str, config: Mapping[str, Any]) -> Node:
    bias = config.get("norm_bias", False)
    return blocks.layer_norm(
        x, weights, key, config["hidden_size"], config.get("norm_eps", 1e-5), bias=bias
    )


def _attend(
    x: Node,
    weights: Weights,
    key: str,
    view: View,
    turn: Rotation,
    attention: Attention,
    config: Mapping[str, Any],
) -> Node:
    size, biased = config["hidden_size"], config.get("attention_bias", False)
    qkv = blocks.linear(x, weights, f"{key}.Wqkv", 3 * size, size, bias=biased)
    mixed = windows.attend(qkv, turn, view, attention)
    return blocks.linear(mixed, weights, f"{key}.Wo", size, size, bias=biased)


def _feed_forward(x: Node, weights: Weights, key: str, config: Mapping[str, Any]) -> Node:
    size, inner = config["hidden_size"], config["intermediate_size"]
    biased = config.get("mlp_bias", False)
    both = blocks.linear(x, weights, f"{key}.Wi", 2 * inner, size, bias=biased)
    value, gate = ops.split(both, axis(1), 2).outputs()
    value = blocks.activation(value, config.get("hidden_activation", "gelu"))
    return blocks.linear(ops.multiply(value, gate), weights, f"{key}.Wo", size, inner, bias=biased)


def _mean(hidden: Node, mask: Node) -> Node:
    weights = blocks.floats(mask)
    total = ops.reduce_sum(
        ops.multiply(hidden, ops.unsqueeze(weights, blocks.shape(2))), blocks.shape(1)
    )
    count = ops.reduce_sum(weights, blocks.shape(1), keep_dims=True)
    return ops.divide(total, ops.maximum(count, blocks.scalar(1)))
