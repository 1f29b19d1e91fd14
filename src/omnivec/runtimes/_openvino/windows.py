"""What each token sees, for attention over packed tokens: its whole row, or a window of it.

A window is computed in bands. The batch is read row by row as one line of B * T places, and
each block of Q places sees the Q + 2 L places from L before it to L behind it, whatever rows
they belong to, under a bias that closes the other rows. The cost is linear in the length.
"""

from __future__ import annotations

from typing import NamedTuple

from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.blocks import Attention, Inputs, Node, Rotation, axis, shape

BLOCK = 64  # query places: half of ModernBERT's window; 32 and 128 are slower
SHORT = 4  # halves of a window: up to there whole rows cost no more than bands


class View(NamedTuple):
    """`queries` [M, Q] and `keys` [M, K] say which packed tokens meet, `bias` [M, 1, Q or 1, K]
    which of them see each other, and `back` [P] where in M * Q each packed token is.

    `sees` [P, 1] is 0 for a token that sees none: its attention is 0, as torch has it. Only
    where a head keeps what nobody attends to can there be such a token.
    """

    queries: Node
    keys: Node
    bias: Node
    back: Node
    sees: Node | None = None


def whole(inputs: Inputs) -> View:
    """Every token of a row sees every other: M is B, and Q and K are T."""
    bias = blocks.padding_bias(inputs.mask)
    return View(inputs.places, inputs.places, bias, inputs.tokens)


def window(inputs: Inputs, half: int) -> View:
    """A token sees what is in its row and at most `half` places to either side. Short rows are
    a block each, so that none of their blocks sees another row."""
    width = blocks.width_of(inputs.mask)
    places = ops.reshape(inputs.places, shape(-1), False)
    count = ops.gather(ops.shape_of(places, "i64"), axis(0), axis(0))
    short = ops.less_equal(width, axis(SHORT * half))
    size = ops.select(short, width, ops.minimum(axis(BLOCK), count))
    last = ops.divide(ops.subtract(count, axis(1)), size)
    reach = ops.minimum(axis(half), ops.multiply(last, size))  # past all blocks are no keys
    reach = ops.select(short, axis(0), reach)
    starts = ops.multiply(_range(axis(0), ops.add(last, axis(1))), size)
    queries = _around(starts, axis(0), size)
    keys = _around(starts, ops.negative(reach), ops.add(size, reach))
    end = ops.subtract(count, axis(1))
    here, there = (ops.gather(places, _within(x, end), axis(0)) for x in (queries, keys))
    seen = ops.logical_and(
        _near(queries, keys, width, half), ops.unsqueeze(_real(inputs, keys, end), shape(1))
    )
    bias = ops.select(seen, blocks.scalar(0), blocks.scalar(blocks.MASKED))
    sees = _sees(seen, inputs) if inputs.kept else None
    return View(here, there, ops.unsqueeze(bias, shape(1)), inputs.tokens, sees)


def _sees(seen: Node, inputs: Inputs) -> Node:
    """[M, Q, K] to [P, 1]."""
    some = ops.reduce_max(blocks.floats(seen), shape(2))
    flat = ops.gather(ops.reshape(some, shape(-1), False), inputs.tokens, axis(0))
    return ops.unsqueeze(flat, shape(1))


def attend(qkv: Node, turn: Rotation, view: View, attention: Attention) -> Node:
    """qkv [P, 3 * N * D], of which `turn` turns and scales queries and keys, to [P, N * D]."""
    heads, size = attention.heads, attention.size
    split = ops.reshape(qkv, shape(1, -1, 3 * heads, size), False)
    parts = ops.variadic_split(split, axis(2), shape(2 * heads, heads)).outputs()
    turned = ops.reshape(blocks.rotate(parts[0], turn), shape(-1, heads, size), False)
    values = ops.reshape(parts[1], shape(-1, heads, size), False)
    twice = ops.multiply(view.keys, axis(2))
    q = _heads(turned, ops.multiply(view.queries, axis(2)))
    k = _heads(turned, ops.add(twice, axis(1)))
    v = _heads(values, view.keys)
    mixed = ops.scaled_dot_product_attention(q, k, v, view.bias, blocks.scalar(1))
    joined = ops.reshape(ops.transpose(mixed, shape(0, 2, 1, 3)), shape(-1, heads * size), False)
    found = ops.gather(joined, view.back, axis(0))
    return found if view.sees is None else ops.multiply(found, view.sees)


def _heads(x: Node, which: Node) -> Node:
    """Rows of [.., N, D] by [M, Q], to [M, N, Q, D]."""
    return ops.transpose(ops.gather(x, which, axis(0)), shape(0, 2, 1, 3))


def _near(queries: Node, keys: Node, width: Node, half: int) -> Node:
    """[M, Q, K]: in one row and within `half`. With a gap of `half` between the rows, one
    distance tells both."""
    here, there = (
        ops.add(x, ops.multiply(ops.divide(x, width), axis(half))) for x in (queries, keys)
    )
    away = ops.subtract(ops.unsqueeze(here, shape(2)), ops.unsqueeze(there, shape(1)))
    return ops.less_equal(ops.absolute(away), axis(half))


def _real(inputs: Inputs, keys: Node, end: Node) -> Node:
    """[M, K]: on the line, and a token."""
    within = _within(keys, end)
    tokens = ops.gather(ops.reshape(inputs.mask, shape(-1), False), within, axis(0))
    return ops.logical_and(ops.equal(keys, within), ops.greater(tokens, axis(0)))


def _range(start: Node, stop: Node) -> Node:
    return ops.range(start, stop, axis(1), "i64")


def _around(starts: Node, first: Node, end: Node) -> Node:
    """[M] to [M, end - first]."""
    return ops.add(ops.unsqueeze(starts, shape(1)), ops.unsqueeze(_range(first, end), shape(0)))


def _within(places: Node, end: Node) -> Node:
    return ops.minimum(ops.maximum(places, axis(0)), end)
