from __future__ import annotations

import asyncio
import gzip
import json
import time

import pytest
from serving import OPENAI, TinyEngine, build, post, read_all, read_response, running

LIMIT = 100_000


@pytest.fixture(scope="module")
def server():
    with running(max_body=LIMIT) as made:
        yield made


def test_a_request_over_http(server):
    with server.client() as client:
        reply = client.post("/v1/embeddings", json={"input": ["a", "bb"]})
    assert reply.status_code == 200
    assert len(reply.json()["data"]) == 2
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/models/BAAI/bge-m3", "/v1/models/BAAI%2Fbge-m3/"])
def test_slashes_in_a_name_may_be_raw_or_encoded(server, path):
    with server.client() as client:
        reply = client.get(path)
    assert reply.json()["params"] == {"id": "BAAI/bge-m3"}


def test_a_trailing_slash_never_redirects(server):
    with server.client() as client:
        reply = client.post("/v1/embeddings/", json={"input": "a"}, follow_redirects=False)
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "path", ["//v1/models", "/v1/../metrics", "/%2e%2e/metrics", "/v1/models;x", "/v1/%00"]
)
def test_odd_paths_are_not_found(server, path):
    raw = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    assert server.exchange(raw).startswith(b"HTTP/1.1 404 ")


def test_head_and_options(server):
    with server.client() as client:
        assert client.head("/v1/models").status_code == 200
        assert client.head("/v1/models").content == b""
        preflight = client.options("/v1/embeddings", headers={"origin": "https://a.example"})
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_a_body_in_many_pieces_is_one_body(server):
    body = json.dumps({"input": "x" * 90_000}).encode()
    pieces = [body[i : i + 5000] for i in range(0, len(body), 5000)]
    with server.client() as client:
        reply = client.post("/v1/embeddings", content=iter(pieces))
    assert reply.json()["data"][0]["embedding"][0] == 90_000


def test_a_body_over_the_limit_is_refused_from_its_header_alone(server):
    with server.raw() as connection:
        head = post(b"").replace(b"Content-Length: 0", b"Content-Length: 1000000000")
        connection.sendall(head)
        status, body = read_response(connection)
        assert status == 413
        assert str(LIMIT) in json.loads(body)["openai"]
        assert read_all(connection) == b""


def test_expect_is_not_answered_with_continue_when_the_body_is_too_large(server):
    raw = post(b"", "/v1/embeddings", "Expect: 100-continue").replace(
        b"Content-Length: 0", b"Content-Length: 1000000000"
    )
    assert server.exchange(raw).startswith(b"HTTP/1.1 413 ")


def test_expect_is_answered_with_continue_when_all_is_well(server):
    body = b'{"input": "a"}'
    raw = post(body, "/v1/embeddings", "Expect: 100-continue", "Connection: close")
    with server.raw() as connection:
        connection.sendall(raw[: -len(body)])
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert read_response(connection)[0] == 200


def test_a_chunked_body_is_cut_at_the_limit_and_the_client_reads_why(server):
    head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with server.raw() as connection:
        connection.sendall(head + chunk * 30)
        status, body = read_response(connection)
    assert status == 413
    assert json.loads(body)["code"] == "too_large"


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_a_compressed_body_is_refused(server, coding):
    with server.client() as client:
        reply = client.post(
            "/v1/embeddings",
            content=gzip.compress(b'{"input": "a"}'),
            headers={"content-encoding": coding},
        )
    assert (reply.status_code, reply.json()["code"]) == (415, "unsupported_media_type")


def test_a_client_that_leaves_takes_its_work_with_it(server):
    server.engine.cancelled.clear()
    before = server.app.door.metrics.left
    connection = server.raw()
    connection.sendall(post(b'{"input": "slow"}'))
    assert server.engine.began.wait(60)
    connection.close()
    assert server.engine.cancelled.wait(60)
    with server.client() as client:  # and the server serves on
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
    assert server.app.door.metrics.left == before + 1


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_trace(server, caplog):
    before = server.app.door.metrics.left
    for _ in range(3):
        with server.raw() as connection:
            connection.sendall(post(b'{"input": "slow"}' * 9)[:-20])
    with server.client() as client:
        assert client.get("/live").status_code == 200
    end = time.monotonic() + 30
    while server.app.door.metrics.left < before + 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert server.app.door.metrics.left == before + 3
    assert caplog.records == []


