"""The parts that the architectures share, written with the OpenVINO opset.

Every function takes and gives graph nodes. B is the batch's rows, T its width, P how many
tokens there are in it besides padding, H the hidden size, N the attention heads and D a head's
size; all but B, T and P are known.

Hidden states are packed: [P, H], so that layers which treat each token by itself spend nothing
on padding. Only attention and pooling, which need to know whose a token is, lay them out as
rows of one width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import openvino as ov
from openvino import Type
from openvino import opset15 as ops

from omnivec.core.checkpoint import CheckpointError
from omnivec.runtimes._openvino import int8

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnivec.core.nouns import Array
    from omnivec.core.tensors import Tensor
    from omnivec.runtimes._openvino.weights import Weights

Node: TypeAlias = Any  # openvino.Node; its stubs are not read

HALVES = ("BF16", "F16")
MASKED = -1e9  # finite, so that a row without a single token gives numbers and not NaN


class Inputs(NamedTuple):
    """The graph's parameters, each int64 [B, T] but for `tokens` and `kept`.

    `tokens` [P] says where in the batch, read row by row, each packed token comes from;
    `places` which packed token goes where, and any of them where there is padding; `kept` [K]
    which packed tokens a head of single tokens reads, by the head's name.
    """

    ids: Node
    mask: Node
    segments: Node
    pooled: Node
    tokens: Node
    places: Node
    kept: Mapping[str, Node]
    chosen: Node | None = None
    """[B]: the one packed token of each row that the head reads, when it reads no other."""

    def pack(self, x: Node, *rest: int) -> Node:
        """[B, T, *rest] to [P, *rest]."""
        return ops.gather(ops.reshape(x, shape(-1, *rest), False), self.tokens, axis(0))

    def spread(self, x: Node) -> Node:
        """[P, H] to [B, T, H]."""
        return ops.gather(x, self.places, axis(0))


class Rows(Protocol):
    """Whose a packed token is: Inputs, or what stands for it where there is no padding."""

    @property
    def chosen(self) -> Node | None: ...

    def pack(self, x: Node, *rest: int) -> Node: ...

    def spread(self, x: Node) -> Node: ...


class Chosen(NamedTuple):
    """One token of each row, in place of all: [B, H] in place of [P, H]."""

    inputs: Rows

    def take(self, x: Node) -> Node:
        """[P, H] to [B, H]."""
        return ops.gather(x, self.inputs.chosen, axis(0))

    def pack(self, x: Node, *rest: int) -> Node:
        """[B, 1, *rest] to [B, *rest]."""
        return ops.reshape(x, shape(-1, *rest), False)

    def spread(self, x: Node) -> Node:
        """[B, H] to [B, 1, H]."""
        return ops.unsqueeze(x, shape(1))


class Encoded(NamedTuple):
    """`hidden` [P, width], or [B, width] when it is of the chosen tokens alone; `positions` is
    the longest row, None where there is no end. `adapters` is how many there are."""

    hidden: Node
    width: int
    vocabulary: int
    positions: int | None = None
    segments: int = 0
    chosen: bool = False
    adapters: int = 0


class Attention(NamedTuple):
    heads: int
    size: int
    inputs: Rows

    @property
    def scale(self) -> float:
        return float(self.size**-0.5)


def constant(array: Array) -> Node:
    """Shares the array's memory, which the caller's `Weights` may have mapped from a file."""
    return ops.constant(np.ascontiguousarray(array), shared_memory=True)


def parameter(name: str, kind: Type, *sizes: int) -> Node:
    """An input of the graph; a size of -1 is the batch's to choose."""
    made = ops.parameter(list(sizes), kind, name)
    made.get_output_tensor(0).set_names({name})
    return made


def result(name: str, node: Node) -> Node:
    made = ops.result(node)
    made.get_output_tensor(0).set_names({name})
    return made


def as_stored(tensor: Tensor) -> Node:
    """The tensor as it lies in its file, whose memory is shared: in bf16 and f16, too."""
    if tensor.dtype != "BF16":
        array = tensor.stored if tensor.dtype == "F16" else tensor.floats()
        return constant(array)
    array = np.ascontiguousarray(tensor.stored)
    lying = ov.Tensor(array, list(array.shape), Type.bf16)
    return ov.op.Constant(lying, shared_memory=True)


def stored(tensor: Tensor) -> Node:
    """As float32 in the graph; what the file has in half precision is not widened in memory."""
    if tensor.dtype not in HALVES:
        return as_stored(tensor)
    widened = floats(as_stored(tensor))
    widened.get_rt_info()["decompression_0"] = ""
    return widened


def scalar(value: float, dtype: type = np.float32) -> Node:
    return ops.constant(np.array(value, dtype))


