from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from dialogue import CARD, ask, decode, read, vector

from omnivec.core.errors import BadRequest, Overloaded, TooLong, Unsupported
from omnivec.core.nouns import (
    Blob,
    Describe,
    Encode,
    Image,
    Item,
    Limits,
    Text,
    Tokens,
    Url,
    Video,
)
from omnivec.dialects import _models, openai

PATHS = ["/v1/embeddings", "/embeddings", "/api/v1/embeddings", "/openai/v1/embeddings"]


def task(**fields: Any) -> Encode:
    found = decode("/v1/embeddings", {"input": "a", **fields})
    assert isinstance(found, Encode)
    return found


def refused(**fields: Any) -> dict[str, Any]:
    reply = ask("POST", "/v1/embeddings", {"input": "a", **fields})
    error = read(reply)["error"]
    assert error["type"] == "invalid_request_error"
    return {"status": reply.status, **error}


# ── input ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("", [Text("")]),
        ("a", [Text("a")]),
        (["a", ""], [Text("a"), Text("")]),
        (["12", "x"], [Text("12"), Text("x")]),
        ([1, 2], [Tokens((1, 2))]),
        ([[1, 2], [3]], [Tokens((1, 2)), Tokens((3,))]),
        (["a", [3]], [Text("a"), Tokens((3,))]),
        ([0], [Tokens((0,))]),
    ],
)
def test_input_in_all_its_shapes(given: Any, parts: list[Text | Tokens]) -> None:
    assert task(input=given).items == tuple(Item((part,)) for part in parts)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        ([], "input"),
        ([[]], "input[0]"),
        (["a", []], "input[1]"),
        ([None], "input[0]"),
        ([5, "a"], "input[1]"),
        ([True], "input[0]"),
        ([-1], "input[0]"),
        ([1.5], "input[0]"),
        ([[1, -1]], "input[0][1]"),
        ([[2**31]], "input[0][0]"),
        ([["2024"]], "input[0][0]"),
        ([[[1]]], "input[0][0]"),
        ({"text": "a"}, "input"),
        (5, "input"),
    ],
)
def test_input_that_cannot_be_read(given: Any, param: str) -> None:
    error = refused(input=given)
    assert (error["status"], error["code"], error["param"]) == (400, "INVALID_REQUEST", param)


PIXEL = b"\x89PNG\r\n\x1a\n"
PACKED = "iVBORw0KGgo="


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"text": "a"}, (Text("a"),)),
        ({"text": ""}, (Text(""),)),
        ({"image": "https://x.org/a"}, (Image(Url("https://x.org/a")),)),
        ({"image": "data:image/png;base64,AA"}, (Image(Url("data:image/png;base64,AA")),)),
        ({"image": PACKED, "x": 1}, (Image(Blob(PIXEL)),)),
        ({"video": "https://x.org/a", "image": None}, (Video(Url("https://x.org/a")),)),
        ({"text": "a", "image": PACKED}, (Text("a"), Image(Blob(PIXEL)))),
    ],
)
@pytest.mark.parametrize("others", [[], ["b"]])
def test_what_jinas_clients_mix(given: Any, parts: tuple[Any, ...], others: list[str]) -> None:
    for given_first in (True, False):
        found = task(input=[given, *others] if given_first else [*others, given])
        expected = [Item(parts), *(Item((Text(text),)) for text in others)]
        assert list(found.items) == (expected if given_first else [*expected[1:], expected[0]])


def test_a_batch_of_objects_has_the_same_ceiling() -> None:
    objects = [{"text": "a", "x": "b", "y": "c"}] * 3
    assert len(decode("/v1/embeddings", {"input": objects}, Limits(items=3)).items) == 3
    with pytest.raises(BadRequest, match="at most 2 items"):
        decode("/v1/embeddings", {"input": objects}, Limits(items=2))


