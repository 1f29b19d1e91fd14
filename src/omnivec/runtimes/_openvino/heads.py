"""Each head step as graph nodes; the formulas are those of core/heads.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from openvino import opset15 as ops

from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.steps import Contrast, Dense, Head, LayerNorm, Normalize, Pool
from omnivec.core.tensors import output_rows
from omnivec.runtimes._openvino import blocks
from omnivec.runtimes._openvino.blocks import Encoded, Inputs, Node, axis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnivec.runtimes._openvino.weights import Weights

_LOWEST = float(np.finfo(np.float32).min)


def reads_one(head: Head, config: Mapping[str, Any], *, decoder: bool) -> bool:
    """Whether of the last layer only one token of each row is read: then no other is computed.
    It is the last one in a decoder, and the first elsewhere."""
    if heads.of_tokens(head) or head.kind == "tower":
        return False
    if head.kind == "logits":
        return decoder or str(config.get("classifier_pooling", "cls")) == "cls"
    return bool(head.steps) and head.steps[0] == Pool(modes=("last" if decoder else "cls",))


def first_place(inputs: Inputs) -> Node:
    """The packed token of each row that `cls` pools and classifiers read: int64 [B]."""
    return place_of(inputs.pooled, inputs)


def last_place(inputs: Inputs, without: int | None = None) -> Node:
    """The packed token of each row that `last` pools, int64 [B]; tokens `without` are skipped,
    as decoders' classifiers skip padding by its id."""
    pooled = inputs.pooled
    if without is not None:
        others = ops.not_equal(inputs.ids, blocks.scalar(without, np.int64))
        pooled = ops.multiply(pooled, ops.convert(others, "i64"))
    return place_of(pooled, inputs, last=True)


def place_of(kept: Node, inputs: Inputs, *, last: bool = False) -> Node:
    """The packed token of each row that is the first (or last) of the `kept`, of [B, T]; its
    first one where none is."""
    return ops.gather(inputs.places, _position(kept, last=last), axis(1), batch_dims=1)


def project(
    encoded: Encoded,
    name: str,
    head: Head,
    inputs: Inputs,
    checkpoint: Checkpoint,
    weights: Weights,
) -> Node:
    """The encoder's hidden states through the steps of the head called `name`, their weights
    from the checkpoint's files beside its own `weights`. Raises CheckpointError."""
    width = encoded.width
    x = _read(encoded, name, inputs)
    for step in head.steps:
        if isinstance(step, Pool):
            x = _kept(x, inputs) if encoded.chosen else pool(step, x, inputs)
            width *= len(step.modes)
        elif isinstance(step, Dense):
            x, width = _dense(x, width, step, _file(weights, checkpoint, step.file))
        elif isinstance(step, LayerNorm):
            file = _file(weights, checkpoint, step.file)
            x = blocks.layer_norm(x, file, "norm", width, heads.LAYER_NORM_EPSILON)
        elif isinstance(step, Normalize):
            norm = ops.reduce_l2(x, blocks.shape(-1), keep_dims=True)
            x = ops.divide(x, ops.maximum(norm, blocks.scalar(heads.NORM_FLOOR)))
        elif isinstance(step, Contrast):
            row = heads.contrast(output_rows(checkpoint, heads.ids_of(step)))
            x, width = ops.matmul(x, blocks.constant(row[None]), False, True), 1
    return x


def _read(encoded: Encoded, name: str, inputs: Inputs) -> Node:
    """Of the hidden states: the kept tokens [K, H], each row's chosen one [B, H], or all."""
    if name in inputs.kept:
        return ops.gather(encoded.hidden, inputs.kept[name], axis(0))
    return encoded.hidden if encoded.chosen else inputs.spread(encoded.hidden)


def pool(step: Pool, hidden: Node, inputs: Inputs) -> Node:
    """[B, T, H] to [B, len(modes) * H]."""
    masks = _Masks(inputs.mask, inputs.pooled)
    pooled = [_POOLS[mode](hidden, masks) for mode in step.modes]
    return ops.concat(pooled, 1) if len(pooled) > 1 else pooled[0]


def _kept(first: Node, inputs: Inputs) -> Node:
    """`first` [B, H], but 0 for a row of which nothing is pooled."""
    some = ops.reduce_max(inputs.pooled, blocks.shape(1), keep_dims=True)
    return ops.multiply(first, blocks.floats(some))


def _file(weights: Weights, checkpoint: Checkpoint, file: str) -> Weights:
    if not checkpoint.has(file):
        raise CheckpointError(f"{checkpoint.name}: {file} is missing; download the model again")
    return weights.beside(checkpoint.path(file))


