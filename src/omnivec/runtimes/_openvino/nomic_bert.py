"""NomicBert (arXiv 2402.01613): BERT with rotary positions, a gated feed-forward, no biases.

A checkpoint comes in two spellings. The hub's repositories (config of their own code: n_embd,
n_inner, …; keys `encoder.layers.0.attn.Wqkv`, `fc11`) are also what transformers 5 writes;
transformers' own names (`layers.0.self_attn.q_proj`) are what it has in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.bert import first_token, last_linear
from omnivec.runtimes._openvino.blocks import Attention, Encoded, Inputs, Node, Rotation, axis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = "embeddings.word_embeddings.weight"
_HUB = {  # transformers' name in config.json to the hub's
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
}
_GATES = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}


class _Names(NamedTuple):
    """Where a spelling keeps the parts of layer N (`{}`) and the norm of the embeddings."""

    embedded: str
    layer: str
    attended: str  # the projection after attention
    up: str
    gate: str
    down: str
    norms: tuple[str, str]


_OF_HUB = _Names(
    "emb_ln", "encoder.layers.{}", "attn.out_proj", "mlp.fc11", "mlp.fc12", "mlp.fc2",
    ("norm1", "norm2"),
)  # fmt: skip
_OF_TRANSFORMERS = _Names(
    "embeddings.LayerNorm", "layers.{}", "self_attn.o_proj", "mlp.up_proj", "mlp.gate_proj",
    "mlp.down_proj", ("post_attention_layernorm", "post_mlp_layernorm"),
)  # fmt: skip


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    config = unify(config)
    size, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
    attention = Attention(
        config["num_attention_heads"], size // config["num_attention_heads"], inputs
    )
    names = _OF_HUB if "emb_ln.weight" in weights else _OF_TRANSFORMERS
    hidden, vocabulary = blocks.word_embedding(weights, "embeddings.word_embeddings", inputs, size)
    hidden, segments = blocks.segment_embedding(
        hidden, weights, "embeddings.token_type_embeddings", inputs, size
    )
    hidden = blocks.layer_norm(hidden, weights, names.embedded, size, epsilon)
    bias = blocks.padding_bias(inputs.mask)
    turn = blocks.rotation(inputs.mask, attention.size, theta(config))
    for index in range(config["num_hidden_layers"]):
        key = names.layer.format(index)
        mixed = _attend(hidden, weights, key, bias, turn, attention)
        hidden = ops.add(hidden, _linear(mixed, weights, f"{key}.{names.attended}", size, size))
        hidden = blocks.layer_norm(hidden, weights, f"{key}.{names.norms[0]}", size, epsilon)
        hidden = ops.add(hidden, _feed_forward(hidden, weights, key, names, config))
        hidden = blocks.layer_norm(hidden, weights, f"{key}.{names.norms[1]}", size, epsilon)
    return Encoded(hidden, size, vocabulary, segments=segments)


def classify(_: Mapping[str, Any], weights: Weights, encoded: Encoded, inputs: Inputs) -> Node:
    size = encoded.width
    pooled = blocks.linear(first_token(encoded, inputs), weights, "pooler.dense", size, size)
    return last_linear(ops.tanh(pooled), weights.outer(), "classifier", size)


def unify(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with transformers' names, whichever it came with."""
    renamed = {ours: config[theirs] for ours, theirs in _HUB.items() if theirs in config}
    gate = config.get("activation_function")
    if gate in _GATES:
        renamed["hidden_act"] = _GATES[gate]
    return {**renamed, **config}


def theta(config: Mapping[str, Any]) -> float:
    told = config.get("rope_parameters") or {}
    return float(
        told.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base") or 1000
    )


def _linear(x: Node, weights: Weights, key: str, out: int, inner: int) -> Node:
    return blocks.linear(x, weights, key, out, inner, bias=f"{key}.bias" in weights)


def _attend(
    x: Node, weights: Weights, key: str, bias: Node, turn: Rotation, attention: Attention
) -> Node:
    size = attention.heads * attention.size
    if f"{key}.attn.Wqkv.weight" in weights:
        qkv = _linear(x, weights, f"{key}.attn.Wqkv", 3 * size, size)
        parts = ops.split(qkv, axis(1), 3).outputs()
    else:
        parts = [_linear(x, weights, f"{key}.self_attn.{name}_proj", size, size) for name in "qkv"]
    q, k, v = (blocks.heads_of(part, attention) for part in parts)
    return blocks.attend(blocks.rotate(q, turn), blocks.rotate(k, turn), v, bias, attention)


def _feed_forward(
    x: Node, weights: Weights, key: str, names: _Names, config: Mapping[str, Any]
) -> Node:
    size, inner = config["hidden_size"], config["intermediate_size"]
    up = _linear(x, weights, f"{key}.{names.up}", inner, size)
    gate = _linear(x, weights, f"{key}.{names.gate}", inner, size)
    gate = blocks.activation(gate, config.get("hidden_act", "silu"))
    return _linear(ops.multiply(gate, up), weights, f"{key}.{names.down}", size, inner)
