"""What a request leaves open, from the profile of the model that answers it.

The order is SIE's: the request, then its profile, then what holds for every model; but the
kinds of vectors that a profile names win over those of a request that lets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import Card, Describe, Encode, Item, Kind, Score, Text, Wishes
from omnivec.engine.adapters import WEIGHTLESS
from omnivec.engine.catalog import profile_of
from omnivec.engine.work import Work

DEFAULT = "default"
T = TypeVar("T", bound=Work)

_NONE = Wishes()


def settle(task: T, card: Card) -> T:
    """The task with its profile's wishes in it. Raises BadRequest for a profile that the model
    does not have, and Unsupported for one whose vectors the request cannot take."""
    wishes = chosen(task, card)
    said = {} if wishes is _NONE else _open(task, wishes)
    if isinstance(task, Encode):
        if (kinds := _kinds(task, wishes, card)) != task.kinds:
            said["kinds"] = kinds
        items = said.get("items", task.items)
        told = task.prefixes and any(item.instruction is not None for item in items)
        if told and _is_bare(card):
            said["items"] = tuple(map(_begun, items))
    return msgspec.structs.replace(task, **said) if said else task


def chosen(task: Work | Describe, card: Card) -> Wishes:
    """What the profile says that the task names, or its model's name does. Raises BadRequest."""
    own = None if isinstance(task, Describe) else task.profile
    name = own or profile_of(task.model or "", card) or DEFAULT
    if name in card.profiles:
        return card.profiles[name]
    if name == DEFAULT:
        return _NONE
    names = ", ".join(sorted({DEFAULT, *card.profiles}))
    param = "profile" if own else "model"
    raise BadRequest(f"This model has no such profile; it has {names}.", param=param)


def _open(task: Work, wishes: Wishes) -> dict[str, Any]:
    """What the profile says and the task does not, by field."""
    names = ("role", "normalize", "dims", "max_tokens", "dtype")
    said = {
        name: getattr(wishes, name)
        for name in names
        if hasattr(task, name) and getattr(task, name) is None
    }
    if wishes.instruction is None:
        return said
    if isinstance(task, Score):
        return {**said, "query": _instructed([task.query], wishes.instruction)[0]}
    return {**said, "items": _instructed(task.items, wishes.instruction)}


def _instructed(items: Sequence[Item], instruction: str) -> tuple[Item, ...]:
    return tuple(
        msgspec.structs.replace(item, instruction=instruction) if item.instruction is None else item
        for item in items
    )


def _is_bare(card: Card) -> bool:
    """Whether it has no way of its own with an instruction, and reads sentences: what counts
    words would count those of the instruction, too."""
    prompted = card.instructions or any(card.prompts.values())
    return not prompted and not card.architecture.startswith(WEIGHTLESS)


def _begun(item: Item) -> Item:
    """With its instruction as the beginning of its first text."""
    for place, part in enumerate(item.parts):
        if isinstance(part, Text) and item.instruction is not None:
            text = Text(f"{item.instruction} {part.text}")
            parts = (*item.parts[:place], text, *item.parts[place + 1 :])
            return msgspec.structs.replace(item, parts=parts, instruction=None)
    return item


def _kinds(task: Encode, wishes: Wishes, card: Card) -> tuple[Kind, ...]:
    if wishes.kinds is not None:
        if task.yields or not task.kinds:
            return wishes.kinds
        if set(task.kinds) <= set(wishes.kinds):
            return task.kinds
        raise Unsupported(
            f"This profile makes {', '.join(wishes.kinds)} vectors; here {', '.join(task.kinds)} "
            "ones are answered.",
            param="profile" if task.profile else "model",
        )
    if task.kinds:
        return task.kinds
    return ("dense",) if "dense" in card.kinds else card.kinds[:1]
