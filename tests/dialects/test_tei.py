from __future__ import annotations

from typing import Any

import pytest
from dialogue import ask, decode, read, route

from omnivec.core import errors
from omnivec.core.errors import Fault
from omnivec.core.nouns import Item, Limits, Score, Text
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
