"""The tower of Chinese-CLIP that reads texts: BERT (arXiv 2211.01335)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnivec.runtimes._openvino import bert, tower
from omnivec.runtimes._openvino.blocks import Encoded, Inputs, Node
from omnivec.runtimes._openvino.heads import first_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.runtimes._openvino.weights import Weights

ANCHOR = bert.ANCHOR


def choose(config: Mapping[str, Any], inputs: Inputs) -> Node:
    del config
    return first_place(inputs)


def encode(config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> Encoded:
    return bert.encode({**config, "model_type": "bert"}, weights, inputs)


def finish(encoded: Encoded, weights: Weights) -> Node:
    """The first tokens [B, H] to [B, d]."""
    outer = weights.outer()
    return tower.projected(encoded.hidden, outer, "text_projection", encoded.width, bias=False)
