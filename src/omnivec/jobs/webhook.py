"""Telling a webhook how a job ended: one POST to a public address, or to one that settings name.

The host is looked up once, and the address that was checked is the one that is dialled. No
redirect is followed, nothing of the answer is read but its status.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from omnivec.media.addresses import Allowed, is_public

log = logging.getLogger("omnivec.jobs")

DEADLINE = 10.0
"""Seconds to reach the other side, and then for all of the post."""
AT_ONCE = 16
"""Posts; more wait for these."""
LONGEST = 2048
"""Characters of a URL."""
_PORTS = {"http": 80, "https": 443}
_GOOD = 200


class NotAllowedError(OSError):
    """An address that must not be dialled."""


class Webhooks:
    """`allowed`: hosts, addresses and networks that need not be public. Raises SettingsError."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = Allowed(allowed)
        self._tls = ssl.create_default_context()
        # of its own: a hook that is slow must not take the threads of anything else
        self._threads = ThreadPoolExecutor(AT_ONCE, "webhook")

    async def post(self, url: str, body: bytes) -> bool:
        """Whether it answered 200, which is what RunPod asks of a webhook. Where it did not, the
        log is told of the host; what comes after that in a URL may be a secret."""
        began, status = time.monotonic(), None
        try:
            loop = asyncio.get_running_loop()
            status = await loop.run_in_executor(self._threads, self._post, url, body)
            why = f"it answered {status}, not {_GOOD}"
        except NotAllowedError as error:
            why = str(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = time.monotonic() - began >= DEADLINE
            why = f"no answer within {DEADLINE:g} s" if late else type(error).__name__
        if status != _GOOD:
            log.warning("a webhook at %s was not told: %s", urlsplit(url).netloc, why)
        return status == _GOOD

    def close(self) -> None:
        """What is being told is told to its end, or to its deadline."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _post(self, url: str, body: bytes) -> int:
        """The status of the answer."""
        scheme, host, port, path = parse(url)
        connection = http.client.HTTPConnection(host, port, timeout=DEADLINE)
        with self._dial(host, port) as dialled, _ended(dialled, DEADLINE):
            secure = scheme == "https"
            connection.sock = (
                self._tls.wrap_socket(dialled, server_hostname=host) if secure else dialled
            )
            try:
                connection.request("POST", path, body, {"content-type": "application/json"})
                return connection.getresponse().status
            finally:
                connection.close()

    def _dial(self, host: str, port: int) -> socket.socket:
        """To the first of the host's addresses that answers. Raises NotAllowedError unless every
        one may be dialled, OSError where none answers."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        if not all(self.is_allowed(host, address, port) for address in addresses):
            raise NotAllowedError(
                "it has no public address at port 80 or 443, nor does --media-allow name it"
            )
        for address in addresses[:-1]:
            with suppress(OSError):
                return _connected(address, port, DEADLINE / len(addresses))
        return _connected(addresses[-1], port, DEADLINE / len(addresses))

    def is_allowed(self, host: str, address: str, port: int) -> bool:
        """What is public may be told at the ports of the web; what settings name, at any."""
        found = ip_address(address)
        public = is_public(found) and port in _PORTS.values()
        return public or self._allowed.is_named(host.lower().rstrip("."), found)


def _connected(address: str, port: int, seconds: float) -> socket.socket:
    dialled = socket.create_connection((address, port), timeout=seconds)
    dialled.settimeout(DEADLINE)
    return dialled


@contextmanager
def _ended(dialled: socket.socket, seconds: float) -> Iterator[None]:
    """Ends the connection after so long, however slowly the other side says something: a
    socket's own timeout begins again with every byte. TLS takes the socket over, hence the
    second handle."""
    handle = dialled.dup()
    timer = threading.Timer(seconds, _cut, [handle])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        handle.close()


def _cut(handle: socket.socket) -> None:
    with suppress(OSError):  # it has ended by itself
        handle.shutdown(socket.SHUT_RDWR)


def parse(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path). Raises ValueError for what is no http or https URL, or has a
    user name in it."""
    parts = urlsplit(url)
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= LONGEST
    if not plain or parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not a URL of http or https")
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], path
