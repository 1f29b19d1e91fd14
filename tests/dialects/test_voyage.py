from __future__ import annotations

from typing import Any

import pytest
from dialogue import ask, decode, read

from omnivec.core.nouns import Blob, Encode, Image, Item, Limits, Part, Text, Url, Video

PATH = "/v1/multimodalembeddings"
TEXT = {"type": "text", "text": "a"}


def inputs(*contents: Any) -> list[dict[str, Any]]:
    return [{"content": content} for content in contents]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ([TEXT], (Text("a"),)),
        (
            [TEXT, {"type": "image_url", "image_url": "https://x.org/a"}],
            (Text("a"), Image(Url("https://x.org/a"))),
        ),
        (
            [{"type": "image_base64", "image_base64": "data:image/png;base64,AA"}, TEXT],
            (Image(Url("data:image/png;base64,AA")), Text("a")),
        ),
        (
            [{"type": "video_base64", "video_base64": "iVBORw0KGgo="}],
            (Video(Blob(b"\x89PNG\r\n\x1a\n")),),
        ),
    ],
)
@pytest.mark.parametrize("path", [PATH, "/multimodalembeddings"])
def test_what_is_embedded(path: str, content: Any, parts: tuple[Part, ...]) -> None:
    body = {"inputs": inputs(content), "input_type": None, "truncation": True}
    assert decode(path, body) == Encode((Item(parts),), overflow="truncate")


def test_what_its_client_reads() -> None:
    body = {"inputs": inputs([TEXT], [TEXT]), "model": "minilm", "input_type": "query"}
    reply = read(ask("POST", PATH, body))
    assert [entry["index"] for entry in reply["data"]] == [0, 1]
    assert reply["usage"] == {"text_tokens": 2, "image_pixels": 0, "total_tokens": 2}
    packed = read(ask("POST", PATH, {**body, "output_encoding": "base64"}))
    same = {"input": ["a", "a"], "model": "minilm", "encoding_format": "base64"}
    assert packed["data"] == read(ask("POST", "/v1/embeddings", same))["data"]


@pytest.mark.parametrize(
    ("fields", "param", "status"),
    [
        ({}, "inputs", 400),
        ({"inputs": []}, "inputs", 400),
        ({"inputs": ["a"]}, "inputs[0]", 400),
        ({"inputs": inputs([TEXT]) * 9}, "inputs", 400),
        ({"inputs": inputs([])}, "inputs[0].content", 400),
        ({"inputs": inputs([TEXT], [{"type": "text"}])}, "inputs[1].content[0]", 400),
        ({"inputs": inputs([TEXT]), "output_encoding": "hex"}, "encoding_format", 400),
        ({"inputs": inputs([TEXT]), "output_dimension": 4096}, "dimensions", 422),
        ({"inputs": inputs([{"type": "image_url", "image_url": "https://x.org/refused"}])},
         "inputs[0]", 422),
    ],
)  # fmt: skip
def test_what_is_refused(fields: Any, param: str, status: int) -> None:
    reply = ask("POST", PATH, fields, limits=Limits(items=8))
    told = read(reply)
    assert (reply.status, told["error"]["param"]) == (status, param)
    assert told["detail"] == told["error"]["message"]
