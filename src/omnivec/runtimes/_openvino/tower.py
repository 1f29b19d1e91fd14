"""The layers that CLIP's and SigLIP's towers are made of (arXiv 2103.00020, 2303.15343): norms
come before attention and feed-forward, and not after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.blocks import Attention, Chosen, Encoded, Inputs, Node, Rows, axis

if TYPE_CHECKING:
    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = "embeddings.token_embedding.weight"  # of the towers that read texts


class Biases(NamedTuple):
    """What is added to attention's logits, [B, 1, 1, T] or [1, 1, T, T]: None where each token
    sees all. `chosen` is for the rows' chosen tokens, [B, 1, 1, T]."""

    all: Node | None = None
    chosen: Node | None = None


class Whole(NamedTuple):
    """In place of Inputs, where each of a batch's rows has all its `width` tokens."""

    width: int
    size: int
    chosen: Node | None = None

    def pack(self, x: Node, *rest: int) -> Node:
        """[B, T, *rest] to [B * T, *rest]."""
        return ops.reshape(x, blocks.shape(-1, *rest), False)

    def spread(self, x: Node) -> Node:
        """[B * T, H] to [B, T, H]."""
        return ops.reshape(x, blocks.shape(-1, self.width, self.size), False)


def embed(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> tuple[Node, Encoded]:
    """Words and their positions; what they end in has no hidden states yet."""
    size = config["hidden_size"]
    words, vocabulary = blocks.word_embedding(weights, "embeddings.token_embedding", inputs, size)
    key = "embeddings.position_embedding"
    placed, positions = blocks.absolute_positions(weights, key, inputs, size)
    return ops.add(words, placed), Encoded(None, size, vocabulary, positions)


def layers(
    hidden: Node,
    config: Mapping[str, Any],
    weights: Weights,
    inputs: Rows,
    biases: Biases,
) -> Node:
    """[P, H] to [P, H], or where `inputs` has chosen tokens to [B, H]."""
    size, epsilon = config["hidden_size"], config["layer_norm_eps"]
    heads = config["num_attention_heads"]
    attention = Attention(heads, size // heads, inputs)
    last = config["num_hidden_layers"] - 1
    for index in range(last + 1):
        key = f"encoder.layers.{index}"
        chosen = Chosen(inputs) if index == last and inputs.chosen is not None else None
        bias = biases.chosen if chosen else biases.all
        normed = blocks.layer_norm(hidden, weights, f"{key}.layer_norm1", size, epsilon)
        mixed = attend(normed, weights, f"{key}.self_attn", bias, attention, chosen)
        hidden = ops.add(chosen.take(hidden) if chosen else hidden, mixed)
        normed = blocks.layer_norm(hidden, weights, f"{key}.layer_norm2", size, epsilon)
        hidden = ops.add(hidden, feed_forward(normed, weights, f"{key}.mlp", config))
    return hidden


def attend(
    x: Node,
    weights: Weights,
    key: str,
    bias: Node | None,
    attention: Attention,
    chosen: Chosen | None,
) -> Node:
    """[P, H] to [P, H], or for the `chosen` tokens to [B, H]."""
    size = attention.heads * attention.size
    asking = chosen.take(x) if chosen else x
    q = blocks.linear(asking, weights, f"{key}.q_proj", size, size)
    k, v = (blocks.linear(x, weights, f"{key}.{n}_proj", size, size) for n in ("k", "v"))
    mixed = blocks.mix(q, k, v, bias, attention, chosen)
    return blocks.linear(mixed, weights, f"{key}.out_proj", size, size)


def feed_forward(x: Node, weights: Weights, key: str, config: Mapping[str, Any]) -> Node:
    size, inner = config["hidden_size"], config["intermediate_size"]
    y = blocks.linear(x, weights, f"{key}.fc1", inner, size)
    y = blocks.activation(y, config["hidden_act"])
    return blocks.linear(y, weights, f"{key}.fc2", size, inner)


def projected(x: Node, weights: Weights, key: str, width: int, *, bias: bool) -> Node:
    """x [B, width] to the length that the matrix has."""
    out = len(weights.take(f"{key}.weight", None, width))
    return blocks.linear(x, weights, key, out, width, bias=bias)


def last_place(inputs: Inputs) -> Node:
    """The packed token in each row's last column, int64 [B]."""
    end = ops.subtract(blocks.width_of(inputs.mask), axis(1))
    return ops.gather(inputs.places, end, axis(1))


def causal(inputs: Inputs) -> Biases:
    """Each token sees itself and what is before it, and so no padding behind it."""
    columns = blocks.counted(inputs.mask)
    whole = ops.unsqueeze(_later(columns, columns), blocks.shape(0, 1))
    if inputs.chosen is None:
        return Biases(whole)
    width = blocks.width_of(inputs.mask)
    asking = ops.mod(ops.gather(inputs.tokens, inputs.chosen, axis(0)), width)
    return Biases(whole, ops.unsqueeze(_later(columns, asking), blocks.shape(1, 2)))


def _later(columns: Node, asking: Node) -> Node:
    """[A, T]: MASKED where a column [T] is behind the one that asks [A], else 0."""
    behind = ops.greater(
        ops.unsqueeze(columns, blocks.shape(0)), ops.unsqueeze(asking, blocks.shape(1))
    )
    return ops.multiply(blocks.floats(behind), blocks.scalar(blocks.MASKED, np.float32))