def axis(number: int) -> Node:
    return scalar(number, np.int64)


def shape(*sizes: int) -> Node:
    return ops.constant(np.array(sizes, np.int64))


def width_of(node: Node) -> Node:
    """T of [B, T], int64 scalar."""
    return ops.gather(ops.shape_of(node, "i64"), axis(1), axis(0))


def floats(node: Node) -> Node:
    return ops.convert(node, Type.f32)


# ── projections and norms ────────────────────────────────────────────────────────────────


def linear(x: Node, weights: Weights, key: str, out: int, inner: int, *, bias: bool = True) -> Node:
    """x [.., inner] to x W^T + b [.., out], from `key`.weight [out, inner] and `key`.bias."""
    weight = weights.find(f"{key}.weight", out, inner)
    rounded = weights.rounding and int8.bears(key)
    matrix = int8.matrix(weight.floats()) if rounded else stored(weight)
    y = ops.matmul(x, matrix, False, True)
    y = ops.add(y, constant(weights.take(f"{key}.bias", out))) if bias else y
    return weights.updates.add(y, x, weights.prefix + key) if weights.updates else y


def layer_norm(
    x: Node, weights: Weights, key: str, size: int, epsilon: float, *, bias: bool = True
) -> Node:
    """Over the last axis, with `key`.weight and `key`.bias (`gamma`, `beta` in old files)."""
    scale, *shift = map(constant, weights.norm(key, size, bias=bias))
    y = ops.multiply(ops.mvn(x, shape(-1), True, epsilon, "inside_sqrt"), scale)
    return ops.add(y, *shift) if shift else y


def rms_norm(
    x: Node, weights: Weights, key: str, size: int, epsilon: float, unit: float = 0.0
) -> Node:
    """x / rms(x) over the last axis, times `key`.weight + `unit` (arXiv 1910.07467).

    Spelled so that OpenVINO finds its RMS operation in it, which sums squares in float32."""
    mean = ops.reduce_mean(ops.power(x, scalar(2)), shape(-1), keep_dims=True)
    scale = ops.divide(scalar(1), ops.sqrt(ops.add(mean, scalar(epsilon))))
    weight = weights.take(f"{key}.weight", size)
    weight = weight + np.float32(unit) if unit else weight
    return ops.multiply(constant(weight), ops.multiply(x, scale))


def embedding(weights: Weights, key: str, ids: Node, size: int) -> tuple[Node, int]:
    """Rows of `key`.weight [rows, size] by ids; and how many rows there are."""
    table = weights.find(f"{key}.weight", None, size)
    return floats(ops.gather(as_stored(table), ids, axis(0))), table.shape[0]


def word_embedding(weights: Weights, key: str, inputs: Inputs, size: int) -> tuple[Node, int]:
    """[P, size], and how many words there are."""
    return embedding(weights, key, inputs.pack(inputs.ids), size)


def segment_embedding(
    x: Node, weights: Weights, key: str, inputs: Inputs, size: int
) -> tuple[Node, int]:
    """x plus its segments' embeddings, and how many segments there are (0: no such table)."""
    if f"{key}.weight" not in weights:
        return x, 0
    kinds, count = embedding(weights, key, inputs.pack(inputs.segments), size)
    return ops.add(x, kinds), count


