"""The one place that opens a connection to where a client says: media by http and https.

A URL is parsed once, by a grammar of our own that is narrower than any library's, and what was
parsed is what is dialled. A host is looked up once; every address that comes back must be
allowed, and one of these is dialled. Redirects go through all of it again. Nothing of the
environment, no cookie and no credential goes along. Nothing is decompressed.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias
from urllib.parse import quote, urljoin
from weakref import WeakValueDictionary

import httptools

from omnivec.media.addresses import Address, Allowed, is_number, is_public, literal

DEADLINE = 10.0
"""Seconds for a whole fetch: lookups, redirects, waiting for others from that host, the body."""
HOPS = 3
EACH = 8
"""Connections to one address at a time."""
TOGETHER = 64
"""And to all of them."""
LONGEST_URL = 8192
HEAD = 64 * 1024
"""Bytes of an answer before its body."""
_READ = 64 * 1024
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_OK = 200
_PRINTED = "".join(map(chr, range(0x21, 0x7F)))  # of a URL's characters, left as they are

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_URL = re.compile(
    r"(?P<scheme>https?)://"
    rf"(?P<host>\[[0-9a-f:.]{{2,45}}\]|{_LABEL}(?:\.{_LABEL})*\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^\s\\#?\x00-\x20\x7f]*)?"
    r"(?P<query>\?[^\s\\#\x00-\x20\x7f]*)?"
    r"(?:#[^\s\\\x00-\x20\x7f]*)?",
    re.IGNORECASE | re.ASCII,
)

Take: TypeAlias = Callable[[int], None]
"""Told of each so many bytes of a body as they come; raises a fault if they are too many."""


class Refused(Exception):  # noqa: N818 - this side's decision, mostly
    """Not fetched. The text is for the log alone: it may say what is behind a firewall. Of the
    URL it has the host and the port: in the rest a client's secrets may stand."""


class Target(NamedTuple):
    """A URL as it is dialled; `path` begins with `/` and has the query."""

    scheme: str
    host: str  # in lower case, in brackets if IPv6, without a dot at its end
    port: int
    path: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return self.origin + self.path


def parse(url: str) -> Target:
    """Raises Refused."""
    found = _URL.fullmatch(url) if len(url) <= LONGEST_URL else None
    if found is None:
        raise Refused(
            "it is not http:// or https://, a host and a path, as media are fetched from here: "
            f"without a user's name, without spaces, of at most {LONGEST_URL} characters"
        )
    scheme = found["scheme"].lower()
    host = found["host"].lower().removesuffix(".")
    port = int(found["port"] or _PORTS[scheme])
    if literal(host) is None and (host.startswith("[") or is_number(host)):
        raise Refused("its host is an address in an odd spelling")
    if not 1 <= port <= 65535:  # noqa: PLR2004 - the protocol's
        raise Refused("its port is none")
    path = (found["path"] or "/") + (found["query"] or "")
    return Target(scheme, host, port, quote(path, safe=_PRINTED))


