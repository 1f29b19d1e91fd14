"""A server that is told to stop answers everything it admitted, then exits with 0."""

from __future__ import annotations

import signal
import threading
import time

import live
import wire


def test_sigterm_under_load_loses_nothing() -> None:
    answers: list[int] = []

    def client(url: str, number: int) -> None:
        texts = [f"client {number} text {i}" for i in range(8)]
        answers.append(wire.request(url, "/v1/embeddings", {"input": texts}).status)

    with live.launch("fake:dims=8,slow=0.05,batch_cost=16") as server:
        live.wait_ready(server)
        clients = [threading.Thread(target=client, args=(server.url, n)) for n in range(20)]
        for thread in clients:
            thread.start()
        wait_until_admitted(server.url, 20)
        assert len(answers) < 20  # it is really under load
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(40)
        for thread in clients:
            thread.join(10)
        printed = server.printed()
    assert answers == [200] * 20
    assert code == 0
    assert "Traceback" not in printed


def wait_until_admitted(url: str, requests: int) -> None:
    """Until the server says that so many requests are in flight or answered."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        lines = wire.request(url, "/metrics").body.decode().splitlines()
        items = sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith(
                ("omnivec_items_total{", "omnivec_items_queued{", "omnivec_items_running{")
            )
        )
        if items >= requests:
            return
        time.sleep(0.02)
    raise AssertionError("the requests never arrived")


def test_a_second_signal_ends_at_once() -> None:
    with live.launch("fake:dims=8,slow=20") as server:
        deadline = time.monotonic() + 60
        while wire_alive(server.url) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) is not None


def test_a_model_that_still_loads_delays_no_end() -> None:
    with live.launch("fake:dims=8,slow=15") as server:
        deadline = time.monotonic() + 60
        while wire_alive(server.url) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not live.is_ready(server.url)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(8) == 0  # its first inference takes 15 s
        assert "Traceback" not in server.printed()


def wire_alive(url: str) -> int:
    try:
        return wire.request(url, "/live/").status
    except OSError:
        return 0