ACTIVATIONS: Mapping[str, Callable[[Node], Node]] = {
    "gelu": lambda x: ops.gelu(x, "erf"),
    "gelu_python": lambda x: ops.gelu(x, "erf"),
    "gelu_new": lambda x: ops.gelu(x, "tanh"),
    "gelu_fast": lambda x: ops.gelu(x, "tanh"),
    "gelu_pytorch_tanh": lambda x: ops.gelu(x, "tanh"),
    "quick_gelu": lambda x: ops.swish(x, scalar(1.702)),
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


def heads_of(x: Node, attention: Attention, chosen: Chosen | None = None) -> Node:
    """[P, N * D] to [B, N, T, D]; of chosen tokens [B, N * D] to [B, N, 1, D]."""
    rows = (chosen or attention.inputs).spread(x)
    split = ops.reshape(rows, shape(0, 0, attention.heads, attention.size), True)
    return ops.transpose(split, shape(0, 2, 1, 3))


def repeat_heads(x: Node, groups: int, heads: int) -> Node:
    """[P, groups, D] to [P, heads, D]: each as often as it serves a head of queries."""
    if groups == heads:
        return x
    which = np.repeat(np.arange(groups), heads // groups)
    return ops.gather(x, ops.constant(which), axis(1))


def attend(
    q: Node, k: Node, v: Node, bias: Node | None, attention: Attention, chosen: Chosen | None = None
) -> Node:
    """Softmax(q k^T * D^-1/2 + bias) v, of [B, N, T, D] each, to [P, N * D]; when q is of chosen
    tokens, to [B, N * D]."""
    if bias is None:
        mixed = ops.scaled_dot_product_attention(q, k, v)
    else:
        mixed = ops.scaled_dot_product_attention(q, k, v, bias, scalar(attention.scale))
    joined = ops.transpose(mixed, shape(0, 2, 1, 3))
    return (chosen or attention.inputs).pack(joined, attention.heads * attention.size)


def mix(
    q: Node, k: Node, v: Node, bias: Node | None, attention: Attention, chosen: Chosen | None = None
) -> Node:
    """`attend` of packed [P, N * D] each; q of chosen tokens is [B, N * D]."""
    q, k, v = heads_of(q, attention, chosen), heads_of(k, attention), heads_of(v, attention)
    return attend(q, k, v, bias, attention, chosen)


# ── positions ────────────────────────────────────────────────────────────────────────────


def counted(node: Node) -> Node:
    """0, 1, 2 … up to the width of [B, T]: int64 [T]."""
    return ops.range(axis(0), width_of(node), scalar(1, np.int64), "i64")


def absolute_positions(weights: Weights, key: str, inputs: Inputs, size: int) -> tuple[Node, int]:
    """Learned positions 0, 1, 2 … in each row: [P, size], and how many there are."""
    table = weights.take(f"{key}.weight", None, size)
    columns = ops.mod(inputs.tokens, width_of(inputs.mask))
    return ops.gather(constant(table), columns, axis(0)), len(table)


def unpadded_positions(
    weights: Weights, key: str, inputs: Inputs, size: int, padding: int
) -> tuple[Node, int]:
    """As fairseq and RoBERTa count them: [P, size], and the longest row. Padding has
    position `padding`, the first other token `padding` + 1."""
    table = weights.take(f"{key}.weight", None, size)
    real = ops.convert(ops.not_equal(inputs.ids, scalar(padding, np.int64)), Type.i64)
    count = ops.multiply(ops.cum_sum(real, axis(1)), real)
    rows = ops.add(inputs.pack(count), scalar(padding, np.int64))
    return ops.gather(constant(table), rows, axis(0)), len(table) - padding - 1


class Rotation(NamedTuple):
    """Cosines and sines [1, 1, T, D] (or [1, P, 1, D]: packed), each frequency twice: for the
    first and the second half, of `half` each."""

    cosine: Node
    sine: Node
    half: int

    def of(self, chosen: Chosen | None) -> Rotation:
        """Of the chosen tokens alone, where the others are packed."""
        if chosen is None:
            return self
        cosine, sine = (
            ops.gather(one, chosen.inputs.chosen, axis(1)) for one in (self.cosine, self.sine)
        )
        return Rotation(cosine, sine, self.half)


def rotation(mask: Node, size: int, theta: float) -> Rotation:
    """Rotary positions (arXiv 2104.09864) for heads of `size`, computed in float32."""
    return _rotation(ops.unsqueeze(floats(counted(mask)), shape(0, 1, 3)), size, theta)


def _rotation(places: Node, size: int, theta: float) -> Rotation:
    frequencies = 1.0 / (theta ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size)))
    both = np.concatenate([frequencies, frequencies])
    angles = ops.multiply(places, constant(both.astype(np.float32)))
    return Rotation(ops.cos(angles), ops.sin(angles), size // 2)


def packed_rotation(
    inputs: Inputs, size: int, theta: float, scale: float | None = None
) -> Rotation:
    """As `rotation`, for packed tokens [1, P, N, D]: cosines and sines [1, P, 1, D]. They are
    times the root of `scale` (None: D^-1/2), so that queries and keys which both were turned
    need none."""
    columns = ops.mod(inputs.tokens, width_of(inputs.mask))
    turn = _rotation(ops.unsqueeze(floats(columns), shape(0, 2, 3)), size, theta)
    each = scalar((size**-0.5 if scale is None else scale) ** 0.5)
    return Rotation(ops.multiply(turn.cosine, each), ops.multiply(turn.sine, each), turn.half)


def rotate(x: Node, turn: Rotation) -> Node:
    """x [.., .., .., D] turned by its position: x cos + (-second half, first half) sin.

    Spelled so that OpenVINO finds its RoPE operation in it. That is one kernel and not six,
    and it keeps the angles in float32: in bf16 those of places beyond 256 would be nonsense.
    """
    half = shape(turn.half, turn.half)
    first, second = ops.variadic_split(x, axis(3), half).outputs()
    crossed = ops.concat([ops.multiply(second, scalar(-1)), first], -1)
    return ops.add(ops.multiply(x, turn.cosine), ops.multiply(crossed, turn.sine))
