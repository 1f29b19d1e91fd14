"""Prompts of several pieces to token ids: words, and tokens that stand for themselves.

The words of a request are only ever words: what looks like a special token in them is spelled
out, so that no text can close its turn or pretend to be a picture. And of all pieces they alone
may be cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import Array, Film, Loaded, Pixels, Text, Unit
from omnivec.families._rows import Row
from omnivec.families._text import Tokeniser, limit, read, refuse

LETTERS = 32  # characters for each token of the window; what comes after them is not tokenised


class Mark(NamedTuple):
    """A special token, or a row of the same."""

    token: str
    times: int = 1


class Words(NamedTuple):
    """`own`: the request's, not the template's."""

    text: str
    own: bool = False


Piece: TypeAlias = Mark | Words


class Content(NamedTuple):
    """An item's parts by what they are, each kind in its order."""

    films: list[Film]
    pictures: list[Pixels]
    texts: list[str]

    @property
    def text(self) -> str:
        return "".join(self.texts)


def sort(parts: Sequence[Loaded], param: str) -> Content:
    """Raises BadRequest, Unsupported as `_text.read`, and for a film without frames."""
    content = Content([], [], [])
    for part in parts:
        if isinstance(part, Film):
            if not part.frames:
                raise BadRequest("A video has at least one frame.", param=param)
            content.films.append(part)
        elif isinstance(part, Pixels):
            content.pictures.append(part)
        elif isinstance(part, Text):
            content.texts.append(str(read((part,), 0, param)))
        else:
            raise Unsupported("This model takes text, not token ids.", param=param)
    return content


def parse(template: str, marks: Iterable[str]) -> list[Piece]:
    """A template's text, with the special tokens among `marks` as such."""
    known = set(marks)
    pattern = "|".join(re.escape(mark) for mark in known)
    found = [one for one in re.split(f"({pattern})", template) if one]
    return [Mark(one) if one in known else Words(one) for one in found]


class Scribe:
    """A checkpoint's tokenizer for prompts. `marks` are the special tokens that they may have.
    Raises CheckpointError for one that is not in its vocabulary."""

    def __init__(
        self, checkpoint: Checkpoint, marks: Iterable[str], *, framed: bool = True
    ) -> None:
        """`framed`: with the tokens that the tokenizer puts around a text of its own accord."""
        self._tokeniser = Tokeniser(checkpoint)
        self._tokeniser.library.encode_special_tokens = True
        frame = self._tokeniser.single
        self._before, self._after = (frame.before, frame.after) if framed else ([], [])
        self.numbers = {mark: self._number(checkpoint, mark) for mark in marks}

    @property
    def padding(self) -> int:
        """The id that fills a batch's rows."""
        return self._tokeniser.padding

    def write(self, index: int, unit: Unit, pieces: Sequence[Piece], window: int) -> Row:
        """The ids of the prompt of the unit number `index`. Where it does not fit, the last of
        the request's words are left out; raises TooLong when that is refused or not enough."""
        most, param = limit(window, unit.max_tokens), f"[{index}]"
        ids, own, cut = self._spell(pieces, LETTERS * most)
        excess = len(ids) + len(self._before) + len(self._after) - most
        cut = cut or excess > 0
        if cut and unit.overflow == "refuse":
            raise refuse(most, param)
        if excess > np.count_nonzero(own):
            raise refuse(most, param, "The pictures and the prompt around the text are")
        if excess > 0:
            ids = np.delete(ids, np.flatnonzero(own)[-excess:])
        return Row(np.concatenate([self._before, ids, self._after]).astype(np.int64), cut)

    def _spell(self, pieces: Sequence[Piece], most: int) -> tuple[Array, Array, bool]:
        """The ids, which of them are of the request's own words, and whether some of these,
        past `most` characters, were left out."""
        ids: list[int] = []
        own: list[bool] = []
        cut = False
        for kind, run in groupby(pieces, type):
            if kind is Mark:
                for number in self._marks(run):
                    ids.append(number)
                    own.append(False)
                continue
            words = [piece for piece in run if isinstance(piece, Words)]
            cut = cut or any(piece.own and len(piece.text) > most for piece in words)
            numbers, whose = self._tokens(
                [Words(one.text[:most], own=True) if one.own else one for one in words]
            )
            ids += numbers
            own += whose
        return np.array(ids, np.int64), np.array(own, bool), cut

    def _marks(self, run: Iterable[Any]) -> Iterator[int]:
        for mark in run:
            yield from [self.numbers[mark.token]] * mark.times

    def _tokens(self, words: Sequence[Words]) -> tuple[list[int], list[bool]]:
        """Of words that stand side by side and are tokenised as one text; a token belongs to
        the piece that it begins in."""
        text = "".join(piece.text for piece in words)
        whose = np.repeat([piece.own for piece in words], [len(piece.text) for piece in words])
        # encode_batch releases the GIL, encode does not
        encoding = self._tokeniser.library.encode_batch([text], add_special_tokens=False)[0]
        return encoding.ids, [bool(whose[min(a, len(text) - 1)]) for a, _ in encoding.offsets]

    def _number(self, checkpoint: Checkpoint, mark: str) -> int:
        number = self._tokeniser.library.token_to_id(mark)
        if number is None:
            raise CheckpointError(
                f"{checkpoint.name}: its tokenizer has no {mark}, which its prompt needs; "
                "download the model again"
            )
        return int(number)
