"""From a method and a path to what answers there, without a regular expression.

A path without a parameter is one dictionary look-up; a template (`/v1/models/{id:path}`) is
found under the literal text before its parameter, the longest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import msgspec

from omnivec.core.errors import NotFound, WrongMethod

R = TypeVar("R")


class NotAllowed(WrongMethod):
    """`allow` is the value of the Allow header."""

    def __init__(self, methods: Iterable[str]) -> None:
        known = set(methods)
        self.allow = ", ".join(sorted(known | {"HEAD"} if "GET" in known else known))
        super().__init__(f"This path answers to {self.allow} only.")


class Template(msgspec.Struct, frozen=True):
    """`head{name}tail`; `deep` when the parameter may contain slashes."""

    head: str
    name: str
    deep: bool
    tail: str

    def value(self, rest: str) -> str | None:
        """The parameter in `rest`, a path from `head` on; None when it does not fit."""
        if not rest.endswith(self.tail):
            return None
        value = rest[: len(rest) - len(self.tail)]
        return value if value and (self.deep or "/" not in value) else None


class Table(Generic[R]):
    """Routes by path and method. HEAD is answered where GET is."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, R]] = {}
        self._templates: dict[str, list[tuple[Template, dict[str, R]]]] = {}

    def add(self, method: str, path: str, route: R) -> None:
        """Raises RuntimeError when that path and method are taken."""
        methods = self._methods(path)
        if method in methods:
            raise RuntimeError(f"two routes claim {method} {path}")
        methods[method] = route

    def find(self, method: str, path: str) -> tuple[R, Mapping[str, str]]:
        """The route and its parameters. A slash at the end changes nothing, so no client is
        ever redirected. Raises `NotFound` or `WrongMethod`."""
        params: Mapping[str, str] = {}
        methods = self._exact.get(path)
        if methods is None:
            path = path.removesuffix("/")
            methods = self._exact.get(path)
        if methods is None:
            methods, params = self._search(path)
        route = methods.get(method)
        if route is None and method == "HEAD":
            route = methods.get("GET")
        if route is None:
            raise NotAllowed(methods)
        return route, params

    def _methods(self, path: str) -> dict[str, R]:
        if "{" not in path:
            return self._exact.setdefault(path, {})
        template = _parse(path)
        group = self._templates.setdefault(template.head, [])
        for known, methods in group:
            if known == template:
                return methods
        group.append((template, {}))
        return group[-1][1]

    def _search(self, path: str) -> tuple[dict[str, R], Mapping[str, str]]:
        slash = path.rfind("/")
        while slash >= 0:
            for template, methods in self._templates.get(path[: slash + 1], ()):
                value = template.value(path[slash + 1 :])
                if value is not None:
                    return methods, {template.name: value}
            slash = path.rfind("/", 0, slash)
        raise NotFound("There is nothing at this path; GET /openapi.json lists what there is.")


def _parse(path: str) -> Template:
    head, _, rest = path.partition("{")
    inner, _, tail = rest.partition("}")
    name, _, kind = inner.partition(":")
    if not head.endswith("/") or not name or kind not in ("", "path") or "{" in tail:
        raise RuntimeError(f"not a path template: {path!r}")
    return Template(head, name, kind == "path", tail)
