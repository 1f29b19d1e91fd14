"""What a task has besides text: whether the model takes it, and its pixels when it was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from omnivec.core.errors import WrongMedium
from omnivec.core.nouns import (
    Card,
    Encode,
    Film,
    Image,
    Item,
    Manifest,
    Pixels,
    Score,
    Video,
)
from omnivec.engine.work import Work, items_of

T = TypeVar("T", bound=Work)


def names_of(task: Work) -> list[str]:
    """How faults name each of these."""
    names = [f"[{i}]" for i in range(len(task.items))]
    return [*names, "query"] if isinstance(task, Score) else names


def with_items(task: T, items: Sequence[Item]) -> T:
    """The same task over these, in the order of `items_of`."""
    if isinstance(task, Score):
        return msgspec.structs.replace(task, items=tuple(items[:-1]), query=items[-1])
    return msgspec.structs.replace(task, items=tuple(items))


def takes(task: Work, card: Card) -> bool:
    """Whether all of it is in the model's modalities."""
    return not any(_beyond(task, item, card) for item in items_of(task))


def check_media(task: Work, card: Card) -> None:
    """Raises WrongMedium, which names the item."""
    for number, item in enumerate(items_of(task)):
        if medium := _beyond(task, item, card):
            taken = " and ".join(card.modalities)
            message = f"This model takes {taken}; it cannot read {medium}s."
            if card.extra:
                message += f" The server lacks the extra {card.extra}, which reads them."
            raise WrongMedium(message, param=names_of(task)[number], medium=medium)


def _beyond(task: Work, item: Item, card: Card) -> str | None:
    """What the item has that the model does not take; of a video it may take the frames."""
    whole = not (isinstance(task, Encode) and task.each_frame)
    for part in item.parts:
        if isinstance(part, Image | Pixels) and "image" not in card.modalities:
            return "image"
        if isinstance(part, Video | Film | Manifest):
            needed = "video" if whole else "image"
            if needed not in card.modalities:
                return "video"
    return None