@pytest.mark.parametrize("given", ["data:image/jpeg;base64,AA", ["data:image/jpeg;base64,AA"]])
def test_infinitys_pictures(given: Any) -> None:
    found = task(input=given, modality="image", encoding_format="base64", dimensions=0)
    assert found == Encode((Item((Image(Url("data:image/jpeg;base64,AA")),)),))
    assert task(input=["https://x.org/a", PACKED, {"image": PACKED}], modality="image").items == (
        Item((Image(Url("https://x.org/a")),)),
        Item((Image(Blob(PIXEL)),)),
        Item((Image(Blob(PIXEL)),)),
    )


@pytest.mark.parametrize(
    "uri", ["data:image/jpeg;base64,AA", "DATA:image/png;a=b;base64,", "data:video/mp4;base64,AA"]
)
def test_a_file_as_a_plain_string_is_not_taken_for_a_text(uri: str) -> None:
    for given, at in ((uri, 0), (["a", uri], 1), (["a" * 70_000, {"text": uri}, uri], 2)):
        error = refused(input=given)
        assert (error["status"], error["param"]) == (400, f"input[{at}]")
        assert '`"modality": "image"`' in error["message"]
    assert task(input=[uri], modality="text").items == (Item((Text(uri),)),)
    for about in ("data:image/png is a type", f"see {uri}"):
        assert task(input=about).items == (Item((Text(about),)),)


def test_jinas_name_of_the_encoding() -> None:
    packed = read(ask("POST", "/v1/embeddings", {"input": "a", "embedding_type": "base64"}))
    assert isinstance(packed["data"][0]["embedding"], str)


def test_a_batch_has_a_ceiling() -> None:
    assert len(task(input=["a"] * 2048).items) == 2048
    error = refused(input=["a"] * 2049)
    assert (error["status"], error["code"], error["param"]) == (400, "INVALID_REQUEST", "input")
    assert "2048" in error["message"]
    with pytest.raises(BadRequest, match="at most 2 items"):
        decode("/embeddings", {"input": ["a"] * 3}, Limits(items=2))
    assert len(task(input=list(range(5000))).items) == 1  # one input of 5,000 tokens


# ── wishes ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["dimensions", "dimension", "output_dimension"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "x", [3], 129, 2**64, {"a": 1}])
def test_dimensions_that_no_model_has(name: str, value: Any) -> None:
    for error in (refused(**{name: value}), refused(extra_body={name: value})):
        assert (error["status"], error["code"]) == (422, "INVALID_REQUEST")
        assert error["param"] == "dimensions"


@pytest.mark.parametrize(
    ("fields", "dims"),
    [
        ({}, None),
        ({"dimensions": None}, None),
        ({"dimensions": 8}, 8),
        ({"dimension": 8}, 8),
        ({"output_dimension": 8}, 8),
        ({"extra_body": {"dimensions": 8}}, 8),
        ({"dimensions": 9, "extra_body": {"dimensions": 8}}, 9),
        ({"dimensions": 0, "modality": "text"}, None),  # what infinity_client always sends
    ],
)
def test_dimensions_under_all_their_names(fields: dict[str, Any], dims: int | None) -> None:
    assert task(**fields).dims == dims


@pytest.mark.parametrize(
    ("fields", "role"),
    [
        ({}, None),
        ({"input_type": None}, None),
        ({"input_type": ""}, None),
        ({"input_type": "search_query"}, "query"),
        ({"input_type": "search_document"}, "document"),
        ({"input_type": "query"}, "query"),
        ({"input_type": "passage"}, "document"),
        ({"task": "retrieval.passage"}, "document"),
        ({"prompt_type": "Query"}, "query"),
        ({"prompt_name": "Retrieval-query"}, "Retrieval-query"),
        ({"prompt_name": "passage", "input_type": "query"}, "passage"),
        ({"extra_body": {"prompt_type": "document"}}, "document"),
    ],
)
def test_roles_in_the_words_of_many_services(fields: dict[str, Any], role: str | None) -> None:
    assert task(**fields).role == role


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (None, None)),
        ({"truncate": True}, ("truncate", None)),
        ({"truncate": "END"}, ("truncate", None)),
        ({"truncate": "none"}, ("refuse", None)),
        ({"truncation": False}, ("refuse", None)),
        ({"extra_body": {"truncation": False}}, ("refuse", None)),
        ({"truncate_prompt_tokens": 9}, ("truncate", 9)),
        ({"truncate_prompt_tokens": -1}, (None, None)),
    ],
)
def test_overflow(fields: dict[str, Any], expected: tuple[str | None, int | None]) -> None:
    found = task(**fields)
    assert (found.overflow, found.max_tokens) == expected


