"""The parts that the architectures share, written with the OpenVINO opset.

Every function takes and gives graph nodes. T is the width of the batch, B its rows, H the
hidden size, N the attention heads and D a head's size; all but B and T are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from openvino import Type
from openvino import opset15 as ops

from omnivec.core.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnivec.core.nouns import Array
    from omnivec.runtimes._openvino.weights import Weights

Node: TypeAlias = Any  # openvino.Node; its stubs are not read

MASKED = -1e9  # finite, so that a row without a single token gives numbers and not NaN


class Inputs(NamedTuple):
    """The graph's parameters, each int64 [B, T]."""

    ids: Node
    mask: Node
    segments: Node
    pooled: Node


class Encoded(NamedTuple):
    """`hidden` [B, T, width]; `positions` is the longest row, None where there is no end."""

    hidden: Node
    width: int
    vocabulary: int
    positions: int | None = None
    segments: int = 0


class Attention(NamedTuple):
    heads: int
    size: int

    @property
    def scale(self) -> float:
        return float(self.size**-0.5)


def constant(array: Array) -> Node:
    """Shares the array's memory, which the caller's `Weights` may have mapped from a file."""
    return ops.constant(np.ascontiguousarray(array), shared_memory=True)


def scalar(value: float, dtype: type = np.float32) -> Node:
    return ops.constant(np.array(value, dtype))


def shape(*sizes: int) -> Node:
    return ops.constant(np.array(sizes, np.int64))


def width_of(node: Node, axis: int = 1) -> Node:
    """The size of an axis, int64 scalar."""
    return ops.gather(ops.shape_of(node, "i64"), scalar(axis, np.int64), scalar(0, np.int64))


def floats(node: Node) -> Node:
    return ops.convert(node, Type.f32)


# ── projections and norms ────────────────────────────────────────────────────────────────


def linear(x: Node, weights: Weights, key: str, out: int, inner: int, *, bias: bool = True) -> Node:
    """x [.., inner] to x W^T + b [.., out], from `key`.weight [out, inner] and `key`.bias."""
    y = ops.matmul(x, constant(weights.take(f"{key}.weight", out, inner)), False, True)
    return ops.add(y, constant(weights.take(f"{key}.bias", out))) if bias else y


def layer_norm(
    x: Node, weights: Weights, key: str, size: int, epsilon: float, *, bias: bool = True
) -> Node:
    """Over the last axis, with `key`.weight and `key`.bias (`gamma`, `beta` in old files)."""
    old = f"{key}.gamma" in weights
    y = ops.mvn(x, shape(-1), True, epsilon, "inside_sqrt")
    y = ops.multiply(y, constant(weights.take(f"{key}.{'gamma' if old else 'weight'}", size)))
    return (
        ops.add(y, constant(weights.take(f"{key}.{'beta' if old else 'bias'}", size)))
        if bias
        else y
    )


def embedding(weights: Weights, key: str, ids: Node, size: int) -> tuple[Node, int]:
    """Rows of `key`.weight [rows, size] by ids; and how many rows there are."""
    table = weights.take(f"{key}.weight", None, size)
    return ops.gather(constant(table), ids, scalar(0, np.int64)), len(table)


def segment_embedding(
    x: Node, weights: Weights, key: str, segments: Node, size: int
) -> tuple[Node, int]:
    """x plus its segments' embeddings, and how many segments there are (0: no such table)."""
    if f"{key}.weight" not in weights:
        return x, 0
    kinds, count = embedding(weights, key, segments, size)
    return ops.add(x, kinds), count


ACTIVATIONS: Mapping[str, Callable[[Node], Node]] = {
    "gelu": lambda x: ops.gelu(x, "erf"),
    "gelu_python": lambda x: ops.gelu(x, "erf"),
    "gelu_new": lambda x: ops.gelu(x, "tanh"),
    "gelu_fast": lambda x: ops.gelu(x, "tanh"),
    "gelu_pytorch_tanh": lambda x: ops.gelu(x, "tanh"),
    "relu": ops.relu,
    "silu": ops.swish,
    "swish": ops.swish,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "mish": ops.mish,
}


