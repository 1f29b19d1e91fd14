"""What the HTTP protocol answers by itself, before any application sees the request."""

from __future__ import annotations

import json
import logging
import re
from http import HTTPStatus
from typing import NamedTuple

import httptools

log = logging.getLogger("omnivec.http")

MAX_URL = 8 * 1024
MAX_HEAD = 16 * 1024
MAX_HEADERS = 100
MAX_WAITING = 128
"""Requests that a connection may send ahead of the answer that it waits for."""

_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Refusal(NamedTuple):
    """An answer, after which the connection is closed."""

    status: int
    code: str
    message: str

    def answer(self) -> bytes:
        """The whole response, in the envelope of OpenAI."""
        error = {
            "message": self.message,
            "type": "invalid_request_error",
            "param": None,
            "code": self.code,
        }
        body = json.dumps({"error": error}).encode()
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        return head.encode() + body


class Refused(Exception):  # noqa: N818 - it is not an error of ours
    """Raised in a parser callback: this request is answered here. A new one each time: what is
    raised again keeps the frames of all times before."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


MALFORMED = Refusal(400, "BAD_HTTP", "This is not a valid HTTP/1.1 request.")
BAD_HOST = Refusal(400, "BAD_HOST", "A request carries exactly one valid Host header.")
BAD_VERSION = Refusal(400, "BAD_HTTP", "HTTP/1.1 and HTTP/1.0 are spoken here.")
LONG_URL = Refusal(414, "URI_TOO_LONG", f"A URL may be {MAX_URL} bytes long.")
LARGE_HEAD = Refusal(431, "HEADERS_TOO_LARGE", f"Headers may be {MAX_HEAD} bytes together.")
MANY_HEADERS = Refusal(431, "HEADERS_TOO_LARGE", f"A request may have {MAX_HEADERS} headers.")
MANY_REQUESTS = Refusal(429, "TOO_MANY_REQUESTS", "Wait for answers before you send more.")
SLOW_HEAD = Refusal(408, "REQUEST_TIMEOUT", "The headers came too slowly.")
SLOW_BODY = Refusal(408, "REQUEST_TIMEOUT", "The body came too slowly.")
CROWDED = Refusal(503, "TOO_MANY_CONNECTIONS", "All connections are in use; try again.")


def valid_host(value: bytes) -> bytes:
    """The value of a Host header. Raises Refused."""
    if not _HOST.fullmatch(value):
        raise Refused(BAD_HOST)
    return value


def reason(error: httptools.HttpParserError) -> Refusal:
    """What stands behind the parser's error: a callback's refusal, or nonsense."""
    cause = error.__context__
    if isinstance(cause, Refused):
        return cause.refusal
    if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(
        cause, httptools.HttpParserError | ValueError
    ):
        log.error("a parser callback failed", exc_info=cause)
    return MALFORMED
