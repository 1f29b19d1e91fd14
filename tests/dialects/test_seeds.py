"""The request bodies of the seed documents, taken from those files as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dialogue import CARD, ask, decode, read, route

from omnivec.core.nouns import Encode, Image, Limits, Score

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
