"""OpenAPI 3.1, generated from the endpoints' wire types and examples."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np
import orjson

from omnivec.core.errors import (
    BadRequest,
    Fault,
    Loading,
    ModelFailed,
    Overloaded,
    TooLarge,
    Unauthorized,
    UnknownModel,
    Unsupported,
    WrongType,
)
from omnivec.core.exposure import address
from omnivec.core.seams import Endpoint
from omnivec.core.settings import Settings
from omnivec.server.auth import OPEN, Keys
from omnivec.server.door import Door
from omnivec.server.operations import Operation, Route

Json = dict[str, Any]

_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_WHOSE = re.compile(r"(?P<words>.+?)(?: \((?P<whose>[^()]+)\))?\.?")
_KEYS = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}

_JSON = "application/json"
_FORM: Json = {
    "type": "object",
    "description": "Files to embed, and the wishes of the JSON body as fields: "
    "`curl -F file=@cat.jpg -F model=MODEL`. Each file and each `text` is an input.",
    "properties": {
        "file": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "Pictures or videos, under any name.",
        },
        "text": {"type": "array", "items": {"type": "string"}},
        "model": {"type": "string"},
    },
    "additionalProperties": {"type": "string"},
}

PROBES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "/live": ("Whether the process lives", {"200": "It does."}),
    "/ready": (
        "Whether requests will be answered at once",
        {"200": "They will.", "503": "Not yet, or not any more; Retry-After tells when to ask."},
    ),
    "/health": (
        "Every model with its state, device and memory",
        {"200": "All is well.", "503": "A model is loading or failed; the body says which."},
    ),
    "/metrics": ("Numbers for Prometheus", {"200": "The numbers."}),
}
FAULTS: tuple[Callable[[], Fault], ...] = (
    lambda: BadRequest("What is wrong, and what would be accepted.", param="the.field"),
    lambda: Unauthorized("A valid API key is needed, as Authorization: Bearer KEY."),
    lambda: UnknownModel("No such model here.", param="model"),
    lambda: TooLarge("A body may be this many bytes long."),
    lambda: WrongType("This path reads application/json."),
    lambda: Unsupported("This model cannot do that.", param="the.field"),
    lambda: Overloaded("The queue is full.", retry_after=1),
    lambda: ModelFailed("Internal error; the log has it under the request id."),
    lambda: Loading("The model is loading.", retry_after=2),
)


def document(door: Door, settings: Settings, model: str = "MODEL") -> bytes:
    """The whole description, as JSON. One operation for each path and method; where dialects
    share one, its body is one of several. Paths that answer alike are told of at one of them.
    `model` is the example of a model's id."""
    schemas = Schemas(operation for route in door.routes for operation in route.operations)
    base = address(settings)
    keyed = bool(Keys(settings.api_keys))
    paths: dict[str, Json] = {}
    for route, aliases in _folded(door.routes):
        path = _plain(route.template)
        paths.setdefault(path, {})[route.method.lower()] = _operation(
            route, aliases, schemas, base, model, keyed=keyed
        )
    for route in door.described:
        page = _page(route, base, model, keyed=keyed)
        paths.setdefault(_plain(route.template), {})[route.method.lower()] = page
    for path in PROBES:
        paths.setdefault(path, {}).setdefault("get", _probe(path, base, keyed=keyed))
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "omnivec",
                "version": door.metrics.version or "0",
                "description": "Embeddings and reranking in several wire formats, on one port.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [{"name": dialect.name} for dialect in door.dialects] + [{"name": "server"}],
            "paths": paths,
            "components": {"schemas": schemas.components, **(_KEYS if keyed else {})},
            "security": [{"key": []}] if keyed else [],
        }
    )


