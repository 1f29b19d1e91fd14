"""What a network has only for its training, folded into the convolutions that it has at last.

A block of MobileOne (arXiv 2206.04040) is trained as a sum of convolutions, each with a batch
norm behind it, and of a batch norm of the input itself. All are linear, and so is their sum:
one convolution with a bias does the same. It is computed in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnivec.conversion.stock import Stock
    from omnivec.core.nouns import Array, Floats

EPSILON = 1e-5  # of every batch norm here, torch's default


class Convolution(NamedTuple):
    """float64: `weight` [out, in of a group, *kernel] and `bias` [out]."""

    weight: Array
    bias: Array

    def tensors(self, name: str) -> dict[str, Floats]:
        """As float32, by the names that a file has them under."""
        return {
            f"{name}.weight": np.ascontiguousarray(self.weight, np.float32),
            f"{name}.bias": np.ascontiguousarray(self.bias, np.float32),
        }

    def scaled(self, scale: Array) -> Convolution:
        """Its output times `scale` [out]."""
        each = scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        return Convolution(self.weight * each, self.bias * scale)


class Norm(NamedTuple):
    """x * scale + shift, float64 [channels] each: what a batch norm does to a channel."""

    scale: Array
    shift: Array


def norm(stock: Stock, key: str) -> Norm:
    """(x - mean) / sqrt(variance + EPSILON) * weight + bias."""
    weight, bias, mean, variance = (
        stock.take(f"{key}.{name}").astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(variance + EPSILON)
    return Norm(scale, bias - mean * scale)


def plain(stock: Stock, key: str) -> Convolution:
    """A convolution, or a linear layer, as it lies; without a bias where it has none."""
    weight = stock.take(f"{key}.weight").astype(np.float64)
    told = f"{key}.bias" in stock
    return Convolution(weight, stock.take(f"{key}.bias") if told else np.zeros(len(weight)))


def normed(stock: Stock, key: str) -> Convolution:
    """A convolution `key.conv` and the batch norm `key.bn` behind it."""
    made, after = plain(stock, f"{key}.conv"), norm(stock, f"{key}.bn")
    scaled = made.scaled(after.scale)
    return scaled._replace(bias=scaled.bias + after.shift)


def same(channels: int, shape: Sequence[int]) -> Convolution:
    """One of a weight of `shape` that gives its input back: `shape` is [out, in of a group,
    *kernel], the kernel's sides odd."""
    weight = np.zeros(tuple(shape))
    inner, middle = shape[1], tuple(side // 2 for side in shape[2:])
    for channel in range(channels):
        weight[(channel, channel % inner, *middle)] = 1
    return Convolution(weight, np.zeros(channels))


def widened(made: Convolution, shape: Sequence[int]) -> Convolution:
    """With zeros around its kernel, up to a weight of `shape`."""
    pairs = zip(made.weight.shape, shape, strict=True)
    sides = [((want - have) // 2,) * 2 for have, want in pairs]
    return made._replace(weight=np.pad(made.weight, sides))


def total(parts: Sequence[Convolution]) -> Convolution:
    return Convolution(
        np.sum([one.weight for one in parts], 0), np.sum([one.bias for one in parts], 0)
    )


def block(stock: Stock, key: str, shape: Sequence[int] | None = None) -> Convolution:
    """A block of MobileOne, folded. `shape` is that of its weight, for a block that has only a
    batch norm of its input. Raises CheckpointError."""
    if f"{key}.reparam_conv.weight" in stock:  # someone has done it before
        return plain(stock, f"{key}.reparam_conv")
    branches = range(stock.count(f"{key}.conv_kxk"))
    parts = [normed(stock, f"{key}.conv_kxk.{index}") for index in branches]
    shape = shape or (parts or [plain(stock, f"{key}.conv_kxk.0.conv")])[0].weight.shape
    if f"{key}.conv_scale.conv.weight" in stock:
        parts.append(widened(normed(stock, f"{key}.conv_scale"), shape))
    if f"{key}.identity.weight" in stock:
        after = norm(stock, f"{key}.identity")
        kept = same(len(after.scale), shape).scaled(after.scale)
        parts.append(kept._replace(bias=after.shift))
    return total(parts)


def mixer(stock: Stock, key: str) -> Convolution:
    """FastViT's RepMixer (arXiv 2303.14189), x + scale * (mixer(x) - norm(x)), folded."""
    if f"{key}.reparam_conv.weight" in stock:
        return plain(stock, f"{key}.reparam_conv")
    mixed = block(stock, f"{key}.mixer")
    less = block(stock, f"{key}.norm", mixed.weight.shape)
    inner = total([mixed, less.scaled(np.full(len(less.bias), -1.0))])
    scale = layer_scale(stock, f"{key}.layer_scale")
    inner = inner if scale is None else inner.scaled(scale)
    return total([same(len(inner.bias), inner.weight.shape), inner])


def layer_scale(stock: Stock, key: str) -> Array | None:
    """float64 [channels], where there is one."""
    name = f"{key}.gamma"
    return stock.take(name).astype(np.float64).reshape(-1) if name in stock else None
