from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from dialogue import CARD, ask, decode, read, route

from omnivec.core import errors
from omnivec.core.errors import Fault
from omnivec.core.nouns import (
    Call,
    Encode,
    File,
    Image,
    Item,
    Limits,
    Result,
    Score,
    Text,
    Url,
    Vectors,
)
from omnivec.dialects import synesis

RERANK: dict[str, Any] = {
    "query": {"text": "deep learning"},
    "documents": [{"text": "the weather"}, {"text": "deep learning"}, {"text": "deep"}],
}


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/embeddings", {"inputs": [{"text": "a"}]}, "synesis"),
        ("/v1/embeddings", {"inputs": "a"}, "synesis"),
        ("/v1/embeddings", {"input": "a"}, "openai"),
        ("/v1/embeddings", {"input": "a", "inputs": [{}]}, "openai"),
        ("/v1/embeddings", {}, "openai"),
        ("/v1/rerank", {"query": {"text": "a"}, "documents": ["a"]}, "synesis"),
        ("/v1/rerank", {"query": {}}, "synesis"),
        ("/v1/rerank", {"documents": [{"text": "a"}]}, "synesis"),
        ("/v1/rerank", {"documents": [{"text": "a"}], "model": "m"}, "rerank"),
        ("/v1/rerank", {"documents": ["a"]}, "rerank"),
        ("/v1/rerank", {"query": "a", "documents": [{"text": "a"}]}, "rerank"),
        ("/v1/rerank", {}, "rerank"),
        ("/v1/similarity", {}, "synesis"),
    ],
)
def test_whose_body_it_is(path: str, body: dict[str, Any], name: str) -> None:
    for raw in (msgspec.json.encode(body), msgspec.json.format(msgspec.json.encode(body))):
        assert route("POST", path, raw).dialect.name == name


# ── embeddings ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "item"),
    [
        ({"text": "a"}, Item((Text("a"),))),
        ({"text": "a", "instruction": "Find"}, Item((Text("a"),), "Find")),
        ({"text": "a", "image": None}, Item((Text("a"),))),
        ({"image": "/data/cat.jpg"}, Item((Image(File("/data/cat.jpg")),))),
        ({"image": "HTTPS://x.org/a"}, Item((Image(Url("HTTPS://x.org/a")),))),
        ({"image": "data:image/png;base64,AA"}, Item((Image(Url("data:image/png;base64,AA")),))),
        ({"image": "file:///etc/passwd"}, Item((Image(File("file:///etc/passwd")),))),
        ({"text": "a", "image": "b.png"}, Item((Text("a"), Image(File("b.png"))))),
    ],
)
def test_inputs(given: dict[str, Any], item: Item) -> None:
    task = decode("/v1/embeddings", {"inputs": [given]})
    assert task == Encode(items=(item,))


def test_wishes() -> None:
    body = {"inputs": [{"text": "a"}], "dimension": 64, "normalize": "false", "model": "minilm"}
    task = decode("/v1/embeddings", body)
    assert isinstance(task, Encode)
    assert (task.dims, task.normalize, task.model) == (64, False, "minilm")


def test_vectors_and_every_usage_field_of_the_seed() -> None:
    reply = read(ask("POST", "/v1/embeddings", {"inputs": [{"text": "a"}, {"text": "b"}]}))
    assert [entry["index"] for entry in reply["embeddings"]] == [0, 1]
    assert [len(entry["embedding"]) for entry in reply["embeddings"]] == [128, 128]
    assert reply["usage"] == {"input_count": 2, "dimension": 128, "elapsed_ms": 12.5}


def test_truncation_is_told() -> None:
    reply = ask("POST", "/v1/embeddings", {"inputs": [{"text": "a " * 300}, {"text": "b"}]})
    assert read(reply)["usage"]["truncated"] == 1


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"inputs": []}, ["inputs"]),
        ({"inputs": None}, ["inputs"]),
        ({"inputs": "a"}, ["inputs"]),
        ({"inputs": ["a"]}, ["inputs", 0]),
        ({"inputs": [{"text": "a"}, {}]}, ["inputs", 1]),
        ({"inputs": [{"text": ""}]}, ["inputs", 0]),
        ({"inputs": [{"text": 5}]}, ["inputs", 0, "text"]),
        ({"inputs": [{"text": "a"}] * 33}, ["inputs"]),
        ({"dimension": 63}, ["dimension"]),
        ({"dimension": 0}, ["dimension"]),
        ({"dimension": -1}, ["dimension"]),
        ({"dimension": True}, ["dimension"]),
        ({"dimension": 64.5}, ["dimension"]),
        ({"dimension": 2048}, ["dimension"]),
        ({"normalize": "maybe"}, ["normalize"]),
    ],
)
def test_a_wrong_field_is_422_with_its_place(fields: dict[str, Any], where: list[Any]) -> None:
    body = {"inputs": [{"text": "a"}], **fields}
    reply = ask("POST", "/v1/embeddings", body, limits=Limits(items=32))
    assert reply.status == 422
    (detail,) = read(reply)["detail"]
    assert detail["loc"] == ["body", *where]
    assert set(detail) == {"type", "loc", "msg"}


# ── rerank ───────────────────────────────────────────────────────────────────────────────


def test_the_rerank_task() -> None:
    task = decode("/v1/rerank", {**RERANK, "instruction": "Find", "top_n": 1})
    assert isinstance(task, Score)
    assert task.query == Item((Text("deep learning"),), "Find")
    assert [item.parts for item in task.items] == [
        (Text("the weather"),),
        (Text("deep learning"),),
        (Text("deep"),),
    ]


