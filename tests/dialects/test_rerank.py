from __future__ import annotations

from typing import Any

import pytest
from dialogue import ask, decode, read

from omnivec.core.errors import BadRequest, ModelFailed
from omnivec.core.nouns import Blob, Image, Item, Limits, Score, Text, Url, Video
from omnivec.dialects import rerank

PATHS = [
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/api/v1/rerank",
    "/openai/v1/rerank",
    "/api/rerank",
]
BODY: dict[str, Any] = {
    "query": "deep learning",
    "documents": ["the weather", "deep learning is deep", "learning to cook"],
}


def task(path: str = "/v1/rerank", **fields: Any) -> Score:
    found = decode(path, {**BODY, **fields})
    assert isinstance(found, Score)
    return found


def answer(path: str = "/v1/rerank", **fields: Any) -> dict[str, Any]:
    reply = ask("POST", path, {**BODY, **fields})
    assert reply.status == 200
    return read(reply)


def refused(**fields: Any) -> dict[str, Any]:
    reply = ask("POST", "/v2/rerank", {**BODY, **fields})
    body = read(reply)
    assert body["message"] == body["error"]["message"]
    return {"status": reply.status, **body["error"]}


# ── documents ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("document", "parts"),
    [
        ("a", (Text("a"),)),
        ("", (Text(""),)),
        ({"text": "a"}, (Text("a"),)),
        ({"text": "a", "title": 5}, (Text("a"),)),
        ({"content": "a"}, (Text("a"),)),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"image": "https://example.com/a.png"}, (Image(Url("https://example.com/a.png")),)),
        ({"text": "a", "image": "data:x"}, (Text("a"), Image(Url("data:x")))),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
            (Image(Url("data:x")),),
        ),
        ({"image": "iVBORw0KGgo="}, (Image(Blob(b"\x89PNG\r\n\x1a\n")),)),
        (
            {
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "video_url", "video_url": "data:x"},
                ]
            },
            (Text("a"), Video(Url("data:x"))),
        ),
    ],
)
def test_documents_in_all_their_shapes(document: Any, parts: Any) -> None:
    expected = tuple(Text(letter) for letter in parts) if isinstance(parts, str) else parts
    assert task(documents=[document]).items == (Item(expected),)


@pytest.mark.parametrize(
    ("document", "param", "status"),
    [
        ({}, "documents[0]", 400),
        ({"title": "a"}, "documents[0]", 400),
        ({"text": 5}, "documents[0]", 400),
        ({"content": []}, "documents[0]", 400),
        ({"content": ["a"]}, "documents[0].content[0]", 400),
        ({"content": [{"type": "text"}]}, "documents[0].content[0]", 400),
        (
            {"content": [{"type": "image_url", "image_url": {}}]},
            "documents[0].content[0].image_url.url",
            400,
        ),
        ({"content": [{"type": "video_url"}]}, "documents[0].content[0]", 400),
        ({"content": [{"type": "input_audio"}]}, "documents[0].content[0]", 422),
        ({"image": "file:///etc/passwd"}, "documents[0].image", 400),
        ({"image": "/data/a.png"}, "documents[0].image", 400),
        (5, "documents[0]", 400),
        (None, "documents[0]", 400),
        (["a"], "documents[0]", 400),
    ],
)
def test_documents_that_cannot_be_read(document: Any, param: str, status: int) -> None:
    error = refused(documents=[document])
    assert (error["status"], error["param"]) == (status, param)


