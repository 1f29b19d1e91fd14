"""The special tokens that a tokenizer puts around texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Frame(NamedTuple):
    """The special tokens around a text, or around and between two, and the segments' numbers.

    `types` are those of the tokens before, the first text, the tokens between, the second
    text and the tokens after.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[list[int], int, list[int], int, list[int]]

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def ids(self, first: list[int], second: Sequence[int] = ()) -> Array:
        return np.array([*self.before, *first, *self.between, *second, *self.after], np.int64)

    def segments(self, first: int, second: int) -> Array:
        before, one, between, two, after = self.types
        return np.array([*before, *[one] * first, *between, *[two] * second, *after], np.int64)


def frame(library: Tokenizer, name: str, told: Mapping[str, Any], *, pair: bool) -> Frame:
    """The special tokens around a text, seen by encoding one; `told` is tokenizer_config.json.
    Raises CheckpointError for a tokenizer that makes no tokens."""
    for probe in ("a", "1", ".", "the", "中"):
        encoding = library.encode(probe, probe if pair else None)
        owners = encoding.sequence_ids
        if 0 in owners and (1 in owners or not pair):
            found = _framed(encoding.ids, encoding.type_ids, owners)
            return _ended(found, _end(library, told))
    raise CheckpointError(
        f"{name}: tokenizer.json makes no tokens of plain text; download it again"
    )


def _framed(ids: list[int], types: list[int], owners: list[int | None]) -> Frame:
    first = owners.index(0)
    end = len(owners) - owners[::-1].index(0)
    second, last = end, end
    if 1 in owners:
        second = owners.index(1)
        last = len(owners) - owners[::-1].index(1)
    return Frame(
        ids[:first],
        ids[end:second],
        ids[last:],
        (types[:first], types[first], types[end:second], types[last - 1], types[last:]),
    )


def _ended(frame: Frame, end: int | None) -> Frame:
    if end is None or frame.after[-1:] == [end]:
        return frame
    before, first, between, second, after = frame.types
    number = (after or [second])[-1]
    return frame._replace(
        after=[*frame.after, end], types=(before, first, between, second, [*after, number])
    )


def _end(library: Tokenizer, told: Mapping[str, Any]) -> int | None:
    """The token that `add_eos_token` wants after a text: the classes of tokenizers that read it
    (Llama's, gte-Qwen2's own) add it when they are made, so that tokenizer.json may lack it."""
    if told.get("add_eos_token") is not True:
        return None
    token = told.get("eos_token")
    return library.token_to_id(token["content"] if isinstance(token, dict) else str(token))
