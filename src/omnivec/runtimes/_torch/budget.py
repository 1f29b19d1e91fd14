"""How many tokens a batch should have, found by trying when a model is opened on a GPU.

More tokens keep a GPU busier until its rate stops growing; past that they only make callers
wait and take memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from omnivec.core.nouns import Array

log = logging.getLogger("omnivec.torch")

SIZES = (4096, 8192, 16384, 32768, 65536, 131072)
NEAR = 0.95  # of the best rate: what is not worth a longer wait
MEMORY_SHARE = 0.5  # of what is free: other models, and batches of one long row, want some
ROW = 256  # tokens of a row that is tried with
SECONDS = 10.0  # after which no larger size is tried


class Runs(Protocol):
    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]: ...


def choose(measure: Callable[[int], float | None], sizes: Sequence[int] = SIZES) -> int:
    """The smallest of the growing `sizes` whose rate is near the best one.

    `measure` gives a size's tokens a second, or None when there is no memory for it: then no
    larger one is tried, and no more are after two that brought nothing.
    """
    rates: dict[int, float] = {}
    flat = 0
    for size in sizes:
        rate = measure(size)
        if rate is None:
            break
        flat = flat + 1 if rates and rate < max(rates.values()) / NEAR else 0
        rates[size] = rate
        if flat == 2:  # noqa: PLR2004 - one may be noise
            break
    best = max(rates.values(), default=0.0)
    return next((size for size, rate in rates.items() if rate >= NEAR * best), sizes[0])


def probe(session: Runs, positions: int | None) -> int:
    """The budget of a session on the current CUDA device; `positions`: its longest row."""
    import torch

    began = time.monotonic()
    free = _free()

    def measure(size: int) -> float | None:
        if time.monotonic() - began > SECONDS:
            return None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            rate = rate_of(session, size, positions)
        except torch.OutOfMemoryError:
            return None
        taken = torch.cuda.max_memory_allocated() - before
        log.debug("%d tokens: %.0f tokens a second, %d bytes", size, rate, taken)
        return rate if taken <= MEMORY_SHARE * free else None

    try:
        return choose(measure)
    finally:
        torch.cuda.empty_cache()


def rate_of(session: Runs, size: int, positions: int | None) -> float:
    """Tokens a second of a batch of `size` tokens, the first of two left out."""
    arrays = rows(size, positions)
    session.run(arrays)
    began = time.perf_counter()
    session.run(arrays)
    return arrays["input_ids"].size / (time.perf_counter() - began)


def rows(size: int, positions: int | None) -> dict[str, Array]:
    """A batch of about `size` tokens in rows of ROW, or as long as there are positions."""
    width = min(ROW, positions or ROW)
    ones = np.ones((max(1, size // width), width), np.int64)
    return {"input_ids": ones, "attention_mask": ones}


def _free() -> int:
    """Bytes of the device that this process could still have."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())