class Schemas:
    """The JSON schemas of all wire types; names are made unique where dialects agree on one."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        kinds: list[Any] = []
        for operation in operations:
            for kind in (operation.endpoint.request, operation.endpoint.response):
                if kind is not None and kind not in kinds:
                    kinds.append(kind)
        found, self.components = msgspec.json.schema_components(
            kinds, schema_hook=_foreign, ref_template="#/components/schemas/{name}"
        )
        self._kinds = list(zip(kinds, found, strict=True))

    def of(self, kind: Any) -> Json:
        """A reference, or a schema in place; anything at all when there is no wire type."""
        return next((schema for known, schema in self._kinds if known == kind), {})


def _foreign(kind: type) -> Json:
    """Types that a dialect encodes by itself."""
    if issubclass(kind, np.ndarray):
        return {"type": "array", "items": {"type": "number"}}
    return {}


def _folded(routes: Iterable[Route]) -> list[tuple[Route, list[str]]]:
    """Each route with the other paths that do the same or a part of it. The route with the
    most dialects stands for the others, and /v1/... for its equals."""
    ordered = sorted(routes, key=lambda r: (-len(r.operations), not r.template.startswith("/v1/")))
    found: list[tuple[Route, Any, list[str]]] = []
    for route in ordered:
        does = {(op.endpoint.decode, op.endpoint.encode) for op in route.operations}
        for first, all_of_it, aliases in found:
            if route.method == first.method and does <= all_of_it:
                aliases.append(_alias(route, first))
                break
        else:
            found.append((route, does, []))
    places = {route.template: place for place, route in enumerate(routes)}
    found.sort(key=lambda entry: places[entry[0].template])
    return [(route, aliases) for route, _, aliases in found]


def _alias(route: Route, first: Route) -> str:
    names = ", ".join(op.dialect.name for op in route.operations)
    part = "" if len(route.operations) == len(first.operations) else f" ({names} only)"
    return f"`{_plain(route.template)}`{part}"


def _operation(
    route: Route, aliases: list[str], schemas: Schemas, base: str, model: str, *, keyed: bool
) -> Json:
    endpoints = _named(route.operations)
    url = base + _PARAMETER.sub(lambda _: model, route.template)
    samples = {
        name: _curl(url, endpoint.example, keyed=keyed, asking=bool(endpoint.packed))
        for name, endpoint in endpoints
        if endpoint.example is not None or route.method == "GET"
    }
    packed = {e.packed for _, e in endpoints if e.packed}
    found: Json = {
        "tags": list(dict.fromkeys(op.dialect.name for op in route.operations)),
        "operationId": _identify(route),
        "summary": _summarise([endpoint.summary for _, endpoint in endpoints]),
        "description": _describe(_titled(samples, dict(endpoints)), aliases),
        "responses": {
            "200": _content(
                "The answer.", _one_of([schemas.of(e.response) for _, e in endpoints]), packed
            ),
            **_faults(route.operations),
        },
        **_samples(samples),
    }
    found |= _parameters(route, model)
    if route.method != "GET":
        body = _content("", _one_of([schemas.of(e.request) for _, e in endpoints]), packed)
        del body["description"]
        body["content"][_JSON]["examples"] = {
            name: {"summary": endpoint.summary, "value": endpoint.example}
            for name, endpoint in endpoints
            if endpoint.example is not None
        }
        if any(endpoint.form for _, endpoint in endpoints):
            body["content"]["multipart/form-data"] = {"schema": _FORM}
        found["requestBody"] = {"required": True, **body}
    return found


def _parameters(route: Route, example: str) -> Json:
    name = _PARAMETER.search(route.template)
    if name is None:
        return {}
    told = {"name": name[1], "in": "path", "required": True, "schema": {"type": "string"}}
    return {"parameters": [{**told, "example": example}]}


def _page(route: Route, base: str, model: str, *, keyed: bool) -> Json:
    """A page that has something to say of itself."""
    about = route.page.about if route.page else None
    assert about is not None  # noqa: S101 - Door.described has no other
    given = model if ":path" in route.template else "ID"
    url = base + _PARAMETER.sub(lambda _: given, route.template)
    sample = _curl(url, about.example, keyed=keyed)
    if route.method == "POST" and about.example is None:
        sample = sample.replace("curl", "curl -X POST", 1)
    samples = {about.tag: sample}
    found = {
        "tags": [about.tag],
        "operationId": _identify(route),
        "summary": about.summary,
        "description": _describe(samples, []),
        "responses": {"200": _content("The answer.", {"type": "object"})},
        **_samples(samples),
        **_parameters(route, given),
    }
    if about.example is not None:
        body = _content("", {"type": "object"})
        body["content"][_JSON]["examples"] = {about.tag: {"value": about.example}}
        found["requestBody"] = {"required": True, "content": body["content"]}
    return found


def _named(operations: Iterable[Operation]) -> list[tuple[str, Endpoint]]:
    """Each by its dialect; a dialect's second one on a path has a number."""
    found: dict[str, Endpoint] = {}
    for operation in operations:
        name, count = operation.dialect.name, 1
        while (label := name if count == 1 else f"{name} {count}") in found:
            count += 1
        found[label] = operation.endpoint
    return list(found.items())


