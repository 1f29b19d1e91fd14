"""The one way in: whatever the dialect, a call is routed, admitted, decoded, run and encoded
here, and whatever goes wrong becomes that dialect's fault here."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from omnivec.core.errors import (
    BadRequest,
    Fault,
    Loading,
    ModelFailed,
    NotFound,
    Overloaded,
    Unauthorized,
    WrongMethod,
)
from omnivec.core.nouns import Call, Describe, Reply, Result
from omnivec.core.outline import VALUES, MalformedError, Outline
from omnivec.core.seams import Dialect, Endpoint, Engine
from omnivec.core.settings import Settings
from omnivec.server.aside import LARGE_BODY, LARGE_REPLY, Aside
from omnivec.server.auth import OPEN, Hosts, Keys, challenge, check_page
from omnivec.server.form import posted
from omnivec.server.limits import Read, limits, read_within
from omnivec.server.metrics import Metrics
from omnivec.server.operations import About, Operation, Page, Route
from omnivec.server.replies import headers_of, internal, placed, with_header
from omnivec.server.routes import NotAllowed, Table

log = logging.getLogger("omnivec.server")

LONGEST_NAME = 128
"""Characters of a request id that a client may choose."""

_peek = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Visit(msgspec.Struct):
    """What is known so far of a call that is being answered."""

    call: Call
    dialect: Dialect
    body: bytes = b""
    endpoint: Endpoint | None = None
    model: str | None = None
    result: Result | None = None


class Tracer(Protocol):
    """What is told of each call to a dialect's endpoint; server/tracing.py is one."""

    def note(
        self, visit: Visit, template: str, request: str, status: int, seconds: float
    ) -> str | None: ...

    async def close(self) -> None: ...


