"""A graph that ONNX Runtime has open."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnivec.core.seams import SessionLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnivec.core.nouns import Array, Floats

TOKENS = 1024
"""Of a batch: what stays in one core's cache (decision 6)."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pool_mask", "position_ids")
"""What a graph may ask for, by the names that transformers' exports have."""
KINDS: Mapping[str, type[np.generic]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Limits(NamedTuple):
    """How many words, positions and segments a model has; None where that is not known, 0
    where it has none."""

    vocabulary: int | None
    positions: int | None
    segments: int | None

    def check(self, ids: Array, mask: Array, segments: Array) -> None:
        """Raises ValueError for what would be read past a table."""
        if self.vocabulary is not None and not _within(ids, self.vocabulary):
            raise ValueError(f"a token id is not in 0..{self.vocabulary - 1}")
        if self.segments and not _within(segments, self.segments):
            raise ValueError(f"a segment is not in 0..{self.segments - 1}")
        longest = np.flatnonzero(mask.any(0))[-1:] + 1
        if self.positions is not None and longest.size and longest[0] > self.positions:
            raise ValueError(f"a row is longer than {self.positions} tokens")


class Use(NamedTuple):
    """How to use an open graph: `finish` makes of the value called `result` and of a batch's
    arrays what a head gives."""

    limits: Limits
    result: str
    finish: Callable[[Floats, Mapping[str, Array]], dict[str, Array]]


class OnnxSession:
    """`streams` batches at once, of which each is computed by the thread that brings it. The graph
    reads the memory of `tensors`."""

    padding = 1.0

    def __init__(
        self,
        opened: Any,
        use: Use,
        streams: int,
        *,
        where: tuple[str, str],
        tensors: Mapping[str, Array],
    ) -> None:
        self.streams = streams
        self.batch_cost = TOKENS
        self.where = where
        self._opened: Any = opened
        self._inputs = {one.name: KINDS[one.type] for one in opened.get_inputs()}
        self._use = use
        self._tensors = tensors
        self._places = threading.BoundedSemaphore(streams)

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:
        """Raises ValueError for what the graph has no place for, SessionLost when closed."""
        del alone
        told = read(arrays, self._use.limits)
        with self._places:
            if self._opened is None:
                raise SessionLost("this session was closed")
            given = {name: told[name].astype(kind) for name, kind in self._inputs.items()}
            (found,) = self._opened.run([self._use.result], given)
            return self._use.finish(found.astype(np.float32, copy=False), arrays)

    def close(self) -> None:
        """Waits for the batches that are running, then frees the graph."""
        for _ in range(self.streams):
            self._places.acquire()
        self._opened = None
        self._tensors = {}
        for _ in range(self.streams):
            self._places.release()


def read(arrays: Mapping[str, Array], limits: Limits) -> dict[str, Array]:
    """The inputs that a graph of a text encoder may have, int64 [B, T] each. Raises ValueError
    for arrays that are no batch, or none for this graph."""
    ids, mask = (np.asarray(arrays[name]) for name in ("input_ids", "attention_mask"))
    segments = np.asarray(arrays.get("token_type_ids", np.zeros_like(ids)))
    shapes = {array.shape for array in (ids, mask, segments, *arrays.values())}
    if not ids.size or shapes != {ids.shape[:2]}:
        raise ValueError("the arrays of a batch must share one shape [B, T], neither of them 0")
    limits.check(ids, mask, segments)
    pooled = np.asarray(arrays.get("pool_mask", mask))
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    return dict(zip(INPUTS, (ids, mask, segments, pooled, positions), strict=True))


def _within(ids: Array, end: int) -> bool:
    return bool(ids.min() >= 0 and ids.max() < end)
