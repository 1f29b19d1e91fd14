from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from dialogue import WIDTH, ask, decode, read, vector

from omnivec.core.nouns import Blob, Encode, Image, Item, Limits, Part, Text, Url

PATHS = ["/v1/embed", "/v2/embed", "/api/v2/embed"]
IMAGE = "data:image/png;base64,AA"


def task(path: str = "/v2/embed", **fields: Any) -> Encode:
    found = decode(path, fields)
    assert isinstance(found, Encode)
    return found


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "contents"),
    [
        ({"texts": ["a", ""]}, [(Text("a"),), (Text(""),)]),
        ({"images": [IMAGE]}, [(Image(Url(IMAGE)),)]),
        ({"images": ["iVBORw0KGgo="], "texts": None}, [(Image(Blob(b"\x89PNG\r\n\x1a\n")),)]),
        (
            {
                "inputs": [
                    {"content": [{"type": "text", "text": "a"}]},
                    {
                        "content": [
                            {"type": "text", "text": "b"},
                            {"type": "image_url", "image_url": {"url": IMAGE}},
                        ]
                    },
                ]
            },
            [(Text("a"),), (Text("b"), Image(Url(IMAGE)))],
        ),
    ],
)
def test_what_is_embedded(path: str, fields: Any, contents: list[tuple[Part, ...]]) -> None:
    assert task(path, **fields).items == tuple(Item(parts) for parts in contents)


@pytest.mark.parametrize(
    ("word", "role"),
    [
        ("search_query", "query"),
        ("search_document", "document"),
        ("classification", None),
        ("clustering", None),
        ("image", None),
        ("", None),
        (None, None),
        ("mine", "mine"),
    ],
)
def test_roles(word: str | None, role: str | None) -> None:
    assert task(texts=["a"], input_type=word).role == role


def test_other_wishes() -> None:
    found = task(texts=["a"], output_dimension=64, truncate="NONE", model="minilm")
    assert (found.dims, found.overflow, found.model) == (64, "refuse", "minilm")
    cut = task(texts=["a"], max_tokens=9)
    assert (cut.max_tokens, cut.overflow) == (9, "truncate")


def test_every_type_of_vectors() -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    reply = read(ask("POST", "/v2/embed", {"texts": ["a", "b"], "embedding_types": types}))
    rows = [vector(text, WIDTH) for text in "ab"]
    found = reply["embeddings"]
    assert list(found) == types
    assert found["float"] == [row.tolist() for row in rows]
    assert found["int8"] == [(np.sign(row) * 127).tolist() for row in rows]
    assert found["uint8"] == [((row > 0) * 255).tolist() for row in rows]
    signs = [np.packbits(row > 0) for row in rows]
    assert found["ubinary"] == [one.tolist() for one in signs]
    assert found["binary"] == [(one.astype(int) - 128).tolist() for one in signs]
    assert [base64.b64decode(one) for one in found["base64"]] == [row.tobytes() for row in rows]
    assert (reply["response_type"], reply["texts"]) == ("embeddings_by_type", ["a", "b"])


def test_the_first_version_answers_vectors_alone() -> None:
    reply = read(ask("POST", "/v1/embed", {"texts": ["a"]}))
    assert reply["embeddings"] == [vector("a", WIDTH).tolist()]
    assert reply["response_type"] == "embeddings_floats"
    assert reply["meta"] == {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 1}}
    typed = read(ask("POST", "/v1/embed", {"texts": ["a"], "embedding_types": ["float"]}))
    assert typed["embeddings"] == {"float": reply["embeddings"]}
    assert read(ask("POST", "/v2/embed", {"texts": ["a"]}))["embeddings"].keys() == {"float"}


@pytest.mark.parametrize(
    ("fields", "param", "status"),
    [
        ({}, None, 400),
        ({"texts": ["a"], "images": [IMAGE]}, None, 400),
        ({"texts": []}, "texts", 400),
        ({"texts": "a"}, "texts", 400),
        ({"texts": ["a"] * 9}, "texts", 400),
        ({"texts": [5]}, "texts[0]", 400),
        ({"images": ["./a.png"]}, "images[0]", 400),
        ({"inputs": [{}]}, "inputs[0].content", 400),
        ({"inputs": [{"content": []}]}, "inputs[0].content", 400),
        ({"inputs": [{"content": [{"type": "text"}]}]}, "inputs[0].content[0]", 400),
        ({"texts": ["a"], "embedding_types": ["hex"]}, "embedding_types", 400),
        ({"texts": ["a"], "output_dimension": 0}, "output_dimension", 422),
        ({"texts": ["a"], "output_dimension": 4096}, "output_dimension", 422),
        ({"texts": ["a"], "truncate": "START"}, "truncate", 422),
        ({"images": ["https://x.org/refused"]}, "[0]", 422),
    ],
)
def test_what_is_refused(fields: Any, param: str | None, status: int) -> None:
    reply = ask("POST", "/v2/embed", fields, limits=Limits(items=8))
    told = read(reply)
    assert (reply.status, told["error"]["param"]) == (status, param)
    assert told["message"] == told["error"]["message"]
