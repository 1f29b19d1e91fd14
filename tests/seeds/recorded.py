"""Recorded sessions with the services that the seeds describe, and what replays them.

A session is a file of sessions/, one call a line, in the order in which a user makes them: what
is sent, and what the *original* service answers by its page and by ../shared/reference. Answers
are told by their shape:

    "$vector 512"        512 numbers, of length 1        "$numbers 512"   of any length
    "$rows 8 512"        8 such vectors                  "$text", "$int", "$number", "$bool", "$any"
    "$like Invalid *"    a text of that pattern          "$loc"           FastAPI's path of a field
    {..., "...": true}   has these keys and may have others; without it these alone, in this order
    [..., "..."]         has one or more like the one before, where "..." comes last

Anything else stands for itself. `here` is there where omnivec means to answer something else,
and `because` says why. `equals` names an earlier call with the same numbers, `engine` what the
engine of this project is asked for the same item. In a body `{url}` is a web server of the
test's, `{folder}` the folder of its files, and `{base64:NAME}` one of those files.
"""

from __future__ import annotations

import base64
import fnmatch
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

SESSIONS = Path(__file__).with_name("sessions")


class Line(NamedTuple):
    """A call and what is to come back. `sent` is None where nothing is."""

    name: str
    method: str
    path: str
    sent: bytes | None
    headers: dict[str, str]
    status: int
    answer: Any
    shown: dict[str, str]
    equals: str | None
    engine: Any


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def load(name: str, folder: Path, url: str) -> list[Line]:
    text = (SESSIONS / f"{name}.jsonl").read_text("utf-8")
    return [_line(json.loads(line), folder, url) for line in text.splitlines()]


def _line(told: dict[str, Any], folder: Path, url: str) -> Line:
    assert ("here" in told) == ("because" in told), told["name"]
    method, path = told["call"].split()
    wanted = {**told, **told.get("here", {})}
    body = told.get("body")
    if body is not None:
        body = filled(body if isinstance(body, str) else json.dumps(body), folder, url).encode()
    return Line(
        name=told["name"],
        method=method,
        path=path,
        sent=body,
        headers={"content-type": "application/json"} if body is not None else {},
        status=wanted["status"],
        answer=json.loads(filled(json.dumps(wanted.get("answer", "$any")), folder, url)),
        shown=wanted.get("headers", {"content-type": "application/json"}),
        equals=wanted.get("equals"),
        engine=wanted.get("engine"),
    )


def filled(text: str, folder: Path, url: str) -> str:
    def packed(found: re.Match[str]) -> str:
        return base64.b64encode((folder / found[1]).read_bytes()).decode()

    text = text.replace("{url}", url).replace("{folder}", str(folder))
    return re.sub(r"\{base64:([^}]+)\}", packed, text)


def check(line: Line, reply: Reply) -> Any:
    """The answer, read. Raises AssertionError where it is not as recorded."""
    assert reply.status == line.status, (line.name, reply.status, reply.body[:500])
    for name, pattern in line.shown.items():
        assert fnmatch.fnmatch(reply.headers.get(name, ""), pattern), (line.name, reply.headers)
    if "json" not in reply.headers.get("content-type", ""):
        text = reply.body.decode()
        for pattern in line.answer:
            assert re.search(pattern, text, re.MULTILINE), (line.name, pattern, text[-2000:])
        return text
    answer = json.loads(reply.body)
    compare(line.answer, answer, line.name)
    return answer


def compare(shape: Any, found: Any, place: str) -> None:
    if isinstance(shape, str) and shape.startswith("$"):
        kind, *told = shape[1:].split(" ", 1)
        assert _KINDS[kind](found, *told), (place, shape, found)
    elif isinstance(shape, dict):
        assert isinstance(found, dict), (place, found)
        keys = [key for key in shape if key != "..."]
        there = [key for key in found if key in keys] if "..." in shape else list(found)
        assert sorted(there) == sorted(keys), (place, there, keys)
        assert "..." in shape or there == keys, (place, "order", there, keys)
        for key in keys:
            compare(shape[key], found[key], f"{place}.{key}")
    elif isinstance(shape, list):
        assert isinstance(found, list), (place, found)
        if shape[-1:] == ["..."]:
            shape = [*shape[:-1], *[shape[-2]] * (len(found) - len(shape) + 1)]
        assert len(found) == len(shape), (place, len(found), len(shape))
        for at, (one, other) in enumerate(zip(shape, found, strict=True)):
            compare(one, other, f"{place}[{at}]")
    else:
        assert type(found) is type(shape), (place, shape, found)
        assert found == shape, (place, shape, found)


def _is_numbers(found: Any, length: str) -> bool:
    fits = isinstance(found, list) and len(found) == int(length)
    return fits and all(isinstance(one, int | float) and math.isfinite(one) for one in found)


def _is_vector(found: Any, length: str) -> bool:
    return _is_numbers(found, length) and math.isclose(math.hypot(*found), 1, abs_tol=1e-4)


def _is_rows(found: Any, told: str) -> bool:
    count, length = told.split()
    fits = isinstance(found, list) and len(found) == int(count)
    return fits and all(_is_vector(one, length) for one in found)


_KINDS = {
    "any": lambda found: True,
    "text": lambda found: isinstance(found, str) and found != "",
    "int": lambda found: type(found) is int,
    "number": lambda found: type(found) in (int, float) and math.isfinite(found),
    "bool": lambda found: isinstance(found, bool),
    "like": lambda found, pattern: isinstance(found, str) and fnmatch.fnmatch(found, pattern),
    "loc": lambda found: isinstance(found, list) and found[:1] == ["body"],
    "numbers": _is_numbers,
    "vector": _is_vector,
    "rows": _is_rows,
}


def numbers(answer: Any) -> list[float]:
    """All of them, in their order, but for the time that it took."""
    if isinstance(answer, dict):
        kept = {key: one for key, one in answer.items() if key not in ("elapsed_ms", "usage")}
        return [one for value in kept.values() for one in numbers(value)]
    if isinstance(answer, list):
        return [one for value in answer for one in numbers(value)]
    return [answer] if type(answer) in (int, float) else []
