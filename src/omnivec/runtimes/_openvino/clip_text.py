"""The tower of CLIP that reads texts (arXiv 2103.00020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from openvino import Type
from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks, tower
from omnivec.runtimes._openvino.blocks import Encoded, Inputs, Node
from omnivec.runtimes._openvino.heads import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = tower.ANCHOR
OLD_END = 2
"""`eos_token_id` of configurations older than the one that tells the real one: the last token
is then the one of the highest id, as transformers takes it."""


def choose(config: Mapping[str, Any], inputs: Inputs) -> Node:
    """The packed token of each row that ends it, int64 [B]; the first where none does."""
    ids, there = inputs.ids, ops.greater(inputs.mask, blocks.scalar(0, np.int64))
    if config["eos_token_id"] == OLD_END:
        real = ops.multiply(ids, inputs.mask)
        found = ops.equal(real, ops.reduce_max(real, blocks.shape(1), keep_dims=True))
    else:
        found = ops.equal(ids, blocks.scalar(int(config["eos_token_id"]), np.int64))
    return place_of(ops.convert(ops.logical_and(found, there), Type.i64), inputs)


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    size = config["hidden_size"]
    hidden, encoded = tower.embed(config, weights, inputs)
    hidden = tower.layers(hidden, config, weights, inputs, tower.causal(inputs))
    hidden = blocks.layer_norm(hidden, weights, "final_layer_norm", size, config["layer_norm_eps"])
    return encoded._replace(hidden=hidden, chosen=inputs.chosen is not None)


def finish(encoded: Encoded, weights: Weights) -> Node:
    """The chosen tokens [B, H] to [B, d]."""
    outer = weights.outer()
    return tower.projected(encoded.hidden, outer, "text_projection", encoded.width, bias=False)
