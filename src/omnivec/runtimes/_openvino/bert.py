"""BERT, RoBERTa, XLM-RoBERTa and CamemBERT (arXiv 1810.04805, 1907.11692)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.blocks import Attention, Chosen, Encoded, Inputs, Node, axis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = "embeddings.word_embeddings.weight"


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    size, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
    hidden, encoded = _embed(config, weights, inputs)
    attention = Attention(
        config["num_attention_heads"], size // config["num_attention_heads"], inputs
    )
    bias = blocks.padding_bias(inputs.mask)
    last = config["num_hidden_layers"] - 1
    for index in range(last + 1):
        key = f"encoder.layer.{index}"
        chosen = Chosen(inputs) if index == last and inputs.chosen is not None else None
        mixed = _attend(hidden, weights, f"{key}.attention", bias, attention, chosen)
        hidden = ops.add(chosen.take(hidden) if chosen else hidden, mixed)
        hidden = blocks.layer_norm(
            hidden, weights, f"{key}.attention.output.LayerNorm", size, epsilon
        )
        given = weights.of_rows() if chosen else weights
        hidden = ops.add(hidden, feed_forward(hidden, given, key, config))
        hidden = blocks.layer_norm(hidden, weights, f"{key}.output.LayerNorm", size, epsilon)
    return encoded._replace(hidden=hidden, chosen=inputs.chosen is not None)


def classify(config: Mapping[str, Any], weights: Weights, encoded: Encoded, inputs: Inputs) -> Node:
    """BERT: tanh pooler, then `classifier`. RoBERTa: `classifier.dense`, tanh, `out_proj`."""
    first = first_token(encoded, inputs)
    outer = weights.outer()
    if config["model_type"] != "bert":
        return dense_head(first, outer, encoded.width)
    pooled = ops.tanh(blocks.linear(first, weights, "pooler.dense", encoded.width, encoded.width))
    return last_linear(pooled, outer, "classifier", encoded.width)


def first_token(encoded: Encoded, inputs: Inputs) -> Node:
    """Each row's first: [B, H]."""
    if encoded.chosen:
        return encoded.hidden
    return ops.gather(encoded.hidden, ops.gather(inputs.places, axis(0), axis(1)), axis(0))


def dense_head(first: Node, weights: Weights, size: int) -> Node:
    y = ops.tanh(blocks.linear(first, weights, "classifier.dense", size, size))
    return last_linear(y, weights, "classifier.out_proj", size)


def last_linear(x: Node, weights: Weights, key: str, size: int, *, bias: bool = True) -> Node:
    labels = weights.find(f"{key}.weight", None, size).shape[0]
    return blocks.linear(x, weights, key, labels, size, bias=bias)


def feed_forward(x: Node, weights: Weights, key: str, config: Mapping[str, Any]) -> Node:
    size, inner = config["hidden_size"], config["intermediate_size"]
    y = blocks.linear(x, weights, f"{key}.intermediate.dense", inner, size)
    y = blocks.activation(y, config.get("hidden_act", "gelu"))
    return blocks.linear(y, weights, f"{key}.output.dense", size, inner)


def _embed(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> tuple[Node, Encoded]:
    size = config["hidden_size"]
    key = "embeddings.position_embeddings"
    words, vocabulary = blocks.word_embedding(weights, "embeddings.word_embeddings", inputs, size)
    words, segments = blocks.segment_embedding(
        words, weights, "embeddings.token_type_embeddings", inputs, size
    )
    if config["model_type"] == "bert":
        placed, positions = blocks.absolute_positions(weights, key, inputs, size)
    else:
        padding = config.get("pad_token_id", 1)
        placed, positions = blocks.unpadded_positions(weights, key, inputs, size, padding)
    hidden = ops.add(words, placed)
    epsilon = config.get("layer_norm_eps", 1e-12)
    hidden = blocks.layer_norm(hidden, weights, "embeddings.LayerNorm", size, epsilon)
    return hidden, Encoded(hidden, size, vocabulary, positions, segments)


def _attend(
    x: Node,
    weights: Weights,
    key: str,
    bias: Node,
    attention: Attention,
    chosen: Chosen | None,
) -> Node:
    size = attention.heads * attention.size
    asking, given = (chosen.take(x), weights.of_rows()) if chosen else (x, weights)
    q = blocks.linear(asking, given, f"{key}.self.query", size, size)
    k, v = (blocks.linear(x, weights, f"{key}.self.{n}", size, size) for n in ("key", "value"))
    mixed = blocks.mix(q, k, v, bias, attention, chosen)
    return blocks.linear(mixed, given, f"{key}.output.dense", size, size)
