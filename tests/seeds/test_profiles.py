"""A server that stands in for Synesis or for Intel's service, set up by that service's own
variables, and talked to as its pages say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import checkpoints
import live
import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 2048
LOCAL = {"OMNIVEC_HOST": "127.0.0.1", "OMNIVEC_INSECURE_NO_AUTH": "true"}


@pytest.fixture(scope="module", name="synesis")
def synesis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    made = tmp_path_factory.mktemp("synesis")
    wide = ((WIDTH, checkpoints.IDENTITY),)
    checkpoints.build_encoder("bert", made / "embedding", dense=wide)
    checkpoints.build_encoder("xlm_roberta", made / "reranker", num_labels=1)
    variables = {
        "OMNIVEC_PROFILE": "synesis",
        "EMBEDDING_MODEL_PATH": str(made / "embedding"),
        "EMBEDDING_RERANKER_MODEL_PATH": str(made / "reranker"),
        "EMBEDDING_TORCH_DTYPE": "bfloat16",
        "EMBEDDING_USE_FLASH_ATTENTION": "true",
        "EMBEDDING_DEFAULT_DIMENSION": "512",
        "EMBEDDING_MAX_BATCH_SIZE": "3",
        "EMBEDDING_HOST": "127.0.0.1",
    }
    with live.serve(env=variables) as server:
        yield server


def embed(server: live.Server, count: int, **more: Any) -> wire.Answer:
    inputs = [{"text": f"text {i}"} for i in range(count)]
    return wire.request(server.url, "/v1/embeddings", {"inputs": inputs, **more})


def test_synesis_serves_both_models_at_once(synesis: live.Server) -> None:
    health = wire.request(synesis.url, "/health").json
    assert health["embedding_model"]["path"] == "embedding"
    assert health["reranker_model"]["path"] == "reranker"
    assert health["embedding_model"]["loaded"] is health["reranker_model"]["loaded"] is True
    assert [one["id"] for one in wire.request(synesis.url, "/models/v1/models").json["data"]] == [
        "embedding",
        "reranker",
    ]
    reply = embed(synesis, 2)
    assert reply.json["usage"]["dimension"] == 512
    ranked = wire.request(
        synesis.url,
        "/v1/rerank",
        {"query": {"text": "deep"}, "documents": [{"text": "a"}, {"text": "deep"}], "top_n": 1},
    )
    assert (ranked.status, ranked.json["usage"]["returned_count"]) == (200, 1)
    alike = {"a": {"text": "a cat"}, "b": {"text": "a cat"}, "dimension": 64}
    score = wire.request(synesis.url, "/v1/similarity", alike).json
    assert score == {"score": pytest.approx(1, abs=1e-3), "dimension": 64}


def test_the_metrics_of_synesis_tell_both_models(synesis: live.Server) -> None:
    text = wire.request(synesis.url, "/metrics").body.decode()
    lines = text.splitlines()
    assert "embedding_model_loaded 1.0" in lines
    assert "reranker_model_loaded 1.0" in lines
    assert "embedding_gpu_memory_bytes 0.0" in lines  # no model here is on a GPU


@pytest.mark.parametrize(
    ("count", "more", "status"),
    [
        (3, {}, 200),
        (4, {}, 422),
        (0, {}, 422),
        (1, {"dimension": 63}, 422),
        (1, {"dimension": 64}, 200),
        (1, {"dimension": 2048}, 200),
        (1, {"dimension": 2049}, 422),
        (1, {"normalize": False}, 200),
        (1, {"normalize": "perhaps"}, 422),
    ],
)
def test_the_limits_of_synesis(
    synesis: live.Server, count: int, more: dict[str, Any], status: int
) -> None:
    reply = embed(synesis, count, **more)
    assert reply.status == status
    assert reply.json.keys() == ({"embeddings", "usage"} if status == 200 else {"detail"})
    if status == 200:
        assert reply.json["usage"]["dimension"] == more.get("dimension", 512)


def test_more_documents_than_the_batch_size_are_refused(synesis: live.Server) -> None:
    documents = [{"text": "a"}] * 4
    body = {"query": {"text": "a"}, "documents": documents}
    reply = wire.request(synesis.url, "/v1/rerank", body)
    assert (reply.status, reply.json["detail"][0]["loc"]) == (422, ["body", "documents"])


@pytest.mark.parametrize("path", ["/ready/", "/ready", "/live/", "/live", "/health", "/metrics"])
def test_the_probes_of_synesis(synesis: live.Server, path: str) -> None:
    assert wire.request(synesis.url, path).status == 200


# ── Intel ────────────────────────────────────────────────────────────────────────────────

NAME = "QwenText/qwen3-embedding-0.6b"
QUERY = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)


@pytest.fixture(scope="module", name="intel")
def intel_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    folder = checkpoints.build_encoder("bert", tmp_path_factory.mktemp("intel") / "text")
    variables = {
        "OMNIVEC_PROFILE": "intel",
        "EMBEDDING_MODEL_NAME": f"{NAME}={folder}",
        "EMBEDDING_DEVICE": "CPU",
        "EMBEDDING_USE_OV": "true",
        "DEFAULT_NUM_FRAMES": "8",
        "EMBEDDING_OV_MODELS_DIR": "",
        **LOCAL,
    }
    with live.serve(env=variables) as server:
        yield server


def typed(server: live.Server, kind: str, model: str = NAME, **fields: Any) -> wire.Answer:
    body = {"model": model, "input": {"type": kind, **fields}, "encoding_format": "float"}
    return wire.request(server.url, "/embeddings", body)


def test_intels_routes(intel: live.Server) -> None:
    assert wire.request(intel.url, "/health").json == {"status": "healthy"}
    models = wire.request(intel.url, "/models").json
    assert (models["current_model"], models["total_models"]) == (NAME, 19)
    assert wire.request(intel.url, "/model/list").json == models
    current = {"model": NAME, "device": "CPU", "use_openvino": True}
    assert wire.request(intel.url, "/model/current").json == current
    assert wire.request(intel.url, "/model/capabilities").json == {
        "model": NAME,
        "modalities": ["text"],
        "supports_text": True,
        "supports_image": False,
        "supports_video": False,
    }


def test_intels_texts(intel: live.Server) -> None:
    """A single one is a query and gets that model's own instruction, one of a list does not."""
    single = typed(intel, "text", text="A photo of a cat").json["embedding"]
    rows = typed(intel, "text", text=["A photo of a cat", f"{QUERY}A photo of a cat"]).json[
        "embedding"
    ]
    assert rows[1] == pytest.approx(single, abs=1e-5)
    assert rows[0] != pytest.approx(single, abs=1e-3)
    for row in rows:
        assert sum(number * number for number in row) == pytest.approx(1, abs=1e-4)
    assert typed(intel, "text", "qwen3-embedding-0.6b", text="A photo of a cat").json == {
        "embedding": single
    }


