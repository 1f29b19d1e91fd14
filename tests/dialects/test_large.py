"""A large body is read in steps, and a long reply is written in steps: with the same outcome."""

from __future__ import annotations

import base64
from typing import Any

import dialogue
import msgspec
import numpy as np
import pytest
from dialogue import DIALECTS, Exchange, ask, decode, exchanges, read, replay
from test_openai import test_input_in_all_its_shapes as shapes
from test_openai import test_input_that_cannot_be_read as misfits

from omnivec.core import outline
from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Blob, Call, Encode, Image, Limits, Score, Text, Video
from omnivec.core.outline import MalformedError, Outline
from omnivec.dialects import _wire
from omnivec.dialects.intel import decode_embeddings

EMBED, RERANK = "/v1/embeddings", "/v1/rerank"


def outlined(call: Call, limits: Limits | None) -> Call:
    try:
        found = Outline(call.body)
    except MalformedError:  # the door's to refuse
        found = None
    return msgspec.structs.replace(call, limits=limits or Limits(), outline=found)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every body is large, and every long array has a group for each few items."""
    monkeypatch.setattr(dialogue, "_limited", outlined)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, large: None) -> None:
    monkeypatch.setattr(outline, "SMALL", 0)
    monkeypatch.setattr(outline, "PIECE", 8)
    monkeypatch.setattr(_wire, "STRIDE", 1)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "exchange", exchanges(), ids=lambda e: f"{e.path.parent.name}/{e.path.stem}"
)
def test_every_recorded_exchange_is_the_same(exchange: Exchange) -> None:
    assert replay(exchange) == exchange.reply


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("given", "parts"), shapes.pytestmark[0].args[1])
def test_input_in_all_its_shapes(given: Any, parts: list[Any]) -> None:
    shapes(given, parts)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("given", "param"), misfits.pytestmark[0].args[1])
def test_input_that_cannot_be_read(given: Any, param: str) -> None:
    misfits(given, param)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("path", "field", "item"),
    [
        (EMBED, "input", "text " * 20),
        (EMBED, "inputs", {"text": "text " * 20}),
        (RERANK, "documents", "text " * 20),
        (RERANK, "documents", {"text": "text " * 20}),
        ("/rerank", "texts", "text " * 20),
        ("/v1/encode/minilm", "items", {"text": "text " * 20}),
        ("/v1/score/minilm", "items", {"text": "text " * 20}),
    ],
    ids=str,
)
def test_a_large_batch_is_read_whole(path: str, field: str, item: Any) -> None:
    query = {"text": "q"} if path.startswith("/v1/score") else "q"
    found = decode(path, {"query": query, field: [item] * 2000})
    assert isinstance(found, Encode | Score)
    assert [part for item in found.items for part in item.parts] == [Text("text " * 20)] * 2000


@pytest.mark.usefixtures("large")
def test_a_fault_late_in_a_large_batch_has_its_place() -> None:
    texts: list[Any] = ["text " * 20] * 2000
    assert read(ask("POST", EMBED, {"input": [*texts, 5]}))["error"]["param"] == "input[2000]"
    reply = read(ask("POST", RERANK, {"query": "q", "documents": [*texts, 5]}))
    assert reply["error"]["param"] == "documents[2000]"
    inputs = [{"text": text} for text in texts]
    reply = read(ask("POST", EMBED, {"inputs": [*inputs, {"text": 5}]}))
    assert reply["detail"][0]["loc"] == ["body", "inputs", 2000, "text"]


def intel(**given: Any) -> bytes:
    return msgspec.json.encode({"model": "minilm", "input": given, "encoding_format": "float"})


@pytest.mark.usefixtures("large")
def test_what_is_long_within_an_object_is_read_whole() -> None:
    texts = [f"text {i} é 🙂 \\ \n" * 20 for i in range(2000)]
    found = decode("/embeddings", intel(type="text", text=texts))
    assert [item.parts for item in found.items] == [(Text(text),) for text in texts]
    one = "".join(texts)
    assert decode("/embeddings", intel(type="text", text=one)).items[0].parts == (Text(one),)
    pixels = bytes(range(256)) * 2000
    packed = base64.b64encode(pixels).decode()
    frame = {"type": "image_base64", "image_base64": packed}
    for given, count in (
        ({"type": "image_base64", "image_base64": packed}, 1),
        ({"type": "image_base64", "image_base64": [packed, packed]}, 2),
        ({"type": "video_frames", "video_frames": [frame] * 3}, 3),
    ):
        found = decode("/embeddings", intel(**given))
        assert [item.parts for item in found.items] == [(Image(Blob(pixels)),)] * count
    film = decode("/embeddings", intel(type="video_base64", segment_config={}, video_base64=packed))
    assert film.items[0].parts == (Video(Blob(pixels)),)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("given", "loc"),
    [
        ({"type": "text", "text": ["text " * 20] * 2000 + [5]}, ["text", 2000]),
        ({"type": "text", "text": {"a": "text " * 20_000}}, ["text"]),
        ({"type": "video_url", "video_url": "a" * 70_000}, ["segment_config"]),
        ({"type": "video_url", "video_url": ["a" * 70_000], "segment_config": {}}, ["video_url"]),
        ({"type": "image_base64", "image_base64": ["!" * 70_000]}, ["image_base64", 0]),
        (
            {"type": "video_frames", "video_frames": [{"type": "text", "text": "a" * 70_000}]},
            ["video_frames", 0, "type"],
        ),
        (
            {"type": "video_frames", "video_frames": [{"type": "image_url", "x": [1] * 70_000}]},
            ["video_frames", 0],
        ),
        ({"text": ["text " * 20] * 2000}, ["type"]),
    ],
)
def test_a_fault_late_within_an_object_has_its_place(given: dict[str, Any], loc: Any) -> None:
    reply = ask("POST", "/embeddings", intel(**given))
    (told,) = read(reply)["detail"]
    assert (reply.status, told["loc"]) == (422, ["body", "input", *loc])


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("text", [r'"%s\ud800"', r'"%s\x"', r'["%s", "\ud800"]', '["%s" 5]'])
def test_what_is_no_json_within_an_object_is_refused(text: str) -> None:
    body = '{"input":{"type":"text","text":%s}}' % (text % ("a" * 300_000))
    call = Call("POST", "/embeddings", body.encode(), headers=dialogue.JSON)
    with pytest.raises(BadRequest, match="valid JSON"):
        decode_embeddings(outlined(call, None))


LONG = "a" * 400_000


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("path", "given", "place"),
    [
        (EMBED, {"inputs": [LONG]}, ["inputs", 0]),
        (EMBED, {"inputs": [{"text": "a"}, LONG]}, ["inputs", 1]),
        ("/v1/multimodalembeddings", {"inputs": [LONG]}, ["inputs"]),
        ("/v1/encode/minilm", {"items": [LONG]}, ["items"]),
        ("/v1/score/minilm", {"query": {"text": "a"}, "items": [LONG]}, ["items"]),
        ("/v2/embed", {"inputs": [LONG]}, ["inputs"]),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_long_text_where_none_may_be_is_refused(path: str, given: Any, place: Any) -> None:
    reply = ask("POST", path, given)
    assert reply.status in (400, 422)
    assert all(str(one).encode() in reply.body for one in place)
    assert len(reply.body) < 1000


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("path", "field", "item"),
    [
        (EMBED, "input", '"a"'),
        (EMBED, "input", f'"{LONG}"'),
        (EMBED, "inputs", '{"text":"a"}'),
        (RERANK, "documents", '"a"'),
        ("/rerank", "texts", '"a"'),
    ],
    ids=lambda value: value[:12],
)
def test_a_long_array_ends_with_its_own_bracket(path: str, field: str, item: str) -> None:
    items = ",".join([item] * max(1, min(2000, 40_000 // len(item))))
    right, wrong = (f'{{"query":"q","{field}":[{items}{end}}}'.encode() for end in "]}")
    _, endpoint, call = dialogue.route("POST", path, right)
    assert endpoint.decode(outlined(call, None))
    with pytest.raises(BadRequest, match="valid JSON"):
        endpoint.decode(outlined(msgspec.structs.replace(call, body=wrong), None))


OVER = {
    "ids": (EMBED, b'{"input":[%b1]}' % (b"1," * 65_536), 400, "at most 65536 token ids"),
    "an input's ids": (EMBED, b'{"input":["a",[%b1]]}' % (b"1," * 70_000), 400, "65536 values"),
    "all inputs' ids": (
        EMBED,
        b'{"input":[%b]}' % b",".join([b"[%b1]" % (b"1," * 600)] * 1000),
        400,
        "at most 524288 token ids",
    ),
    "inputs": (EMBED, b'{"inputs":[%b{}]}' % (b"{}," * 200_000), 422, "at most 2048 items"),
    "documents": (
        RERANK,
        b'{"query":"q","documents":[%b{}]}' % (b"{}," * 200_000),
        400,
        "at most 2048 items",
    ),
    "texts": ("/rerank", b'{"query":"q","texts":[%b""]}' % (b'"",' * 200_000), 413, "at most 2048"),
    "nesting": (EMBED, b'{"input":[%b%b]}' % (b"[" * 70_000, b"]" * 70_000), 400, "at most 65536"),
    "the rest": (EMBED, b'{"input":"a","x":[%b1]}' % (b"[]," * 70_000), 413, "Beside its inputs"),
}


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", OVER)
def test_too_much_has_a_clear_answer(name: str) -> None:
    path, body, status, words = OVER[name]
    reply = ask("POST", path, body)
    told = read(reply)
    message = told.get("error", told.get("detail"))
    while not isinstance(message, str):
        message = (
            message[0] if isinstance(message, list) else message.get("message") or message["msg"]
        )
    assert reply.status == status
    assert words in message


def test_a_long_reply_is_the_same_in_steps() -> None:
    rows = [{"embedding": _wire.row(np.full(8, i, np.float32))} for i in range(100)]
    value = {"object": "list", "data": rows, "model": '"data":[', "results": rows, "usage": {}}
    assert _wire.write_lists(value, "results", "data") == _wire.write(value)
    short = {**value, "data": rows[:3], "results": []}
    assert _wire.write_lists(short, "results", "data") == _wire.write(short)


def test_every_dialect_has_been_heard() -> None:
    assert {exchange.path.parent.name for exchange in exchanges()} >= set(DIALECTS)
