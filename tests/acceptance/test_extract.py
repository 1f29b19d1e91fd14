"""Classification over HTTP: a zero-shot model and one with labels of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import live
from wire import Answer, request

JSON = {"accept": "application/json"}
NLI = ("contradiction", "neutral", "entailment")
EMOTIONS = ("joy", "anger", "surprise")
ITEMS = [{"id": "a", "text": "The quick brown fox jumps over the lazy dog."}, {"text": "vectors"}]


@pytest.fixture(scope="module")
def url(tiny: Callable[..., Path]) -> Iterator[str]:
    nli = tiny("bert", num_labels=3, labels=NLI)
    emotions = tiny("distilbert", num_labels=3, labels=EMOTIONS)
    with live.serve(f"org/nli={nli}", f"emotions={emotions}", "--dtype", "f32") as server:
        yield server.url


def extract(url: str, model: str, params: dict[str, Any] | None = None) -> Answer:
    return request(url, f"/v1/extract/{model}", {"items": ITEMS, "params": params}, headers=JSON)


def test_zero_shot_as_transformers(url: str, tiny: Callable[..., Path]) -> None:
    import transformers

    folder = str(tiny("bert", num_labels=3, labels=NLI))
    reference = transformers.pipeline("zero-shot-classification", model=folder, device="cpu")
    texts, labels = [item["text"] for item in ITEMS], ["animals", "weather", "numbers"]
    options = {"multi_label": True, "hypothesis_template": "On {}."}
    for wishes in ({}, options):
        answer = extract(url, "org/nli", {"labels": labels, "options": wishes})
        assert (answer.status, answer.json["model"]) == (200, "org/nli")
        assert [item["id"] for item in answer.json["items"]] == ["a", "item-1"]
        expected = reference(texts, candidate_labels=labels, **wishes)
        for item, told in zip(answer.json["items"], expected, strict=True):
            found = item["classifications"]
            assert [one["label"] for one in found] == told["labels"]
            assert [one["score"] for one in found] == pytest.approx(told["scores"], abs=1e-5)
            assert (item["entities"], item["relations"], item["objects"]) == ([], [], [])
            assert item["data"] == {}
        assert answer.json["usage"]["input_tokens"] > 0


def test_a_models_own_labels_in_msgpack(url: str) -> None:
    whole = extract(url, "emotions").json
    packed = {"content-type": "application/msgpack", "accept": "application/msgpack"}
    body = msgspec.msgpack.encode({"items": ITEMS})
    answer = request(url, "/v1/extract/emotions", body, headers=packed)
    assert answer.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(answer.body) == whole
    for item in whole["items"]:
        assert {one["label"] for one in item["classifications"]} == set(EMOTIONS)
        assert sum(one["score"] for one in item["classifications"]) == pytest.approx(1)
    best = extract(url, "emotions", {"labels": ["joy", "anger"], "options": {"top_k": 1}}).json
    kept = [one for one in whole["items"][0]["classifications"] if one["label"] != "surprise"]
    assert best["items"][0]["classifications"] == kept[:1]


@pytest.mark.parametrize(
    ("model", "params", "param"),
    [
        ("org/nli", None, "params.labels"),
        ("org/nli", {"labels": ["a", ""]}, "params.labels[1]"),
        (
            "org/nli",
            {"labels": ["a"], "options": {"hypothesis_template": "secret"}},
            "params.options.hypothesis_template",
        ),
        ("org/nli", {"labels": [str(number) for number in range(1025)]}, "params.labels"),
        ("emotions", {"labels": ["secret"]}, "params.labels"),
    ],
)
def test_refusals(url: str, model: str, params: Any, param: str) -> None:
    answer = extract(url, model, params)
    assert (answer.status, answer.json["code"]) == (400, "INVALID_INPUT")
    assert answer.json["detail"]["param"] == param
    assert b"secret" not in answer.body


def test_what_such_a_model_cannot_do(url: str) -> None:
    said = request(url, "/v1/embeddings", {"input": "a", "model": "org/nli"})
    assert said.status in (400, 422)
    assert b"cannot make embeddings" in said.body
    said = request(url, "/v1/rerank", {"query": "a", "documents": ["b"], "model": "emotions"})
    assert said.status in (400, 422)
    assert b"cannot rerank" in said.body
    said = request(url, "/v1/embeddings", {"input": "a"})
    assert said.status == 404
    assert b"No model here can make embeddings" in said.body


def test_predict_as_tei(url: str) -> None:
    texts = [[item["text"]] for item in ITEMS]
    rows = request(url, "/predict", {"inputs": texts, "model": "emotions"}).json
    expected = [item["classifications"] for item in extract(url, "emotions").json["items"]]
    assert rows == expected
    one = request(url, "/predict", {"inputs": ITEMS[0]["text"], "model": "emotions"}).json
    assert one == expected[0]
    said = request(url, "/predict", {"inputs": "a", "model": "org/nli"})
    assert said.status == 422
    assert b"labels of yours" in said.body


def test_the_list_of_models_tells(url: str) -> None:
    models = {one["id"]: one for one in request(url, "/v1/models").json["data"]}
    assert models["org/nli"]["zero_shot"] is True
    assert models["org/nli"]["labels"] == []
    assert models["emotions"]["labels"] == list(EMOTIONS)
    for one in models.values():
        assert one["outputs"] == ["json"]
        assert one["tasks"] == ["extract"]
        assert one["capabilities"] == ["classify"]


def test_what_is_ignored_is_told(url: str) -> None:
    answer = extract(url, "emotions", {"instruction": "Be kind", "options": {"multi_label": True}})
    assert answer.headers["x-omnivec-ignored"] == "instruction, multi_label"
