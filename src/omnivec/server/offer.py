"""A request that offers another protocol: read again without the offer, and whether the offer
was one that may be taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})


def plain_head(scope: Mapping[str, Any], url: bytes) -> bytes:
    """The head of the request as it is without the offer."""
    kept = [header for header in scope["headers"] if header[0] not in _OFFER]
    return b"".join(
        [scope["method"].encode(), b" ", url, b" HTTP/1.1\r\n"]
        + [b"%b: %b\r\n" % header for header in kept]
        + [b"\r\n"]
    )


def is_socket(scope: Mapping[str, Any]) -> bool:
    """Whether it offers WebSocket and nothing else."""
    offers = [value.lower() for name, value in scope["headers"] if name == b"upgrade"]
    return offers == [b"websocket"] and (scope["method"], scope["http_version"]) == ("GET", "1.1")