@pytest.mark.parametrize(
    ("kind", "model", "fields", "status", "words"),
    [
        ("text", "CLIP/clip-vit-b-16", {"text": "a"}, 400, "Model mismatch: "),
        ("image_url", NAME, {"image_url": "https://example.com/photo.jpg"}, 400,
         "Image inputs are not supported by the active model"),
        ("video_url", NAME, {"video_url": "https://x.org/a.mp4", "segment_config": {}}, 400,
         "Video inputs are not supported by the active model"),
        ("frames_batch", NAME, {"frames_manifest_path": "/data/manifests/frames.json"}, 400,
         "Video inputs are not supported by the active model"),
        ("audio_url", NAME, {"text": "a"}, 400, "Invalid input type"),
    ],
)  # fmt: skip
def test_intels_refusals(
    intel: live.Server, kind: str, model: str, fields: Any, status: int, words: str
) -> None:
    reply = typed(intel, kind, model, **fields)
    assert reply.status == status
    assert reply.json["detail"].startswith(words)
    assert "CLIP" not in reply.json["detail"]


INCOMPLETE = [{}, {"model": NAME}, {"input": {}}, {"model": NAME, "input": {"type": "text"}}]


@pytest.mark.parametrize("body", INCOMPLETE, ids=str)
def test_intels_validation(intel: live.Server, body: Any) -> None:
    reply = wire.request(intel.url, "/embeddings", body)
    assert reply.status == 422
    assert reply.json["detail"][0].keys() == {"type", "loc", "msg"}


def test_what_has_no_effect_is_said(intel: live.Server) -> None:
    assert "EMBEDDING_USE_OV has no effect" in intel.printed()
