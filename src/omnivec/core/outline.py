"""A large JSON object by its parts, found without making anything of them.

One call of a JSON decoder keeps the interpreter's lock to its end, and so every other thread
waits, the event loop too. A body of megabytes is therefore cut up first: here, with array
operations that give the lock up, block by block. Then each part is decoded by itself, and
parts that are too many are never decoded at all.

What is found is where things begin and end; whether they are JSON is for the decoder to say.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from omnivec.core.errors import BadRequest, TooLarge

Positions = npt.NDArray[np.int64]

BLOCK = 2**18
"""Bytes that are looked at in one step."""
VALUES = 65_536
"""Values (numbers, fields, brackets) that are decoded in one step, about two milliseconds."""
MOST_FIELDS = 1024
PIECE = 2**17
"""Bytes of items that are decoded together."""
SMALL = 2**15
"""Bytes up to which an array is decoded with the rest of the object."""

_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]] = 1
_STEPS[[*b"]}"]] = -1
_MARKS = np.zeros(256, np.bool_)
_MARKS[[*b"[{,:"]] = True
_SIGNS = np.zeros(256, np.bool_)
_SIGNS[[*b'"[]{},:']] = True
_BLANK = b" \t\r\n"


class MalformedError(ValueError):
    """The body is no JSON object; nothing of it was decoded."""


class Span(NamedTuple):
    """Where a value is, without the blanks around it, and how many values the object has up to
    its beginning and up to its end."""

    start: int
    end: int
    before: int
    after: int


class Group(NamedTuple):
    """Items of an array that are decoded together: the number of the first, how many they
    are, and their text with brackets around it."""

    first: int
    size: int
    text: bytes


class Outline:
    """The top-level fields of the object at body[start:end]. `most` is how many items of arrays
    can be told apart.

    Raises MalformedError for what is no object, BadRequest where the body is not UTF-8, and
    TooLarge for an object of too many fields.
    """

    def __init__(
        self, body: bytes, most: int = 2 * VALUES, start: int = 0, end: int | None = None
    ) -> None:
        self.body = body
        self._most = most
        self._start, self._end = _trim(body, start, len(body) if end is None else end)
        if body[self._start : self._start + 1] != b"{":
            raise MalformedError
        scan = _Scan(body, self._start, self._end, most)
        self.fields = dict(_fields(body, self._start + 1, scan.tops))
        self._values = scan.values
        self._commas = np.concatenate(scan.commas)
        self._counts = np.concatenate(scan.counts)
        self._told = scan.told

    def head(self, name: str, size: int = 1024) -> bytes:
        """The first bytes of a field's value."""
        span = self.fields[name]
        return self.body[span.start : min(span.end, span.start + size)]

    def view(self, name: str) -> memoryview:
        """A field's value, not copied."""
        span = self.fields[name]
        return memoryview(self.body)[span.start : span.end]

    def is_long(self, name: str, opening: bytes = b"[") -> bool:
        """Whether a field is an array, or what else opens so, that is better decoded apart."""
        span = self.fields.get(name)
        return span is not None and span.end - span.start > SMALL and self.head(name, 1) == opening

    def inner(self, name: str) -> Outline:
        """The fields of a field that is an object. Raises as this class."""
        span = self.fields[name]
        return Outline(self.body, self._most, span.start, span.end)

    def rest(self, instead: Mapping[str, bytes]) -> bytes:
        """The object with other values for some of its fields. Raises TooLarge where what is
        left is more than can be decoded in one step."""
        spans = sorted((self.fields[name], text) for name, text in instead.items())
        if self._values - sum(span.after - span.before for span, _ in spans) > VALUES:
            raise TooLarge(f"Beside its inputs, a body may hold at most {VALUES} values.")
        whole = memoryview(self.body)
        pieces: list[bytes | memoryview] = []
        at = self._start
        for span, text in spans:
            pieces += [whole[at : span.start], text]
            at = span.end
        return b"".join([*pieces, whole[at : self._end]])

    def count(self, name: str) -> int:
        """How many items an array has; 1 for a blank one, too."""
        if self.fields[name].end > self._told:
            return sys.maxsize
        first, last = self._inside(name)
        return last - first + 1

    def groups(self, name: str, most: int) -> Iterator[Group]:
        """The first `most` items of an array. Raises BadRequest for an item that is more than
        can be decoded in one step."""
        span = self.fields[name]
        first, last = self._inside(name)
        ends = self._commas[first : min(last, first + most)].tolist()
        counts = self._counts[first : first + len(ends)].tolist()
        if len(ends) < most:
            if span.end > self._told:
                raise TooLarge("The body has more items than can be told apart.")
            ends.append(span.end - 1)
            counts.append(span.after + 1)
        start, before, at = span.start + 1, span.before + 1, 0
        while at < len(ends):
            end = at + 1
            if counts[at] - before > VALUES:
                param = f"{name}[{at}]"
                raise BadRequest(f"`{param}` may hold at most {VALUES} values.", param=param)
            while end < len(ends) and ends[end] - start <= PIECE and counts[end] - before <= VALUES:
                end += 1
            text = b"".join([b"[", memoryview(self.body)[start : ends[end - 1]], b"]"])
            yield Group(at, end - at, text)
            start, before, at = ends[end - 1] + 1, counts[end - 1], end

    def _inside(self, name: str) -> tuple[int, int]:
        """Which of the commas separate the items of that array."""
        span = self.fields[name]
        first, last = np.searchsorted(self._commas, [span.start, span.end]).tolist()
        return first, last


