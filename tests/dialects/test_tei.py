from __future__ import annotations

from typing import Any

import msgspec
import pytest
from dialogue import CARD, ask, decode, read, route

from omnivec.core import errors
from omnivec.core.errors import Fault
from omnivec.core.nouns import Class, Extract, Findings, Item, Limits, Result, Score, Text
from omnivec.dialects import tei

BODY: dict[str, Any] = {"query": "deep learning", "texts": ["the weather", "deep learning"]}


def test_texts_make_it_tei() -> None:
    assert route("POST", "/rerank", b'{"texts": []}').dialect is tei.PLUGIN
    assert route("POST", "/rerank", b'{"documents": []}').dialect.name == "rerank"
    assert route("POST", "/rerank", b"{").dialect.name == "rerank"


def test_the_task() -> None:
    task = decode("/rerank", {**BODY, "raw_scores": True, "truncate": False})
    assert task == Score(
        query=Item((Text("deep learning"),)),
        items=(Item((Text("the weather"),)), Item((Text("deep learning"),))),
        raw=True,
        overflow="refuse",
    )


@pytest.mark.parametrize("name", ["return_text", "RETURN"])
def test_the_reply_is_a_bare_array(name: str) -> None:
    ranks = read(ask("POST", "/rerank", {**BODY, name: "true"}))
    text = (
        [{"text": "deep learning"}, {"text": "the weather"}] if name == "return_text" else [{}, {}]
    )
    assert ranks == [{"index": 1, "score": 1.0, **text[0]}, {"index": 0, "score": 0.0, **text[1]}]


def test_what_litellm_adds() -> None:
    extra = {"truncation_direction": "Right", "top_n": 1, "return_documents": True}
    assert len(read(ask("POST", "/rerank", {**BODY, **extra}))) == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"query": ""}, 422),
        ({"query": None}, 422),
        ({"query": {"text": "a"}}, 422),
        ({"texts": []}, 422),
        ({"texts": "a"}, 422),
        ({"texts": [{"text": "a"}]}, 422),
        ({"texts": ["a"] * 2049}, 413),
        ({"top_n": 0}, 422),
        ({"truncation_direction": "Left"}, 422),
        ({"raw_scores": "maybe"}, 422),
    ],
)
def test_a_wrong_field(fields: dict[str, Any], status: int) -> None:
    reply = ask("POST", "/rerank", {**BODY, **fields})
    assert (reply.status, read(reply)["error_type"]) == (status, "Validation")
    assert set(read(reply)) == {"error", "error_type"}


def test_the_ceiling_is_the_servers() -> None:
    with pytest.raises(errors.TooLarge, match="at most 1 items"):
        decode("/rerank", BODY, Limits(items=1))


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        (errors.TooLong("x"), 413, "Validation"),
        (errors.UnknownModel("x"), 404, "Validation"),
        (errors.Unauthorized("x"), 401, "Validation"),
        (errors.Overloaded("x"), 429, "Overloaded"),
        (errors.ModelFailed("x"), 424, "Backend"),
        (errors.Loading("x"), 503, "Unhealthy"),
    ],
)
def test_statuses_and_words_are_teis(fault: Fault, status: int, word: str) -> None:
    reply = tei.PLUGIN.fault(fault)
    assert (reply.status, read(reply)) == (status, {"error": "x", "error_type": word})


@pytest.mark.parametrize(
    ("inputs", "texts", "single"),
    [
        ("I like you.", ["I like you."], True),
        (["I like you."], ["I like you."], True),
        ([["I like you."]], ["I like you."], False),
        ([["a"], ["b"]], ["a", "b"], False),
    ],
)
def test_predict(inputs: Any, texts: list[str], single: bool) -> None:
    body = {"inputs": inputs, "truncate": True, "model": "minilm"}
    task = decode("/predict", body)
    items = tuple(Item((Text(text),)) for text in texts)
    assert task == Extract(items, "minilm", overflow="truncate")
    found = (Class("joy", 0.75), Class("anger", 0.25))
    asked = route("POST", "/predict", msgspec.json.encode(body))
    result = Result(CARD, (Findings(found),) * len(texts))
    asked.endpoint.decode(asked.call)
    reply = read(asked.endpoint.encode(asked.call, task, result))
    row = [{"score": 0.75, "label": "joy"}, {"score": 0.25, "label": "anger"}]
    assert reply == (row if single else [row] * len(texts))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"inputs": None}, 422),
        ({"inputs": 3}, 422),
        ({"inputs": []}, 422),
        ({"inputs": ["a", "b"]}, 422),
        ({"inputs": [["a", "b"]]}, 422),
        ({"inputs": [["a"], "b"]}, 422),
        ({"inputs": [["a"]] * 2049}, 413),
        ({"inputs": "a", "raw_scores": True}, 422),
        ({"inputs": "a", "truncation_direction": "Left"}, 422),
    ],
)
def test_what_predict_refuses(fields: dict[str, Any], status: int) -> None:
    reply = ask("POST", "/predict", fields)
    assert (reply.status, read(reply)["error_type"]) == (status, "Validation")
