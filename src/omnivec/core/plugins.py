"""Finding plug-ins: a dialect, a family or a runtime is a module with a `PLUGIN`.

Built-ins and installed packages come through the same door: the public modules of the room
(names without a leading underscore) and the entry points `omnivec.<room>`, which are called
as their plug-ins are.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

log = logging.getLogger("omnivec")

ROOMS = ("dialects", "families", "runtimes")


class Installed(NamedTuple):
    """What another package adds. `broken` says why it cannot be had; then `plugin` is None."""

    name: str
    package: str
    plugin: Any
    broken: str | None


def discover(room: str) -> dict[str, Any]:
    """The plug-ins of one of ROOMS, by name, in order of `rank` (where they have one) and name.

    A package whose plug-in is broken, or is called as one that is there already, must not
    stop a server that may not even need it: it is left out with a warning. What is wrong with
    a built-in raises.
    """
    found = built_in(room)
    for one in installed(room):
        if one.broken is None:
            found[one.plugin.name] = one.plugin
        else:
            log.warning(
                "plug-in %s (%s) of package %s is left out: %s",
                one.name,
                room,
                one.package,
                one.broken,
            )
    return dict(sorted(found.items(), key=lambda pair: (getattr(pair[1], "rank", 0), pair[0])))


def built_in(room: str) -> dict[str, Any]:
    """Those of omnivec itself, by name. Raises RuntimeError when two have one name."""
    found: dict[str, Any] = {}
    for module in _modules(room):
        plugin = importlib.import_module(f"omnivec.{room}.{module}").PLUGIN
        if plugin.name in found:
            raise RuntimeError(f"two plug-ins of {room} are called {plugin.name!r}")
        found[plugin.name] = plugin
    return found


def installed(room: str) -> list[Installed]:
    """Those of other packages, each loaded or with the reason why it could not be."""
    taken = set(built_in(room))
    found = []
    for point in entry_points(group=f"omnivec.{room}"):
        one = _load(point, taken)
        taken.add(one.name)
        found.append(one)
    return found


def names(room: str) -> tuple[str, ...]:
    """What plug-ins there are, told without importing any."""
    return tuple(
        sorted({*_modules(room), *(point.name for point in entry_points(group=f"omnivec.{room}"))})
    )


def _modules(room: str) -> list[str]:
    package = importlib.import_module(f"omnivec.{room}")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return [name for name in found if not name.startswith("_")]


def _load(point: EntryPoint, taken: set[str]) -> Installed:
    package = point.dist.name if point.dist else "unknown"
    try:
        plugin = point.load()
        name = str(plugin.name)
    except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything
        return Installed(point.name, package, None, f"{type(error).__name__}: {error}")
    if name in taken:
        return Installed(name, package, None, "that name is taken")
    return Installed(name, package, plugin, None)
