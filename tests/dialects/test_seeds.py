"""The request bodies of the seed documents, taken from those files as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dialogue import CARD, ask, decode, read, route

from omnivec.core.nouns import (
    Blob,
    Clip,
    Encode,
    File,
    Image,
    Limits,
    Manifest,
    Score,
    Text,
    Url,
    Video,
)

SEEDS = Path(__file__).parents[2].parent / "shared" / "seeds"


def seed(number: str) -> str:
    found = list(SEEDS.glob(f"{number}_*.txt"))
    if not found:
        pytest.skip("the seed documents lie beside the project, in shared/seeds, and are not here")
    return found[0].read_text("utf-8")


def synesis_bodies() -> list[dict[str, Any]]:
    """Objects that begin on a line of their own, and those that the Python example posts."""
    text = re.sub(r",(\s*[\]}])", r"\1", seed("000"))  # Python's last commas
    bodies, end = [], 0
    for match in re.finditer(r"(?:^|json=)(?=\{$)", text, re.MULTILINE):
        if match.end() >= end:
            body, end = json.JSONDecoder().raw_decode(text, match.end())
            bodies.append(body)
    return bodies


def synapse_bodies() -> list[dict[str, Any]]:
    return [
        msgspec.json.decode(body) for body in re.findall(r"-d '(\{.*?\})'", seed("001"), re.DOTALL)
    ]


def test_the_seeds_were_found_whole() -> None:
    assert len(synesis_bodies()) == 7
    assert len(synapse_bodies()) == 3


def test_every_synesis_body_becomes_a_task() -> None:
    kinds = []
    for body in synesis_bodies():
        path = "/v1/embeddings" if "inputs" in body else "/v1/rerank"
        assert route("POST", path, msgspec.json.encode(body)).dialect.name == "synesis"
        task = decode(path, body, Limits(items=32))
        assert isinstance(task, Encode | Score)
        kinds.append(type(task))
        assert len(task.items) == len(body.get("inputs") or body["documents"])
        images = sum(isinstance(part, Image) for item in task.items for part in item.parts)
        assert images == str(body).count("'image'")
    assert kinds.count(Encode) == 4


def test_the_text_rerank_answers_as_the_seed_says() -> None:
    body = next(b for b in synesis_bodies() if "documents" in b and len(b["documents"]) == 4)
    reply = read(ask("POST", "/v1/rerank", body))
    assert len(reply["results"]) == body["top_n"]
    assert set(reply["results"][0]) == {"index", "score", "document"}
    for result in reply["results"]:
        assert result["document"] == body["documents"][result["index"]]
    assert set(reply["usage"]) == {
        "query_count",
        "document_count",
        "returned_count",
        "elapsed_ms",
    }


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
def test_every_synapse_curl_is_read(prefix: str) -> None:
    for body in synapse_bodies():
        task = decode(f"{prefix}/embeddings", body)
        assert isinstance(task, Encode)
        assert task.model == "openai/text-embedding-3-large"
        assert task.dims == body.get("dimensions")
        served = {**body, "model": CARD.name, "dimensions": 64}
        reply = read(ask("POST", f"{prefix}/embeddings", served))
        assert set(reply) == {"object", "data", "model", "usage"}
        assert [set(entry) for entry in reply["data"]] == [{"object", "index", "embedding"}] * len(
            task.items
        )


def test_the_seeds_error_table() -> None:
    text = seed("001")
    assert "404MODEL_NOT_FOUND" in text
    assert "422INVALID_REQUEST" in text
    first = synapse_bodies()[0]
    unknown = ask("POST", "/v1/embeddings", first)
    assert (unknown.status, read(unknown)["error"]["code"]) == (404, "MODEL_NOT_FOUND")
    wide = ask("POST", "/v1/embeddings", {**first, "model": CARD.name, "dimensions": 1024})
    assert (wide.status, read(wide)["error"]["code"]) == (422, "INVALID_REQUEST")
    long = ask("POST", "/v1/embeddings", {**first, "input": ["a"] * 2049})
    assert (long.status, read(long)["error"]["code"]) == (400, "INVALID_REQUEST")


# ── 003: Intel ───────────────────────────────────────────────────────────────────────────


def intel_bodies() -> list[dict[str, Any]]:
    """Those of its three curl lines."""
    found = re.findall(r"-d '(\{.*?\})'", seed("003"), re.DOTALL)
    return [msgspec.json.decode(body) for body in found]


def intel_inputs() -> list[dict[str, Any]]:
    """Its input objects, which begin on a line of their own; the last ones of the curl lines."""
    text, found, end = seed("003"), [], 0
    for match in re.finditer(r'(?:^|"input": )(?=\{\s*"type": )', text, re.MULTILINE):
        if match.end() >= end:
            given, end = json.JSONDecoder().raw_decode(text, match.end())
            found.append(given)
    return found


PAGE = Clip(frames=64)
EXPECTED: dict[str, list[Any]] = {
    "text": [Text("A photo of a cat"), Text("A photo of a dog")],
    "image_url": [Image(Url("https://example.com/photo.jpg"))],
    "video_frames": [Image(Url("https://example.com/frame1.jpg")), Image(Blob(b"frame"))],
    "video_url": [Video(Url("https://example.com/video.mp4"), PAGE)],
    "video_base64": [Video(Blob(b"film"), PAGE)],
    "image_base64": [Image(Blob(b"image"))],
    "frames_batch": [Manifest(File("/data/manifests/frames.json"))],
}
BYTES = {
    "<base64_encoded_image>": "aW1hZ2U=",
    "<base64_frame>": "ZnJhbWU=",
    "<base64_encoded_video>": "ZmlsbQ==",
}


def test_every_intel_input_becomes_its_nouns() -> None:
    inputs = intel_inputs()
    assert [one["type"] for one in inputs] == [
        *("text", "text", "image_url", "image_base64", "video_frames"),
        *("video_url", "video_base64", "video_file", "frames_batch"),
        *("text", "image_url", "video_file"),
    ]
    for given in inputs:
        raw = msgspec.json.encode({"model": CARD.name, "input": given, "encoding_format": "float"})
        for stands_for, data in BYTES.items():  # what the page only describes
            raw = raw.replace(stands_for.encode(), data.encode())
        assert route("POST", "/embeddings", raw).dialect.name == "intel"
        task = decode("/embeddings", raw)
        assert isinstance(task, Encode)
        parts = [part for item in task.items for part in item.parts]
        if given["type"] == "video_file":
            assert parts == [Video(File(given["video_path"]), PAGE)]
        else:
            assert parts == EXPECTED[given["type"]][: len(parts)]
        frames = given["type"].startswith(("video_url", "video_base64", "video_file", "frames_b"))
        assert task.each_frame == frames


def test_every_intel_curl_is_answered() -> None:
    bodies = intel_bodies()
    assert [body["input"]["type"] for body in bodies] == ["text", "image_url", "video_file"]
    for body in bodies:
        reply = read(ask("POST", "/embeddings", {**body, "model": CARD.name}))
        rows = reply.pop("embedding")
        assert not reply
        lengths = {len(row) if isinstance(row, list) else 0 for row in rows}
        single = body["input"]["type"] != "video_file"
        assert (len(rows), lengths) == ((CARD.dims, {0}) if single else (64, {CARD.dims}))


def test_every_key_and_text_of_the_intel_page() -> None:
    """The words that the page gives its errors, but for the client's own in them."""
    text = seed("003")
    told = {
        json.loads(found)["detail"]
        for found in re.findall(r'^\{ "detail": .*\}$', text, re.MULTILINE)
    }
    fixed = {
        "Model is not healthy",
        "Model is not initialized",
        "File not found: <path>",
        "Invalid input data: <error_message>",
        "Error creating embedding: <error_message>",
        "Error listing models: <error_message>",
    }
    assert told - fixed == {
        "Model mismatch: requested model 'X' does not match the currently loaded model 'Y'. "
        "Please use the correct model name or restart the server with the desired model."
    }
    mismatch = ask("POST", "/embeddings", intel_bodies()[0])
    assert mismatch.status == 400
    assert read(mismatch)["detail"].startswith("Model mismatch: ")
    assert read(mismatch)["detail"].endswith(
        "Please use the correct model name or restart the server with the desired model."
    )
    listed = json.loads(re.search(r'^\{ "current_model": .*\}$', text, re.MULTILINE).group())  # type: ignore[union-attr]
    ours = read(ask("GET", "/models", speaker="intel"))
    assert listed["total_models"] == 19
    for family, names in listed["available_models"].items():
        assert ours["available_models"][family] == names
    assert ours.keys() == listed.keys()