def test_rank_fields_choose_what_is_read() -> None:
    document = {"title": "A", "body": "B", "text": "C", "n": 1}
    one = task(documents=[document], rank_fields=["body"])
    two = task(documents=[document, "D"], rank_fields=["title", "n", "body"])
    assert one.items == (Item((Text("B"),)),)
    assert two.items == (Item((Text("title: A\nbody: B"),)), Item((Text("D"),)))
    assert refused(documents=[document], rank_fields=["n"])["param"] == "documents[0]"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": " \n"}, "query"),
        ({"query": None}, "query"),
        ({"query": 5}, "query"),
        ({"query": {"text": " "}}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": None}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a"] * 2049}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": -1}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"top_k": 0}, "top_k"),
        ({"return_documents": "maybe"}, "return_documents"),
        ({"rank_fields": "title"}, "rank_fields"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ],
)
def test_a_wrong_field(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert (error["status"], error["code"]) == (400, "INVALID_REQUEST")
    assert error["param"] == param


def test_the_number_of_documents_is_the_servers() -> None:
    with pytest.raises(rerank.BadRequest, match="at most 2 items"):
        decode("/rerank", BODY, Limits(items=2))


def test_wishes() -> None:
    assert task().raw is False
    assert task(raw_scores="true").raw is True
    assert task(truncation=False).overflow == "refuse"
    assert task(truncate="END").overflow == "truncate"
    assert (
        task(truncate_prompt_tokens=64).overflow,
        task(truncate_prompt_tokens=64).max_tokens,
    ) == (
        "truncate",
        64,
    )
    assert task(instruction="Find").query == Item((Text("deep learning"),), "Find")
    assert task(extra_body={"instruction": "Find"}).query.instruction == "Find"
    assert task("/v2/rerank", query={"text": "a"}).query == Item((Text("a"),))


# ── replies ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", PATHS)
def test_the_one_reply_that_all_clients_parse(path: str) -> None:
    reply = answer(path, model="bge-m3", return_documents=True)
    assert (reply["object"], reply["model"]) == ("rerank", "bge-m3")
    assert reply["results"] == reply["data"]
    assert [entry["index"] for entry in reply["results"]] == [1, 2, 0]
    assert [entry["relevance_score"] for entry in reply["results"]] == [1.0, 0.5, 0.0]
    assert all(entry["score"] == entry["relevance_score"] for entry in reply["results"])
    echoed = BODY["documents"][1]
    plain = path in {"/rerank", "/api/rerank"}
    assert reply["results"][0]["document"] == (echoed if plain else {"text": echoed})
    assert reply["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert reply["id"].startswith("rerank-")


def test_meta_is_coheres() -> None:
    meta = answer("/v2/rerank", documents=["a"] * 101)["meta"]
    assert meta["api_version"] == {"version": "2"}
    assert meta["billed_units"] == {"search_units": 2}
    assert meta["tokens"] == {"input_tokens": 101, "output_tokens": 0}
    assert answer("/v1/rerank")["meta"]["api_version"] == {"version": "1"}


@pytest.mark.parametrize("wish", [None, False, "false", 0])
def test_documents_are_echoed_on_request_only(wish: Any) -> None:
    assert all("document" not in entry for entry in answer(return_documents=wish)["results"])


@pytest.mark.parametrize(
    ("fields", "count"),
    [({}, 3), ({"top_n": 1}, 1), ({"top_n": 99}, 3), ({"top_k": 2}, 2), ({"top_n": "2"}, 2)],
)
def test_top_n(fields: dict[str, Any], count: int) -> None:
    assert len(answer(**fields)["results"]) == count


def test_raw_scores_are_logits() -> None:
    scores = [entry["relevance_score"] for entry in answer(raw_scores=True)["results"]]
    assert scores == [4.0, 0.0, -4.0]


def test_a_document_of_parts_is_echoed_as_its_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    reply = answer(documents=[{"content": parts}], return_documents=True)
    assert reply["results"][0]["document"] == {"text": "a\nb"}


def test_faults_speak_to_cohere_and_to_openai() -> None:
    reply = rerank.PLUGIN.fault(ModelFailed("The model failed.", param="documents[2]"))
    assert reply.status == 500
    assert read(reply)["message"] == "The model failed."
    assert read(reply)["error"]["param"] == "documents[2]"


# ── large bodies ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("documents", "param"),
    [
        (["a"] * 4, "documents"),
        ([{}] * 4, "documents"),
        ([{"text": "a"}] * 4, "documents"),
        (["{", "a", "b", '"'], "documents"),
        ([{"content": [{"type": "text", "text": "a"}] * 4}], "documents[0].content"),
        ([{"content": [{}] * 4}], "documents[0].content"),
    ],
    ids=str,
)
def test_too_many_documents_or_parts_are_refused(documents: list[Any], param: str) -> None:
    with pytest.raises(BadRequest, match="at most 3 items") as caught:
        decode("/v1/rerank", {"query": "q", "documents": documents}, Limits(items=3))
    assert caught.value.param == param


def test_quotes_and_braces_in_a_text_are_no_documents() -> None:
    texts = ['""""""""', "{}{}{}{}", '\\",\\"']
    found = decode("/v1/rerank", {"query": "q", "documents": texts}, Limits(items=3))
    assert isinstance(found, Score)
    assert [item.parts for item in found.items] == [(Text(text),) for text in texts]


def test_what_is_not_read_is_not_made() -> None:
    """What is made of a document's other fields would be told of by the peak of memory."""
    import tracemalloc

    body = b'{"query":"q","documents":[{"text":"a","x":[%b0]}]}' % (b"[]," * 10**6)
    tracemalloc.start()
    found = decode("/v1/rerank", body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, Score)
    assert found.items[0].parts == (Text("a"),)
    assert peak < 3 * len(body)
