"""MobileCLIP's tower that reads texts (arXiv 2311.17049): CLIP's, whose tokens may see all of
a row, padding and all, and which in MobileCLIP-S0 has convolutions around its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks, tower
from omnivec.runtimes._openvino.blocks import Encoded, Inputs, Node, axis
from omnivec.runtimes._openvino.clip_text import ANCHOR, choose, finish
from omnivec.runtimes._openvino.convolutions import convolve
from omnivec.runtimes._openvino.tower import Biases

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

__all__ = ["ANCHOR", "choose", "encode", "finish"]


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    size = config["hidden_size"]
    hidden, encoded = tower.embed(config, weights, inputs)
    seen = blocks.padding_bias(inputs.mask)
    biases = tower.causal(inputs) if config["causal_mask"] else Biases(seen, seen)
    if config.get("convolutions"):
        whole = inputs._replace(chosen=None)
        hidden = _mix(hidden, config, weights, whole, "encoder.before")
        hidden = tower.layers(hidden, config, weights, whole, biases)
        hidden = _mix(hidden, config, weights, whole, "encoder.after")
        if inputs.chosen is not None:
            hidden = ops.gather(hidden, inputs.chosen, axis(0))
    else:
        hidden = tower.layers(hidden, config, weights, inputs, biases)
    hidden = blocks.layer_norm(hidden, weights, "final_layer_norm", size, config["layer_norm_eps"])
    return encoded._replace(hidden=hidden, chosen=inputs.chosen is not None)


def _mix(x: Node, config: Mapping[str, Any], weights: Weights, inputs: Inputs, key: str) -> Node:
    """[P, H] to [P, H]: each channel along its row, then a feed-forward that does so, too."""
    size = config["hidden_size"]
    turned = ops.transpose(inputs.spread(x), blocks.shape(0, 2, 1))
    mixed = convolve(turned, weights, f"{key}.mixer", 1)
    inner = convolve(mixed, weights, f"{key}.conv", 1)
    kept, inner = (
        inputs.pack(ops.transpose(one, blocks.shape(0, 2, 1)), size) for one in (mixed, inner)
    )
    return ops.add(kept, tower.feed_forward(inner, weights, f"{key}.mlp", config))
