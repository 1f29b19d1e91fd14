"""The tower of SigLIP and SigLIP 2 that reads texts (arXiv 2303.15343, 2502.14786)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnivec.runtimes._openvino import blocks, tower
from omnivec.runtimes._openvino.blocks import Encoded, Inputs, Node
from omnivec.runtimes._openvino.tower import Biases

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = tower.ANCHOR


def choose(config: Mapping[str, Any], inputs: Inputs) -> Node:
    """The packed token in each row's last column, which is nearly always padding."""
    del config
    return tower.last_place(inputs)


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    size = config["hidden_size"]
    hidden, encoded = tower.embed(config, weights, inputs)
    bias = blocks.padding_bias(inputs.mask)
    hidden = tower.layers(hidden, config, weights, inputs, Biases(bias, bias))
    hidden = blocks.layer_norm(hidden, weights, "final_layer_norm", size, config["layer_norm_eps"])
    return encoded._replace(hidden=hidden, chosen=inputs.chosen is not None)


def finish(encoded: Encoded, weights: Weights) -> Node:
    """The chosen tokens [B, H] to [B, d]."""
    return tower.projected(encoded.hidden, weights, "head", encoded.width, bias=True)
