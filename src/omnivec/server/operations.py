"""What answers at a path: the operations of dialects, or a page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from omnivec.core.nouns import Call, Reply
from omnivec.core.seams import Dialect, Endpoint
from omnivec.server.auth import Keys
from omnivec.server.metrics import Traffic


class Operation(msgspec.Struct, frozen=True):
    """An endpoint of a dialect, at one of the dialect's prefixes."""

    dialect: Dialect
    endpoint: Endpoint
    prefix: str


class About(msgspec.Struct, frozen=True):
    """What the API's description says of a page; `example` is of its body, as JSON."""

    tag: str
    summary: str
    example: Any = None


class Page(msgspec.Struct, frozen=True):
    """A route that is no dialect's: probes, metrics, documentation. `keys` are its own, in
    place of the door's; `body` is how many bytes it reads, 0 for none. Without `about` the
    API's description leaves it out."""

    serve: Callable[[Call], Awaitable[Reply]]
    keys: Keys | None = None
    body: int = 0
    about: About | None = None


class Route(msgspec.Struct):
    """What answers one method of one path: a page or the operations of dialects.

    `asked` recognise their bodies, `fallback` takes the rest. `needed` are the fields that the
    fallback's bodies must have.
    """

    method: str
    template: str
    traffic: Traffic
    page: Page | None = None
    asked: list[Operation] = []
    fallback: Operation | None = None
    needed: frozenset[str] = frozenset()

    @property
    def operations(self) -> list[Operation]:
        """All of them, the fallback first."""
        return self.asked if self.fallback is None else [self.fallback, *self.asked]
