"""Finding plug-ins: a dialect, a family or a runtime is a module with a `PLUGIN`.

Built-ins and installed packages come through the same door: the public modules of the room
(names without a leading underscore) and the entry points `omnivec.<room>`.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import Any


def discover(room: str) -> dict[str, Any]:
    """The plug-ins of "dialects", "families" or "runtimes", by name, in order of `rank`
    (where they have one) and name. Raises RuntimeError when two have one name."""
    package = importlib.import_module(f"omnivec.{room}")
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            _add(found, importlib.import_module(f"omnivec.{room}.{module.name}").PLUGIN, room)
    for point in entry_points(group=f"omnivec.{room}"):
        _add(found, point.load(), room)
    return dict(sorted(found.items(), key=lambda pair: (getattr(pair[1], "rank", 0), pair[0])))


def _add(found: dict[str, Any], plugin: Any, room: str) -> None:
    if plugin.name in found:
        raise RuntimeError(f"two plug-ins of {room} are called {plugin.name!r}")
    found[plugin.name] = plugin