@pytest.mark.parametrize(
    ("fields", "role", "instruction"),
    [
        ({"instruction": "Find", "prompt_type": "document"}, None, "Find"),
        ({"extra_body": {"instruction": "Find", "prompt_type": "document"}}, None, "Find"),
        ({"instruction": "", "prompt_type": "document"}, "document", None),
        ({"prompt_type": "document", "extra_body": {"prompt_type": "query"}}, "query", None),
        ({"instruction": "Seek", "extra_body": {"instruction": "Find"}}, None, "Find"),
        ({"instruction": "Find", "prompt_name": "document"}, "document", "Find"),
        ({"instruction": "Find", "input_type": "document"}, "document", "Find"),
    ],
)
def test_instruction_and_prompt_type_mean_what_they_mean_in_a_job(
    fields: dict[str, Any], role: str | None, instruction: str | None
) -> None:
    asked = task(**fields)
    assert (asked.role, asked.items[0].instruction) == (role, instruction)


def test_instruction_and_normalize() -> None:
    assert task(instruction="Find").items[0].instruction == "Find"
    assert task(extra_body={"instruction": "Find"}).items[0].instruction == "Find"
    assert task(instruction=" ").items[0].instruction is None
    assert task().normalize is None
    assert task(normalize="false").normalize is False


@pytest.mark.parametrize("name", [None, "", "default/not-specified"])
def test_no_model_is_the_servers_choice(name: str | None) -> None:
    assert task(model=name).model is None
    assert read(ask("POST", "/embeddings", {"input": "a", "model": name}))["model"] == CARD.name


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"encoding_format": "hex"}, 400, "encoding_format"),
        ({"encoding_format": 5}, 400, "encoding_format"),
        ({"output_dtype": "int8"}, 422, "output_dtype"),
        ({"modality": "audio"}, 422, "modality"),
        ({"modality": "image"}, 400, "input[0]"),
        ({"modality": "image", "input": [1]}, 400, "input[0]"),
        ({"modality": "image", "input": ["data:x", "file:///etc/passwd"]}, 400, "input[1]"),
        ({"input": [{}]}, 400, "input[0]"),
        ({"input": ["a", {"image": ""}]}, 400, "input[1]"),
        ({"input": [{"image": "/data/a.png"}]}, 400, "input[0].image"),
        ({"input": [{"text": 5}]}, 400, "input[0].text"),
        ({"embedding_type": "hex"}, 400, "encoding_format"),
        ({"truncate": "START"}, 422, "truncate"),
        ({"truncate": "maybe"}, 400, "truncate"),
        ({"truncate_prompt_tokens": 0}, 400, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": True}, 400, "truncate_prompt_tokens"),
        ({"model": 5}, 400, "model"),
        ({"instruction": {}}, 400, "instruction"),
        ({"extra_body": "x"}, 400, "extra_body"),
        ({"extra_body": {"instruction": 1}}, 400, "extra_body.instruction"),
    ],
)
def test_other_wishes_refused(fields: dict[str, Any], status: int, param: str) -> None:
    error = refused(**fields)
    assert (error["status"], error["param"]) == (status, param)
    assert error["code"] == "INVALID_REQUEST"


# ── replies ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", [None, "float", "base64", "BASE64"])
def test_vectors_in_the_format_asked_for(path: str, name: str | None) -> None:
    body = {"input": ["one", "two"], "encoding_format": name, "dimensions": 7}
    answer = read(ask("POST", path, body))
    for entry, text in zip(answer["data"], ["one", "two"], strict=True):
        wanted = vector(text, 7)
        if name and name.lower() == "base64":
            assert np.array_equal(
                np.frombuffer(base64.b64decode(entry["embedding"]), "<f4"), wanted
            )
        else:
            assert entry["embedding"] == wanted.tolist()
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


