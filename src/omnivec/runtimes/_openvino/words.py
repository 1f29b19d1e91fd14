"""Masked language models' logits to one number for each word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from openvino import opset15 as ops

from omnivec.core.steps import Vocabulary
from omnivec.runtimes._languages import LAYOUTS, decoder
from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.blocks import Encoded, Inputs, Node, axis
from omnivec.runtimes._openvino.heads import first_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.nouns import Array
    from omnivec.core.steps import Head
    from omnivec.runtimes._languages import Layout
    from omnivec.runtimes._openvino.weights import Weights

TOGETHER = 2048
"""Words whose logits are there at once, so that they stay in a core's cache: those of a whole
vocabulary are 62 MB for 512 tokens."""


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
    matrix, bias = decoder(layout, weights, anchor, encoded.width)
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
