"""MPNet (arXiv 2004.09297): BERT with one relative position bias for all layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from openvino import opset15 as ops

from omnivec.runtimes._distances import FARTHEST, relative
from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.bert import dense_head, feed_forward, first_token
from omnivec.runtimes._openvino.blocks import Attention, Encoded, Inputs, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = "embeddings.word_embeddings.weight"
PADDING = 1  # fixed in the architecture, whatever config.json says


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    size, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
    heads = config["num_attention_heads"]
    attention = Attention(heads, size // heads, inputs)
    words, vocabulary = blocks.word_embedding(weights, "embeddings.word_embeddings", inputs, size)
    placed, positions = blocks.unpadded_positions(
        weights, "embeddings.position_embeddings", inputs, size, PADDING
    )
    hidden = ops.add(words, placed)
    hidden = blocks.layer_norm(hidden, weights, "embeddings.LayerNorm", size, epsilon)
    bias = ops.add(blocks.padding_bias(inputs.mask), _relative(weights, inputs.mask, heads))
    for index in range(config["num_hidden_layers"]):
        key = f"encoder.layer.{index}"
        hidden = ops.add(hidden, _attend(hidden, weights, f"{key}.attention.attn", bias, attention))
        hidden = blocks.layer_norm(hidden, weights, f"{key}.attention.LayerNorm", size, epsilon)
        hidden = ops.add(hidden, feed_forward(hidden, weights, key, config))
        hidden = blocks.layer_norm(hidden, weights, f"{key}.output.LayerNorm", size, epsilon)
    return Encoded(hidden, size, vocabulary, positions)


def classify(_: Mapping[str, Any], weights: Weights, encoded: Encoded, inputs: Inputs) -> Node:
    return dense_head(first_token(encoded, inputs), weights.outer(), encoded.width)


def _relative(weights: Weights, mask: Node, heads: int) -> Node:
    """[1, N, T, T]. The bias depends on the distance alone, and is flat from FARTHEST on, so
    it is laid out by distance once, as a constant, and gathered."""
    by_distance = relative(weights, heads)
    places = blocks.counted(mask)
    distance = ops.subtract(
        ops.unsqueeze(places, blocks.shape(1)), ops.unsqueeze(places, blocks.shape(0))
    )
    near = ops.clamp(distance, -FARTHEST, FARTHEST)
    rows = ops.add(near, blocks.scalar(FARTHEST, np.int64))
    bias = ops.gather(blocks.constant(by_distance), rows, blocks.scalar(1, np.int64))
    return ops.unsqueeze(bias, blocks.shape(0))


def _attend(x: Node, weights: Weights, key: str, bias: Node, attention: Attention) -> Node:
    size = attention.heads * attention.size
    q, k, v = (blocks.linear(x, weights, f"{key}.{name}", size, size) for name in "qkv")
    return blocks.linear(blocks.mix(q, k, v, bias, attention), weights, f"{key}.o", size, size)
