"""A web server that plays the parts of honest and hostile ones, and says who came."""

from __future__ import annotations

import contextlib
import gzip
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pictures import photo, saved

PNG = saved(photo(), "PNG")
Part = Callable[["Host", socket.socket], None]


class Host:
    """`hits` are the paths that were asked for, `heads` the requests' headers, `most` how many
    connections were open at once."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.heads: list[str] = []
        self.open = self.most = 0
        self.lock = threading.Lock()
        self.over = threading.Event()
        owner = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    owner.answer(self.request)

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                return
            head += piece
        path = head.split()[1].decode()
        with self.lock:
            self.hits.append(path)
            self.heads.append(head.decode("latin-1"))
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            PARTS[path.partition("?")[0]](self, connection)
        finally:
            with self.lock:
                self.open -= 1

    def linger(self, connection: socket.socket, seconds: float, piece: bytes = b"") -> None:
        """Send the piece twice a second for as long, or until anyone is gone."""
        end = time.monotonic() + seconds
        connection.settimeout(0.5)
        while time.monotonic() < end and not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    return
            connection.sendall(piece)


@contextlib.contextmanager
def host() -> Iterator[Host]:
    playing = Host()
    thread = threading.Thread(target=playing.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield playing
    finally:
        playing.over.set()
        playing.server.shutdown()
        playing.server.server_close()
        thread.join()


def says(*headers: str, body: bytes = b"", status: str = "200 OK") -> Part:
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers]).encode("latin-1") + b"\r\n\r\n"

    def part(_host: Host, connection: socket.socket) -> None:
        connection.sendall(head + body)

    return part


def leads(to: str, status: str = "302 Found", **more: Any) -> Part:
    """`{port}` is this server's."""

    def part(playing: Host, connection: socket.socket) -> None:
        headers = [f"Location: {to.format(port=playing.port)}", "Content-Length: 0"]
        says(*headers, status=status, **more)(playing, connection)

    return part


def sized(body: bytes, *headers: str, length: int | None = None) -> Part:
    count = len(body) if length is None else length
    return says(f"Content-Length: {count}", *headers, body=body)