def test_the_model_is_called_as_the_client_called_it() -> None:
    assert read(ask("POST", "/embeddings", {"input": "a", "model": "minilm"}))["model"] == "minilm"


def test_truncation_is_told() -> None:
    reply = ask("POST", "/v1/embeddings", {"input": ["a " * 300, "b"]})
    assert read(reply)["usage"]["truncated"] == 1


@pytest.mark.parametrize("prefix", openai.PLUGIN.prefixes)
def test_models(prefix: str) -> None:
    listed = read(ask("GET", f"{prefix}/models"))
    one = read(ask("GET", f"{prefix}/models/{CARD.name}"))
    assert listed["object"] == "list"
    assert listed["data"] == listed["models"] == [one]
    assert (one["id"], one["object"], one["owned_by"]) == (CARD.name, "model", "infinity")
    assert (one["dims"], one["max_sequence_length"]) == ({"dense": 128}, 256)
    assert (one["tasks"], one["state"]) == (["encode", "score"], "loaded")
    assert _models.decode_model(
        openai.Call("GET", "/models/{id:path}", params={"id": "a/../b"})
    ) == Describe("a/../b")  # a name to look up, never a path


# ── faults ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("param", "told"), [("input[3]", "input[3]"), ("dims", "dimensions"), ("role", "prompt_name")]
)
def test_the_engines_fields_in_openais_words(param: str, told: str) -> None:
    reply = openai.PLUGIN.fault(Unsupported("No.", param=param))
    assert (reply.status, read(reply)["error"]["param"]) == (422, told)


def test_an_item_that_does_not_fit_is_told_all_that_would() -> None:
    error = refused(input=["a", None])
    assert error["param"] == "input[1]"
    assert "an array of strings" in error["message"]
    assert "token ids" in error["message"]


# ── large bodies ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "items",
    [
        ["a"] * 4,
        [[1]] * 4,
        [["x"]] * 4,
        ['"', "[", "\\", ""],
        ["a", *[[]] * 4],
        [[1], [1], [1], "a"],
        ["[[", [1], [1], [1], [1]],
    ],
    ids=str,
)
def test_too_many_items_are_refused_whatever_they_are(items: list[Any]) -> None:
    with pytest.raises(BadRequest, match="at most 3 items") as caught:
        decode("/v1/embeddings", {"input": items}, Limits(items=3))
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    "items",
    [
        ["[[[[[[[[", "]],[],[],[]"],
        ['""""""""""', '\\"[\\"[\\"['],
        ["\\", "[\\\\", '[\\"['],
        [[1], '"],[1],[1],["', [1]],
    ],
    ids=str,
)
def test_brackets_and_quotes_in_a_text_are_no_items(items: list[Any]) -> None:
    parts = [item.parts[0] for item in decode("/v1/embeddings", {"input": items}, Limits(3)).items]
    assert parts == [Text(i) if isinstance(i, str) else Tokens(tuple(i)) for i in items]


def test_a_million_things_are_refused_without_being_made() -> None:
    """What is made of them would be told of by the peak of memory."""
    import tracemalloc

    for body in (b'{"input":[%b[]]}' % (b"[]," * 10**6), b'{"input":[%b""]}' % (b'"",' * 10**6)):
        tracemalloc.start()
        with pytest.raises(BadRequest, match="at most"):
            decode("/v1/embeddings", body)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * len(body)


def test_user_may_be_anything_and_is_not_looked_at() -> None:
    for user in ("me", 5, None, {"a": [{}]}, [[]]):
        assert task(user=user) == task()


def test_the_seeds_codes() -> None:
    reply = openai.PLUGIN.fault(TooLong("This input has more tokens than fit.", param="input[0]"))
    assert reply.status == 400
    assert read(reply) == {
        "error": {
            "message": "This input has more tokens than fit.",
            "type": "invalid_request_error",
            "param": "input[0]",
            "code": "INVALID_REQUEST",
        }
    }
    busy = openai.PLUGIN.fault(Overloaded("The queue is full.", retry_after=2.5))
    assert (busy.status, busy.headers["retry-after"]) == (429, "3")
    assert read(busy)["error"]["type"] == "rate_limit_error"
