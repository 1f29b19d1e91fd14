"""Fetching from a server that plays every part, and from hosts that only a resolver knows."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address

import pytest

from omnivec.media import fetch
from omnivec.media.addresses import Address, Allowed
from omnivec.media.fetch import Answer, Fetcher, Refused, parse
from playing import BAD, DENIED, GOOD, ODD, PNG, SLOW, Host, host

MOST = 100_000


@pytest.fixture
def playing() -> Iterator[Host]:
    with host() as found:
        yield found


def get(url: str, *allowed: str, port: int = 1, most: int = MOST) -> bytes:
    """Raises Refused."""

    async def scenario() -> bytes:
        fetcher = Fetcher(Allowed(allowed), port)
        try:
            return await fetcher.fetch(url, most, [].append)
        finally:
            fetcher.close()

    return asyncio.run(scenario())


@pytest.mark.parametrize("path", sorted(GOOD))
def test_honest_answers(playing: Host, path: str) -> None:
    assert get(playing.url + path, "127.0.0.1") == PNG


@pytest.mark.parametrize("path", sorted(BAD.keys() - {"/says-less", "/empty", "/page", "/refresh"}))
def test_hostile_answers(playing: Host, path: str) -> None:
    with pytest.raises(Refused) as caught:
        get(playing.url + path, "127.0.0.1")
    assert playing.hits[0] == path
    assert len(playing.hits) <= 4
    assert "no whole answer" not in str(caught.value)  # it was seen through before that


def test_no_answer_stays_until_the_garbage_collector_comes(
    playing: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Answer]] = []

    class Noted(Answer):
        def __init__(self, most: int) -> None:
            super().__init__(most)
            made.append(weakref.ref(self))

    monkeypatch.setattr(fetch, "Answer", Noted)

    async def scenario() -> int:
        fetcher = Fetcher(Allowed(("127.0.0.1",)), 1)
        for path in [*GOOD, *BAD]:
            with suppress(Refused):
                await fetcher.fetch(playing.url + path, MOST, [].append)
        fetcher.close()
        return sum(ref() is not None for ref in made)

    gc.disable()
    try:
        assert asyncio.run(scenario()) == 0
    finally:
        gc.enable()
    assert len(made) >= len(GOOD) + len(BAD)


@pytest.mark.parametrize("path", sorted(SLOW))
def test_slow_answers_end_at_the_deadline(
    playing: Host, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "DEADLINE", 0.6)
    with pytest.raises(Refused, match="no whole answer within"):
        get(playing.url + path, "127.0.0.1")


def test_what_is_asked_says_nothing_of_this_side(
    playing: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    get(playing.url + "/good.png?a=b%20c&d=é#fragment", "127.0.0.1")
    assert playing.hits == ["/good.png?a=b%20c&d=%C3%A9"]
    lines = playing.heads[0].strip().split("\r\n")
    assert {line.partition(":")[0].lower() for line in lines[1:]} == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "connection",
    }
    assert "Accept-Encoding: identity" in lines
    assert f"Host: 127.0.0.1:{playing.port}" in lines


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/404?key=s3cret", r"^{url}: it answered 404$"),
        ("/gzip?key=s3cret", r"^{url}: the answer is compressed, unasked$"),
        ("/to-userinfo?key=s3cret", r"^{url}: it redirects to what is no URL that is fetched"),
        ("/loop?key=s3cret", r"^{url}(, redirected to {url}){{3}}: more than 3 redirects$"),
        ("/no-http?key=s3cret", r"^{url}: what it answered is not HTTP$"),
        ("/to-metadata?key=s3cret", r"^{url}, redirected to http://169\.254\.169\.254:80: 169\."),
    ],
)
def test_the_reason_names_the_host_and_never_the_rest(playing: Host, path: str, why: str) -> None:
    with pytest.raises(Refused, match=why.format(url=re.escape(playing.url))) as caught:
        get(playing.url + path, "127.0.0.1")
    assert "s3cret" not in str(caught.value)


def test_a_refused_connection_is_told_as_one() -> None:
    with pytest.raises(Refused, match=r"^http://127\.0\.0\.1:1: Connection refused$"):
        get("http://127.0.0.1:1/x?key=s3cret", "127.0.0.1", port=2)


@pytest.mark.parametrize("url", ["http://user:s3cret@example.com/", "ftp://example.com/s3cret"])
def test_what_is_no_url_is_not_repeated(url: str) -> None:
    with pytest.raises(Refused, match="without a user's name") as caught:
        get(url)
    assert "s3cret" not in str(caught.value)


def test_bytes_have_a_ceiling(playing: Host) -> None:
    for path in ("/good.png", "/chunked", "/until-the-end"):
        assert get(playing.url + path, "127.0.0.1", most=len(PNG)) == PNG
        with pytest.raises(Refused, match="longer than"):
            get(playing.url + path, "127.0.0.1", most=len(PNG) - 1)


def test_this_server_itself_is_not_asked(playing: Host) -> None:
    with pytest.raises(Refused, match="itself"):
        get(playing.url + "/good.png", "127.0.0.1", port=playing.port)
    assert playing.hits == []


def test_one_host_gets_so_many_connections_at_once(playing: Host) -> None:
    async def scenario() -> list[bytes]:
        fetcher = Fetcher(Allowed(["127.0.0.1"]), 1)
        try:
            urls = [f"{playing.url}/a-while?{i}" for i in range(20)]
            return await asyncio.gather(*(fetcher.fetch(url, MOST, [].append) for url in urls))
        finally:
            fetcher.close()

    assert asyncio.run(scenario()) == [PNG] * 20
    assert 1 < playing.most <= fetch.EACH


def test_who_waits_for_a_host_takes_no_place_of_others(
    playing: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "EACH", 1)
    monkeypatch.setattr(fetch, "TOGETHER", 2)

    async def scenario() -> bytes:
        fetcher = Fetcher(Allowed(["127.0.0.0/8"]), 1)
        slow = [
            asyncio.create_task(fetcher.fetch(f"{playing.url}{min(SLOW)}?{i}", MOST, [].append))
            for i in range(4)
        ]
        try:
            while not playing.hits:  # noqa: ASYNC110 - another thread counts them
                await asyncio.sleep(0.01)
            with host() as other:
                return await fetcher.fetch(
                    f"http://localhost:{other.port}/good.png", MOST, [].append
                )
        finally:
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            fetcher.close()

    async def elsewhere(_threads: ThreadPoolExecutor, _host: str, _port: int) -> list[Address]:
        return [ip_address("127.0.0.2"), ip_address("127.0.0.1")]

    monkeypatch.setattr(fetch, "resolve", elsewhere)
    assert asyncio.run(scenario()) == PNG


# ── URLs ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", ODD, ids=lambda url: ascii(url[:40]))
def test_urls_in_odd_spellings_are_not_even_looked_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> list[Address]:
        raise AssertionError("looked up")

    monkeypatch.setattr(fetch, "resolve", never)
    monkeypatch.setattr(asyncio, "open_connection", never)
    with pytest.raises(Refused):
        get(url, "0.0.0.0/0", "::/0")


def test_a_url_is_parsed_into_what_is_dialled() -> None:
    assert parse("HTTPS://Exam-ple.COM.:8443/A b".replace(" ", "%20")).url == (
        "https://exam-ple.com:8443/A%20b"
    )
    assert parse("http://1.1.1.1?q").path == "/?q"
    assert parse("http://[2606:4700::1]/").host == "[2606:4700::1]"
    assert parse("https://example.com").port == 443
    assert parse("http://example.com/ü").path == "/%C3%BC"
    assert parse("http://xn--mnchen-3ya.de/x").host == "xn--mnchen-3ya.de"


@pytest.mark.parametrize("name", DENIED)
def test_what_is_not_public_is_not_dialled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        raise AssertionError("dialled")

    monkeypatch.setattr(asyncio, "open_connection", never)
    with pytest.raises(Refused, match="is not a public address"):
        get(f"http://{name}/x")


# ── names ────────────────────────────────────────────────────────────────────────────────


class Names:
    """A name server: each lookup of a host has the next of its answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.dialled: list[str] = []
        monkeypatch.setattr(fetch, "resolve", self._resolve)
        monkeypatch.setattr(asyncio, "open_connection", self._open)

    async def _resolve(self, _threads: object, _host: str, _port: int) -> list[Address]:
        return [ip_address(one) for one in self.answers.pop(0)]

    async def _open(self, address: str, _port: int, **_: object) -> None:
        self.dialled.append(address)
        raise ConnectionRefusedError


