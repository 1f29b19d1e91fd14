"""Loading and unloading models by request, for whoever has the admin key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

from omnivec.core.errors import Forbidden
from omnivec.core.nouns import Call, Card, Keep, Reply
from omnivec.server.auth import Keys
from omnivec.server.door import Door
from omnivec.server.operations import About
from omnivec.server.replies import as_json

Wish = Literal["load", "unload", "retry"]
WISHES: tuple[Wish, ...] = ("load", "unload", "retry")

_SHOWN = (
    "name",
    "state",
    "reason",
    "cause",
    "attempts",
    "memory",
    "runtime",
    "device",
    "dtype",
    "revision",
)


def add_admin(door: Door, key: str | None) -> None:
    """GET /admin/models and POST /admin/models/{id}/load, /unload, /retry. They answer when it
    is done; a load that takes longer than the client waits goes on. Without a key set all
    refuse: what they do is not for everyone who may embed."""
    keys = Keys([key] if key else [])
    pages: dict[tuple[str, str], Callable[[Call], Awaitable[Reply]]] = {
        ("GET", "/admin/models"): partial(_list, door),
        **{
            ("POST", f"/admin/models/{{id:path}}/{wish}"): partial(_keep, door, wish)
            for wish in WISHES
        },
    }
    for (method, path), page in pages.items():
        act = path.rpartition("/")[2].title()
        summary = f"{act} a model" if method == "POST" else "List the models and their states"
        about = About("server", f"{summary}; needs the admin key")
        door.add_page(path, page if key else _closed, method, keys or None, about=about)


async def _closed(_call: Call) -> Reply:
    raise Forbidden("No admin key is set here: start the server with OMNIVEC_ADMIN_KEY.")


async def _list(door: Door, _call: Call) -> Reply:
    cards = (await door.cards()).cards
    return as_json({"models": [_shown(card) for card in cards]})


async def _keep(door: Door, wish: Wish, call: Call) -> Reply:
    """Raises UnknownModel."""
    result = await door.engine.run(Keep(call.params["id"], wish))
    return as_json(_shown(result.card), 502 if _missed(result.card, wish) else 200)


def _missed(card: Card, wish: Wish) -> bool:
    return wish != "unload" and card.state == "failed"


def _shown(card: Card) -> dict[str, Any]:
    return {name: getattr(card, name) or None for name in _SHOWN}
