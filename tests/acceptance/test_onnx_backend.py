"""A server whose seed's variable BACKEND asks for Optimum answers from ONNX Runtime."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import checkpoints
import live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch.set_num_threads(1)

EMBEDDER, RERANKER, CLASSIFIER = "acme/embedder", "acme/reranker", "acme/classifier"
TEXTS = list(checkpoints.SENTENCES)


@pytest.fixture(scope="module", name="home")
def make_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    checkpoints.build_encoder("mpnet", home / EMBEDDER, pooling=("mean",))
    checkpoints.build_encoder("xlm_roberta", home / RERANKER, num_labels=1)
    labels = ("sad", "glad", "mad")
    checkpoints.build_encoder("distilbert", home / CLASSIFIER, num_labels=3, labels=labels)
    return home


@pytest.fixture(scope="module", name="server")
def open_server(home: Path) -> Iterator[live.Server]:
    names = "; ".join(str(home / name) for name in (EMBEDDER, RERANKER, CLASSIFIER))
    env = {"MODEL_NAMES": names, "BACKEND": "optimum", "HOME": str(home)}
    with live.serve("--profile", "runpod", "--host", "127.0.0.1", env=env) as server:
        yield server


def ask(server: live.Server, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(server.url + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        return json.load(reply)


def test_each_models_card_says_so(server: live.Server) -> None:
    cards = ask(server, "/v1/models")["data"]
    assert [card["backend"] for card in cards] == ["onnx"] * 3


def test_its_vectors_are_those_of_sentence_transformers(server: live.Server, home: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(home / EMBEDDER), device="cpu")
    expected = model.encode(TEXTS, normalize_embeddings=True)
    reply = ask(server, "/v1/embeddings", {"input": TEXTS, "model": EMBEDDER})
    got = np.array([entry["embedding"] for entry in reply["data"]])
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_its_scores_are_those_of_a_cross_encoder(server: live.Server, home: Path) -> None:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(home / RERANKER), device="cpu")
    expected = model.predict([(TEXTS[0], text) for text in TEXTS])
    asked = {"query": TEXTS[0], "documents": TEXTS, "model": RERANKER}
    reply = ask(server, "/v1/rerank", asked)
    got = {entry["index"]: entry["relevance_score"] for entry in reply["results"]}
    np.testing.assert_allclose([got[i] for i in range(len(TEXTS))], expected, atol=1e-5, rtol=0)


def test_its_classes_are_those_of_transformers(server: live.Server, home: Path) -> None:
    from transformers import pipeline

    classify = pipeline("text-classification", str(home / CLASSIFIER), top_k=None, device="cpu")
    reply = ask(server, "/classify", {"input": TEXTS, "model": CLASSIFIER})
    for expected, got in zip(classify(TEXTS), reply["data"], strict=True):
        wanted = {one["label"]: one["score"] for one in expected}
        assert {one["label"]: one["score"] for one in got} == pytest.approx(wanted, abs=1e-5)
