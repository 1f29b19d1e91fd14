"""Attention over packed tokens that looks back only, or through a window, or both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.blocks import Chosen, Inputs, Node, axis, scalar, shape

if TYPE_CHECKING:
    from collections.abc import Sequence


class Layout(NamedTuple):
    """Each row's tokens from its first place on, whichever side was padded: then all before a
    token are its own, and looking back needs no mask of the padding.

    `places` [B, W] says which packed token is where, and any of them where a row has ended;
    `count` [B] how long each is; `order` [P] where in its row a packed token is, and `back` [P]
    where in B * W.
    """

    places: Node
    count: Node
    order: Node
    back: Node

    @classmethod
    def of(cls, inputs: Inputs) -> Layout:
        count = ops.reduce_sum(_there(inputs), shape(1))
        start = ops.cum_sum(count, axis(0), exclusive=True)
        width = ops.reduce_max(count, shape(0))
        packed = ops.gather(ops.shape_of(inputs.tokens, "i64"), axis(0), axis(0))
        places = ops.add(ops.unsqueeze(start, shape(1)), ops.unsqueeze(_range(width), shape(0)))
        row = ops.divide(inputs.tokens, blocks.width_of(inputs.mask))
        order = ops.subtract(_range(packed), ops.gather(start, row, axis(0)))
        order = ops.minimum(order, _before(width))  # tokens that only round P up lie beyond
        back = ops.add(ops.multiply(row, width), order)
        return cls(ops.minimum(places, _before(packed)), count, order, back)

    def bias(
        self, inputs: Inputs, window: int | None, chosen: Chosen | None, *, both_ways: bool
    ) -> Node:
        """0 where a query sees a key, else MASKED: [1 or B, 1, W or 1, W]; of chosen queries
        [B, 1, 1, W]."""
        keys = ops.unsqueeze(blocks.counted(self.places), shape(0, 1, 2))
        asking = chosen.take(self.order) if chosen else blocks.counted(self.places)
        asking = ops.unsqueeze(asking, shape(1, 2, 3) if chosen else shape(0, 1, 3))
        seen = []
        if both_ways:
            seen.append(ops.less(keys, ops.unsqueeze(self.count, shape(1, 2, 3))))
        else:
            seen.append(ops.less_equal(keys, asking))
        if window is not None:
            seen.append(ops.less(ops.subtract(asking, keys), axis(window)))
            if both_ways:
                seen.append(ops.less(ops.subtract(keys, asking), axis(window)))
        if inputs.kept:  # tokens may be there that nobody attends to
            attended = ops.gather(inputs.pack(inputs.mask), self.places, axis(0))
            seen.append(ops.greater(ops.unsqueeze(attended, shape(1, 2)), axis(0)))
        return ops.select(_all(seen), scalar(0), scalar(blocks.MASKED))

    def attend(
        self, q: Node, k: Node, v: Node, bias: Node, chosen: Chosen | None, cap: float | None
    ) -> Node:
        """Softmax(q k^T + bias) v of packed [P, N, D] each to [P, N, D]; when q is of chosen
        tokens, [B, N, D] to [B, N, D]. With a `cap` it is cap tanh(q k^T / cap) + bias."""
        heads, size = (q.get_output_partial_shape(0)[at].get_length() for at in (1, 2))
        q = ops.unsqueeze(q, shape(2)) if chosen else self._heads(q)
        k, v = self._heads(k), self._heads(v)
        if cap is None:
            mixed = ops.scaled_dot_product_attention(q, k, v, bias, scalar(1))
        else:
            bent = ops.tanh(ops.divide(ops.matmul(q, k, False, True), scalar(cap)))
            weights = ops.softmax(ops.add(ops.multiply(bent, scalar(cap)), bias), -1)
            mixed = ops.matmul(weights, v, False, False)
        rows = ops.transpose(mixed, shape(0, 2, 1, 3))
        rows = ops.reshape(rows, shape(-1, heads, size), False)
        return rows if chosen else ops.gather(rows, self.back, axis(0))

    def _heads(self, x: Node) -> Node:
        """[P, N, D] to [B, N, W, D]."""
        return ops.transpose(ops.gather(x, self.places, axis(0)), shape(0, 2, 1, 3))


def _there(inputs: Inputs) -> Node:
    """int64 [B, T]: 1 where there is a token. All places that hold none name the first one."""
    first = ops.gather(inputs.tokens, axis(0), axis(0))
    batch = ops.shape_of(inputs.places, "i64")
    numbers = ops.reshape(_range(ops.reduce_prod(batch, shape(0))), batch, False)
    there = ops.logical_or(ops.greater(inputs.places, axis(0)), ops.equal(numbers, first))
    return ops.convert(there, "i64")


def _all(conditions: Sequence[Node]) -> Node:
    found = conditions[0]
    for one in conditions[1:]:
        found = ops.logical_and(found, one)
    return found


def _range(end: Node) -> Node:
    return ops.range(axis(0), end, axis(1), "i64")


def _before(end: Node) -> Node:
    return ops.subtract(end, axis(1))
