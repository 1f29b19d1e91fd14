"""A server that is told to stop answers everything it admitted, then exits with 0."""

from __future__ import annotations

import signal
import socket
import threading
import time

import live
import wire

BODY = b'{"input": "[[hang]]"}'
HANGS = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


def test_sigterm_under_load_loses_nothing() -> None:
    answers: list[int] = []

    def client(url: str, number: int) -> None:
        texts = [f"client {number} text {i}" for i in range(8)]
        answers.append(wire.request(url, "/v1/embeddings", {"input": texts}).status)

    with live.launch("fake:dims=8,slow=3,batch_cost=4096") as server:
        live.wait_ready(server)
        before = admitted(server.url)
        # the first batch takes 3 s, in which all the others arrive
        clients = [threading.Thread(target=client, args=(server.url, n)) for n in range(20)]
        for thread in clients:
            thread.start()
        wait_until_admitted(server.url, before + 20 * 8)
        assert len(answers) < 20  # it is really under load
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(40)
        for thread in clients:
            thread.join(60)
        printed = server.printed()
    assert answers == [200] * 20
    assert code == 0
    assert "Traceback" not in printed


def wait_until_admitted(url: str, items: int) -> None:
    """Until the server says that so many are in flight or answered."""
    deadline = time.monotonic() + 60
    while admitted(url) < items:
        assert time.monotonic() < deadline, "the requests never arrived"
        time.sleep(0.02)


def admitted(url: str) -> float:
    """The items the server has queued or under way, and those of the requests it answered: all
    that arrived, as long as no request is answered in part."""
    series = ("omnivec_items_total{", "omnivec_items_queued{", "omnivec_items_running{")
    lines = wire.request(url, "/metrics").body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))


def test_a_second_signal_ends_at_once() -> None:
    with live.launch("fake:dims=8,faults=on", "--drain-timeout", "300") as server:
        live.wait_ready(server)
        before = admitted(server.url)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(HANGS)
            wait_until_admitted(server.url, before + 1)
            server.process.send_signal(signal.SIGTERM)
            wait_until_it_stops(server)
            assert server.process.poll() is None  # it waits for what it admitted
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 128 + signal.SIGTERM


def wait_until_it_stops(server: live.Server) -> None:
    """Until no connection is accepted any more: the signal has been heard."""
    deadline = time.monotonic() + 60
    while wire_alive(server.url):
        assert time.monotonic() < deadline, "the signal was never heard"
        time.sleep(0.02)


def test_a_model_that_still_loads_delays_no_end() -> None:
    with live.launch("fake:dims=8,slow=120") as server:
        deadline = time.monotonic() + 60
        while wire_alive(server.url) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not live.is_ready(server.url)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0  # its first inference takes 120 s
        assert "Traceback" not in server.printed()


def wire_alive(url: str) -> int:
    try:
        return wire.request(url, "/live/").status
    except OSError:
        return 0