def test_a_credential_that_comes_twice_is_none():
    with running(api_keys=("k",)) as server:
        twice = post(
            b'{"input": "a"}', "/v1/embeddings", *["X-Api-Key: k"] * 2, "Connection: close"
        )
        once = post(b'{"input": "a"}', "/v1/embeddings", "X-Api-Key: k", "Connection: close")
        assert server.exchange(twice).startswith(b"HTTP/1.1 401 ")
        assert server.exchange(once).startswith(b"HTTP/1.1 200 ")


def test_a_key_in_the_query_is_no_key():
    with running(api_keys=("k",)) as server, server.client() as client:
        assert client.get("/v1/models?api_key=k&api-key=k&key=k").status_code == 401


# ── under another server, without our protocol ───────────────────────────────────────────


def scope(path: str = "/v1/embeddings") -> dict:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": headers,
    }


def test_a_disconnect_message_cancels_where_there_is_no_extension():
    async def main() -> tuple[list, TinyEngine]:
        app, _, engine = build()
        messages: asyncio.Queue = asyncio.Queue()
        sent: list = []

        async def send(message: dict) -> None:
            sent.append(message)

        messages.put_nowait({"type": "http.request", "body": b'{"input": "slow"}'})
        call = asyncio.create_task(app(scope(), messages.get, send))
        assert await asyncio.to_thread(engine.began.wait, 10)
        messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(call, 60)
        return sent, engine

    sent, engine = asyncio.run(main())
    assert engine.cancelled.is_set()
    assert sent == []


def test_a_call_that_the_server_cancels_is_told_so():
    async def main() -> list:
        app, _, engine = build()
        sent: list = []

        async def send(message: dict) -> None:
            sent.append(message)

        messages: asyncio.Queue = asyncio.Queue()
        messages.put_nowait({"type": "http.request", "body": b'{"input": "slow"}'})
        call = asyncio.create_task(app(scope(), messages.get, send))
        assert await asyncio.to_thread(engine.began.wait, 10)
        call.cancel()
        await call
        return sent

    sent = asyncio.run(main())
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["code"] == "model_loading"


def test_startup_and_shutdown_run_in_the_lifespan():
    seen: list[str] = []

    async def note(word: str) -> None:
        seen.append(word)

    async def main() -> list[str]:
        from omnivec.core.settings import Settings
        from omnivec.server.asgi import application
        from omnivec.server.door import Door
        from omnivec.server.metrics import Metrics

        metrics = Metrics()
        door = Door({"openai": OPENAI}, TinyEngine(), settings=Settings(), metrics=metrics)
        app = application(
            door,
            Settings(),
            metrics,
            startup=lambda: note("startup"),
            shutdown=lambda: note("shutdown"),
        )
        incoming: asyncio.Queue = asyncio.Queue()

        async def send(message: dict) -> None:
            seen.append(message["type"])
            if message["type"] == "lifespan.startup.complete":
                incoming.put_nowait({"type": "lifespan.shutdown"})

        incoming.put_nowait({"type": "lifespan.startup"})
        await app({"type": "lifespan", "state": {}}, incoming.get, send)
        return seen

    assert asyncio.run(main()) == [
        "startup",
        "lifespan.startup.complete",
        "shutdown",
        "lifespan.shutdown.complete",
    ]


# ── bodies in flight ─────────────────────────────────────────────────────────────────────


def test_bodies_are_counted_and_given_back(server):
    bodies = server.app.bodies
    before = bodies.left
    with server.client() as client:
        for body in (b'{"input": "a"}', b"x" * (LIMIT + 1), b"{", b'{"input": "bug"}'):
            client.post("/v1/embeddings", content=iter([body]))
    assert bodies.left == before


def test_a_body_that_has_no_room_is_told_to_come_again():
    with running() as server:
        server.app.bodies.left = 40
        with server.raw() as first, server.client() as client:
            first.sendall(post(b'{"input": ["slow", "and long"]}'))
            assert server.engine.began.wait(60)
            reply = client.post("/v1/embeddings", json={"input": "another"})
            assert (reply.status_code, reply.json()["code"]) == (429, "overloaded")
            assert reply.headers["connection"] == "close"
            assert client.post("/v1/embeddings", json={}).status_code == 400
            server.server.servers[0].get_loop().call_soon_threadsafe(server.engine.go.set)
            assert read_response(first)[0] == 200
            assert client.post("/v1/embeddings", json={"input": "another"}).status_code == 200
        assert server.app.bodies.left == 40
