"""What a reply says besides its body: its headers, and a fault's place in the request."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import orjson

from omnivec.core.errors import Fault, ModelFailed
from omnivec.core.nouns import Reply, Result

OF_NOW = {"content-type": "application/json", "cache-control": "no-store"}
"""The headers of what a server says of itself and of its jobs: nobody may keep it."""


def placed(fault: Fault, items: str | tuple[str, ...]) -> Fault:
    """The fault with the engine's `[3]` as the path of the request's field, `input[3]`."""
    param = fault.param or ""
    if not param.startswith("[") or not items:
        return fault
    fault = copy.copy(fault)  # a batch's rows may have one fault together
    if isinstance(items, str):
        fault.param = items + param
    else:
        number, _, rest = param[1:].partition("]")
        fault.param = items[int(number)] + rest
    return fault


def headers_of(reply: Reply, request: str, seconds: float, result: Result | None) -> dict[str, str]:
    """Times in milliseconds, as SIE's clients read them."""
    headers = dict(reply.headers)
    headers["x-request-id"] = request
    if result is not None and result.outputs:
        timing = result.timing
        headers["x-total-time"] = f"{seconds * 1e3:.2f}"
        headers["x-queue-time"] = f"{timing.queue * 1e3:.2f}"
        headers["x-tokenization-time"] = f"{timing.prepare * 1e3:.2f}"
        headers["x-inference-time"] = f"{timing.inference * 1e3:.2f}"
        if result.ignored:  # besides what the dialect does not know how to tell
            known = filter(None, (headers.get("x-omnivec-ignored"),))
            headers["x-omnivec-ignored"] = ", ".join((*known, *result.ignored))
        if result.usage.truncated:
            headers["x-omnivec-truncated"] = f"{result.usage.truncated}/{result.usage.items}"
    return headers


def internal(request: str) -> ModelFailed:
    return ModelFailed(f"Internal error; the log has it under the request id {request}.")


def as_json(facts: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(orjson.dumps(facts), status, {**OF_NOW, **(headers or {})})


def with_header(reply: Reply, name: str, value: str) -> Reply:
    return Reply(reply.body, reply.status, {**reply.headers, name: value})
