"""The protocol, over raw sockets, with a client that is answered right through all of it."""

from __future__ import annotations

import contextlib
import gc
import json
import select
import socket
import threading
import time
from types import FrameType

import pytest
from serving import post, read_all, read_response, running

from omnivec.server import http, refusal

BODY = b'{"input": "abc"}'
GOOD = post(BODY)
LAST = post(BODY, "/v1/embeddings", "Connection: close")


@pytest.fixture(scope="module")
def server():
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def hasty():
    """Its deadlines are short, and on a busy machine a client may miss one: for tests of these."""
    with running(header_timeout=0.6, body_timeout=1.2) as made:
        yield made


@pytest.fixture(autouse=True)
def canary(request, caplog):
    """Whatever a test does, another client is answered, and no client's error is logged."""
    server = request.getfixturevalue("hasty" if "hasty" in request.fixturenames else "server")
    with server.client() as client:
        assert client.post("/v1/embeddings", json={"input": "abc"}).status_code == 200
        yield
        reply = client.post("/v1/embeddings", json={"input": "abc"})
    assert reply.json()["data"][0]["embedding"] == [3, 1, 0, 0]
    assert [entry for entry in caplog.records if entry.name != "httpx"] == []


def refused(response: bytes) -> tuple[int, str]:
    """The status and the code of a refusal; asserts OpenAI's envelope."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GARBAGE\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_and_closed(server, request_):
    assert refused(server.exchange(request_)) == (400, "BAD_HTTP")


@pytest.mark.parametrize(
    "hosts",
    [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a/?x=\r\n",
        "Host: a b\r\n",
        "Host:\r\n",
        "Host: user@a\r\n",
        "Host: a:99999999\r\n",
        "Host: [::1\r\n",
    ],
)
def test_a_request_has_exactly_one_valid_host(server, hosts):
    assert refused(server.exchange(f"GET /live HTTP/1.1\r\n{hosts}\r\n".encode())) == (
        400,
        "BAD_HOST",
    )


@pytest.mark.parametrize("host", ["localhost", "localhost:8400", "[::1]:8400", "127.0.0.1"])
def test_and_a_valid_one_is_let_through(server, host):
    raw = f"GET /live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    assert server.exchange(raw).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["", "Host: localhost\r\n"])
def test_http_1_0_needs_no_host_and_is_not_kept_open(server, host):
    response = server.exchange(f"GET /live HTTP/1.0\r\n{host}\r\n".encode())
    assert response.startswith(b"HTTP/1.1 200 ")


# ── sizes ────────────────────────────────────────────────────────────────────────────────


def lines(count: int, size: int = 5) -> bytes:
    return b"".join(b"X-%d: %s\r\n" % (i, b"v" * size) for i in range(count))


@pytest.mark.parametrize(
    "headers", [lines(1, 1_000_000), lines(1, refusal.MAX_HEAD), lines(10_000), lines(101)]
)
def test_large_heads_are_refused(server, headers):
    response = server.exchange(b"GET /live HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
    assert refused(response) == (431, "HEADERS_TOO_LARGE")


def test_a_header_that_never_ends_is_refused_before_its_end(server):
    with server.raw() as connection:
        connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\nX: ")
        for _ in range(40):
            try:
                connection.sendall(b"v" * 4096)
            except ConnectionError:
                break
            time.sleep(0.002)
        assert refused(read_all(connection)) == (431, "HEADERS_TOO_LARGE")


@pytest.mark.parametrize("size", [refusal.MAX_URL, 1_000_000])
def test_long_urls_are_refused(server, size):
    raw = b"GET /" + b"u" * size + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert refused(server.exchange(raw)) == (414, "URI_TOO_LONG")


def test_what_is_just_within_the_limits_is_answered(server):
    raw = (
        b"GET /live?"
        + b"u" * (refusal.MAX_URL - 6)
        + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        + lines(98, 140)
        + b"\r\n"
    )
    for pieces in ([raw], [raw[i : i + 700] for i in range(0, len(raw), 700)]):
        assert server.exchange(*pieces).startswith(b"HTTP/1.1 200 ")


def test_trailers_are_read_and_have_no_say(server):
    raw = LAST.replace(b"Content-Length: 16", b"Transfer-Encoding: chunked")
    raw = raw.removesuffix(BODY) + b"10\r\n" + BODY + b"\r\n0\r\nHost: evil\r\nX: y\r\n\r\n"
    assert server.exchange(raw).startswith(b"HTTP/1.1 200 ")


# ── time ─────────────────────────────────────────────────────────────────────────────────


def test_a_connection_that_says_nothing_is_closed(hasty):
    assert hasty.exchange() == b""


@pytest.mark.parametrize("pieces", [b"GET", b"GET /live HTTP/1.1\r\nHost: loc"])
def test_half_a_head_is_cut_at_the_deadline(hasty, pieces):
    assert refused(hasty.exchange(pieces)) == (408, "REQUEST_TIMEOUT")


def test_a_head_that_trickles_is_cut_at_the_deadline(hasty):
    with hasty.raw() as connection:
        trickle(connection, b"GET /live HTTP/1.1\r\nX: " + b"y" * 1000)
        assert refused(read_all(connection)) == (408, "REQUEST_TIMEOUT")


def test_half_a_body_is_cut_at_the_deadline(hasty):
    assert refused(hasty.exchange(GOOD[:-4])) == (408, "REQUEST_TIMEOUT")


def test_a_body_that_trickles_is_cut_at_the_deadline(hasty):
    with hasty.raw() as connection:
        connection.sendall(post(b"x" * 5000)[:-5000])
        trickle(connection, b"x" * 5000)
        assert refused(read_all(connection)) == (408, "REQUEST_TIMEOUT")


def trickle(connection: socket.socket, data: bytes) -> None:
    for i in range(len(data)):
        try:
            connection.sendall(data[i : i + 1])
        except ConnectionError:
            return
        if select.select([connection], [], [], 0.02)[0]:
            return  # there is an answer


def test_a_bad_chunk_in_a_body_is_answered_and_closed(server):
    raw = GOOD.replace(b"Content-Length: 16", b"Transfer-Encoding: chunked").removesuffix(BODY)
    assert refused(server.exchange(raw + b"5\r\nhello\r\n", b"zz\r\n")) == (400, "BAD_HTTP")


def test_a_client_that_never_reads_is_cut(server, monkeypatch):
    monkeypatch.setattr(http, "STALL", 0.5)
    with server.raw() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = post(json.dumps({"input": ["a"] * 200_000}).encode())
        connection.sendall(asked)
        wait_for(lambda: server.app.door.metrics.in_flight == 0)
        # the whole answer is in the server's buffer, and the connection is still open
        before = len(connections(server))
        wait_for(lambda: len(connections(server)) < before)  # and now it is not


def test_a_client_that_reads_slowly_is_served_to_the_end(server, monkeypatch):
    monkeypatch.setattr(http, "STALL", 1.5)
    with server.raw() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        texts = json.dumps({"input": ["a"] * 200_000}).encode()
        connection.sendall(post(texts, "/v1/embeddings", "Connection: close"))
        size = 0
        while piece := connection.recv(65536):
            size += len(piece)
            if size < 6_000_000:
                time.sleep(0.02)  # longer than STALL, in all
    assert size > 9_000_000


def connections(server) -> set:
    return server.server.config.http.sweep.connections


def wait_for(is_so) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


# ── order ────────────────────────────────────────────────────────────────────────────────


def numbered(count: int) -> bytes:
    sent = [post(json.dumps({"input": "x" * i}).encode()) for i in range(1, count)]
    last = post(json.dumps({"input": "x" * count}).encode(), "/v1/embeddings", "Connection: close")
    return b"".join(sent) + last


@pytest.mark.parametrize("size", [100_000, 97])
def test_pipelined_requests_are_answered_in_order(server, size):
    raw = numbered(100)
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    answers = server.exchange(*pieces).split(b"HTTP/1.1 200 OK")[1:]
    lengths = [
        json.loads(answer.partition(b"\r\n\r\n")[2])["data"][0]["embedding"][0]
        for answer in answers
    ]
    assert lengths == list(range(1, 101))


def test_more_requests_than_may_wait_are_refused_and_the_rest_is_answered(server):
    """One that waits for its turn costs memory, and nobody has seen its key yet."""
    response = server.exchange(GOOD * 5000)
    answers = response.count(b"HTTP/1.1 200 ")
    assert refusal.MAX_WAITING <= answers <= refusal.MAX_WAITING + 2
    assert response.count(b"HTTP/1.1 ") == answers


def test_a_flood_of_requests_is_not_kept(server):
    with server.raw() as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                connection.sendall(GOOD * 5000)
        response = read_all(connection)
    assert response.count(b"HTTP/1.1 ") <= refusal.MAX_WAITING + 2


def test_a_client_that_leaves_with_requests_behind_the_first_leaves_no_trace(server):
    with server.raw() as client:
        client.sendall(post(b'{"input": "slow"}') + GOOD + GOOD)
        assert server.engine.began.wait(10)
    assert server.engine.cancelled.wait(10)


def test_garbage_behind_a_request_does_not_cost_its_answer(server):
    response = server.exchange(GOOD + b"\x00\x01garbage\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 200 ")
    assert response.count(b"HTTP/1.1") == 1


def test_a_refused_body_may_be_large(server):
    with server.raw() as connection:
        connection.sendall(b"BAD\r\n\r\n")
        sender = threading.Thread(target=flood, args=(connection,))
        sender.start()
        assert refused(read_all(connection)) == (400, "BAD_HTTP")
        sender.join()


def flood(connection: socket.socket) -> None:
    try:
        for _ in range(100):
            connection.sendall(b"x" * 65536)
    except OSError:
        return


def test_an_offer_to_upgrade_is_passed_over(server):
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with server.raw() as connection:
        for raw in (post(BODY, "/v1/embeddings", *offer), GOOD):
            connection.sendall(raw)
            assert read_response(connection)[0] == 200
        offers = (
            b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
        )
        connection.sendall(offers * 100 + post(BODY, "/v1/embeddings", *offer) + LAST)
        assert read_all(connection).count(b"HTTP/1.1 200 ") == 102


def test_a_websocket_is_answered_as_a_plain_request(server):
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with server.raw() as connection:
        connection.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n" + upgrade + b"\r\n")
        assert read_response(connection)[0] == 404
        connection.sendall(GOOD)
        assert read_response(connection)[0] == 200


def test_an_answer_before_the_end_of_the_body_leaves_the_connection_in_order(server):
    with server.raw() as connection:
        wrong = post(b"x" * 300_000, "/nowhere")
        connection.sendall(wrong[:1000])
        assert read_response(connection)[0] == 404
        connection.sendall(wrong[1000:] + GOOD)
        assert read_response(connection)[0] == 200


def test_a_connection_is_kept_for_the_next_request(server):
    with server.raw() as connection:
        for _ in range(3):
            connection.sendall(GOOD)
            assert read_response(connection)[0] == 200
            time.sleep(0.3)  # a sweep or two go by


# ── many ─────────────────────────────────────────────────────────────────────────────────


def test_a_full_server_drops_one_that_waits_for_one_that_asks(server, monkeypatch):
    sweep = server.server.config.http.sweep
    monkeypatch.setattr(sweep, "capacity", 20)
    idle = [server.raw() for _ in range(60)]
    try:
        assert server.exchange(LAST).startswith(b"HTTP/1.1 200 ")
        wait_for(lambda: len(sweep.connections) <= 20)
    finally:
        for connection in idle:
            connection.close()


def test_a_server_full_of_work_says_so(server, monkeypatch):
    sweep = server.server.config.http.sweep
    wait_for(lambda: len(sweep.connections) == 1)  # the canary's
    server.engine.began.clear()
    with server.raw() as busy:
        busy.sendall(post(b'{"input": "slow"}'))
        assert server.engine.began.wait(60)
        with server.raw() as talking:
            talking.sendall(b"GET /live HT")
            wait_for(lambda: len(sweep.connections) == 3)
            monkeypatch.setattr(sweep, "capacity", 3)
            assert server.exchange(LAST).startswith(b"HTTP/1.1 200 ")  # the canary gave way
            monkeypatch.setattr(sweep, "capacity", 2)
            assert refused(server.exchange())[0] == 503


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n" + lines(1, refusal.MAX_HEAD) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + lines(101) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"u" * refusal.MAX_URL + b" HTTP/1.1\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_nothing_is_kept_of_what_was_refused(server, sent):
    def frames() -> int:
        gc.collect()
        return sum(type(one) is FrameType for one in gc.get_objects())

    before = frames()
    for _ in range(50):
        refused(server.exchange(sent))
    assert frames() < before + 50


def test_refusals_are_counted(server):
    before = server.app.door.metrics.refusals[400]
    server.exchange(b"BAD\r\n\r\n")
    assert server.app.door.metrics.refusals[400] == before + 1
