"""The heads of masked language models, and their logits to one number for each word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from openvino import opset15 as ops

from omnivec.core.steps import Vocabulary
from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.blocks import Encoded, Inputs, Node, axis
from omnivec.runtimes._openvino.heads import first_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.nouns import Array, Floats
    from omnivec.core.steps import Head
    from omnivec.runtimes._openvino.weights import Weights

TOGETHER = 2048
"""Words whose logits are there at once, so that they stay in a core's cache: those of a whole
vocabulary are 62 MB for 512 tokens."""


class Layout(NamedTuple):
    """Every architecture's is a projection, an activation, a norm and a decoder, whose matrix is
    that of the word embeddings where the file has none."""

    dense: str
    norm: str
    decoder: str
    activation: str
    epsilon: float
    dense_bias: bool = True
    norm_bias: bool = True
    decoder_bias: bool = True

    @property
    def biases(self) -> tuple[str, str]:
        """The decoder's bias is shared by two modules, and a file has it under one of them."""
        return f"{self.decoder}.bias", f"{self.decoder.removesuffix('.decoder')}.bias"


def find(
    encoded: Encoded,
    head: Head,
    config: Mapping[str, Any],
    weights: Weights,
    inputs: Inputs,
    anchor: str,
) -> dict[str, Node]:
    """The outputs of a `head` of kind "words". `anchor` names the word embeddings among
    `weights`. Raises CheckpointError."""
    (step,) = (step for step in head.steps if isinstance(step, Vocabulary))
    layout = LAYOUTS[config["model_type"]](config)
    outer = weights.outer()
    hidden = _transform(encoded, layout, outer)
    matrix, bias = _decoder(encoded, layout, weights, anchor)
    rows = _own_places(inputs).spread(hidden)
    values = [
        _reduced(rows, step, matrix[at : at + TOGETHER], bias[at : at + TOGETHER], inputs)
        for at in range(0, len(matrix), TOGETHER)
    ]
    return _found(_finished(ops.concat(values, 1), step, inputs))


def _transform(encoded: Encoded, layout: Layout, outer: Weights) -> Node:
    """[P, H] to [P, H]."""
    size = encoded.width
    x = blocks.linear(encoded.hidden, outer, layout.dense, size, size, bias=layout.dense_bias)
    x = blocks.activation(x, layout.activation)
    return blocks.layer_norm(x, outer, layout.norm, size, layout.epsilon, bias=layout.norm_bias)


def _decoder(
    encoded: Encoded, layout: Layout, weights: Weights, anchor: str
) -> tuple[Floats, Floats]:
    """[V, H] and [V]."""
    outer, size = weights.outer(), encoded.width
    key = f"{layout.decoder}.weight"
    matrix = outer.take(key, None, size) if key in outer else weights.take(anchor, None, size)
    if not layout.decoder_bias:
        return matrix, np.zeros(len(matrix), np.float32)
    key = next((key for key in layout.biases if key in outer), layout.biases[-1])
    return matrix, outer.take(key, len(matrix))


def _own_places(inputs: Inputs) -> Inputs:
    """Places that repeat a row's first token wherever it keeps none: a greatest number is then
    the same as without them."""
    there = ops.greater(inputs.pooled, blocks.scalar(0, np.int64))
    first = ops.unsqueeze(first_place(inputs), blocks.shape(1))
    return inputs._replace(places=ops.select(there, inputs.places, first))


def _reduced(rows: Node, step: Vocabulary, matrix: Array, bias: Array, inputs: Inputs) -> Node:
    """[B, T, H] to [B, words]. The functions grow with their argument, so that they are done
    after the greatest was found; a sum is over what they give."""
    logits = ops.matmul(rows, blocks.constant(matrix), False, True)
    logits = ops.add(logits, blocks.constant(bias))
    if step.mode == "max":
        return ops.reduce_max(logits, blocks.shape(1))
    kept = ops.unsqueeze(blocks.floats(inputs.pooled), blocks.shape(2))
    return ops.reduce_sum(ops.multiply(_applied(logits, step), kept), blocks.shape(1))


def _applied(logits: Node, step: Vocabulary) -> Node:
    x = ops.relu(logits)
    for _ in range(step.function.count("log1p")):
        x = ops.log(ops.add(x, blocks.scalar(1)))
    return x


def _finished(values: Node, step: Vocabulary, inputs: Inputs) -> Node:
    if step.mode == "sum":
        return values
    some = ops.reduce_max(inputs.pooled, blocks.shape(1), keep_dims=True)
    return ops.multiply(_applied(values, step), blocks.floats(some))


def _found(values: Node) -> dict[str, Node]:
    """What is not 0 of [B, V]."""
    places = ops.non_zero(values, "i64")
    return {
        "output": ops.gather_nd(values, ops.transpose(places, blocks.shape(1, 0))),
        "rows": ops.gather(places, axis(0), axis(0)),
        "columns": ops.gather(places, axis(1), axis(0)),
    }


# ── the architectures ────────────────────────────────────────────────────────────────────


def _bert(config: Mapping[str, Any]) -> Layout:
    name, act = "cls.predictions", config.get("hidden_act", "gelu")
    transform = f"{name}.transform"
    norm = f"{transform}.LayerNorm"
    return Layout(f"{transform}.dense", norm, f"{name}.decoder", act, _epsilon(config))


def _roberta(config: Mapping[str, Any]) -> Layout:
    name = "lm_head"  # whose activation no config changes
    return Layout(
        f"{name}.dense", f"{name}.layer_norm", f"{name}.decoder", "gelu", _epsilon(config)
    )


def _distilbert(config: Mapping[str, Any]) -> Layout:
    act = config.get("activation", "gelu")
    return Layout("vocab_transform", "vocab_layer_norm", "vocab_projector", act, 1e-12)


def _modernbert(config: Mapping[str, Any]) -> Layout:
    return Layout(
        "head.dense",
        "head.norm",
        "decoder",
        config.get("classifier_activation", "gelu"),
        config.get("norm_eps", 1e-5),
        config.get("classifier_bias", False),
        config.get("norm_bias", False),
        config.get("decoder_bias", True),
    )


def _nomic_bert(config: Mapping[str, Any]) -> Layout:
    norm, act = "cls.predictions.transform.layer_norm", config.get("hidden_act", "silu")
    return _bert(config)._replace(norm=norm, activation=act)


def _epsilon(config: Mapping[str, Any]) -> float:
    return float(config.get("layer_norm_eps", 1e-12))


LAYOUTS = {
    "bert": _bert,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
    "mpnet": _roberta,
    "nomic_bert": _nomic_bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}
