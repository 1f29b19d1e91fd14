"""A batch's arrays as the inputs of a graph, checked: a graph would read past a table.

A feed also tells what a session must know of its graph before it has seen a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from omnivec.core import heads
from omnivec.runtimes._pictures import check_patches, check_squares

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnivec.core.nouns import Array, Floats
    from omnivec.core.steps import Head
    from omnivec.runtimes._openvino.blocks import Encoded

TOKENS = 1024
"""Of a batch: what stays in one core's cache (decision 6)."""
WORDS = 512
"""Where a vocabulary's logits follow: the longer the batch, the more of them there are."""
PICTURES = 512
"""Tokens of pictures, whose towers are wide: ten of ViT-B/32 are done as fast each as twenty, and
one of ViT-L/14 nearly as fast as each of four."""
SPREADS = 256  # shapes of pictures whose places are remembered, 256 kB each


class Fed(NamedTuple):
    """The inputs in the order of the graph's parameters, and int64 [K] by an output's name:
    where in the batch, read row by row, the tokens are that it keeps."""

    inputs: tuple[Array, ...]
    kept: Mapping[str, Array] = {}


class Feed(Protocol):
    @property
    def batch_cost(self) -> int: ...

    @property
    def padding(self) -> float:
        """As a session's."""
        ...

    def read(self, arrays: Mapping[str, Array]) -> Fed:
        """Raises ValueError for arrays that are no batch, or none for this graph."""
        ...

    def few(self) -> dict[str, Array]:
        """The smallest batch, to try the graph with."""
        ...


# ── tokens ───────────────────────────────────────────────────────────────────────────────


class TokenFeed:
    padding = 0.2  # of attention alone, which is about this share of a layer

    def __init__(self, encoded: Encoded, head: Head) -> None:
        self.batch_cost = WORDS if head.kind == "words" else TOKENS
        self._limits = encoded
        self._of_tokens = heads.of_tokens(head)

    def read(self, arrays: Mapping[str, Array]) -> Fed:
        """Ids that the model has no row for, rows longer than its positions and adapters that
        it has not are refused. Where it has adapters, each row's number comes last."""
        told = {name: array for name, array in arrays.items() if name != "adapter"}
        kept = _kept(self._of_tokens, told)
        inputs, count = _inputs(told, kept), self._limits.adapters
        self._check(*inputs)
        if not count:
            return Fed(inputs, kept)
        rows = len(inputs[0])
        numbers = np.ascontiguousarray(arrays.get("adapter", np.zeros(rows)), np.int64)
        if numbers.shape != (rows,) or not _within(numbers, count + 1):
            raise ValueError(f"adapters are 0 to {count} here, one for each row")
        return Fed((*inputs, numbers), kept)

    def few(self) -> dict[str, Array]:
        ids = np.ones((1, min(8, self._limits.positions or 8)), np.int64)
        return {"input_ids": ids, "attention_mask": ids}

    def _check(
        self, ids: Array, _: Array, segments: Array, __: Array, tokens: Array, *___: Array
    ) -> None:
        limits = self._limits
        if not _within(ids, limits.vocabulary):
            raise ValueError(f"a token id is not in 0..{limits.vocabulary - 1}")
        if limits.segments and not _within(segments, limits.segments):
            raise ValueError(f"a segment is not in 0..{limits.segments - 1}")
        columns = tokens % ids.shape[1]
        if limits.positions is not None and columns.max() >= limits.positions:
            raise ValueError(f"a row is longer than {limits.positions} tokens")


def _kept(names: Iterable[str], arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.flatnonzero(heads.kept(name, arrays)) for name in names}


def _inputs(arrays: Mapping[str, Array], kept: Mapping[str, Array]) -> tuple[Array, ...]:
    """ids, mask, segments, pooled, tokens, places and the packed places of the `kept` tokens,
    in the order of the graph's parameters."""
    ids, mask = (np.ascontiguousarray(arrays[k], np.int64) for k in ("input_ids", "attention_mask"))
    segments = arrays.get("token_type_ids")
    segments = np.zeros_like(ids) if segments is None else np.ascontiguousarray(segments, np.int64)
    pooled = np.ascontiguousarray(arrays.get("pool_mask", mask), np.int64)
    shapes = {a.shape for a in (ids, mask, segments, pooled, *arrays.values())}
    if not ids.size or shapes != {ids.shape[:2]}:
        raise ValueError("the arrays of a batch must share one shape [B, T], neither of them 0")
    tokens, places = _packed(heads.computed(kept, arrays))
    packed = (_filled(places.ravel()[one], len(one)) for one in kept.values())
    return ids, mask, segments, pooled, tokens, places, *packed