def slow_body(playing: Host, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    playing.linger(connection, 30, b"x")


def slow_head(playing: Host, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    playing.linger(connection, 30, b"X-Y: 1\r\n")


HALF = 200_000


def half(playing: Host, connection: socket.socket) -> None:
    """Half of a body, and no more until the end."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {2 * HALF}\r\n\r\n"
    connection.sendall(head.encode() + b"x" * HALF)
    playing.linger(connection, 30)


def silent(playing: Host, connection: socket.socket) -> None:
    playing.linger(connection, 30)


def endless_chunks(playing: Host, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not playing.over.is_set():
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def endless_body(playing: Host, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not playing.over.is_set():
        connection.sendall(b"x" * 65536)


def endless_head(playing: Host, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not playing.over.is_set():
        connection.sendall(b"X-Header: " + b"y" * 1000 + b"\r\n")


def a_while(playing: Host, connection: socket.socket) -> None:
    playing.over.wait(0.3)
    sized(PNG)(playing, connection)


CHUNKED = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (PNG[:100], PNG[100:])) + b"0\r\n\r\n"

GOOD: dict[str, Part] = {
    "/good.png": sized(PNG, "Content-Type: image/png"),
    "/mislabelled": sized(PNG, "Content-Type: text/html"),
    "/identity": sized(PNG, "Content-Encoding: identity"),
    "/chunked": says("Transfer-Encoding: chunked", body=CHUNKED),
    "/until-the-end": says(body=PNG),
    "/old": lambda _host, connection: connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + PNG),
    "/moved": leads("/good.png", "301 Moved Permanently"),
    "/moved-3": leads("/moved-2", "307 Temporary Redirect"),
    "/moved-2": leads("http://127.0.0.1:{port}/moved", "308 Permanent Redirect"),
    "/a-while": a_while,
}

BAD: dict[str, Part] = {
    "/to-metadata": leads("http://169.254.169.254/latest/meta-data/"),
    "/to-another-loopback": leads("http://127.0.0.2:{port}/good.png"),
    "/to-v6-loopback": leads("http://[::1]:{port}/good.png"),
    "/to-a-file": leads("file:///etc/passwd"),
    "/to-ftp": leads("ftp://127.0.0.1/x"),
    "/to-data": leads("data:image/png;base64,iVBORw0KGgo="),
    "/to-userinfo": leads("http://u:p@127.0.0.1:{port}/good.png"),
    "/to-nowhere": leads(""),
    "/loop": leads("/loop"),
    "/moved-4": leads("/moved-3"),
    "/refresh": sized(b"", "Refresh: 0; url=/good.png"),
    "/no-location": says("Content-Length: 0", status="302 Found"),
    "/gzip": sized(gzip.compress(PNG), "Content-Encoding: gzip"),
    "/gzip-bomb": sized(gzip.compress(b"\0" * 10_000_000), "Content-Encoding: gzip"),
    "/brotli": sized(b"x" * 100, "Content-Encoding: br"),
    "/encodings": sized(gzip.compress(PNG), "Content-Encoding: " + "gzip, " * 50 + "gzip"),
    "/gzip-transfer": says("Transfer-Encoding: gzip, chunked", body=CHUNKED),
    "/says-less": sized(PNG, length=100),
    "/says-more": sized(PNG, length=len(PNG) + 1000),
    "/says-enormous": sized(PNG, length=10**12),
    "/says-negative": sized(PNG, length=-1),
    "/says-both": says(f"Content-Length: {len(PNG)}", "Transfer-Encoding: chunked", body=CHUNKED),
    "/says-two": says(f"Content-Length: {len(PNG)}", "Content-Length: 5", body=PNG),
    "/bad-chunks": says("Transfer-Encoding: chunked", body=b"zz\r\n" + PNG),
    "/half-a-chunk": says("Transfer-Encoding: chunked", body=CHUNKED[:60]),
    "/201": says("Content-Length: 0", status="201 Created"),
    "/204": says(status="204 No Content"),
    "/206": says(f"Content-Length: {len(PNG)}", body=PNG, status="206 Partial Content"),
    "/300": says("Content-Length: 0", "Location: /good.png", status="300 Multiple Choices"),
    "/304": says(status="304 Not Modified"),
    "/401": says("Content-Length: 0", status="401 Unauthorized"),
    "/404": says(f"Content-Length: {len(PNG)}", body=PNG, status="404 Not Found"),
    "/500": says("Content-Length: 0", status="500 Oops"),
    "/103": says("Link: </x>", "", "HTTP/1.1 404 No", "", status="103 Early Hints"),
    "/empty": sized(b""),
    "/page": sized(b"<!DOCTYPE html><html></html>", "Content-Type: image/png"),
    "/no-http": lambda _host, connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "/closes": lambda _host, _connection: None,
    "/endless-chunks": endless_chunks,
    "/endless-body": endless_body,
    "/endless-head": endless_head,
}

SLOW: dict[str, Part] = {"/slow-body": slow_body, "/slow-head": slow_head, "/silent": silent}

PARTS = {**GOOD, **BAD, **SLOW, "/half": half, "/half-only": sized(b"x" * HALF, length=2 * HALF)}

ODD = [
    "",
    "x",
    "/good.png",
    "//127.0.0.1/x",
    "\\\\127.0.0.1\\x",
    "file:///etc/passwd",
    "ftp://1.1.1.1/x",
    "gopher://1.1.1.1/x",
    "jar:http://1.1.1.1/x!/",
    "unix:/run/docker.sock",
    "http:1.1.1.1",
    "http:///x",
    "http://",
    "http:// 1.1.1.1/",
    " http://1.1.1.1/",
    "http://1.1.1.1/ x",
    "http://1.1.1.1/\r\nX: y",
    "http://1.1\t.1.1/",
    "http://127.0.0.1:6666\\@1.1.1.1/",
    "http://user@1.1.1.1/",
    "http://user:pass@1.1.1.1/",
    "http://1.1.1.1#@127.0.0.1/\\",
    "http://127.1/",
    "http://0/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://127.0.0.1.1/",
    "http://127。0。0。1/",
    "http://\uff11\uff12\uff17.0.0.1/",
    "http://ⓔxample.com/",
    "http://[::1%25lo]/",
    "http://[fe80::1%eth0]/",
    "http://[::1/",
    "http://[127.0.0.1]/",
    "http://[::ffff:127.1]/",
    "http://exa mple.com/",
    "http://a..b/",
    "http://.a/",
    "http://-/",
    "http://a:b/",
    "http://a:0/",
    "http://a:65536/",
    "http://a:-1/",
    "http://a:/",
    "http://a:80:80/",
    "http://a%2eb/",
    "http://1.1.1.1/" + "x" * 65536,
]
"""URLs that nobody should try to understand."""

DENIED = [
    "127.0.0.1",
    "localhost",
    "localhost.",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "100.100.100.200",
    "[fd00:ec2::254]",
    "10.0.0.1",
]
"""Hosts that are not public."""
