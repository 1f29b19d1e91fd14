"""Qwen3, Qwen2, Mistral and Llama: decoders that read a text and write none.

One graph serves them: they differ in what their files hold (Qwen2's biases, Qwen3's norms of
queries and keys) and in windows (arXiv 2505.09388, 2407.10671, 2310.06825).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks, causal
from omnivec.runtimes._openvino.bert import last_linear
from omnivec.runtimes._openvino.blocks import Chosen, Encoded, Inputs, Node, Rotation, shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.causal import Layout
    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = "embed_tokens.weight"
THETA = 10_000.0
SLIDING = "sliding_attention"


class Sizes(NamedTuple):
    """Of a layer. `groups` heads of keys and of values serve `heads` of queries, each of
    `head` numbers."""

    hidden: int
    heads: int
    groups: int
    head: int
    inner: int
    epsilon: float
    activation: str

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Sizes:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return cls(
            hidden,
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or hidden // heads,
            config["intermediate_size"],
            config.get("rms_norm_eps", 1e-6),
            config.get("hidden_act", "silu"),
        )


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    sizes = Sizes.read(config)
    hidden, vocabulary = blocks.word_embedding(weights, "embed_tokens", inputs, sizes.hidden)
    layout = causal.Layout.of(inputs)
    turn = blocks.packed_rotation(inputs, sizes.head, theta(config))
    both_ways = config.get("is_causal") is False
    biases: dict[tuple[int | None, bool], Node] = {}
    reaches = windows(config)
    for index, window in enumerate(reaches):
        key = f"layers.{index}"
        last = index == len(reaches) - 1 and inputs.chosen is not None
        chosen = Chosen(inputs) if last else None
        if (window, last) not in biases:
            biases[window, last] = layout.bias(inputs, window, chosen, both_ways=both_ways)
        x = blocks.rms_norm(hidden, weights, f"{key}.input_layernorm", sizes.hidden, sizes.epsilon)
        mixed = _attend(
            x, weights, f"{key}.self_attn", sizes, turn, layout, biases[window, last], chosen
        )
        hidden = ops.add(chosen.take(hidden) if chosen else hidden, mixed)
        norm = f"{key}.post_attention_layernorm"
        x = blocks.rms_norm(hidden, weights, norm, sizes.hidden, sizes.epsilon)
        given = weights.of_rows() if chosen else weights
        hidden = ops.add(hidden, _feed_forward(x, given, f"{key}.mlp", sizes))
    hidden = blocks.rms_norm(hidden, weights, "norm", sizes.hidden, sizes.epsilon)
    return Encoded(hidden, sizes.hidden, vocabulary, chosen=inputs.chosen is not None)


def classify(_: Mapping[str, Any], weights: Weights, encoded: Encoded, inputs: Inputs) -> Node:
    """`score` of each row's chosen token."""
    del inputs  # it was chosen already: graphs.build always does for decoders
    return last_linear(encoded.hidden, weights.outer(), "score", encoded.width, bias=False)


def windows(config: Mapping[str, Any]) -> list[int | None]:
    """How many tokens each layer's queries see, themselves among them; None: all before them.
    Mistral has a window in all layers, Qwen in those that `layer_types` names."""
    count, size = config["num_hidden_layers"], config.get("sliding_window")
    kind = config["model_type"]
    if kind == "llama" or size is None:
        return [None] * count
    if kind == "mistral":
        return [int(size)] * count
    if not config.get("use_sliding_window", False):
        return [None] * count
    first = config.get("max_window_layers", 28)
    listed = config.get("layer_types") or [
        SLIDING if index >= first else "" for index in range(count)
    ]
    return [int(size) if kind == SLIDING else None for kind in listed]


def theta(config: Mapping[str, Any]) -> float:
    told = config.get("rope_parameters") or {}
    return float(told.get("rope_theta") or config.get("rope_theta") or THETA)


def _attend(
    x: Node,
    weights: Weights,
    key: str,
    sizes: Sizes,
    turn: Rotation,
    layout: Layout,
    bias: Node,
    chosen: Chosen | None,
) -> Node:
    """x [P, H] to [P, H], or to [B, H] of the chosen tokens."""
    asking, given = (chosen.take(x), weights.of_rows()) if chosen else (x, weights)
    q = _project(asking, given, f"{key}.q_proj", sizes.heads * sizes.head, sizes.hidden)
    k, v = (
        _project(x, weights, f"{key}.{name}_proj", sizes.groups * sizes.head, sizes.hidden)
        for name in "kv"
    )
    q = _turned(q, weights, f"{key}.q_norm", sizes, turn.of(chosen), sizes.heads)
    k = _turned(k, weights, f"{key}.k_norm", sizes, turn, sizes.groups)
    v = ops.reshape(v, shape(-1, sizes.groups, sizes.head), False)
    k, v = (blocks.repeat_heads(one, sizes.groups, sizes.heads) for one in (k, v))
    mixed = layout.attend(q, k, v, bias, chosen)
    flat = ops.reshape(mixed, shape(-1, sizes.heads * sizes.head), False)
    return _project(flat, given, f"{key}.o_proj", sizes.hidden, sizes.heads * sizes.head)


def _turned(x: Node, weights: Weights, key: str, sizes: Sizes, turn: Rotation, heads: int) -> Node:
    """[P, heads * D] to [P, heads, D]: normed where the files have a norm, and turned."""
    x = ops.reshape(x, shape(1, -1, heads, sizes.head), False)
    if f"{key}.weight" in weights:
        x = blocks.rms_norm(x, weights, key, sizes.head, sizes.epsilon)
    return ops.reshape(blocks.rotate(x, turn), shape(-1, heads, sizes.head), False)


def _feed_forward(x: Node, weights: Weights, key: str, sizes: Sizes) -> Node:
    gate, up = (
        _project(x, weights, f"{key}.{name}_proj", sizes.inner, sizes.hidden)
        for name in ("gate", "up")
    )
    gated = ops.multiply(blocks.activation(gate, sizes.activation), up)
    return _project(gated, weights, f"{key}.down_proj", sizes.hidden, sizes.inner)


def _project(x: Node, weights: Weights, key: str, out: int, inner: int) -> Node:
    return blocks.linear(x, weights, key, out, inner, bias=f"{key}.bias" in weights)
