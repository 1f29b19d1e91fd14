"""Bad input, each with its clear answer, while a canary is answered right throughout."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import live
import wire

CANARY = "The canary sings while the others misbehave."
EMBED, RERANK, SIMILAR = "/v1/embeddings", "/v1/rerank", "/v1/similarity"


class Canary:
    """Asks the same question again and again and keeps what was wrong with the answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.right = self.ask()
        self.asked = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sing)
        self._thread.start()

    def ask(self) -> Any:
        answer = wire.request(self.url, EMBED, {"input": CANARY})
        assert answer.status == 200
        return np.array(answer.json["data"][0]["embedding"])

    def _sing(self) -> None:
        while not self._stop.is_set():
            self.asked += 1
            try:
                if float(self.ask() @ self.right) < 0.9999:
                    self.wrong.append("another vector")
            except (OSError, AssertionError, KeyError) as error:
                self.wrong.append(repr(error))
            self._stop.wait(0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


@pytest.fixture(scope="module")
def server() -> Iterator[live.Server]:
    env = {"OMNIVEC_HEADER_TIMEOUT": "1.5", "OMNIVEC_BODY_TIMEOUT": "3"}
    with live.serve(env=env) as running:
        canary = Canary(running.url)
        yield running
        canary.stop()
        assert canary.asked > 10
        assert canary.wrong == []
        printed = running.printed(10_000_000)
        assert "Traceback" not in printed
        assert "Exception" not in printed


def deep(levels: int) -> bytes:
    return b'{"input":' + b"[" * levels + b"]" * levels + b"}"


def text(value: str) -> bytes:
    return b'{"input":' + value.encode() + b"}"


BODIES: dict[str, tuple[str, bytes, set[int]]] = {
    "empty": (EMBED, b"", {400}),
    "null": (EMBED, b"null", {400}),
    "a list": (EMBED, b"[]", {400}),
    "a string": (EMBED, b'"x"', {400}),
    "not JSON": (EMBED, b"hello", {400}),
    "cut off": (EMBED, b'{"input": "a', {400}),
    "trailing bytes": (EMBED, b'{"input": "a"} x', {400}),
    "UTF-16": (EMBED, '{"input": "a"}'.encode("utf-16"), {400}),
    "not UTF-8": (EMBED, b'{"input": "\xff\xfe"}', {400}),
    "1000 deep": (EMBED, deep(1000), {400}),
    "a million deep": (EMBED, deep(1_000_000), {400}),
    "NaN": (EMBED, b'{"input": "a", "dimensions": NaN}', {400, 422}),
    "infinite number": (EMBED, b'{"input": "a", "dimensions": 1e999}', {400, 422}),
    "5000 digits": (EMBED, b'{"input": "a", "dimensions": ' + b"9" * 5000 + b"}", {400, 422}),
    "lone surrogate": (EMBED, text(r'"\ud800"'), {400}),
    "lone surrogate among good": (EMBED, text(r'["good", "\udfff", "good"]'), {400}),
    "no input": (EMBED, b"{}", {400}),
    "null input": (EMBED, text("null"), {400}),
    "an empty list": (EMBED, text("[]"), {400}),
    "an object": (EMBED, text('{"a": 1}'), {400}),
    "a mixed list": (EMBED, text('["a", 1]'), {400}),
    "100,000 items": (EMBED, text("[" + ",".join(['"a"'] * 100_000) + "]"), {400}),
    "2049 items": (EMBED, text("[" + ",".join(['"a"'] * 2049) + "]"), {400}),
    "dimension 0": (EMBED, b'{"input": "a", "dimensions": 0}', {422}),
    "dimension -1": (EMBED, b'{"input": "a", "dimensions": -1}', {422}),
    "dimension true": (EMBED, b'{"input": "a", "dimensions": true}', {422}),
    "dimension 1.5": (EMBED, b'{"input": "a", "dimensions": 1.5}', {422}),
    "dimension 385": (EMBED, b'{"input": "a", "dimensions": 385}', {422}),
    "dimension 2^63": (EMBED, b'{"input": "a", "dimensions": 9223372036854775808}', {422}),
    "unknown format": (EMBED, b'{"input": "a", "encoding_format": "hex"}', {400}),
    "unknown model": (EMBED, b'{"input": "a", "model": "nobody/nothing"}', {404}),
    "path model": (EMBED, b'{"input": "a", "model": "../../etc/passwd"}', {404}),
    "absolute path model": (EMBED, b'{"input": "a", "model": "/etc/passwd"}', {404}),
    "NUL model": (EMBED, rb'{"input": "a", "model": "a\u0000b"}', {404}),
    "a megabyte of model": (
        EMBED,
        json.dumps({"input": "a", "model": "m" * 10**6}).encode(),
        {404},
    ),
    "token id -1": (EMBED, text("[-1]"), {400}),
    "token id 2^31": (EMBED, text("[[2147483648]]"), {400}),
    "token id 1.5": (EMBED, text("[1.5]"), {400}),
    "Synesis: no inputs": (EMBED, b'{"inputs": []}', {422}),
    "Synesis: nothing in it": (EMBED, b'{"inputs": [{}]}', {422}),
    "Synesis: dimension 63": (EMBED, b'{"inputs": [{"text": "a"}], "dimension": 63}', {422}),
    "Synesis: dimension 4096": (EMBED, b'{"inputs": [{"text": "a"}], "dimension": 4096}', {422}),
    "Synesis: dimension true": (EMBED, b'{"inputs": [{"text": "a"}], "dimension": true}', {422}),
    "Synesis: image": (EMBED, b'{"inputs": [{"image": "/etc/passwd"}]}', {422}),
    "rerank: empty": (RERANK, b"", {400, 422}),
    "rerank: no documents": (RERANK, b'{"query": "a", "documents": []}', {400, 422}),
    "rerank: empty query": (RERANK, b'{"query": "", "documents": ["a"]}', {400, 422}),
    "rerank: top_n 0": (RERANK, b'{"query": "a", "documents": ["a"], "top_n": 0}', {400, 422}),
    "rerank: top_n true": (
        RERANK,
        b'{"query": "a", "documents": ["a"], "top_n": true}',
        {400, 422},
    ),
    "rerank: surrogate": (RERANK, rb'{"query": "\ud800", "documents": ["a"]}', {400, 422}),
    "rerank: deep": (RERANK, b'{"query": ' + b"[" * 5000 + b"]" * 5000 + b"}", {400, 422}),
    "similarity: one": (SIMILAR, b'{"a": {"text": "x"}}', {422}),
    "similarity: empty": (SIMILAR, b"", {422}),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_has_its_answer(server: live.Server, name: str) -> None:
    path, body, statuses = BODIES[name]
    answer = wire.request(server.url, path, body)
    assert answer.status in statuses, answer.body[:300]
    assert len(answer.body) < 2000
    told = answer.json
    message = told["error"]["message"] if "error" in told else json.dumps(told["detail"])
    assert 10 < len(message) < 1000
    assert "passwd" not in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "body",
    [
        {"input": ""},
        {"input": "   "},
        {"input": ["", "a", ""]},
        {"input": "a\u0000b"},
        {"input": "\u202e\u200d" * 500 + "\U0010ffff"},
        {"input": "e" + "\u0301" * 10_000},
        {"input": "<s> [MASK] [CLS] <|endoftext|> <image>"},
        {"input": "a", "dimensions": None, "user": None, "encoding_format": None},
        {"input": "a", "drop_params": True, "something_unknown": {"deep": [1]}},
        {"input": ["a"] * 2048},
    ],
    ids=lambda body: str(body)[:40],
)
def test_odd_but_legal_input_is_embedded(server: live.Server, body: dict[str, Any]) -> None:
    answer = wire.request(server.url, EMBED, body, timeout=120)
    assert answer.status == 200, answer.body[:300]
    vectors = np.array([row["embedding"] for row in answer.json["data"]])
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("unit", ["a", "word ", "🙂", "汉", "QUJD"])
def test_ten_megabytes_of_text_are_cut_not_choked_on(server: live.Server, unit: str) -> None:
    body = {"input": unit * (10_000_000 // len(unit.encode()))}
    answer = wire.request(server.url, EMBED, json.dumps(body, ensure_ascii=False).encode())
    assert answer.status == 200
    assert answer.json["usage"]["prompt_tokens"] <= 256
    # one endless word is one [UNK] to a WordPiece tokenizer, so nothing had to be cut
    if unit == "word ":
        assert answer.headers["x-omnivec-truncated"] == "1/1"


def test_a_text_beyond_the_window_is_refused_on_request(server: live.Server) -> None:
    body = {"input": "word " * 1000, "truncate": False}
    answer = wire.request(server.url, EMBED, body)
    assert answer.status == 400
    assert "256" in answer.json["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE"])
def test_a_wrong_method_names_the_right_one(server: live.Server, method: str) -> None:
    answer = wire.request(server.url, EMBED, b"{}" if method != "GET" else None, method=method)
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/xml", "multipart/form-data", "application/json;charset=utf-7"],
)
def test_a_wrong_content_type_names_the_right_one(server: live.Server, kind: str) -> None:
    answer = wire.request(server.url, EMBED, {"input": "a"}, headers={"content-type": kind})
    assert answer.status == 415
    assert "application/json" in answer.json["error"]["message"]


def test_an_encoded_body_is_refused(server: live.Server) -> None:
    answer = wire.request(server.url, EMBED, {"input": "a"}, headers={"content-encoding": "gzip"})
    assert answer.status == 415


def test_a_body_over_the_limit_is_refused_unread(server: live.Server) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    reply = wire.raw(server.url, head + b"Content-Length: 1000000000\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 413")


def test_a_chunked_body_over_the_limit_is_cut(server: live.Server) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    try:
        reply = wire.raw(server.url, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 40)
    except ConnectionError:
        return  # closed while we were still sending is as good an answer
    assert reply.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/embeddings HT",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100\r\n\r\n{"input":',
    ],
    ids=["silence", "half a line", "half a header", "half a body"],
)
def test_half_a_request_is_cut_off(server: live.Server, sent: bytes) -> None:
    began = time.monotonic()
    reply = wire.raw(server.url, sent, timeout=20)
    assert time.monotonic() - began < 15, "the server waited on"
    assert reply == b"" or reply.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/embeddings HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: a/?x=\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"nonsense\r\n\r\n",
    ],
    ids=[
        "no host",
        "two hosts",
        "host with a path",
        "length and chunked",
        "a megabyte of header",
        "ten thousand headers",
        "a megabyte of path",
        "TLS",
        "nonsense",
    ],
)
def test_a_bad_head_is_refused(server: live.Server, head: bytes) -> None:
    try:
        reply = wire.raw(server.url, head, timeout=10)
    except ConnectionError:
        return
    assert reply == b"" or reply.split(b" ")[1] in {b"400", b"408", b"413", b"414", b"431"}


def test_paths_that_are_none_are_not_found(server: live.Server) -> None:
    for path in ("/nothing", "/v1/../metrics/x", "/%00", "/v1/embeddings%2f..%2f", "/etc/passwd"):
        answer = wire.request(server.url, path)
        assert answer.status in {404, 405}, path
        assert "passwd" not in answer.json["error"]["message"]
