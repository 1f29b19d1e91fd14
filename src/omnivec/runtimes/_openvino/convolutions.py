"""Layers of networks that convolve, on [B, C, *sides]: channels come before the sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks

if TYPE_CHECKING:
    from omnivec.core.nouns import Array
    from omnivec.core.steps import Scale
    from omnivec.runtimes._openvino.blocks import Node
    from omnivec.runtimes._openvino.weights import Weights

CHANNELS = 3


def scaled(pixels: Node, scale: Scale) -> Node:
    """Bytes [B, S, S, 3] to (x * factor - mean) / std, [B, 3, S, S]."""
    x = ops.transpose(blocks.floats(pixels), blocks.shape(0, 3, 1, 2))
    mean, spread = (np.asarray(one, np.float64) for one in (scale.mean, scale.std))
    x = ops.multiply(x, _channels(scale.factor / spread))
    return ops.subtract(x, _channels(mean / spread)) if mean.any() else x


def _channels(values: Array) -> Node:
    return blocks.constant(values.astype(np.float32).reshape(1, CHANNELS, 1, 1))


def convolve(
    x: Node,
    weights: Weights,
    key: str,
    axes: int = 2,
    *,
    stride: int = 1,
    border: int | None = None,
) -> Node:
    """x [B, in, *sides] to [B, out, *sides / stride], from `key`.weight [out, in, *kernel] and
    `key`.bias [out]. A weight [out, 1, *kernel] is for each channel by itself. Around the sides
    are `border` zeros, half the kernel if it is None."""
    kernel = weights.find(f"{key}.weight", None, None, *[None] * axes)
    out, inner, *sides = kernel.shape
    padding = [side // 2 if border is None else border for side in sides]
    told = [stride] * axes, padding, padding, [1] * axes
    if inner == 1:
        channels = x.get_output_partial_shape(0)[1].get_length()
        split = kernel.stored.reshape(channels, out // channels, 1, *sides)
        y = ops.group_convolution(x, blocks.stored(kernel._replace(stored=split)), *told)
    else:
        y = ops.convolution(x, blocks.stored(kernel), *told)
    bias = weights.take(f"{key}.bias", out).reshape(1, out, *[1] * axes)
    return ops.add(y, blocks.constant(bias))


def squeeze(x: Node, weights: Weights, key: str) -> Node:
    """x [B, C, H, W] with each channel times what all of them are on average (squeeze and
    excitation, arXiv 1709.01507)."""
    mean = ops.reduce_mean(x, blocks.shape(2, 3), keep_dims=True)
    inner = ops.relu(convolve(mean, weights, f"{key}.fc1"))
    return ops.multiply(x, ops.sigmoid(convolve(inner, weights, f"{key}.fc2")))