def test_documents_are_echoed_in_order_of_score() -> None:
    documents = [*RERANK["documents"], {"text": "x", "image": "/a.png"}, {"image": "https://x/y"}]
    reply = read(ask("POST", "/v1/rerank", {**RERANK, "documents": documents}))
    assert [entry["index"] for entry in reply["results"]] == [1, 2, 0, 3, 4]
    assert [entry["score"] for entry in reply["results"]] == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert all(entry["document"] == documents[entry["index"]] for entry in reply["results"])
    usage = reply["usage"]
    assert (usage["query_count"], usage["document_count"], usage["returned_count"]) == (1, 5, 5)
    assert usage["elapsed_ms"] == 12.5


def test_top_n() -> None:
    reply = read(ask("POST", "/v1/rerank", {**RERANK, "top_n": 2}))
    assert [entry["index"] for entry in reply["results"]] == [1, 2]
    assert (reply["usage"]["document_count"], reply["usage"]["returned_count"]) == (3, 2)
    assert len(read(ask("POST", "/v1/rerank", {**RERANK, "top_n": 50}))["results"]) == 3


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"query": {}}, ["query"]),
        ({"query": {"text": ""}}, ["query"]),
        ({"query": {"text": 5}}, ["query", "text"]),
        ({"query": None}, ["query"]),
        ({"documents": []}, ["documents"]),
        ({"documents": ["a"]}, ["documents", 0]),
        ({"documents": [{"text": "a"}, {"image": ""}]}, ["documents", 1]),
        ({"documents": [{"text": "a"}] * 33}, ["documents"]),
        ({"top_n": 0}, ["top_n"]),
        ({"top_n": -1}, ["top_n"]),
        ({"top_n": 1.5}, ["top_n"]),
    ],
)
def test_a_wrong_field_of_rerank(fields: dict[str, Any], where: list[Any]) -> None:
    reply = ask("POST", "/v1/rerank", {**RERANK, **fields}, limits=Limits(items=32))
    assert reply.status == 422
    assert read(reply)["detail"][0]["loc"] == ["body", *where]


# ── similarity ───────────────────────────────────────────────────────────────────────────


def test_similarity() -> None:
    body = {"a": {"text": "one"}, "b": {"text": "one"}, "dimension": 64}
    task = decode("/v1/similarity", body)
    assert task == Encode(items=(Item((Text("one"),)), Item((Text("one"),))), dims=64)
    assert read(ask("POST", "/v1/similarity", body)) == {"score": 1.0, "dimension": 64}


@pytest.mark.parametrize(
    ("a", "b", "score"),
    [
        ([1.0001, 0], [1, 0], 1.0),
        ([1.0001, 0], [-1, 0], -1.0),
        ([0.6, 0.8], [0.8, -0.6], 0.0),
        ([0.6, 0.8], [0.6, 0.8], 1.0),
    ],
)
def test_the_score_is_a_cosine_within_its_bounds(a: Any, b: Any, score: float) -> None:
    outputs = (Vectors(np.array(a, np.float32)), Vectors(np.array(b, np.float32)))
    task = Encode(items=())
    reply = synesis.encode_similarity(Call("POST", ""), task, Result(CARD, outputs))
    assert read(reply)["score"] == pytest.approx(score, abs=1e-7)
    assert -1 <= read(reply)["score"] <= 1


def test_a_similarity_that_is_not_finite_is_a_failure() -> None:
    vector = Vectors(np.array([np.nan, 0], np.float32))
    with pytest.raises(errors.ModelFailed):
        synesis.encode_similarity(Call("POST", ""), Encode(()), Result(CARD, (vector, vector)))


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"a": {}}, ["a"]),
        ({"b": None}, ["b"]),
        ({"b": "x"}, ["b"]),
        ({"dimension": 8}, ["dimension"]),
    ],
)
def test_a_wrong_field_of_similarity(fields: dict[str, Any], where: list[Any]) -> None:
    reply = ask("POST", "/v1/similarity", {"a": {"text": "a"}, "b": {"text": "b"}, **fields})
    assert (reply.status, read(reply)["detail"][0]["loc"]) == (422, ["body", *where])


# ── models and faults ────────────────────────────────────────────────────────────────────


def test_models_are_what_openais_clients_read() -> None:
    (entry,) = read(ask("GET", "/models/v1/models"))["data"]
    assert (entry["id"], entry["object"], entry["capabilities"]) == (
        CARD.name,
        "model",
        ["embed", "rerank"],
    )


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (errors.ModelFailed("x"), 500),
        (errors.Loading("x", retry_after=5), 503),
        (errors.Unauthorized("x"), 401),
        (errors.UnknownModel("x", param="model"), 404),
        (errors.Overloaded("x", retry_after=1), 429),
        (errors.TooLarge("x"), 413),
        (errors.WrongType("x"), 415),
    ],
)
def test_a_fault_that_is_not_the_bodys_is_a_text(fault: Fault, status: int) -> None:
    reply = synesis.PLUGIN.fault(fault)
    assert (reply.status, read(reply)) == (status, {"detail": "x"})


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (errors.BadRequest("x"), []),
        (errors.TooLong("x", param="inputs[3]"), ["inputs", 3]),
        (errors.TooLong("x", param="a"), ["a"]),
        (errors.Unsupported("x", param="dims"), ["dimension"]),
        (errors.Unsupported("x", param="inputs[0].image"), ["inputs", 0, "image"]),
    ],
)
def test_a_fault_of_the_body_has_its_place(fault: Fault, where: list[Any]) -> None:
    reply = synesis.PLUGIN.fault(fault)
    detail = {"type": "value_error", "loc": ["body", *where], "msg": "x"}
    assert (reply.status, read(reply)) == (422, {"detail": [detail]})