def _dense(x: Node, width: int, step: Dense, weights: Weights) -> tuple[Node, int]:
    out = weights.find("linear.weight", None, width).shape[0]
    y = blocks.linear(x, weights, "linear", out, width, bias="linear.bias" in weights)
    try:
        return ACTIVATIONS[heads.activation(step.activation)](y), out
    except ValueError as error:
        raise CheckpointError(f"{weights.name}: {error}") from error


# ── pooling ──────────────────────────────────────────────────────────────────────────────


class _Masks(NamedTuple):
    """Both int64 [B, T]: what is attended to, and what of it is pooled."""

    mask: Node
    kept: Node


def _position(kept: Node, *, last: bool) -> Node:
    """The first (or last) unmasked place of each row, int64 [B]; 0 where there is none."""
    places = ops.unsqueeze(blocks.counted(kept), blocks.shape(0))
    there = ops.greater(kept, blocks.scalar(0, np.int64))
    if last:
        return ops.reduce_max(ops.multiply(places, kept), blocks.shape(1))
    end = blocks.width_of(kept)
    first = ops.reduce_min(ops.select(there, places, end), blocks.shape(1))
    return ops.mod(first, end)  # a row without any says `end`


def _chosen(hidden: Node, kept: Node, index: Node) -> Node:
    value = ops.gather(hidden, index, axis(1), batch_dims=1)
    there = ops.gather(blocks.floats(kept), index, axis(1), batch_dims=1)
    return ops.multiply(value, ops.unsqueeze(there, blocks.shape(1)))


def _first(hidden: Node, masks: _Masks) -> Node:
    return _chosen(hidden, masks.kept, _position(masks.kept, last=False))


def _last(hidden: Node, masks: _Masks) -> Node:
    return _chosen(hidden, masks.kept, _position(masks.kept, last=True))


def _summed(hidden: Node, weights: Node) -> tuple[Node, Node]:
    """The weighted sum [B, H], and the weights' own sum [B, 1] with its floor."""
    total = ops.reduce_sum(
        ops.multiply(hidden, ops.unsqueeze(weights, blocks.shape(2))), blocks.shape(1)
    )
    count = ops.reduce_sum(weights, blocks.shape(1), keep_dims=True)
    return total, ops.maximum(count, blocks.scalar(heads.MASK_FLOOR))


def _mean(hidden: Node, masks: _Masks) -> Node:
    return ops.divide(*_summed(hidden, blocks.floats(masks.kept)))


def _mean_sqrt_len(hidden: Node, masks: _Masks) -> Node:
    total, count = _summed(hidden, blocks.floats(masks.kept))
    return ops.divide(total, ops.sqrt(count))


def _weightedmean(hidden: Node, masks: _Masks) -> Node:
    start = ops.unsqueeze(_position(masks.mask, last=False), blocks.shape(1))
    places = ops.unsqueeze(blocks.counted(masks.mask), blocks.shape(0))
    ramp = ops.add(ops.subtract(places, start), blocks.scalar(1, np.int64))
    return ops.divide(*_summed(hidden, blocks.floats(ops.multiply(masks.kept, ramp))))


def _max(hidden: Node, masks: _Masks) -> Node:
    there = ops.greater(masks.kept, blocks.scalar(0, np.int64))
    open_ = ops.select(ops.unsqueeze(there, blocks.shape(2)), hidden, blocks.scalar(_LOWEST))
    highest = ops.reduce_max(open_, blocks.shape(1))
    some = ops.reduce_max(masks.kept, blocks.shape(1), keep_dims=True)
    some = ops.greater(some, blocks.scalar(0, np.int64))
    return ops.select(some, highest, blocks.scalar(0))


_POOLS: Mapping[str, Callable[[Node, _Masks], Node]] = {
    "cls": _first,
    "mean": _mean,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weightedmean,
    "last": _last,
}

ACTIVATIONS: Mapping[str, Callable[[Node], Node]] = {
    "Identity": lambda x: x,
    "Tanh": ops.tanh,
    "ReLU": ops.relu,
    "GELU": lambda x: ops.gelu(x, "erf"),
    "SiLU": ops.swish,
    "Sigmoid": ops.sigmoid,
    "LeakyReLU": lambda x: ops.prelu(x, blocks.scalar(0.01)),
    "ELU": lambda x: ops.elu(x, 1.0),
    "Softplus": ops.softplus,
    "Mish": ops.mish,
}