def activation(x: Node, name: str) -> Node:
    """By transformers' name (`hidden_act`). Raises CheckpointError for an unknown one."""
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"the activation {name!r} of config.json is not one of {', '.join(ACTIVATIONS)}; "
            "use the torch runtime"
        )
    return ACTIVATIONS[name](x)


# ── attention ────────────────────────────────────────────────────────────────────────────


def padding_bias(mask: Node) -> Node:
    """[B, T] to [B, 1, 1, T]: 0 where there is a token, MASKED where there is none."""
    hidden = ops.multiply(ops.subtract(scalar(1), floats(mask)), scalar(MASKED))
    return ops.unsqueeze(hidden, shape(1, 2))


def heads_of(x: Node, attention: Attention) -> Node:
    """[B, T, N * D] to [B, N, T, D]."""
    split = ops.reshape(x, shape(0, 0, attention.heads, attention.size), True)
    return ops.transpose(split, shape(0, 2, 1, 3))


def attend(q: Node, k: Node, v: Node, bias: Node, attention: Attention) -> Node:
    """Softmax(q k^T * D^-1/2 + bias) v, of [B, N, T, D] each, to [B, T, N * D]."""
    mixed = ops.scaled_dot_product_attention(q, k, v, bias, scalar(attention.scale))
    joined = ops.transpose(mixed, shape(0, 2, 1, 3))
    return ops.reshape(joined, shape(0, 0, attention.heads * attention.size), True)


# ── positions ────────────────────────────────────────────────────────────────────────────


def counted(node: Node) -> Node:
    """0, 1, 2 … up to the width of [B, T]: int64 [T]."""
    return ops.range(scalar(0, np.int64), width_of(node), scalar(1, np.int64), "i64")


def absolute_positions(weights: Weights, key: str, ids: Node, size: int) -> tuple[Node, int]:
    """Learned positions 0, 1, 2 …: [T, size], and how many there are. Columns past the end
    can only be padding (the session sees to that) and repeat the last position."""
    table = weights.take(f"{key}.weight", None, size)
    rows = ops.minimum(counted(ids), scalar(len(table) - 1, np.int64))
    return ops.gather(constant(table), rows, scalar(0, np.int64)), len(table)


def unpadded_positions(
    weights: Weights, key: str, ids: Node, size: int, padding: int
) -> tuple[Node, int]:
    """As fairseq and RoBERTa count them: [B, T, size], and the longest row. Padding has
    position `padding`, the first other token `padding` + 1."""
    table = weights.take(f"{key}.weight", None, size)
    real = ops.convert(ops.not_equal(ids, scalar(padding, np.int64)), Type.i64)
    count = ops.multiply(ops.cum_sum(real, scalar(1, np.int64)), real)
    rows = ops.add(count, scalar(padding, np.int64))
    rows = ops.minimum(rows, scalar(len(table) - 1, np.int64))
    return ops.gather(constant(table), rows, scalar(0, np.int64)), len(table) - padding - 1


class Rotation(NamedTuple):
    """Cosines and sines [T, D], each frequency twice: for the first and the second half."""

    cosine: Node
    sine: Node


def rotation(ids: Node, size: int, theta: float) -> Rotation:
    """Rotary positions (arXiv 2104.09864) for heads of `size`, computed in float32."""
    frequencies = 1.0 / (theta ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size)))
    angles = ops.multiply(
        ops.unsqueeze(floats(counted(ids)), shape(1)),
        constant(np.concatenate([frequencies, frequencies])[None].astype(np.float32)),
    )
    return Rotation(ops.cos(angles), ops.sin(angles))


def rotate(x: Node, turn: Rotation) -> Node:
    """x [B, N, T, D] turned by its position: x cos + (-second half, first half) sin."""
    first, second = ops.split(x, scalar(3, np.int64), 2).outputs()
    crossed = ops.concat([ops.negative(second), first], 3)
    return ops.add(ops.multiply(x, turn.cosine), ops.multiply(crossed, turn.sine))