def _fields(body: bytes, start: int, tops: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Span]]:
    """Names and spans from the colons and commas between them, each with its count of values,
    and the closing bracket. Raises MalformedError."""
    if len(tops) == 1 and _trim(body, start, tops[0][0])[0] == tops[0][0]:
        return
    if len(tops) % 2:
        raise MalformedError
    for (colon, before), (end, after) in zip(tops[::2], tops[1::2], strict=True):
        first, last = _trim(body, colon + 1, end)
        if body[colon] != _COLON or body[end] == _COLON or first == last:
            raise MalformedError
        try:
            name = msgspec.json.decode(memoryview(body)[start:colon], type=str)
        except msgspec.DecodeError:
            raise MalformedError from None
        yield name, Span(first, last, before, after - 1)
        start = end + 1


def _trim(body: bytes, start: int, end: int) -> tuple[int, int]:
    """Without the blanks at both ends."""
    while start < end:
        left = len(body[start : min(end, start + BLOCK)].lstrip(_BLANK))
        start = min(end, start + BLOCK) - left
        if left:
            break
    while start < end:
        left = len(body[max(start, end - BLOCK) : end].rstrip(_BLANK))
        end = max(start, end - BLOCK) + left
        if left:
            break
    return start, end


class _Scan:
    """One pass over the object at body[start:end].

    `tops`: each colon and comma between its fields and its closing bracket, with the count of
    values up to there. `commas`: those one level further down, as far as `told`, and their
    `counts`.
    """

    def __init__(self, body: bytes, start: int, end: int, most: int) -> None:
        self.tops: list[tuple[int, int]] = []
        self.commas: list[Positions] = [np.zeros(0, np.int64)]
        self.counts: list[Positions] = [np.zeros(0, np.int64)]
        self.values = 0
        self.told = self._end = end
        self._left = most
        self._depth = 0
        self._inside = 0  # 1 within a string
        self._escaping = 0  # backslashes right before the block
        decoder = codecs.getincrementaldecoder("utf-8")()
        for at in range(start, end, BLOCK):
            block = body[at : min(at + BLOCK, end)]
            try:
                decoder.decode(block, final=at + BLOCK >= end)
            except UnicodeDecodeError:
                raise BadRequest("The body must be JSON in UTF-8.") from None
            if self._inside and not self._escaping and b'"' not in block and b"\\" not in block:
                continue  # a piece of a long text, as base64 is
            self._look(np.frombuffer(block, np.uint8), at, last=at + BLOCK >= end)
        if self._depth != 0 or self._inside:
            raise MalformedError

    def _look(self, block: npt.NDArray[np.uint8], at: int, *, last: bool) -> None:
        places = np.flatnonzero(_SIGNS[block])
        quotes = block[places] == _QUOTE
        self._drop_escaped(block, places, quotes)
        inside = (np.cumsum(quotes, dtype=np.uint8) + np.uint8(self._inside)) & 1 == 1
        self._inside = int(inside[-1]) if len(inside) else self._inside
        places = places[~inside & ~quotes]
        signs = block[places]
        depth = np.cumsum(_STEPS[signs], dtype=np.int64) + self._depth
        values = np.cumsum(_MARKS[signs], dtype=np.int64) + self.values
        closed = last and len(places) > 0 and places[-1] == len(block) - 1
        if (depth[: -1 if closed else None] < 1).any():
            raise MalformedError
        if len(places):
            self._depth, self.values = int(depth[-1]), int(values[-1])
        commas = signs == _COMMA
        tops = (commas | (signs == _COLON)) & (depth == 1)
        if len(self.tops) + np.count_nonzero(tops) > 2 * MOST_FIELDS:
            raise TooLarge(f"A body may have at most {MOST_FIELDS} fields.")
        self.tops += zip((places[tops] + at).tolist(), values[tops].tolist(), strict=True)
        if last:
            self.tops.append((at + len(block) - 1, self.values + 1))
        found = commas & (depth == 2)  # noqa: PLR2004 - a level
        self._tell(places[found] + at, values[found])

    def _tell(self, found: Positions, values: Positions) -> None:
        kept = min(len(found), self._left)
        if kept < len(found) and self.told == self._end:
            self.told = int(found[kept])
        self._left -= kept
        self.commas.append(found[:kept])
        self.counts.append(values[:kept])

    def _drop_escaped(
        self, block: npt.NDArray[np.uint8], places: Positions, quotes: npt.NDArray[np.bool_]
    ) -> None:
        """Take out the quotes after an odd number of backslashes."""
        slashes = block == _BACKSLASH
        if not self._escaping and not slashes.any():
            return
        # for each place the last one that is no backslash; before the block: how far back
        start = -1 - self._escaping
        others = np.where(slashes, np.int32(start), np.arange(len(block), dtype=np.int32))
        np.maximum.accumulate(others, out=others)
        before = np.where(places > 0, others[places - 1], start)
        quotes &= (places - 1 - before) % 2 == 0
        self._escaping = int(len(block) - 1 - others[-1])