def _packed(computed: Array) -> tuple[Array, Array]:
    """`tokens` [P] and `places` [B, T] of blocks.Inputs, from the tokens [B, T] that there are.
    P is rounded up, so that a runtime meets few sizes; what is too many repeats the batch's
    first place."""
    there = np.flatnonzero(computed)
    places = np.zeros(computed.size, np.int64)
    places[there] = np.arange(len(there))
    return _filled(there, max(1, len(there))), places.reshape(computed.shape)


def _filled(values: Array, least: int) -> Array:
    """The values and then zeros, up to `least` rounded up."""
    filled = np.zeros(rounded(least), np.int64)
    filled[: len(values)] = values
    return filled


def rounded(tokens: int) -> int:
    """The next of 16 sizes to each power of two; below 32 each number is one."""
    step = 1 << max(0, (tokens - 1).bit_length() - 5)
    return -(-tokens // step) * step


def _within(ids: Array, end: int) -> bool:
    return bool(ids.min() >= 0 and ids.max() < end)


# ── pictures ─────────────────────────────────────────────────────────────────────────────


class PictureFeed:
    """Pictures of `size` x `size`."""

    padding = 0.0
    batch_cost = PICTURES

    def __init__(self, size: int) -> None:
        self._side = size

    def read(self, arrays: Mapping[str, Array]) -> Fed:
        pixels = arrays["pixel_values"]
        check_squares(pixels, self._side)
        return Fed((np.ascontiguousarray(pixels),))

    def few(self) -> dict[str, Array]:
        return {"pixel_values": np.zeros((1, self._side, self._side, 3), np.uint8)}


class PatchFeed:
    """Pictures of any shape in patches of `size` bytes; `positions` are those of a square."""

    padding = TokenFeed.padding
    batch_cost = PICTURES

    def __init__(self, size: int, positions: int) -> None:
        self._size = size
        self._side = isqrt(positions)

    def read(self, arrays: Mapping[str, Array]) -> Fed:
        """patches [P, D], spots [P, positions], tokens [P], mask [B, N], places [B, N]."""
        pixels, shapes = arrays["pixel_values"], np.asarray(arrays["spatial_shapes"], np.int64)
        check_patches(pixels, shapes, self._size)
        mask = np.arange(pixels.shape[1])[None] < shapes.prod(1)[:, None]
        tokens, places = _packed(mask)
        patches = pixels.reshape(-1, self._size)[tokens]
        spots = np.zeros((len(tokens), self._side**2), np.float32)
        each = [spread(int(rows), int(columns), self._side) for rows, columns in shapes]
        np.concatenate(each, out=spots[: sum(map(len, each))])
        return Fed((patches, spots, tokens, mask.astype(np.int64), places))

    def few(self) -> dict[str, Array]:
        pixels = np.zeros((1, 1, self._size), np.uint8)
        return {"pixel_values": pixels, "spatial_shapes": np.ones((1, 2), np.int64)}


@lru_cache(maxsize=SPREADS)
def spread(rows: int, columns: int, side: int) -> Floats:
    """float32 [rows * columns, side * side]: how much each of a square's positions counts for
    each patch of a picture, which is resizing a picture of them (see `_along`)."""
    both = np.einsum("yi,xj->yxij", _along(rows, side), _along(columns, side))
    return np.asarray(both.reshape(rows * columns, side * side), np.float32)


def _along(out: int, size: int) -> Array:
    """float64 [out, size]: weights of a line's `size` points for each of `out`: the triangle
    filter of torch's `interpolate(mode="bilinear", antialias=True)`, and of Pillow's BILINEAR,
    as wide as a step where it shrinks the line."""
    scale = size / out
    width = max(scale, 1.0)
    centres = (np.arange(out) + 0.5) * scale
    first = np.maximum(np.floor(centres - width + 0.5), 0)[:, None]
    end = np.minimum(np.floor(centres + width + 0.5), size)[:, None]
    points = np.arange(size)[None]
    weights = np.maximum(0, 1 - np.abs((points + 0.5 - centres[:, None]) / width))
    weights = np.where((points >= first) & (points < end), weights, 0)
    return np.asarray(weights / weights.sum(1, keepdims=True))
