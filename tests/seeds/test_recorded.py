"""What compares answers with a record sees the differences that a client would stumble over."""

from __future__ import annotations

from typing import Any

import pytest
import recorded
from recorded import Line, Reply


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        ({"a": 1, "b": "$any"}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, {"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "...": True}, {"b": 2, "a": 1}, {"b": 2}),
        (["$int", "..."], [1, 2, 3], [1, "2"]),
        (["$int", "..."], [1], []),
        (["$int", "$text"], [1, "a"], [1, "a", "b"]),
        ("$vector 2", [0.6, 0.8], [0.6, 0.9]),
        ("$vector 2", [0.6, 0.8], [[0.6, 0.8]]),
        ("$rows 1 2", [[0.6, 0.8]], [0.6, 0.8]),
        ("$numbers 2", [3, 4.5], [3, None]),
        ("$like File not found: *", "File not found: x", "Not found"),
        ("$loc", ["body", 3], ["query"]),
        ("$bool", False, 0),
        (2048, 2048, 2048.0),
        (None, None, False),
    ],
)
def test_a_shape(shape: Any, good: Any, bad: Any) -> None:
    recorded.compare(shape, good, "answer")
    with pytest.raises(AssertionError):
        recorded.compare(shape, bad, "answer")


def test_a_status_and_a_header_count_too() -> None:
    shown = {"content-type": "application/json"}
    line = Line("a", "GET", "/a", None, {}, 404, {"detail": "$text"}, shown, None, None)
    body = b'{"detail":"no"}'
    assert recorded.check(line, Reply(404, shown, body)) == {"detail": "no"}
    for reply in (Reply(200, shown, body), Reply(404, {"content-type": "text/plain"}, body)):
        with pytest.raises(AssertionError):
            recorded.check(line, reply)


def test_numbers_are_all_but_the_time() -> None:
    answer = {"embeddings": [{"index": 0, "embedding": [0.5, 1]}], "usage": {"elapsed_ms": 7.5}}
    assert recorded.numbers(answer) == [0, 0.5, 1]
