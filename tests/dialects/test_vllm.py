from __future__ import annotations

from typing import Any

import msgspec
import pytest
from dialogue import ask, decode, read, route

from omnivec.core.nouns import Blob, Encode, Image, Item, Limits, Part, Text, Url, Video

PATH = "/v1/embeddings"
IMAGE = {"type": "image_url", "image_url": {"url": "https://x.org/a"}}


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def task(messages: Any, **more: Any) -> Encode:
    found = decode(PATH, {"messages": messages, **more})
    assert isinstance(found, Encode)
    return found


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"messages": [said("a")]}, "vllm"),
        ({"messages": "a"}, "vllm"),
        ({"messages": [], "input": "a"}, "openai"),
        ({"messages": [], "inputs": "a"}, "vllm"),
    ],
)
@pytest.mark.parametrize("prefix", ["/v1", "", "/api/v1", "/openai/v1"])
def test_whose_body_it_is(body: dict[str, Any], name: str, prefix: str) -> None:
    raw = msgspec.json.encode(body)
    found = route("POST", f"{prefix}/embeddings", raw).dialect.name
    assert found == name or (found == "synesis" and "inputs" in body)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("a", (Text("a"),)),
        ([text("a")], (Text("a"),)),
        ([text("")], (Text(""),)),
        ([], (Text(""),)),
        (None, (Text(""),)),
        ([text("a"), IMAGE], (Text("a"), Image(Url("https://x.org/a")))),
        ([{"type": "image_url", "image_url": "data:x"}], (Image(Url("data:x")),)),
        ([{"type": "image_base64", "image_base64": "iVBORw0KGgo="}],
         (Image(Blob(b"\x89PNG\r\n\x1a\n")),)),
        ([{"type": "image", "image": "https://x.org/a"}], (Image(Url("https://x.org/a")),)),
        ([{"type": "video_url", "video_url": {"url": "data:x"}}], (Video(Url("data:x")),)),
    ],
)  # fmt: skip
def test_contents(content: Any, parts: tuple[Part, ...]) -> None:
    assert task([said(content)]) == Encode((Item(parts),))


def test_what_the_system_says_is_the_instruction() -> None:
    system = said([text("Find it.")], "system")
    assert task([system, said("a")]).items == (Item((Text("a"),), "Find it."),)
    asked = task([system, said("a")], instruction="Mine.")
    assert asked.items == (Item((Text("a"),), "Mine."),)
    pictured = task([said([IMAGE], "system"), said("a")])
    assert pictured.items == (Item((Image(Url("https://x.org/a")), Text("a"))),)


def test_difys_conversation() -> None:
    """With an empty turn of the assistant, and fields of vLLM's own."""
    messages = [
        said([text("Represent it.")], "system"),
        said([IMAGE]),
        said([text("")], "assistant"),
    ]
    found = task(messages, continue_final_message=True, add_special_tokens=True)
    (item,) = found.items
    assert item.instruction == "Represent it."
    assert item.parts == (Image(Url("https://x.org/a")), Text(""))


def test_mtebs_list_of_conversations() -> None:
    found = task([[said([text("a")])], [said([text("b"), IMAGE])]], truncate_prompt_tokens=9)
    assert [item.parts for item in found.items] == [
        (Text("a"),),
        (Text("b"), Image(Url("https://x.org/a"))),
    ]
    assert (found.max_tokens, found.overflow) == (9, "truncate")
    reply = read(ask("POST", PATH, {"messages": [[said("a")], [said("b")]]}))
    assert [entry["index"] for entry in reply["data"]] == [0, 1]


def test_the_wishes_of_openais_shape() -> None:
    found = task([said("a")], model="minilm", dimensions=64, normalize=False, prompt_name="query")
    assert (found.model, found.dims, found.normalize, found.role) == ("minilm", 64, False, "query")
    same = read(ask("POST", PATH, {"input": "a", "encoding_format": "base64"}))
    asked = {"messages": [said("a")], "encoding_format": "base64"}
    assert read(ask("POST", PATH, asked)) == same


@pytest.mark.parametrize(
    ("messages", "param", "status"),
    [
        (None, "messages", 400),
        ("a", "messages", 400),
        ([], "messages", 400),
        ([[]], "messages[0]", 400),
        (["a"], "messages[0]", 400),
        ([said("a"), [said("b")]], "messages", 400),
        ([said(5)], "messages[0].content", 400),
        ([said(["a"])], "messages[0].content[0]", 400),
        ([said([{}])], "messages[0].content[0]", 400),
        ([said([{"type": "text"}])], "messages[0].content[0]", 400),
        ([said([{"type": "image_url"}])], "messages[0].content[0]", 400),
        ([said([{"type": "tool_call", "text": "a"}])], "messages[0].content[0]", 400),
        ([said([{"type": "input_audio"}])], "messages[0].content[0]", 422),
        ([[said("a")], [said([{"type": "image_url", "image_url": "/data/a.png"}])]],
         "messages[1][0].content[0].image_url", 400),
        ([said("a")] * 9, "messages", 400),
        ([[said([text("a")] * 9)]], "messages[0][0].content", 400),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_read(messages: Any, param: str, status: int) -> None:
    reply = ask("POST", PATH, {"messages": messages}, limits=Limits(items=8))
    assert (reply.status, read(reply)["error"]["param"]) == (status, param)
