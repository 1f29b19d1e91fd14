"""An open encoder with the steps after it."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnivec.core import heads
from omnivec.core.seams import SessionLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnivec.core.nouns import Array, Floats
    from omnivec.runtimes._ctranslate2.encoder import Limits

COST = 512  # tokens of a batch; 1024 are no faster each in float32, and slower in int8
PADDING = 0.2  # of attention alone: elsewhere CTranslate2 computes no padding


class Batch(NamedTuple):
    """`ids` int32 [B, T] and how many of each row's are no padding, int32 [B]; `segments` [B, T]
    where any is not 0; `arrays` without the columns that are padding in every row."""

    ids: Array
    lengths: Array
    segments: list[list[int]] | None
    arrays: Mapping[str, Array]


class CTranslate2Session:
    """`finish` makes the outputs of hidden states float32 [B, T, H] and a batch's arrays."""

    padding = PADDING
    batch_cost = COST

    def __init__(
        self,
        encoder: Any,
        limits: Limits,
        finish: Callable[[Floats, Mapping[str, Array]], dict[str, Array]],
        streams: int,
        dtype: str,
    ) -> None:
        self.streams = streams
        self.dtype = dtype
        self._limits = limits
        self._finish = finish
        self._idle: SimpleQueue[Any] = SimpleQueue()  # the one encoder, once for each stream
        for _ in range(streams):
            self._idle.put(encoder)

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:  # noqa: ARG002 - its threads are dealt out when it is opened
        """Raises ValueError for what the encoder has no place for, SessionLost when closed."""
        batch = read(arrays, self._limits)
        encoder = self._idle.get()
        try:
            if encoder is None:
                raise SessionLost("this session was closed")
            hidden = _hidden(encoder, batch)
        finally:
            self._idle.put(encoder)
        return self._finish(hidden, batch.arrays)

    def close(self) -> None:
        """Waits for the batches that are running, then frees the encoder."""
        for _ in range(self.streams):
            if self._idle.get() is None:
                break
        self._idle.put(None)


def _hidden(encoder: Any, batch: Batch) -> Floats:
    from ctranslate2 import StorageView

    ids, lengths = (StorageView.from_array(one) for one in (batch.ids, batch.lengths))
    output = encoder.forward_batch(ids, lengths, token_type_ids=batch.segments)
    return np.asarray(output.last_hidden_state)


def read(arrays: Mapping[str, Array], limits: Limits) -> Batch:
    """Raises ValueError for arrays that are no batch, for what a table has no row for, and for
    padding that does not end its row."""
    ids = np.asarray(arrays["input_ids"])
    if not ids.size or {array.shape for array in arrays.values()} != {ids.shape[:2]}:
        raise ValueError("the arrays of a batch must share one shape [B, T], neither of them 0")
    lengths = _lengths(arrays)
    width = max(1, int(lengths.max()))
    if width > limits.positions:
        raise ValueError(f"a row is longer than {limits.positions} tokens")
    cut = {name: array[:, :width] for name, array in arrays.items()}
    _check("a token id", cut["input_ids"], limits.vocabulary)
    if (cut["attention_mask"].astype(bool) & (cut["input_ids"] == limits.padding)).any():
        raise ValueError("the ctranslate2 runtime takes the padding's token as padding only")
    segments = cut.get("token_type_ids") if limits.segments else None
    if segments is not None:
        _check("a segment", segments, limits.segments)
    return Batch(
        np.ascontiguousarray(cut["input_ids"], np.int32),
        np.maximum(lengths, 1).astype(np.int32),  # it computes no row of none
        segments.tolist() if segments is not None and segments.any() else None,
        cut,
    )


def _lengths(arrays: Mapping[str, Array]) -> Array:
    """Of each row; CTranslate2 is told no more than that of what is attended to."""
    mask = arrays["attention_mask"].astype(bool)
    lengths: Array = mask.sum(1)
    if (mask != (np.arange(mask.shape[1]) < lengths[:, None])).any():
        raise ValueError("the ctranslate2 runtime takes padding at the end of a row only")
    kept = {name.removesuffix("_mask") for name in arrays if name.endswith("_mask")}
    tokens = kept - {"attention", "pool"}
    if (heads.computed(tokens, arrays) != mask).any():
        raise ValueError("the ctranslate2 runtime computes no token that is not attended to")
    return lengths


def _check(what: str, chosen: Array, rows: int) -> None:
    if chosen.min() < 0 or chosen.max() >= rows:
        raise ValueError(f"{what} is not in 0..{rows - 1}")
