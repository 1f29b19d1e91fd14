"""LoRA adapters in a graph, all of a model's at once: each row of a batch has its own, or none.

For each layer that any of them changes, their A lie one below the other and their B side by
side, so K adapters cost two thin products and not K. What a token has of adapters that are not
its row's is multiplied by 0 between the two; a row without any comes out as the base makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from openvino import opset15 as ops

from omnivec.runtimes._openvino import blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from omnivec.core.checkpoint import Lora
    from omnivec.core.nouns import Array, Floats
    from omnivec.runtimes._openvino.blocks import Inputs, Node
    from omnivec.runtimes._openvino.weights import Weights


class Stacked(NamedTuple):
    """Of one layer: `a` [R, in], `b` [out, R], and `owners` int64 [R], whose rank each is:
    the number of an adapter, from 1 on."""

    a: Floats
    b: Floats
    owners: Array


def stack(adapters: Sequence[Lora], matrices: Mapping[str, tuple[int, ...]]) -> dict[str, Stacked]:
    """By the layers' names in `matrices`. Raises CheckpointError."""
    each = [adapter.updates(matrices) for adapter in adapters]
    found = {}
    for key in dict.fromkeys(key for updates in each for key in updates):
        there = [(k, updates[key]) for k, updates in enumerate(each, 1) if key in updates]
        found[key] = Stacked(
            np.concatenate([update.a for _, update in there]),
            np.concatenate([update.b for _, update in there], axis=1),
            np.concatenate([np.full(len(update.a), k, np.int64) for k, update in there]),
        )
    return found


class Updates:
    """`which` int64 [N] is the adapter of each of the N tokens or rows that layers are given, 0
    for none. `rows` is the same for layers that are given what was made of rows: [B]."""

    def __init__(
        self, stacked: Mapping[str, Stacked], which: Node, rows: Updates | None = None
    ) -> None:
        self.rows = rows or self
        self._stacked = stacked
        self._which = ops.unsqueeze(which, blocks.shape(1))
        self._kept: dict[bytes, Node] = {}

    def add(self, y: Node, x: Node, key: str) -> Node:
        """To `y` [N, out], which the layer `key` makes of `x` [N, in]."""
        if key not in self._stacked:
            return y
        a, b, owners = self._stacked[key]
        inner = ops.matmul(x, blocks.constant(a), False, True)
        kept = ops.multiply(inner, self._keep(owners))
        return ops.add(y, ops.matmul(kept, blocks.constant(b), False, True))

    def _keep(self, owners: Array) -> Node:
        """[N, R]: 1 where a rank is one of the row's own adapter, else 0. Most layers share
        it."""
        name = owners.tobytes()
        if name not in self._kept:
            own = ops.equal(self._which, blocks.constant(owners[None]))
            self._kept[name] = blocks.floats(own)
        return self._kept[name]


def updates(weights: Weights, adapters: Sequence[Lora], which: Node, inputs: Inputs) -> Updates:
    """For layers that are given packed tokens; `which` int64 [B] is each row's adapter. Raises
    CheckpointError."""
    stacked = stack(adapters, weights.matrices())
    return Updates(stacked, of_tokens(which, inputs), Updates(stacked, which))


def of_tokens(which: Node, inputs: Inputs) -> Node:
    """Each packed token's adapter, int64 [P], from each row's."""
    rows = ops.divide(inputs.tokens, blocks.width_of(inputs.mask))
    return ops.gather(which, rows, blocks.axis(0))
