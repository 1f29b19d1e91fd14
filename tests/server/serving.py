"""A real server on a real port, over an engine of a few lines, and raw sockets to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import msgspec
import numpy as np

from omnivec.core.errors import BadRequest, Fault, UnknownModel
from omnivec.core.nouns import (
    Call,
    Card,
    Class,
    Describe,
    Encode,
    Extract,
    Findings,
    Item,
    Output,
    Relevance,
    Reply,
    Result,
    Score,
    Task,
    Text,
    Timing,
    Usage,
    Vectors,
)
from omnivec.core.seams import Endpoint
from omnivec.core.settings import Settings
from omnivec.hosts.uvicorn import Server, bind, configure
from omnivec.server.asgi import Application, application
from omnivec.server.door import Door
from omnivec.server.metrics import Metrics

CARD = Card(
    name="tiny/model",
    tasks=("encode", "score"),
    dims=4,
    max_tokens=16,
    device="cpu",
    dtype="f32",
    runtime="none",
    state="loaded",
)


class TinyEngine:
    """Answers every task at once, but for the texts "slow" (waits for `go`) and "bug"."""

    def __init__(self) -> None:
        self.cards: tuple[Card, ...] = (CARD,)
        self.go = asyncio.Event()
        self.began = threading.Event()
        self.cancelled = threading.Event()
        self.ran = 0

    async def run(self, task: Task) -> Result:
        if isinstance(task, Describe):
            return Result(card=self.cards[0], cards=self.cards)
        if task.model not in (None, CARD.name):
            raise UnknownModel("No such model here.", param="model")
        texts = [part.text for item in task.items for part in item.parts if isinstance(part, Text)]
        if "bug" in texts:
            raise KeyError("a secret of the machine")
        if "slow" in texts:
            await self._wait()
        self.ran += 1
        usage = Usage(tokens=3 * len(texts), items=len(texts), truncated=texts.count("long"))
        return Result(
            card=CARD,
            outputs=tuple(self._output(task, text) for text in texts),
            usage=usage,
            timing=Timing(0.004, 0.001, 0.002, 0.003),
            dims=4,
            ignored=("instruction",) if "ignored" in texts else (),
        )

    async def _wait(self) -> None:
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def _output(self, task: Encode | Score | Extract, text: str) -> Output:
        if isinstance(task, Extract):
            return Findings(tuple(Class(label, 0.5) for label in task.labels))
        if isinstance(task, Score):
            return Relevance(1 / (1 + len(text)), -float(len(text)))
        return Vectors(np.array([len(text), 1, 0, 0], dtype=np.float32))


class EmbedRequest(msgspec.Struct):
    """Texts."""

    input: str | list[str]
    model: str | None = None


class EmbedReply(msgspec.Struct):
    """Vectors."""

    data: list[dict[str, Any]]


def decode(call: Call) -> Task:
    try:
        asked = msgspec.json.decode(call.body, type=EmbedRequest)
    except (ValueError, RecursionError):
        raise BadRequest("The body must be a JSON object with `input`.", param="input") from None
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    return Encode(tuple(Item((Text(text),)) for text in texts), asked.model)


def encode(call: Call, task: Task, result: Result) -> Reply:
    vectors = [out.dense.tolist() for out in result.outputs if isinstance(out, Vectors)]
    data = [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return Reply(json.dumps({"data": data, "path": call.path, "params": call.params}).encode())


def describe(call: Call) -> Task:
    return Describe()


def encode_cards(call: Call, task: Task, result: Result) -> Reply:
    data = [{"id": card.name} for card in result.cards]
    return Reply(json.dumps({"data": data, "params": call.params}).encode())


class Wire:
    """A dialect of one embeddings endpoint, as thin as it can be."""

    def __init__(self, name: str, *endpoints: Endpoint, prefixes: tuple[str, ...] = ("",)) -> None:
        self.name = name
        self.endpoints = endpoints
        self.prefixes = prefixes

    def fault(self, fault: Fault) -> Reply:
        body = {self.name: fault.message, "code": fault.code, "param": fault.param}
        return Reply(json.dumps(body).encode(), fault.status)


def embeddings(path: str = "/v1/embeddings", **options: Any) -> Endpoint:
    known: dict[str, Any] = {
        "method": "POST",
        "path": path,
        "decode": decode,
        "encode": encode,
        "summary": "Turn texts into vectors",
        "request": EmbedRequest,
        "response": EmbedReply,
        "example": {"input": "a text"},
        "counted": "embeddings",
    }
    return Endpoint(**{**known, **options})


def models(path: str = "/v1/models") -> Endpoint:
    return Endpoint("GET", path, describe, encode_cards, "List the models")


OPENAI = Wire("openai", embeddings(), models(), models("/v1/models/{id:path}"))


def build(
    dialects: Mapping[str, Any] | None = None, engine: Any = None, **settings: Any
) -> tuple[Application, Settings, Any]:
    """An application over a TinyEngine, its settings and the engine."""
    chosen = Settings(**settings)
    engine = TinyEngine() if engine is None else engine
    metrics = Metrics(version="1.2.3", auth_disabled=not chosen.api_keys)
    door = Door(dialects or {"openai": OPENAI}, engine, settings=chosen, metrics=metrics)
    return application(door, chosen, metrics), chosen, engine


class Running:
    """A server in a thread. `client` speaks to it; `raw` is a bare connection."""

    def __init__(self, app: Application, settings: Settings, engine: Any) -> None:
        self.app = app
        self.engine = engine
        self.sockets = bind("127.0.0.1", 0)
        self.port = self.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = Server(configure(app, settings), app)
        self.thread = threading.Thread(target=self.server.run, args=(self.sockets,))
        self.opened = threading.Event()
        self.server.opened = self.opened.set

    @contextlib.contextmanager
    def client(self, **options: Any) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options) as client:
            yield client

    def raw(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def exchange(self, *pieces: bytes) -> bytes:
        """What comes back until the server closes."""
        with self.raw() as connection:
            for piece in pieces:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(piece)
            return read_all(connection)


@contextlib.contextmanager
def running(*args: Any, **settings: Any) -> Iterator[Running]:
    server = Running(*build(*args, **settings))
    server.thread.start()
    try:
        assert server.opened.wait(60)
        yield server
    finally:
        server.server.should_exit = True
        server.thread.join(60)
        assert not server.thread.is_alive()


def read_all(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            found += piece
    return found


def read_response(connection: socket.socket) -> tuple[int, bytes]:
    """One response with a content-length: its status and its body."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError(f"closed after {found!r}")
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    ]
    while len(body) < lengths[0]:
        body += connection.recv(65536)
    assert len(body) == lengths[0], "bytes behind the response"
    return int(head.split()[1]), body


def post(body: bytes, path: str = "/v1/embeddings", *headers: str) -> bytes:
    """A whole request on the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
