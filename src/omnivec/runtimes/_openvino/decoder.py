"""Qwen3, Qwen2, Mistral, Llama and Gemma: decoders that read a text and write none.

One graph serves them: they differ in what their files hold (Qwen2's biases, Qwen3's and Gemma 3's
norms of queries and keys, Gemma 2's and 3's norms behind a layer's two parts) and in what sizes.py
reads (arXiv 2505.09388, 2407.10671, 2310.06825, 2408.00118, 2503.19786, 2509.20354). Qwen3-VL's
language model is Qwen3: of a text without pictures its three positions are one (2511.21631).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks, causal
from omnivec.runtimes._openvino.bert import last_linear
from omnivec.runtimes._openvino.blocks import Chosen, Encoded, Inputs, Node, Rotation, shape
from omnivec.runtimes._openvino.sizes import Sizes, looks_both_ways, reaches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.causal import Layout
    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = "embed_tokens.weight"


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    sizes = Sizes.read(config)
    hidden, vocabulary = blocks.word_embedding(weights, "embed_tokens", inputs, sizes.hidden)
    if sizes.embedding != 1:  # in float32; transformers rounds it with weights in bf16
        hidden = ops.multiply(hidden, blocks.scalar(sizes.embedding))
    layout = causal.Layout.of(inputs)
    both_ways = looks_both_ways(config)
    layers = reaches(config)
    turns = {
        theta: blocks.packed_rotation(inputs, sizes.head, theta, sizes.scale)
        for theta in dict.fromkeys(reach.theta for reach in layers)
    }
    biases: dict[tuple[int | None, bool], Node] = {}
    for index, (window, theta) in enumerate(layers):
        last = index == len(layers) - 1 and inputs.chosen is not None
        chosen = Chosen(inputs) if last else None
        if (window, last) not in biases:
            biases[window, last] = layout.bias(inputs, window, chosen, both_ways=both_ways)
        view = View(layout, turns[theta], biases[window, last], chosen)
        hidden = _layer(hidden, weights, f"layers.{index}", sizes, view)
    hidden = _norm(hidden, weights, "norm", sizes)
    return Encoded(hidden, sizes.hidden, vocabulary, chosen=inputs.chosen is not None)


def classify(_: Mapping[str, Any], weights: Weights, encoded: Encoded, inputs: Inputs) -> Node:
    """`score` of each row's chosen token."""
    del inputs  # it was chosen already: graphs.build always does for decoders
    return last_linear(encoded.hidden, weights.outer(), "score", encoded.width, bias=False)


class View(NamedTuple):
    """What a layer's tokens see, and from where; `chosen` where only those ask."""

    layout: Layout
    turn: Rotation
    bias: Node
    chosen: Chosen | None


def _layer(hidden: Node, weights: Weights, key: str, sizes: Sizes, view: View) -> Node:
    """hidden [P, H] to [P, H], or to [B, H] of the chosen tokens."""
    chosen = view.chosen
    inner = f"{key}.pre_feedforward_layernorm"
    enclosed = f"{inner}.weight" in weights  # with a norm before and one behind both parts
    x = _norm(hidden, weights, f"{key}.input_layernorm", sizes)
    mixed = _attend(x, weights, f"{key}.self_attn", sizes, view)
    if enclosed:
        mixed = _norm(mixed, weights, f"{key}.post_attention_layernorm", sizes)
    hidden = ops.add(chosen.take(hidden) if chosen else hidden, mixed)
    x = _norm(hidden, weights, inner if enclosed else f"{key}.post_attention_layernorm", sizes)
    made = _feed_forward(x, weights.of_rows() if chosen else weights, f"{key}.mlp", sizes)
    if enclosed:
        made = _norm(made, weights, f"{key}.post_feedforward_layernorm", sizes)
    return ops.add(hidden, made)


def _attend(x: Node, weights: Weights, key: str, sizes: Sizes, view: View) -> Node:
    """x [P, H] to [P, H], or to [B, H] of the chosen tokens."""
    layout, turn, bias, chosen = view
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
    mixed = layout.attend(q, k, v, bias, chosen, sizes.cap)
    flat = ops.reshape(mixed, shape(-1, sizes.heads * sizes.head), False)
    return _project(flat, given, f"{key}.o_proj", sizes.hidden, sizes.heads * sizes.head)


def _turned(x: Node, weights: Weights, key: str, sizes: Sizes, turn: Rotation, heads: int) -> Node:
    """[P, heads * D] to [P, heads, D]: normed where the files have a norm, and turned."""
    x = ops.reshape(x, shape(1, -1, heads, sizes.head), False)
    if f"{key}.weight" in weights:
        x = blocks.rms_norm(x, weights, key, sizes.head, sizes.epsilon, sizes.unit)
    return ops.reshape(blocks.rotate(x, turn), shape(-1, heads, sizes.head), False)


def _feed_forward(x: Node, weights: Weights, key: str, sizes: Sizes) -> Node:
    gate, up = (
        _project(x, weights, f"{key}.{name}_proj", sizes.inner, sizes.hidden)
        for name in ("gate", "up")
    )
    gated = ops.multiply(blocks.activation(gate, sizes.activation), up)
    return _project(gated, weights, f"{key}.down_proj", sizes.hidden, sizes.inner)


def _norm(x: Node, weights: Weights, key: str, sizes: Sizes) -> Node:
    return blocks.rms_norm(x, weights, key, sizes.hidden, sizes.epsilon, sizes.unit)


def _project(x: Node, weights: Weights, key: str, out: int, inner: int) -> Node:
    return blocks.linear(x, weights, key, out, inner, bias=f"{key}.bias" in weights)
