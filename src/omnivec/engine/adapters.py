"""Which model each LoRA adapter is for: as the argument says, or the adapter itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import CheckpointError
from omnivec.engine.catalog import ALIAS, Spec, resolve

log = logging.getLogger("omnivec.engine")

WEIGHTLESS = "omnivec-"  # how the architectures that come with the program are called
MODEL = re.compile(r"(.+)@([^@]+)")


def attach(specs: Sequence[Spec], arguments: Sequence[str]) -> list[Spec]:
    """The models, each with those adapters of `NAME=FOLDER` or `NAME=FOLDER@MODEL` that are
    for it. Raises CheckpointError for an adapter that cannot be used or is for none of them.
    """
    found: dict[str, list[Adapter]] = {spec.name: [] for spec in specs}
    names = {one for spec in specs for one in (spec.name, *spec.aliases)}
    for argument in arguments:
        adapter, model = _read(argument)
        if adapter.name in names:
            raise CheckpointError(f"adapter {adapter.name}: something else has that name already")
        names.add(adapter.name)
        found[_choose(adapter, model, specs)].append(adapter)
    return [msgspec.structs.replace(spec, adapters=tuple(found[spec.name])) for spec in specs]


def _read(argument: str) -> tuple[Adapter, str | None]:
    """The adapter, and the model that the argument names for it."""
    named = ALIAS.fullmatch(argument.strip())
    if named is None:
        raise CheckpointError(
            f"{argument!r} is not an adapter; accepted: NAME=FOLDER or NAME=FOLDER@MODEL"
        )
    name, folder, model = named[1], named[2], None
    split = MODEL.fullmatch(folder)
    if split is not None and not Path(folder).expanduser().is_dir():
        folder, model = split[1], split[2]
    return Adapter(name, Path(folder).expanduser()), model


def _choose(adapter: Adapter, model: str | None, specs: Sequence[Spec]) -> str:
    """The model that was named; the one that the adapter names as its base; or, where that is
    not served, the only one that has weights."""
    cards = [spec.card() for spec in specs]
    wanted = model or adapter.base
    base = resolve(wanted, cards) or resolve(Path(wanted).name, cards)
    if base is not None:
        return base
    able = [card.name for card in cards if not card.architecture.startswith(WEIGHTLESS)]
    if model is None and len(able) == 1:
        log.warning(
            "adapter %s: its base is %r, and it is applied to %s", adapter.name, wanted, able[0]
        )
        return able[0]
    raise CheckpointError(
        f"adapter {adapter.name}: its base model {wanted!r} is not served; serve it, or name one "
        f"of {', '.join(card.name for card in cards)}: {adapter.name}=FOLDER@MODEL"
    )
