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
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from omnivec.media.addresses import Allowed, is_public

log = logging.getLogger("omnivec.jobs")

DEADLINE = 10.0
"""Seconds that the other side may be silent."""
LONGEST = 2048
"""Characters of a URL."""
_PORTS = {"http": 80, "https": 443}
_GOOD = 200


class Webhooks:
    """`allowed`: hosts, addresses and networks that need not be public. Raises SettingsError."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = Allowed(allowed)
        self._tls = ssl.create_default_context()

    async def post(self, url: str, body: bytes) -> bool:
        """Whether it answered 200, which is what RunPod asks of a webhook."""
        try:
            return await asyncio.to_thread(self._post, url, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.warning("a webhook was not told: %s", error)
            return False

    def _post(self, url: str, body: bytes) -> bool:
        scheme, host, port, path = parse(url)
        connection = http.client.HTTPConnection(host, port, timeout=DEADLINE)
        connection.sock = self._dial(scheme, host, port)
        try:
            connection.request("POST", path, body, {"content-type": "application/json"})
            return connection.getresponse().status == _GOOD
        finally:
            connection.close()

    def _dial(self, scheme: str, host: str, port: int) -> socket.socket:
        """Raises OSError where no address of the host may be dialled."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        if not all(self.is_allowed(host, address) for address in addresses):
            raise PermissionError("its address is not public, and --media-allow does not name it")
        dialled = socket.create_connection((addresses[0], port), timeout=DEADLINE)
        if scheme == "https":
            return self._tls.wrap_socket(dialled, server_hostname=host)
        return dialled

    def is_allowed(self, host: str, address: str) -> bool:
        found = ip_address(address)
        return is_public(found) or self._allowed.is_named(host.lower().rstrip("."), found)


def parse(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path). Raises ValueError for what is no http or https URL, or has a
    user name in it."""
    parts = urlsplit(url)
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= LONGEST
    if not plain or parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not a URL of http or https")
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], path