def _probe(path: str, base: str, *, keyed: bool) -> Json:
    summary, told = PROBES[path]
    samples = {"server": _curl(base + path, None, keyed=keyed and path not in OPEN)}
    return {
        "tags": ["server"],
        "operationId": f"get{path.replace('/', '_')}",
        "summary": summary,
        "description": _describe(samples, []),
        "responses": {status: {"description": words} for status, words in told.items()},
        **({"security": []} if path in OPEN else {}),
        **_samples(samples),
    }


def _samples(samples: Mapping[str, str]) -> Json:
    return {
        "x-codeSamples": [
            {"lang": "Shell", "label": f"curl ({name})", "source": sample}
            for name, sample in samples.items()
        ]
    }


def _summarise(summaries: list[str]) -> str:
    """What the first says, and in brackets whose wire formats do it: each names its own."""
    told = [_WHOSE.fullmatch(summary) for summary in dict.fromkeys(summaries)]
    words = next(one["words"] for one in told if one)
    whose = ", ".join(one["whose"] for one in told if one and one["whose"])
    return f"{words} ({whose})" if whose else words


def _titled(samples: Mapping[str, str], endpoints: Mapping[str, Endpoint]) -> Mapping[str, str]:
    """Each sample under what its own dialect says of itself, where there are several."""
    if len(samples) == 1:
        return samples
    return {f"{name}: {endpoints[name].summary.rstrip('.')}": samples[name] for name in samples}


def _describe(samples: Mapping[str, str], aliases: list[str]) -> str:
    lines = [f"{name}:\n\n```sh\n{sample}\n```\n" for name, sample in samples.items()]
    if aliases:
        lines.append(f"The same at {', '.join(aliases)}.")
    return "\n".join(lines)


def _faults(operations: Iterable[Operation]) -> Json:
    """The faults of each dialect, in its own envelope and under its own status."""
    found: dict[str, Json] = {}
    for operation in operations:
        for make in FAULTS:
            fault = make()
            reply = operation.dialect.fault(fault)
            try:
                example = json.loads(reply.body)
            except ValueError:
                continue  # not JSON: that dialect's own documents say what it is
            told = found.setdefault(str(reply.status), _content(_phrase(reply.status), {}))
            examples = told["content"][_JSON].setdefault("examples", {})
            examples[f"{operation.dialect.name}: {fault.code}"] = {"value": example}
    return dict(sorted(found.items()))


def _content(words: str, schema: Json, packed: Iterable[str] = ()) -> Json:
    kinds = (_JSON, *sorted(packed))
    return {"description": words, "content": {kind: {"schema": schema} for kind in kinds}}


def _one_of(schemas: list[Json]) -> Json:
    different = [schema for i, schema in enumerate(schemas) if schema not in schemas[:i]]
    return different[0] if len(different) == 1 else {"oneOf": different}


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase + "."


def _curl(url: str, example: Any, *, keyed: bool, asking: bool = False) -> str:
    """A line that works when pasted into a shell."""
    key = " -H 'Authorization: Bearer KEY'" if keyed else ""
    if example is None:
        return f"curl {shlex.quote(url)}{key}"
    body = shlex.quote(json.dumps(example, ensure_ascii=False))
    accepted = f" -H 'Accept: {_JSON}'" if asking else ""
    return f"curl {shlex.quote(url)}{key}{accepted} -H 'Content-Type: {_JSON}' \\\n  -d {body}"


def _identify(route: Route) -> str:
    words = _plain(route.template).replace("{", "").replace("}", "").strip("/")
    return route.method.lower() + "_" + words.replace("/", "_").replace("-", "_")


def _plain(template: str) -> str:
    """`{id:path}` is our own notation; OpenAPI knows `{id}`."""
    return _PARAMETER.sub(r"{\1}", template)
