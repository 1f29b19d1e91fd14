"""Single texts to rows of token ids, for families that read one text at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Array, Unit
from omnivec.families._files import positions, segments, vocabulary, window
from omnivec.families._frames import Frame
from omnivec.families._text import Tokeniser, limit, read, refuse

BARE = Frame([], [], [], ([], 0, [], 0, []))
"""Of a text that is read without special tokens."""


class Way(NamedTuple):
    """How a text is read: what goes before it, the special tokens around it, its window."""

    prompt: str
    frame: Frame
    window: int


class Row(NamedTuple):
    """`ids` int64 [T] with the special tokens, which token ids from a client have none of."""

    ids: Array
    cut: bool


class Rows:
    """The tokenizer of a checkpoint's `folder`, and its limits. A client's ids are as many as
    config.json says, or with `by_tokenizer` as many as that has. `fill` is what `pack` puts into
    the padding."""

    def __init__(
        self, checkpoint: Checkpoint, folder: str = "", *, by_tokenizer: bool = False
    ) -> None:
        self.tokeniser = Tokeniser(checkpoint, folder)
        self.window = window(checkpoint, folder)
        self.most = positions(checkpoint) or self.window
        self.fill = {"input_ids": self.tokeniser.padding}
        if segments(checkpoint):
            self.fill["token_type_ids"] = 0
        known = None if by_tokenizer else vocabulary(checkpoint)
        self._vocabulary = known or self.tokeniser.size

    def prepare(
        self, units: Sequence[Unit], ways: Sequence[Way], places: Sequence[int] | None = None
    ) -> list[Row]:
        """One for each unit. Raises TooLong, BadRequest, Unsupported as `Model.prepare`; where
        these are not all of its units, `places` says which they are."""
        named = [f"[{place}]" for place in places or range(len(units))]
        texts = [self._text(*each) for each in zip(named, units, ways, strict=True)]
        windows = [
            limit(way.window, unit.max_tokens) for unit, way in zip(units, ways, strict=True)
        ]
        rows = []
        for index, ids in enumerate(self.tokeniser.encode(texts, windows)):
            framed, frame = isinstance(texts[index], str), ways[index].frame
            room = max(0, windows[index] - frame.size) if framed else windows[index]
            cut = ids.more or len(ids.tokens) > room
            if cut and units[index].overflow == "refuse":
                raise refuse(windows[index], named[index])
            kept = ids.tokens[:room]
            rows.append(Row(frame.ids(kept) if framed else np.array(kept, np.int64), cut))
        return rows

    def _text(self, param: str, unit: Unit, way: Way) -> str | list[int]:
        text = read(unit.parts, self._vocabulary, param)
        return way.prompt + text if isinstance(text, str) else text

    def arrays(self, ids: Array) -> dict[str, Array]:
        """Of one row: its ids, and segments where the model has some."""
        return {name: ids if name == "input_ids" else np.zeros_like(ids) for name in self.fill}


def split(rows: Array, masks: Sequence[Array]) -> list[Array]:
    """The rows [K, d] of a batch's kept tokens, to each text its own."""
    ends = np.cumsum([np.count_nonzero(mask) for mask in masks])
    return np.split(rows, ends[:-1])
