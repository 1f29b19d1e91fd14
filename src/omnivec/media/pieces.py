"""Items taken apart into one for each frame of their videos."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from omnivec.core.nouns import Film, Image, Item, Loaded, Manifest, Part, Pixels, Video

T = TypeVar("T")

Give: TypeAlias = Callable[[int], None]
"""Told how many bytes are there no more."""


def kept(_count: int) -> None:
    """Of what stays to the end of its request."""


class Piece(NamedTuple):
    """One item of those that the request's item number `origin` becomes. Its frame takes `size`
    bytes, which `free` gives back."""

    origin: int
    item: Item
    size: int = 0
    give: Give = kept

    def free(self) -> None:
        self.give(self.size)


def moving(items: Sequence[Item]) -> list[int | None]:
    """Of each item the place of its video, if that can be shown frame by frame: if it is the
    item's only one, and asked for only once."""
    every = (part for item in items for part in item.parts)
    counts = Counter(part for part in every if isinstance(part, Video | Manifest))
    found: list[int | None] = []
    for item in items:
        films = [
            i for i, part in enumerate(item.parts) if isinstance(part, Film | Video | Manifest)
        ]
        part = item.parts[films[0]] if len(films) == 1 else None
        alone = isinstance(part, Video | Manifest) and counts[part] == 1
        found.append(films[0] if alone else None)
    return found


def spread(item: Item) -> list[Item]:
    """One for each frame of its films, which were loaded."""
    made = [item]
    for place, part in enumerate(item.parts):
        if isinstance(part, Film):
            made = [put(one, place, frame) for one in made for frame in part.frames]
    return made


def put(item: Item, place: int, part: Loaded) -> Item:
    parts = (*item.parts[:place], part, *item.parts[place + 1 :])
    return msgspec.structs.replace(item, parts=parts)


def replaced(item: Item, loaded: Mapping[Part, Pixels | Film]) -> Item:
    """With what was loaded in the place of its source."""
    parts = tuple(
        loaded.get(part, part) if isinstance(part, Image | Video | Manifest) else part
        for part in item.parts
    )
    return msgspec.structs.replace(item, parts=parts)


async def in_turn(
    works: Iterable[Callable[[], Coroutine[Any, Any, T]]], most: int
) -> AsyncGenerator[T, None]:
    """What they come to, in order, at most so many of them ahead of whoever asks. Close it."""
    left: Iterator[Callable[[], Coroutine[Any, Any, T]]] = iter(works)
    tasks: deque[asyncio.Task[T]] = deque()
    try:
        while True:
            while len(tasks) < most and (work := next(left, None)):
                tasks.append(asyncio.create_task(work()))
            if not tasks:
                return
            yield await tasks.popleft()
    finally:
        cancel(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        tasks.clear()  # else a fault holds, through its traceback, what the others have loaded


def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """In a frame of its own: the variable of a loop in the caller's would hold the last of them
    when all others are let go."""
    for task in tasks:
        task.cancel()
