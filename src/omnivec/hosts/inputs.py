"""What a program may give its engine: texts, pictures by their paths, and what is decoded already.

In a program of one's own local paths are one's own: they are read here and go on as bytes, so
`media_root`, which says what a server's clients may name, does not matter.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from omnivec.core.nouns import Blob, Film, Image, Item, Pixels, Text
from omnivec.media.load import PICTURE

Input: TypeAlias = str | os.PathLike[str] | Pixels | Film | Item
"""A text, a picture's file, a decoded picture or video, or several of these as one item."""

WINDOW = 1024
"""Texts in one task. Two tasks are under way at once, so the model never waits for the next."""
PICTURES = 8
"""Inputs in one, when there are others than texts: pictures of 40 million pixels each are
within what one request may take of the memory."""

ACCEPTED = "texts (str), pictures (a Path or Pixels), a Film or Items"


def listed(inputs: Iterable[Input], verb: str) -> list[Input]:
    """Raises TypeError, saying what is accepted, for anything else."""
    if isinstance(inputs, str | bytes):
        raise TypeError(f"{verb} takes a list of texts, not one text")
    try:
        found: list[Any] = list(inputs)
    except TypeError:
        if isinstance(inputs, Iterable):
            raise  # its own generator's
        raise TypeError(f"{verb} takes inputs in a list, not {type(inputs).__name__}") from None
    for number, one in enumerate(found):
        if not isinstance(one, str | os.PathLike | Pixels | Film | Item):
            what = type(one).__name__
            raise TypeError(f"{verb} takes {ACCEPTED}; number {number} is {what}")
    return found


def window(inputs: Sequence[Input]) -> int:
    """How many of them one task may have."""
    return WINDOW if all(isinstance(one, str) for one in inputs) else PICTURES


async def items(inputs: Sequence[Input], instruction: str | None) -> tuple[Item, ...]:
    """The files among them are read on a thread. Raises OSError for one that cannot be."""
    if any(isinstance(one, os.PathLike) for one in inputs):
        return await asyncio.to_thread(_items, inputs, instruction)
    return _items(inputs, instruction)


def _items(inputs: Sequence[Input], instruction: str | None) -> tuple[Item, ...]:
    return tuple(_item(one, instruction) for one in inputs)


def _item(one: Input, instruction: str | None) -> Item:
    if isinstance(one, Item):
        return msgspec.structs.replace(one, instruction=one.instruction or instruction)
    if isinstance(one, str):
        return Item((Text(one),), instruction)
    return Item((one if isinstance(one, Pixels | Film) else _picture(one),), instruction)


def _picture(path: os.PathLike[str]) -> Image:
    with Path(path).open("rb") as file:
        return Image(Blob(file.read(PICTURE + 1)))  # one byte too many is refused as it should be
