"""Who may listen, and that all who do get the same frames."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable

import httpx
import pytest
from listening import ACCEPT, goodbye, handshake, listen
from serving import TinyEngine, read_all, read_response, running
from websockets.exceptions import InvalidStatus

from omnivec.core.nouns import Describe, Result, Task
from omnivec.core.plugins import discover
from omnivec.server import feed

KEY = "a-key/with+all=kinds"
WRAPPED = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")


class Counting(TinyEngine):
    """Knows how often it was asked what is served."""

    def __init__(self) -> None:
        super().__init__()
        self.described = 0

    async def run(self, task: Task) -> Result:
        self.described += isinstance(task, Describe)
        return await super().run(task)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def server():
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def guarded():
    with running(api_keys=(KEY,)) as made:
        yield made


def refused(server, **options) -> tuple[int, httpx.Response]:
    with pytest.raises(InvalidStatus) as caught, listen(server, **options):
        pass
    return caught.value.response.status_code, caught.value.response


def test_frames_come_without_a_word(server):
    with listen(server) as client:
        times = [json.loads(client.recv(30))["timestamp"] for _ in range(4)]
    assert times == sorted(set(times))


def test_all_listeners_share_each_frame(server):
    with listen(server) as one, listen(server) as two, listen(server) as three:
        listeners = (one, two, three)
        heard = [[client.recv(30) for _ in range(6)] for client in listeners]
    assert all(isinstance(frame, str) for frames in heard for frame in frames)
    common = set(heard[0]) & set(heard[1]) & set(heard[2])
    assert len(common) >= 3  # they came one after the other, and the first frame is the last made


def test_nothing_is_made_when_nobody_listens():
    engine = Counting()
    with running(engine=engine) as server:
        assert engine.described == 0
        with listen(server) as client:
            frames = {client.recv(30) for _ in range(3)}
        wait_until(lambda: not server.app.feed._listeners)
        made = engine.described
        assert len(frames) == 3
        assert made <= 4
        with listen(server) as client:  # had the first task gone on, there would be two now
            for _ in range(3):
                client.recv(30)
        assert engine.described - made <= 4
        assert server.app.feed._task is None or not server.app.feed._listeners


def test_many_listeners_cost_no_more_snapshots():
    engine = Counting()
    with running(engine=engine) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(listen(server)) for _ in range(20)]
        heard = [{client.recv(30) for _ in range(5)} for client in clients]
    frames = set().union(*heard)
    assert [len(one) for one in heard] == [5] * 20
    assert len(frames) <= engine.described
    assert len(frames) <= 50  # and not five for each of the twenty


def test_there_is_a_ceiling(server, monkeypatch):
    monkeypatch.setattr(feed, "MOST", 2)
    wait_until(lambda: not server.app.feed._listeners)
    with listen(server) as one, listen(server) as two:
        assert one.recv(30)
        assert two.recv(30)
        status, response = refused(server)
        assert status == 429
        assert b"2 listeners" in response.body
    wait_until(lambda: not server.app.feed._listeners)
    with listen(server) as again:
        assert again.recv(30)


# ── the handshake ────────────────────────────────────────────────────────────────────────


def test_the_answer_is_that_of_the_rfc(server):
    with server.raw() as connection:
        connection.sendall(handshake())
        head = connection.recv(65536).partition(b"\r\n\r\n")[0].decode()
    lines = head.lower().split("\r\n")
    assert lines[0] == "http/1.1 101 switching protocols"
    assert f"sec-websocket-accept: {ACCEPT.lower()}" in lines
    assert "upgrade: websocket" in lines
    assert "connection: upgrade" in lines
    assert not any(line.startswith(("content-length", "sec-websocket-protocol")) for line in lines)


@pytest.mark.parametrize("headers", [{}, {"upgrade": "websocket"}, {":protocol": "x"}])
def test_a_plain_request_is_told_to_upgrade(server, headers):
    if ":protocol" in headers:
        raw = b"GET /ws/status HTTP/1.1\r\nHost: localhost\r\n:protocol: websocket\r\n\r\n"
        assert server.exchange(raw).startswith(b"HTTP/1.1 400 ")
        return
    with server.client() as client:
        response = client.get("/ws/status", headers=headers)
        assert response.status_code == 426
        assert response.headers["upgrade"] == "websocket"
        assert "ws://" in response.text
        assert client.get("/live").status_code == 200


@pytest.mark.parametrize("dialect", sorted(discover("dialects")))
def test_and_is_told_so_whatever_the_profile(dialect):
    with running(discover("dialects"), dialect=dialect) as made, made.client() as client:
        response = client.get("/ws/status")
    assert response.status_code == 426
    assert "ws://" in response.text
    assert "INTERNAL" not in response.text


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_version": ""}, 426),
        ({"sec_websocket_key": ""}, 400),
        ({"sec_websocket_key": "c2hvcnQ="}, 400),
        ({"sec_websocket_key": "no base64 at all"}, 400),
        ({"upgrade": "h2c"}, 426),
        ({"upgrade": "h2c, websocket"}, 426),
        ({"connection": ""}, 426),
        ({"path": "/ws/elsewhere"}, 404),
        ({"path": "/live"}, 200),
    ],
)
def test_another_handshake_is_answered_and_the_connection_goes_on(server, changed, status):
    with server.raw() as connection:
        connection.sendall(handshake(**changed))
        assert read_response(connection)[0] == status
        connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_response(connection)[0] == 200


@pytest.mark.parametrize(
    "raw",
    [
        handshake().replace(b"GET", b"POST"),
        handshake().replace(b"GET", b"HEAD"),
        handshake().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_only_a_get_of_http_1_1_switches(server, raw):
    with server.raw() as connection:
        connection.sendall(raw)
        assert connection.recv(65536).split()[1] in (b"405", b"426")


def test_frames_before_the_answer_are_no_frames(server):
    before = b"\x81\x80\x00\x00\x00\x00"
    for pieces in ((handshake() + before,), (handshake(), before)):
        with server.raw() as connection:
            for piece in pieces:
                connection.sendall(piece)
            assert connection.recv(65536).split()[1] in (b"400", b"426", b"101")
    with listen(server) as client:
        assert client.recv(30)


def test_a_request_behind_the_handshake_is_not_lost_in_it(server):
    with server.raw() as connection:
        last = b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(handshake() + last)
        answers = read_all(connection)
    assert answers.startswith(b"HTTP/1.1 426 ")
    assert answers.count(b"HTTP/1.1 200 ") == 1


# ── who may ──────────────────────────────────────────────────────────────────────────────


def test_a_key_is_needed_where_there_is_one(guarded):
    for headers in ({}, {"Authorization": "Bearer no"}, {"X-Api-Key": ""}):
        status, response = refused(guarded, additional_headers=headers)
        assert status == 401
        assert KEY.encode() not in response.body
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}):
        with listen(guarded, additional_headers=headers) as client:
            assert json.loads(client.recv(30))["server"]["pid"]


def test_a_key_in_the_query_is_none(guarded):
    assert refused(guarded, path=f"/ws/status?api_key={KEY}&token={KEY}")[0] == 401


def test_a_browser_offers_its_key_as_a_subprotocol(guarded):
    with listen(guarded, subprotocols=["omnivec", f"bearer.{WRAPPED}"]) as client:
        assert client.subprotocol == "omnivec"
        assert client.recv(30)
    with listen(guarded, subprotocols=[f"bearer.{WRAPPED}"]) as client:
        assert client.subprotocol is None  # a key is never said aloud
    for wrong in ("bearer.", "bearer.eA", "bearer.%%%", WRAPPED, f"bearer.{KEY[:5]}"):
        with guarded.raw() as connection:
            connection.sendall(handshake(f"Sec-WebSocket-Protocol: omnivec, {wrong}"))
            assert read_response(connection)[0] == 401


def test_a_page_of_another_site_needs_a_key_of_its_own(server, guarded):
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        assert refused(server, origin=origin)[0] == 403
        basic = base64.b64encode(f"me:{KEY}".encode()).decode()
        ambient = {"Authorization": f"Basic {basic}"}  # what the browser sends unasked
        assert refused(guarded, origin=origin, additional_headers=ambient)[0] == 403
        offers = ["omnivec", f"bearer.{WRAPPED}"]
        with listen(guarded, origin=origin, subprotocols=offers) as client:
            assert client.recv(30)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://[::1]"])
def test_pages_of_this_machine_may_listen(server, origin):
    with listen(server, origin=origin) as client:
        assert client.recv(30)


def test_a_name_that_was_pointed_here_is_refused(server):
    with server.raw() as connection:
        connection.sendall(handshake("Origin: http://evil.example", host="evil.example"))
        assert read_response(connection)[0] == 400


# ── the end ──────────────────────────────────────────────────────────────────────────────


def test_a_server_that_stops_says_goodbye():
    with running() as server, listen(server) as client:
        assert client.recv(30)
        server.server.should_exit = True
        assert goodbye(client)[0] == 1001
        server.thread.join(30)
        assert not server.thread.is_alive()
        assert server.app.feed._task is None


def test_a_server_that_drains_takes_no_listeners(server):
    server.app.door.draining = True
    try:
        assert refused(server)[0] == 503
    finally:
        server.app.door.draining = False


def test_a_bug_ends_the_listeners_and_not_the_server(caplog):
    engine = TinyEngine()
    with running(engine=engine) as server, listen(server) as client:
        assert client.recv(30)
        engine.cards = (object(),)  # type: ignore[assignment] # whatever it is, it is no card
        assert goodbye(client) == (1011, "Internal error.")
        assert "no status can be made" in caplog.text
        engine.cards = TinyEngine().cards
        with listen(server) as again:
            assert again.recv(30)
