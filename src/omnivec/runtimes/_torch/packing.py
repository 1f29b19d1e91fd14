"""A padded batch [B, T] seen as one row of its S tokens, sequence after sequence.

A token is packed when it is attended to, or when a head keeps it all the same.

All of it is reckoned in numpy, on the host: the device is asked for nothing but sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np

from omnivec.core.heads import MASK_FLOOR, PICTURES, computed, kept
from omnivec.core.nouns import Array, Floats

SIGHTS = {*PICTURES, *PICTURES.values()}


class Run(NamedTuple):
    """`rows` sequences of one `length`, side by side from token `start` on."""

    start: int
    rows: int
    length: int


class Packing:
    """Which tokens of a batch are there, which of them are attended to, pooled, kept.

    `names` are those of the outputs of single tokens, and `given` says which of the S tokens
    [K] each of them gives. `attended` bool [S] is None when all are.
    `places` int64 [S]: each token's place in the flattened [B * T]. `starts` int64 [B + 1]:
    where each sequence begins, and S. `kept` bool [S]: the tokens that are pooled. A row that
    attends to nothing is given its first token, which is not pooled: attention over nothing is
    not a number. Raises ValueError for arrays that are no batch.
    """

    def __init__(self, arrays: Mapping[str, Array], names: Sequence[str] = ()) -> None:
        mask = arrays["attention_mask"].astype(bool)
        shapes = {array.shape for name, array in arrays.items() if name not in SIGHTS}
        if not mask.size or shapes != {mask.shape[:2]}:
            raise ValueError("the arrays of a batch must share one shape [B, T], neither of them 0")
        pooled = mask & arrays.get("pool_mask", mask).astype(bool)
        mask[~mask.any(1), 0] = True
        there = mask | computed(names, arrays)
        self.shape = (there.shape[0], there.shape[1])
        self.places = np.flatnonzero(there)
        self.lengths = there.sum(1)
        self.starts = np.concatenate([[0], self.lengths.cumsum()])
        self.kept = pooled.ravel()[self.places]
        self.attended = None if (there == mask).all() else mask.ravel()[self.places]
        self.given = {
            name: np.flatnonzero(kept(name, arrays).ravel()[self.places]) for name in names
        }

    def pack(self, array: Array) -> Array:
        """[B, T] to [1, S]."""
        packed: Array = array.reshape(-1)[self.places][None]
        return packed

    def positions(self, ids: Array, padding: int | None) -> Array:
        """int64 [1, S], as transformers makes them of the padded `ids` [B, T]: columns, or with
        `padding` (RoBERTa and its kin) a count from `padding` + 1 that leaves out that id."""
        if padding is None:
            return np.asarray(self.places[None] % self.shape[1])
        real = ids != padding
        return self.pack(real.cumsum(1) * real + padding)

    @cached_property
    def longest(self) -> int:
        return int(self.lengths.max())

    @cached_property
    def runs(self) -> list[Run]:
        """The sequences in order, neighbours of one length taken together."""
        found, start = [], 0
        for length, group in groupby(self.lengths.tolist()):
            rows = len(list(group))
            found.append(Run(start, rows, length))
            start += rows * length
        return found

    def spans(self, most: int) -> list[tuple[int, int]]:
        """The rows in order, first and end of each run of at most `most` tokens, or of one row
        that has more."""
        found, first = [], 0
        for row in range(1, len(self.lengths) + 1):
            over = row < len(self.lengths) and self.starts[row + 1] - self.starts[first] > most
            if over or row == len(self.lengths):
                found.append((first, row))
                first = row
        return found

    # ── what a pooling needs (formulas in core/heads.py) ─────────────────────────────────

    def chosen(self, *, last: bool) -> tuple[Array, Floats]:
        """The token that each row's first or last pooled one is, int64 [B], and float32 [B]:
        0 for a row that nothing is pooled of."""
        pooled = np.flatnonzero(self.kept)
        ends = np.searchsorted(pooled, self.starts)
        some = ends[1:] > ends[:-1]
        at = np.where(some, ends[1:] - 1 if last else ends[:-1], 0)
        return (pooled[at] if len(pooled) else at), some.astype(np.float32)

    def weights(self, mode: str) -> Floats:
        """float32 [S]: what each token counts in its row's sum, for the modes that are sums."""
        weights = self.kept.astype(np.float32)
        if mode == "weightedmean":  # 1, 2, 3 … from the first token attended to
            weights *= np.arange(len(self.kept)) - self.spread(self.starts[:-1]) + 1
        total = np.maximum(np.add.reduceat(weights, self.starts[:-1]), MASK_FLOOR)
        divisor = np.sqrt(total) if mode == "mean_sqrt_len" else total
        return np.asarray(weights / self.spread(divisor), np.float32)

    def spread(self, values: Array) -> Array:
        """Each row's value [B] to its tokens [S]."""
        return np.repeat(values, self.lengths)