class Fetcher:
    """`allowed` may be dialled beside what is public. `port` is this server's own."""

    def __init__(self, allowed: Allowed, port: int) -> None:
        self._allowed = allowed
        self._port = port
        self._together = asyncio.Semaphore(TOGETHER)
        self._each: WeakValueDictionary[Address, asyncio.Semaphore] = WeakValueDictionary()
        # of its own: a name server that hangs must not take the threads of anything else
        self._resolver = ThreadPoolExecutor(8, "resolver")

    async def fetch(self, url: str, most: int, take: Take) -> bytes:
        """The body, of at most so many bytes. Raises Refused, whatever went wrong, and what
        `take` raises; what it was told of then is not there any more."""
        asked: list[Target] = []
        try:
            async with asyncio.timeout(DEADLINE):
                return await self._follow(url, asked, most, take)
        except (Refused, OSError, httptools.HttpParserError, ValueError) as error:
            way = ", redirected to ".join(one.origin for one in asked)
            raise Refused(f"{way}: {_reason(error)}" if way else _reason(error)) from error

    async def _follow(self, url: str, asked: list[Target], most: int, take: Take) -> bytes:
        """The body; `asked` is filled with where it was looked for."""
        target = parse(url)
        for _ in range(HOPS + 1):
            asked.append(target)
            found = await self._get(target, most, take)
            if isinstance(found, bytes):
                return found
            target = found
        raise Refused(f"more than {HOPS} redirects")

    def close(self) -> None:
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def _get(self, target: Target, most: int, take: Take) -> bytes | Target:
        """The body, or where it is instead."""
        addresses = await self._addresses(target)
        each = self._each.setdefault(addresses[0], asyncio.Semaphore(EACH))
        async with each, self._together:  # who waits for a slow host takes no place of others
            reader, writer = await self._dial(target, addresses)
            with _aborted(writer), closing(Answer(most)) as answer:
                if self._is_self(writer):
                    raise Refused("that is this server itself")
                writer.write(_request(target))
                while not answer.done:
                    before = len(answer.body)
                    answer.feed(await reader.read(_READ))
                    take(len(answer.body) - before)
        if answer.location is not None:
            return _next(target, answer.location)
        return bytes(answer.body)

    async def _addresses(self, target: Target) -> list[Address]:
        """All of the host's, every one of them allowed. Raises Refused."""
        known = literal(target.host)
        found = [known] if known else await resolve(self._resolver, target.host, target.port)
        for address in found:
            if self._allowed.is_named(target.host, address):
                continue
            if not is_public(address):
                raise Refused(f"{address} is not a public address, nor one of --media-allow")
            if target.port not in _PORTS.values():
                raise Refused("of a host that --media-allow does not name, only ports 80 and 443")
        if not found:
            raise Refused("the host has no address")
        return found

    async def _dial(
        self, target: Target, addresses: list[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError when none answers."""
        secure = target.scheme == "https"
        context = await asyncio.get_running_loop().run_in_executor(None, tls) if secure else None
        name = target.host.strip("[]") if secure else None
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(DEADLINE / len(addresses)):
                    return await asyncio.open_connection(
                        str(address), target.port, ssl=context, server_hostname=name
                    )
            except (OSError, TimeoutError):
                continue
        return await asyncio.open_connection(
            str(addresses[-1]), target.port, ssl=context, server_hostname=name
        )

    def _is_self(self, writer: asyncio.StreamWriter) -> bool:
        there, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        return bool(there[0] == here[0] and there[1] == self._port)


class Answer:
    """What came over a connection, piece by piece. Raises Refused for what is not wanted, and
    httptools' errors for what is not HTTP."""

    def __init__(self, most: int) -> None:
        self.body = bytearray()
        self.location: str | None = None
        self.done = False
        self._most = most
        self._head = 0
        self._framed = False  # whether it says where it ends
        self._begun = False
        self._wrong: str | None = None
        self._parser = httptools.HttpResponseParser(self)

    def close(self) -> None:
        """Else the body would stay until the garbage collector comes: the parser has this."""
        del self._parser

    def feed(self, data: bytes) -> None:
        if not data:
            if self._framed or not self._begun:
                raise Refused("the answer was cut short")
            self.done = True
        elif not self._begun and self._head >= HEAD:
            raise Refused(f"its headers are longer than {HEAD} bytes")
        else:
            self._head += len(data)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError:
                if not self.done:
                    raise
        if self._wrong is not None:
            raise Refused(self._wrong)

    # ── called by the parser; what is raised here reaches nobody as it is ────────────────

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.done:  # and this is another answer, or what follows the last chunk
            return
        name = name.lower()
        if name == b"location":
            self.location = value.decode("ascii", "replace")
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            self._wrong = "the answer is compressed, unasked"
        elif name == b"content-length":
            self._framed = True
            if int(value) > self._most:
                self._wrong = self._long()
        elif name == b"transfer-encoding":
            self._framed = True
            if value.strip().lower() != b"chunked":
                self._wrong = "the answer comes in an unknown transfer encoding"

    def on_headers_complete(self) -> None:
        if self.done:
            return
        self._begun = True
        status = self._parser.get_status_code()
        if status in _REDIRECTS and self.location is not None:
            self._wrong, self.done = None, True
        elif status != _OK:
            self._wrong = f"it answered {status}"
        else:
            self.location = None

    def on_body(self, data: bytes) -> None:
        if self.done or self._wrong is not None:
            return
        if len(self.body) + len(data) > self._most:
            self._wrong = self._long()
        else:
            self.body += data

    def _long(self) -> str:
        return f"the answer is longer than {self._most} bytes"

    def on_message_complete(self) -> None:
        self.done = True


def _next(target: Target, location: str) -> Target:
    try:
        return parse(urljoin(target.url, location))
    except (Refused, ValueError):
        raise Refused("it redirects to what is no URL that is fetched from here") from None


def _reason(error: Exception) -> str:
    """In words of this side: what a stranger's server wrote is not repeated."""
    match error:
        case Refused():
            return str(error)
        case TimeoutError():
            return f"no whole answer within {DEADLINE:g} seconds"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not good: {error.verify_message}"
        case ssl.SSLError():
            return f"no TLS with it: {error.reason or type(error).__name__}"
        case socket.gaierror():
            return f"the name cannot be looked up: {error.strerror}"
        case OSError(errno=int(number)):
            return os.strerror(number)
        case httptools.HttpParserError():
            return "what it answered is not HTTP"
    return type(error).__name__


async def resolve(threads: ThreadPoolExecutor, host: str, port: int) -> list[Address]:
    """The addresses of a host. Raises OSError."""
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_STREAM
    found = await loop.run_in_executor(threads, lambda: socket.getaddrinfo(host, port, type=kind))
    return list(dict.fromkeys(ip_address(where[0]) for *_, where in found))


@cache
def tls() -> ssl.SSLContext:
    """Certificates are checked, against this system's authorities."""
    return ssl.create_default_context()


@contextmanager
def _aborted(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Without a goodbye: some servers never answer one."""
    try:
        yield
    finally:
        writer.transport.abort()


def _request(target: Target) -> bytes:
    port = "" if target.port == _PORTS[target.scheme] else f":{target.port}"
    return (
        f"GET {target.path} HTTP/1.1\r\n"
        f"Host: {target.host}{port}\r\n"
        "User-Agent: omnivec\r\n"
        "Accept: */*\r\n"
        "Accept-Encoding: identity\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")
