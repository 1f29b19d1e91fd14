"""What the worker's job becomes; its replies byte for byte are in tests/golden/runpod."""

from __future__ import annotations

from typing import Any

import pytest
from dialogue import ask, decode, read, route

from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import Encode, Limits, Score

TASK = "Given a web search query, retrieve relevant passages that answer the query"
DOCS = ["a red car", "the blue sea", "red sea"]


def encode(**job: Any) -> Encode:
    task = decode("/job", {"input": "a", **job})
    assert isinstance(task, Encode)
    return task


@pytest.mark.parametrize(
    ("job", "role", "instruction"),
    [
        ({}, None, None),
        ({"prompt_type": "query"}, "query", None),
        ({"prompt_type": "document"}, "document", None),
        ({"instruction": TASK}, None, TASK),
        ({"instruction": TASK, "prompt_type": "document"}, None, TASK),
        ({"instruction": "", "prompt_type": "query"}, "query", None),
        ({"extra_body": {"prompt_type": "query"}}, "query", None),
        ({"extra_body": {"prompt_type": "query"}, "prompt_type": "document"}, "query", None),
        ({"extra_body": {"instruction": TASK}, "instruction": "another"}, None, TASK),
        ({"extra_body": {}, "instruction": TASK}, None, TASK),
        ({"extra_body": None, "instruction": TASK}, None, TASK),
    ],
)
def test_an_instruction_wins_and_the_inner_place_does(
    job: dict[str, Any], role: str | None, instruction: str | None
) -> None:
    task = encode(**job)
    assert (task.role, task.items[0].instruction) == (role, instruction)


def test_a_query_wins_over_an_input_and_an_empty_one_is_none() -> None:
    assert isinstance(decode("/job", {"input": "a", "query": "q", "docs": ["d"]}), Score)
    for query in ("", None, [], False):
        assert isinstance(decode("/job", {"input": "a", "query": query, "docs": ["d"]}), Encode)


@pytest.mark.parametrize("job", [{}, {"input": ""}, {"input": []}, {"query": ""}, {"docs": ["a"]}])
def test_a_job_of_nothing_is_told_what_it_needs(job: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="`query` and `docs`"):
        decode("/job", job)


def test_the_instruction_of_a_rerank_is_the_querys() -> None:
    task = decode("/job", {"query": "q", "docs": DOCS, "instruction": TASK})
    assert isinstance(task, Score)
    assert (task.query.instruction, task.items[0].instruction) == (TASK, None)


def test_scores_are_in_input_order_and_docs_in_ranked_order() -> None:
    plain = read(ask("POST", "/job", {"query": "red sea", "docs": DOCS}))
    assert plain["scores"] == [0.5, 0.5, 1.0]
    assert [one["index"] for one in plain["results"]] == [2, 0, 1]
    echoed = read(ask("POST", "/job", {"query": "red sea", "docs": DOCS, "return_docs": True}))
    assert echoed["docs"] == ["red sea", "a red car", "the blue sea"]
    assert [one["document"] for one in echoed["results"]] == echoed["docs"]
    assert "scores" not in echoed
    best = read(ask("POST", "/job", {"query": "red sea", "documents": DOCS, "top_n": 1}))
    assert len(best["results"]) == 1
    assert best["scores"] == plain["scores"]


def test_dimensions_are_infinitys() -> None:
    assert encode(dimensions=0).dims is None
    assert encode(dimensions=64).dims == 64
    with pytest.raises(Unsupported, match="`dimensions`"):
        encode(dimensions=-1)


def test_a_job_has_a_limit_of_items() -> None:
    for job in ({"input": ["a"] * 3}, {"query": "q", "docs": ["a"] * 3}):
        with pytest.raises(BadRequest, match="at most 2 items"):
            decode("/job", job, Limits(items=2))


def test_documents_are_needed() -> None:
    reply = ask("POST", "/job", {"query": "q"})
    assert (reply.status, read(reply)["param"]) == (400, "docs")
    assert route("POST", "/job", b'{"query": "q"}').dialect.name == "runpod"
