"""What holds for every dialect: its documentation, its faults, and what it never says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from dialogue import CARD, DIALECTS, JSON, ask, route

from omnivec.core import errors
from omnivec.core.errors import Fault
from omnivec.core.nouns import Call
from omnivec.core.seams import Endpoint

CANARY = "canary7f3a"
PARAMS = {"id": CARD.name}
NUMBER = 737373737373
ENDPOINTS = [
    ((dialect.prefixes[0] + endpoint.path).replace("{id:path}", CARD.name), endpoint)
    for dialect in DIALECTS.values()
    for endpoint in dialect.endpoints
]
POSTS = [pair for pair in ENDPOINTS if pair[1].method == "POST"]


def posts() -> Any:
    ids = [f"{path} {endpoint.request.__name__}" for path, endpoint in POSTS]
    return pytest.mark.parametrize(("path", "endpoint"), POSTS, ids=ids)


def faults() -> Iterator[type[Fault]]:
    found = [Fault]
    for kind in found:
        found.extend(kind.__subclasses__())
    return (kind for kind in found if kind.__module__ == errors.__name__)


# ── documentation ────────────────────────────────────────────────────────────────────────


def test_every_wire_type_has_a_schema() -> None:
    types = [t for _, endpoint in ENDPOINTS for t in (endpoint.request, endpoint.response) if t]
    _, components = msgspec.json.schema_components(types)
    assert {"EmbeddingRequest", "RerankReply", "TeiRank", "SynesisRanking"} <= set(components)
    undocumented = [
        endpoint.request.__name__ for _, endpoint in POSTS if not endpoint.request.__doc__
    ]
    assert undocumented == []


@posts()
def test_the_example_runs_when_pasted(path: str, endpoint: Endpoint) -> None:
    reply = ask("POST", path, endpoint.example)
    assert reply.status == 200
    msgspec.json.decode(reply.body, type=endpoint.response)
    asked = route("POST", path, msgspec.json.encode(endpoint.example))
    assert asked.endpoint.summary == endpoint.summary


def test_two_endpoints_of_one_path_are_told_apart() -> None:
    claimed: dict[tuple[str, str], int] = {}
    for dialect in DIALECTS.values():
        for endpoint in dialect.endpoints:
            for prefix in dialect.prefixes:
                key = (endpoint.method, prefix + endpoint.path)
                claims = endpoint.recognises is None and not endpoint.own
                claimed[key] = claimed.get(key, 0) + claims
    assert [key for key, count in claimed.items() if count > 1] == []


# ── faults ───────────────────────────────────────────────────────────────────────────────


MISMATCH = "Model mismatch: the requested model does not match the currently loaded model. "
# what Intel's page says whatever happened
FIXED = {
    ("intel", errors.UnknownModel): MISMATCH,
    ("intel", errors.WrongMedium): "Image inputs are not supported by the active model",
    ("intel", errors.Loading): "Model is not initialized",
    ("intel", errors.LoadFailed): "Model is not initialized",
    ("intel", errors.LoadingAdapter): "Model is not initialized",
}
# SIE says in the body whether waiting helps: its clients wait for no such model
UNTOLD = ("sie", errors.LoadFailed)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", list(faults()), ids=lambda kind: kind.__name__)
def test_every_fault_has_an_envelope(name: str, kind: type[Fault]) -> None:
    reply = DIALECTS[name].fault(kind("What is accepted.", param="[3]", retry_after=1.2))
    assert 400 <= reply.status < 600
    words = FIXED.get((name, kind), "What is accepted.")
    assert words in reply.body.decode()
    assert reply.headers["content-type"] == "application/json"
    told = None if (name, kind) == UNTOLD else "2"
    assert reply.headers.get("retry-after") == told
    assert "x-should-retry" not in reply.headers


@pytest.mark.parametrize("name", DIALECTS)
def test_a_failure_that_waiting_does_not_cure_is_not_repeated(name: str) -> None:
    reply = DIALECTS[name].fault(errors.ModelFailed("The model failed on this input."))
    assert reply.headers["x-should-retry"] == "false"
    assert "retry-after" not in reply.headers
    overloaded = DIALECTS[name].fault(errors.Overloaded("Full.", retry_after=0))
    assert overloaded.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/v1/models", "/models/v1/models", f"/v1/models/{CARD.name}"])
def test_why_a_model_failed_is_not_told(path: str) -> None:
    assert b"secret" not in ask("GET", path).body


# ── bad bodies ───────────────────────────────────────────────────────────────────────────

BODIES = {
    "empty": b"",
    "blank": b" \r\n",
    "not JSON": b"input=hello",
    "null": b"null",
    "an array": b"[]",
    "a string": b'"canary7f3a"',
    "truncated": b'{"input": "canary7f3a',
    "trailing bytes": b'{"input": "a"} canary7f3a',
    "a BOM": b'\xef\xbb\xbf{"input": "a"}',
    "UTF-16": '{"input": "a"}'.encode("utf-16"),
    "nested": b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "nested objects": b'{"a":' * 100_000,
    "NaN": b'{"input": "a", "x": NaN}',
    "Infinity": b'{"input": "a", "x": -Infinity}',
    "surrogate": b'{"input": "canary7f3a \\ud800 rest"}',
    "surrogate in an unknown field": b'{"input": "a", "x": "\\udc00 rest"}',
    "bad UTF-8": b'{"input": "canary7f3a \xff"}',
    "bad UTF-8 in an unknown field": b'{"input": "a", "x": "\xff"}',
    "surrogate in UTF-8": b'{"input": "\xed\xa0\x80"}',
    "a raw NUL": b'{"input": "a\x00b"}',
}


@posts()
@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_bad_request(path: str, endpoint: Endpoint, name: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        endpoint.decode(Call("POST", endpoint.path, BODIES[name], headers=JSON))
    assert CANARY not in caught.value.message
    assert len(caught.value.message) < 200


@posts()
@pytest.mark.parametrize(
    "header",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/msgpack",
        "application/json; charset=utf-7",
        "application/json; charset=utf-16",
    ],
)
def test_another_content_type_is_refused(path: str, endpoint: Endpoint, header: str) -> None:
    body = msgspec.json.encode(endpoint.example)
    call = Call("POST", endpoint.path, body, PARAMS, headers={"content-type": header})
    if header == "application/msgpack" and endpoint.request.__name__.startswith("Sie"):
        with pytest.raises(errors.BadRequest, match="msgpack"):  # read, and not what it says
            endpoint.decode(call)
        return
    with pytest.raises(errors.WrongType, match="header `Content-Type: application/json`"):
        endpoint.decode(call)


@posts()
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "Application/JSON"},
        {"content-type": 'application/json; charset="UTF-8"'},
        {"content-type": "application/json;charset=utf8"},
        {"content-type": "application/vnd.api+json"},
    ],
    ids=str,
)
def test_json_is_read_under_all_its_names(
    path: str, endpoint: Endpoint, headers: dict[str, str]
) -> None:
    body = msgspec.json.encode(endpoint.example)
    assert endpoint.decode(Call("POST", endpoint.path, body, PARAMS, headers=headers))


# ── what is never said ───────────────────────────────────────────────────────────────────

WRONG: list[Any] = [
    CANARY,
    [CANARY],
    [[CANARY]],
    {CANARY: CANARY},
    [{CANARY: CANARY}],
    [{"text": {CANARY: 1}}],
    {"text": [CANARY]},
    NUMBER,
    -NUMBER,
    NUMBER + 0.5,
    [NUMBER + 0.5],
    [[-NUMBER]],
    True,
    [True, None],
    msgspec.Raw(b"1e999"),
    msgspec.Raw(b"[1e999]"),
    msgspec.Raw(b"7" * 5000),
    msgspec.Raw(b"[[" + b"7" * 5000 + b"]]"),
    msgspec.Raw(b"[{" + b'"text":' + b"7" * 5000 + b"}]"),
]


@posts()
def test_no_fault_echoes_what_was_sent(path: str, endpoint: Endpoint) -> None:
    refused = 0
    for field in endpoint.request.__struct_fields__:
        for wrong in WRONG:
            body = msgspec.json.encode({**endpoint.example, field: wrong})
            reply = ask("POST", path, body)
            if reply.status == 200:
                continue
            refused += 1
            said = reply.body.decode() + str(reply.headers)
            assert 400 <= reply.status < 500
            for told in (CANARY, str(NUMBER), "7777", "1e999"):
                assert told not in said, (field, wrong)
    assert refused > 20


@posts()
def test_a_damaged_body_is_answered_or_refused(path: str, endpoint: Endpoint) -> None:
    chance = random.Random(path)  # the same damage each time
    good = bytearray(msgspec.json.encode(endpoint.example))
    statuses = set()
    for _ in range(400):
        body = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            body[chance.randrange(len(body))] = chance.choice(b'{}[]",:0-\\\x00\xff aun')
        statuses.add(ask("POST", path, bytes(body)).status)
    assert statuses <= {200, 400, 404, 413, 422}
    assert len(statuses) > 1


@posts()
def test_unknown_fields_and_nulls_change_nothing(path: str, endpoint: Endpoint) -> None:
    plain = route("POST", path, msgspec.json.encode(endpoint.example))
    optional = msgspec.structs.fields(endpoint.request)
    nulls = {f.name: None for f in optional if not f.required and f.name not in endpoint.example}
    body = msgspec.json.encode({**endpoint.example, **nulls, "drop_params": True, "x": [{}]})
    padded = msgspec.structs.replace(plain.call, body=body)
    assert endpoint.decode(padded) == endpoint.decode(plain.call)
