"""What a `*ForSequenceClassification` reads, one text or two framed by special tokens, and what
the logit of a pair says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Array, Features, Loaded, Relevance, Unit
from omnivec.families._adapters import Adapters
from omnivec.families._files import positions, segments, vocabulary, window
from omnivec.families._text import Ids, Tokeniser, limit, pack, read, refuse, shares

Share: TypeAlias = Callable[[int, int, int], tuple[int, int]]
"""From the tokens of both texts and the room for them to how many of each are kept."""


class Reader:
    """Texts to ids, their frames, and batches of them. Raises CheckpointError."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tokeniser = Tokeniser(checkpoint)
        self._adapters = Adapters(checkpoint)
        self._window = window(checkpoint)
        self._most = positions(checkpoint) or self._window
        self._vocabulary = vocabulary(checkpoint) or self._tokeniser.size
        self._fill = {"input_ids": self._tokeniser.padding}
        if segments(checkpoint):
            self._fill["token_type_ids"] = 0

    def read(self, parts: Sequence[Loaded], param: str) -> str | list[int]:
        """As `_text.read`, in this model's vocabulary."""
        return read(parts, self._vocabulary, param)

    def windows(self, units: Sequence[Unit]) -> list[int]:
        return [limit(self._window, unit.max_tokens) for unit in units]

    def encode(
        self, texts: Sequence[str | list[int]], windows: Sequence[int] | None = None
    ) -> list[Ids]:
        """Enough of each text's ids for its window; without `windows`, for the model's own."""
        rooms = [self._window] * len(texts) if windows is None else windows
        return self._tokeniser.encode(texts, rooms)

    def frame_one(self, index: int, unit: Unit, text: Ids, window: int) -> Features:
        """Raises TooLong, which names the unit, as does `frame_two`."""
        frame = self._tokeniser.single
        kept = min(len(text.tokens), max(0, window - frame.size))
        cut = kept < len(text.tokens) or text.more
        if cut and unit.overflow == "refuse":
            raise refuse(window, f"[{index}]")
        row = frame.ids(text.tokens[:kept])
        return self._features(unit, row, frame.segments(kept, 0), cut=cut)

    def frame_two(
        self,
        index: int,
        unit: Unit,
        texts: tuple[Ids, Ids],
        window: int,
        what: str,
        share: Share = shares,
    ) -> Features:
        """`what` is too long, as a refusal words it."""
        first, second = texts
        frame = self._tokeniser.pair
        sizes = len(first.tokens), len(second.tokens)
        kept = share(*sizes, max(0, window - frame.size))
        cut = kept != sizes or first.more or second.more
        if cut and unit.overflow == "refuse":
            raise refuse(window, f"[{index}]", what)
        row = frame.ids(first.tokens[: kept[0]], second.tokens[: kept[1]])
        return self._features(unit, row, frame.segments(*kept), cut=cut)

    def pack(self, batch: Sequence[Features]) -> dict[str, Array]:
        return pack(batch, self._fill, self._most)

    def _features(self, unit: Unit, row: Array, numbered: Array, *, cut: bool) -> Features:
        arrays = {"input_ids": row, **self._adapters.arrays(unit)}
        if "token_type_ids" in self._fill:
            arrays["token_type_ids"] = numbered
        return Features(arrays=arrays, cost=len(row), tokens=len(row), cut=cut)


def relevance(logit: float) -> Relevance:
    """The logistic function, written so that no exponential overflows."""
    value = 0.5 * (1 + math.tanh(0.5 * logit))
    return Relevance(value=value, raw=logit)
