"""The host, as a real process that gets real signals."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import post, read_all, read_response

from omnivec.core.settings import Settings
from omnivec.hosts.uvicorn import PortError, bind, listening

SCRIPT = Path(__file__).with_name("process.py")


class Process:
    def __init__(self, **settings: object) -> None:
        told = json.dumps({"port": 0, **settings})
        self.popen = subprocess.Popen(
            [sys.executable, "-W", "error", str(SCRIPT), told],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "startup"
        opened, self.host, port = self.line().split()
        assert opened == "opened"
        self.port = int(port)
        self.url = f"http://127.0.0.1:{port}"

    def line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def settle(self) -> None:
        """What was sent before has been read."""
        with self.raw() as asking:
            asking.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_response(asking)[0] == 200

    def drain(self) -> None:
        """Sends the first signal; returns when it is acted upon: nobody is let in any more."""
        self.popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                self.raw().close()
                time.sleep(0.01)

    def end(self, *signals: signal.Signals) -> tuple[int, str, str]:
        """The exit code and what it said, after these signals."""
        for each in signals:
            self.popen.send_signal(each)
        out, err = self.popen.communicate(timeout=40)
        return self.popen.returncode, out.strip(), err


@contextlib.contextmanager
def process(**settings: object) -> Iterator[Process]:
    made = Process(**settings)
    try:
        yield made
    finally:
        if made.popen.poll() is None:
            made.popen.kill()
        made.popen.communicate()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_code_0(kind):
    with process() as server, server.raw() as idle:
        assert server.end(kind) == (0, "shutdown", "")
        assert read_all(idle) == b""


def test_everything_admitted_is_answered_under_load():
    with process() as server:
        statuses: list[int] = []
        broken: list[str] = []
        stop = threading.Event()
        threads = [
            threading.Thread(target=load, args=(server.url, statuses, broken, stop))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        while len(statuses) < 80:
            time.sleep(0.01)
        code, said, complaints = server.end(signal.SIGTERM)
        stop.set()
        for thread in threads:
            thread.join()
        assert (code, said, complaints) == (0, "shutdown", "")
        assert set(statuses) == {200}
        assert broken == []


def load(url: str, statuses: list[int], broken: list[str], stop: threading.Event) -> None:
    """Ask again and again over one connection until the port is closed."""
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        while not stop.is_set():
            try:
                reply = client.post("/v1/embeddings", json={"input": "0.05"})
            except httpx.ConnectError:
                return  # not accepted, so not admitted
            except httpx.HTTPError as error:
                broken.append(repr(error))
                return
            statuses.append(reply.status_code)


def test_a_draining_server_is_alive_and_not_ready():
    with process() as server, server.raw() as busy, server.raw() as asking:
        busy.sendall(post(b'{"input": "4"}'))
        asking.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_response(asking)[0] == 200
        asking.sendall(b"GET /ready/ HTTP/1.1\r\n")
        server.drain()
        asking.sendall(b"Host: localhost\r\n\r\n")
        assert read_response(asking) == (503, b'{"status":"stopping"}')
        assert read_all(asking) == b""
        assert read_response(busy)[0] == 200
        assert server.end() == (0, "shutdown", "")


def test_a_half_sent_body_does_not_hold_the_server():
    with process() as server, server.raw() as half, server.raw() as head:
        half.sendall(post(b'{"input": "0"}')[:-3])
        head.sendall(b"POST /v1/emb")
        server.settle()
        # 408 comes from the grace for what is half read; at the drain's own end it were 503
        assert server.end(signal.SIGTERM) == (0, "shutdown", "")
        assert read_all(half).startswith(b"HTTP/1.1 408 ")


def test_work_that_takes_longer_than_the_drain_is_told_so():
    with process(drain_timeout=1.0) as server, server.raw() as busy:
        busy.sendall(post(b'{"input": "60"}'))
        server.settle()
        code, said, complaints = server.end(signal.SIGTERM)
        assert (code, said) == (0, "shutdown")
        assert "Traceback" not in complaints
        status, body = read_response(busy)
        assert (status, json.loads(body)["code"]) == (503, "model_loading")


def test_a_second_signal_ends_it_at_once():
    with process() as server, server.raw() as busy:
        busy.sendall(post(b'{"input": "60"}'))
        server.settle()
        server.drain()
        assert server.popen.poll() is None
        code, said, complaints = server.end(signal.SIGTERM)
        assert (code, said, complaints) == (128 + signal.SIGTERM, "", "")


def test_a_taken_port_is_told_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = json.dumps({"port": port})
        ended = subprocess.run(
            [sys.executable, str(SCRIPT), told],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_name_binds_all_of_its_addresses():
    sockets = bind("localhost", 0)
    try:
        assert {made.getsockname()[0] for made in sockets} <= {"127.0.0.1", "::1"}
    finally:
        for made in sockets:
            made.close()
    with pytest.raises(PortError, match="cannot listen"):
        bind("no-such-host.invalid", 0)


def test_a_second_port_that_is_taken_is_named_with_its_flag():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"127\.0\.0\.1:{second} .*with --health-port$"):
            listening(Settings(port=0, health_port=second))


def test_a_second_port_answers_as_the_first_does():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        second = probe.getsockname()[1]
    with process(health_port=second) as made:
        for port in (made.port, second):
            assert httpx.get(f"http://127.0.0.1:{port}/ping", trust_env=False).status_code == 200
        assert made.end(signal.SIGTERM)[0] == 0
