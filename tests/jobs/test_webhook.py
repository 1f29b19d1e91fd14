"""Webhooks, over real sockets of this machine."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from omnivec.jobs import webhook
from omnivec.jobs.webhook import Webhooks, parse

if TYPE_CHECKING:
    from collections.abc import Iterator


class Receiver(BaseHTTPRequestHandler):
    """Answers a POST with the status that its path is."""

    got: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(int(self.path[1:4]))
        self.send_header("location", "/200")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiver() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.got = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def post(hooks: Webhooks, url: str) -> bool:
    return asyncio.run(hooks.post(url, b'{"id":"a"}'))


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.0/8", "LOCALHOST"])
def test_one_that_settings_name_is_told(allowed: str) -> None:
    host = "localhost" if allowed == "LOCALHOST" else "127.0.0.1"
    with receiver() as server:
        url = f"http://{host}:{server.server_port}/200/done?x=1"
        assert post(Webhooks([allowed, "::1"]), url)
        assert server.got == [("/200/done?x=1", b'{"id":"a"}')]


@pytest.mark.parametrize("status", [201, 302, 404, 500])
def test_only_200_counts_and_no_redirect_is_followed(status: int) -> None:
    with receiver() as server:
        url = f"http://127.0.0.1:{server.server_port}/{status}"
        assert not post(Webhooks(["127.0.0.1"]), url)
        assert len(server.got) == 1


def test_the_log_tells_why_a_webhook_was_not_told(caplog) -> None:
    hooks = Webhooks(["127.0.0.1"])
    with receiver() as server:
        port = server.server_port
        post(hooks, f"http://127.0.0.1:{port}/302?key=secret")
    post(hooks, "http://10.0.0.1/secret")
    post(hooks, f"http://127.0.0.1:{port}/secret")
    answered, refused, gone = caplog.messages
    assert answered == f"a webhook at 127.0.0.1:{port} was not told: it answered 302, not 200"
    assert refused.startswith("a webhook at 10.0.0.1 was not told: it has no public address")
    assert "--media-allow" in refused
    assert gone.endswith("ConnectionRefusedError")
    assert "secret" not in caplog.text


def test_every_address_of_a_host_is_tried(monkeypatch) -> None:
    look_up = socket.getaddrinfo

    def found(host: str, port: int, *told: Any, **named: Any) -> list[Any]:
        """Two addresses, and nobody listens at the first."""
        hosts = ["127.0.0.2", "127.0.0.1"] if host == "both.example" else [host]
        return [one for host in hosts for one in look_up(host, port, *told, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with receiver() as server:
        assert post(Webhooks(["both.example"]), f"http://both.example:{server.server_port}/200")
        assert len(server.got) == 1


def test_no_other_address_of_this_machine_is_dialled() -> None:
    with receiver() as server:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"):
            assert not post(Webhooks(["10.0.0.0/8"]), f"http://{host}:{server.server_port}/200")
        assert server.got == []


@pytest.mark.parametrize(
    "address",
    [
        *("10.1.2.3", "192.168.0.1", "169.254.169.254", "127.8.9.1", "100.64.0.1", "224.0.0.1"),
        *("::1", "fe80::1%2", "::ffff:10.0.0.1"),
    ],
)
def test_private_addresses_are_not_allowed(address: str) -> None:
    assert not Webhooks().is_allowed("somewhere.example", address, 443)
    assert Webhooks(["somewhere.example"]).is_allowed("somewhere.example", address, 8123)


def test_public_ones_are_at_the_ports_of_the_web() -> None:
    for address in ("93.184.216.34", "2606:4700::1111"):
        for port in (80, 443):
            assert Webhooks().is_allowed("somewhere.example", address, port)
        assert not Webhooks().is_allowed("somewhere.example", address, 22)
        assert Webhooks(["somewhere.example"]).is_allowed("somewhere.example", address, 22)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_one_that_says_a_byte_now_and_then_is_left_at_the_deadline(
    scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhook, "DEADLINE", 0.3)
    left = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            try:
                connection.recv(1)
                connection.sendall(b"\x16" if scheme == "https" else b"HTTP/1.1 secret")
                while not left.wait(0.1):
                    connection.sendall(b"\x03")
            except OSError:
                left.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=[listening])
        thread.start()
        hooks = Webhooks(["127.0.0.1"])
        assert not post(hooks, f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/")
        hooks.close()
        assert left.wait(60)
        thread.join()
    assert f"was not told: no answer within {webhook.DEADLINE:g} s" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a/", "file:///etc/passwd", "http://", "a", "http://u:p@a/", "http://a:x/"),
        *("http://a/ b", "http://a/\r\nx: y", "http://ä/"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parse(url)


def test_the_parts_of_a_url() -> None:
    assert parse("https://a.example:8/b?c=d") == ("https", "a.example", 8, "/b?c=d")
    assert parse("http://A.example") == ("http", "a.example", 80, "/")


def test_nobody_at_the_other_end_is_a_failure() -> None:
    with receiver() as server:
        port = server.server_port
    assert not post(Webhooks(["127.0.0.1"]), f"http://127.0.0.1:{port}/200")
