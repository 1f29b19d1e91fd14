"""DistilBERT (arXiv 1910.01108)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.bert import first_token, last_linear
from omnivec.runtimes._openvino.blocks import Attention, Encoded, Inputs, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = "embeddings.word_embeddings.weight"
EPSILON = 1e-12  # fixed in the architecture, not in its config


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    size = config["dim"]
    words, vocabulary = blocks.word_embedding(weights, "embeddings.word_embeddings", inputs, size)
    placed, positions = blocks.absolute_positions(
        weights, "embeddings.position_embeddings", inputs, size
    )
    hidden = ops.add(words, placed)
    hidden = blocks.layer_norm(hidden, weights, "embeddings.LayerNorm", size, EPSILON)
    attention = Attention(config["n_heads"], size // config["n_heads"], inputs)
    bias = blocks.padding_bias(inputs.mask)
    for index in range(config["n_layers"]):
        hidden = _layer(hidden, weights, f"transformer.layer.{index}", bias, attention, config)
    return Encoded(hidden, size, vocabulary, positions)


def classify(_: Mapping[str, Any], weights: Weights, encoded: Encoded, inputs: Inputs) -> Node:
    outer, size = weights.outer(), encoded.width
    first = first_token(encoded, inputs)
    pooled = ops.relu(blocks.linear(first, outer, "pre_classifier", size, size))
    return last_linear(pooled, outer, "classifier", size)


def _layer(
    x: Node,
    weights: Weights,
    key: str,
    bias: Node,
    attention: Attention,
    config: Mapping[str, Any],
) -> Node:
    size, inner = config["dim"], config["hidden_dim"]
    q, k, v = (
        blocks.linear(x, weights, f"{key}.attention.{name}", size, size)
        for name in ("q_lin", "k_lin", "v_lin")
    )
    mixed = blocks.mix(q, k, v, bias, attention)
    x = ops.add(x, blocks.linear(mixed, weights, f"{key}.attention.out_lin", size, size))
    x = blocks.layer_norm(x, weights, f"{key}.sa_layer_norm", size, EPSILON)
    y = blocks.linear(x, weights, f"{key}.ffn.lin1", inner, size)
    y = blocks.activation(y, config.get("activation", "gelu"))
    y = blocks.linear(y, weights, f"{key}.ffn.lin2", size, inner)
    return blocks.layer_norm(ops.add(x, y), weights, f"{key}.output_layer_norm", size, EPSILON)
