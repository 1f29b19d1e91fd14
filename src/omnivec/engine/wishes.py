"""What a request leaves open, from the profile of the model that answers it.

The order is SIE's: the request, then its profile, then what holds for every model; but the
kinds of vectors that a profile names win over those of a request that lets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import Card, Describe, Encode, Extract, Item, Kind, Score, Wishes
from omnivec.engine.catalog import profile_of

DEFAULT = "default"
T = TypeVar("T", bound=Encode | Score | Extract)

_NONE = Wishes()


def settle(task: T, card: Card) -> T:
    """The task with its profile's wishes in it. Raises BadRequest for a profile that the model
    does not have, and Unsupported for one whose vectors the request cannot take."""
    wishes = chosen(task, card)
    if isinstance(task, Encode):
        kinds = _kinds(task, wishes, card)
        if wishes is _NONE and kinds == task.kinds:  # nearly every request
            return task
        return msgspec.structs.replace(task, kinds=kinds, **_open(task, wishes))
    return task if wishes is _NONE else msgspec.structs.replace(task, **_open(task, wishes))


def chosen(task: Encode | Score | Extract | Describe, card: Card) -> Wishes:
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


def _open(task: Encode | Score | Extract, wishes: Wishes) -> dict[str, Any]:
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