# ── long texts ───────────────────────────────────────────────────────────────────────────

_UNITS = 16_384
_ESCAPED = re.compile(
    rb"(?:[^\\]|\\u[dD][89abAB].{2}\\u[dD][c-fC-F].{2}|\\u.{4}|\\[^u]){1,%d}+" % _UNITS, re.DOTALL
)


def read_text(raw: bytes | memoryview) -> str:
    """A JSON string, decoded in pieces. Raises msgspec.DecodeError."""
    body = bytes(raw) if len(raw) <= BLOCK else raw
    if len(body) <= BLOCK:
        return msgspec.json.decode(body, type=str)
    start, end, texts = 1, len(body) - 1, []
    while start < end:
        stop = _stop(body, start, end)
        texts.append(msgspec.json.decode(b"".join([b'"', body[start:stop], b'"']), type=str))
        start = stop
    if body[end:] != b'"' or body[:1] != b'"':
        raise msgspec.DecodeError("not a string")
    return "".join(texts)


def _stop(body: bytes | memoryview, start: int, end: int) -> int:
    """Where a piece of a string may end that begins at `start`: not within a character."""
    stop = min(start + BLOCK, end)
    if b"\\" in bytes(body[start:stop]):
        found = _ESCAPED.match(body, start, end)
        stop = found.end() if found else end
    while start < stop < end and body[stop] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8's own
        stop -= 1
    return stop if stop > start else end