def test_a_name_is_looked_up_once_and_dialled_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ["1.1.1.1"], ["127.0.0.1"])
    with pytest.raises(Refused, match=r"^http://rebinding\.example:80: ConnectionRefusedError$"):
        get("http://rebinding.example/x")
    assert names.dialled == ["1.1.1.1"]
    assert names.answers == [["127.0.0.1"]]


@pytest.mark.parametrize(
    "answers",
    [["1.1.1.1", "127.0.0.1"], ["10.0.0.1", "1.1.1.1"], ["2606:4700::1", "::1"], []],
    ids=str,
)
def test_all_of_a_names_addresses_must_be_public(
    answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, answers)
    with pytest.raises(Refused):
        get("http://mixed.example/x")
    assert names.dialled == []


def test_another_address_is_tried_where_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(monkeypatch, ["2606:4700::1", "1.1.1.1"])
    with pytest.raises(Refused):
        get("http://both.example/x")
    assert names.dialled == ["2606:4700::1", "1.1.1.1"]


@pytest.mark.parametrize("url", ["http://a.example:22/", "https://a.example:6379/"])
def test_public_hosts_are_asked_on_the_webs_own_ports(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["1.1.1.1"])
    with pytest.raises(Refused, match="only ports 80 and 443"):
        get(url)
    assert names.dialled == []


def test_a_name_that_is_allowed_may_be_anywhere(
    playing: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def here(*_: object) -> list[Address]:
        return [ip_address("127.0.0.1")]

    monkeypatch.setattr(fetch, "resolve", here)
    assert get(f"http://pictures.test:{playing.port}/good.png", "pictures.test") == PNG
    assert f"Host: pictures.test:{playing.port}" in playing.heads[0]
    with pytest.raises(Refused):
        get(f"http://other.test:{playing.port}/good.png", "pictures.test")


def test_a_resolver_that_hangs_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        go.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(fetch, "DEADLINE", 0.3)
    try:
        with pytest.raises(Refused, match="no whole answer within"):
            get("http://slow.example/x")
    finally:
        go.set()


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(Refused):
        get("http://no-such-host.invalid/x")


def test_the_resolver_gives_each_address_once() -> None:
    with ThreadPoolExecutor(1) as threads:
        found = asyncio.run(fetch.resolve(threads, "127.0.0.1", 80))
    assert found == [ip_address("127.0.0.1")]


# ── TLS ──────────────────────────────────────────────────────────────────────────────────


def test_a_certificate_of_nobodys_is_refused() -> None:
    context = fetch.tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_greet_in_plain, args=(listener,))
        thread.start()
        with pytest.raises(Refused, match="no TLS with it"):
            get(f"https://127.0.0.1:{listener.getsockname()[1]}/x", "127.0.0.1")
        thread.join()


def _greet_in_plain(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
