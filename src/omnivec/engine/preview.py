"""What can be said of a model before it is loaded, without weights and without a network."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import Card
from omnivec.engine.catalog import Spec
from omnivec.engine.hub import locate_here


def first_card(spec: Spec, describe: Callable[[Checkpoint], Card]) -> Card:
    """The catalogue's card; for a model that it does not know, the one that `describe` reads
    from the small files, where they are on this disk. A name alone when neither tells more:
    what is wrong with the files is told when they are loaded."""
    known = spec.card()
    if known.tasks:
        return known
    try:
        checkpoint = locate_here(spec)
        found = describe(checkpoint) if checkpoint is not None else known
    except CheckpointError:
        return known
    return named(found, known)


def named(card: Card, known: Card) -> Card:
    """The card of a checkpoint under the names and with the profiles that `known` has."""
    return msgspec.structs.replace(
        card, name=known.name, aliases=known.aliases, profiles=known.profiles
    )