class Door:
    """Answers calls. `dialects` by name; the one that the settings name speaks where no other
    dialect can be told. Raises RuntimeError when two endpoints claim one path."""

    def __init__(
        self,
        dialects: Mapping[str, Dialect],
        engine: Engine,
        *,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        if not dialects:
            raise RuntimeError("a server needs at least one dialect")
        self.speaker = dialects.get(settings.dialect) or next(iter(dialects.values()))
        self.engine = engine
        self.metrics = metrics
        self.keys = Keys(settings.api_keys)
        self.limits = limits(settings)
        self.draining = False
        self.tracer: Tracer | None = None
        self.aside = Aside()
        self.mounts: Callable[[str], str] = str
        self._hosts = Hosts(settings.host, keyed=bool(self.keys))
        self._table: Table[Route] = Table()
        self._routes: dict[tuple[str, str], Route] = {}
        self._nowhere = metrics.route("none", "none")
        self._boot = secrets.token_hex(6)
        self._count = itertools.count(1)
        self.described: list[Route] = []  # pages that the API's description tells of
        others = (dialect for dialect in dialects.values() if dialect is not self.speaker)
        self.dialects = (self.speaker, *others)
        for dialect in self.dialects:
            for prefix in dialect.prefixes:
                for endpoint in dialect.endpoints:
                    self._add(Operation(dialect, endpoint, prefix))

    def add_page(
        self,
        path: str,
        serve: Callable[[Call], Awaitable[Reply]],
        method: str = "GET",
        keys: Keys | None = None,
        *,
        body: int = 0,
        about: About | None = None,
    ) -> None:
        """What no dialect has, or the profile's has in its own way. Open without a key only
        when `auth.OPEN` names it. Raises RuntimeError when the path is taken."""
        if self._is_owned(method, path):
            return
        traffic = self.metrics.route(path, method)
        route = Route(method, path, traffic, Page(serve, keys, body, about))
        self._table.add(method, path, route)
        if about:
            self.described.append(route)

    @property
    def routes(self) -> Sequence[Route]:
        """Every route of a dialect, in the order in which they were found."""
        return tuple(self._routes.values())

    # ── answering ────────────────────────────────────────────────────────────────────────

    async def answer(self, call: Call, read: Read | None = None) -> Reply:
        """The reply to a call, a fault's too; raises nothing but CancelledError.

        `call.path` has its prefix still. `read` fetches the body (in place of `call.body`)
        once the path and the key were found good; it may raise a `Fault`.
        """
        started = time.perf_counter()
        request = self._name(call)
        route: Route | None = None
        visit = Visit(call, self.speaker)
        self.metrics.in_flight += 1
        try:
            self._hosts.check(call.headers)
            check_page(call)
            route, params = self._find(call)
            if route.page is not None:
                visit.body = await read_within(route.page.body, call, read)
                inner = msgspec.structs.replace(call, params=params, body=visit.body)
                reply = await route.page.serve(inner)
            else:
                reply = await self._serve(route, call, params, read, visit)
        except Fault as fault:
            if isinstance(fault, ModelFailed):
                log.warning("request %s: %s", request, fault.message)
            reply = self._refuse(fault, visit)
        except Exception:
            log.exception("request %s failed", request)
            reply = self._refuse(internal(request), visit)
        finally:
            self.metrics.in_flight -= 1
        seconds = time.perf_counter() - started
        log.debug("request %s: %s %d", request, call.method, reply.status)
        traffic = self._nowhere if route is None else route.traffic
        self.metrics.answered(traffic, reply.status, seconds, len(visit.body), len(reply.body))
        headers = headers_of(reply, request, seconds, visit.result)
        if self.tracer is not None and route is not None and route.page is None:
            trace = self.tracer.note(visit, route.template, request, reply.status, seconds)
            if trace is not None:
                headers["x-trace-id"] = trace
        return Reply(reply.body, reply.status, headers)

    async def _serve(
        self, route: Route, call: Call, params: Mapping[str, str], read: Read | None, visit: Visit
    ) -> Reply:
        blamed = self._blamed(route)
        visit.dialect = blamed.dialect
        visit.body = body = call.body if read is None else await read()
        form = await posted(call, body, route.operations, self.aside)
        outline = None if form else await self._outlined(call, body)
        if form is None:
            operation = _choose(route, body if outline is None else outline, blamed)
        else:
            operation = form.choose(route.operations, blamed)
        visit.dialect, endpoint = operation.dialect, operation.endpoint
        visit.endpoint = endpoint
        visit.model = params.get("id")  # the body's, once it is read
        path = self.mounts(call.path)[len(operation.prefix) :]
        inner = Call(
            call.method,
            path,
            body,
            params,
            call.query,
            call.headers,
            self.limits,
            outline=outline,
        )
        large = len(body) > LARGE_BODY
        if form is not None:
            inner = form.rewritten(inner, operation)
        task = await self.aside.run(endpoint.decode, inner) if large else endpoint.decode(inner)
        if form is not None:
            task = form.redeemed(task)
        visit.model = task.model
        before = time.perf_counter()
        visit.result = result = await self.engine.run(task)
        if endpoint.counted is not None:
            self.metrics.worked(endpoint.counted, result, time.perf_counter() - before)
        if not large and len(result.outputs) * (result.dims or 1) <= LARGE_REPLY:
            return endpoint.encode(inner, task, result)
        return await self.aside.run(endpoint.encode, inner, task, result)

    async def _outlined(self, call: Call, body: bytes) -> Outline | None:
        """A large JSON body's parts; None for another one. Raises BadRequest, TooLarge."""
        if len(body) <= LARGE_BODY or call.method != "POST":
            return None
        if "msgpack" in call.headers.get("content-type", ""):
            return None
        self.metrics.lag.hurry()
        try:
            return await self.aside.run(Outline, body, max(2 * VALUES, 2 * self.limits.items))
        except MalformedError:
            raise BadRequest("The body must be one valid JSON object in UTF-8.") from None

    async def perform(self, method: str, path: str, body: bytes, speaker: Dialect) -> Reply:
        """The reply to a call of the server's own: no key is asked for, it is no traffic, and
        a fault is told by `speaker`. Raises Overloaded and Loading, for whoever can wait."""
        call = Call(method, path, body, headers={"content-type": "application/json"})
        visit = Visit(call, self.speaker, body)
        try:
            route, params = self._table.find(method, path)
            return await self._serve(route, call, params, None, visit)
        except Fault as fault:
            if isinstance(fault, Overloaded | Loading) and fault.retry_after is not None:
                raise
            visit.dialect = speaker
            return self._refuse(fault, visit)
        except Exception:
            request = self._name(call)
            log.exception("request %s failed", request)
            visit.dialect = speaker
            return self._refuse(internal(request), visit)

    def method_of(self, path: str) -> str:
        """ "POST" where a dialect has that path, else "GET". Raises NotFound, WrongMethod."""
        try:
            route, _ = self._table.find("POST", path)
        except WrongMethod:
            route, _ = self._table.find("GET", path)
        if route.page is not None:
            raise NotFound("No dialect has this path.")
        return route.method

    def dialect(self, name: str) -> Dialect:
        """The one of that name, where it is here; else who speaks when nothing tells."""
        return next((one for one in self.dialects if one.name == name), self.speaker)

    async def cards(self) -> Result:
        """What is served, as the engine describes it."""
        result = await self.engine.run(Describe())
        self.metrics.learn(result.cards)
        return result

    def depart(self) -> Reply:
        """What a call is told that was still in work when the server had to stop."""
        return self.speaker.fault(Loading("The server is shutting down.", retry_after=5))

    # ── routing ──────────────────────────────────────────────────────────────────────────

    def _add(self, operation: Operation) -> None:
        endpoint = operation.endpoint
        method, path = endpoint.method, operation.prefix + endpoint.path
        if self._is_owned(method, path) or (endpoint.own and operation.dialect is not self.speaker):
            return
        route = self._routes.get((method, path))
        if route is None:
            route = Route(method, path, self.metrics.route(path, method))
            self._table.add(method, path, route)
            self._routes[method, path] = route
        if endpoint.recognises is not None:
            route.asked.append(operation)
        elif route.fallback is None:
            route.fallback = operation
            route.needed = _needed(endpoint)
        else:
            names = f"{route.fallback.dialect.name!r} and {operation.dialect.name!r}"
            raise RuntimeError(
                f"{method} {path} is claimed by {names}, and neither says which bodies are its own"
            )

    def _is_owned(self, method: str, path: str) -> bool:
        """Whether the profile's dialect, which is asked first, keeps that path to itself."""
        route = self._routes.get((method, path))
        return route is not None and route.fallback is not None and route.fallback.endpoint.own

    def _blamed(self, route: Route) -> Operation:
        """Who speaks when a body says nothing of whose it is: the profile's dialect, where it
        has this path, or else the fallback."""
        operations = route.operations
        if len(operations) > 1:
            for operation in operations:
                if operation.dialect is self.speaker:
                    return operation
        return operations[0]

    def _find(self, call: Call) -> tuple[Route, Mapping[str, str]]:
        """Raises NotFound, WrongMethod or Unauthorized. Without a key nothing is told, not
        even which paths there are."""
        try:
            route, params = self._table.find(call.method, self.mounts(call.path))
        except Fault:
            self.keys.check(call.headers)
            raise
        if route.template not in OPEN:
            own = route.page.keys if route.page is not None else None
            (self.keys if own is None else own).check(call.headers)
        return route, params

    # ── faults and headers ───────────────────────────────────────────────────────────────

    def _name(self, call: Call) -> str:
        """The request's id: the client's own where it is sane."""
        given = call.headers.get("x-request-id", "")
        if 0 < len(given) <= LONGEST_NAME and given.isascii() and given.isprintable():
            return given
        return f"{self._boot}-{next(self._count):x}"

    def _refuse(self, fault: Fault, visit: Visit) -> Reply:
        endpoint = visit.endpoint
        counted = "" if endpoint is None else endpoint.counted or ""
        self.metrics.failed(counted, visit.model, fault.code)
        reply = visit.dialect.fault(fault if endpoint is None else placed(fault, endpoint.items))
        if isinstance(fault, NotAllowed):
            return with_header(reply, "allow", fault.allow)
        if isinstance(fault, Unauthorized):
            return with_header(reply, "www-authenticate", challenge(visit.call))
        return reply


def _choose(route: Route, body: bytes | Outline, blamed: Operation) -> Operation:
    """Whose body it is; `blamed` when nothing tells (it is no JSON object, or has nothing that
    any of them needs), so that its decoder says what is wrong. Raises BadRequest when it is
    nobody's."""
    if not route.asked and route.fallback is not None:
        return route.fallback
    try:
        fields = _peek(body) if isinstance(body, bytes) else _heads(body)
    except (ValueError, RecursionError):
        return blamed
    for operation in route.asked:
        recognises = operation.endpoint.recognises
        if recognises is not None and recognises(fields):
            return operation
    if route.fallback is None:
        raise BadRequest("This path does not read a body of this shape.")
    return blamed if route.needed and route.needed.isdisjoint(fields) else route.fallback


def _heads(outline: Outline) -> Mapping[str, msgspec.Raw]:
    """The fields of a large body as far as they are needed to tell whose it is."""
    return {name: msgspec.Raw(outline.head(name)) for name in outline.fields}


def _needed(endpoint: Endpoint) -> frozenset[str]:
    if not isinstance(endpoint.request, type) or not issubclass(endpoint.request, msgspec.Struct):
        return frozenset()
    fields = msgspec.structs.fields(endpoint.request)
    return frozenset(field.encode_name for field in fields if field.required)
