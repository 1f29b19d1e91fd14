"""Who may come in: API keys, and the names under which a server on loopback may be called."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

from omnivec.core.errors import BadRequest, Forbidden, Unauthorized
from omnivec.core.exposure import is_loopback
from omnivec.core.nouns import Call

OPEN = frozenset({"/live", "/livez", "/healthz", "/ping", "/ready", "/readyz"})
"""The only paths that answer without a key; every other path is closed when there are keys."""

_PORT = re.compile(r":[0-9]{1,5}\Z")
_SAFE = ("GET", "HEAD", "OPTIONS")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Keys:
    """The API keys, kept as SHA-256 digests and compared in constant time.

    A key is taken from `Authorization: Bearer` (or without that word, as some of RunPod's
    examples have it), `x-api-key` or `api-key`, and as the password of `Authorization: Basic`,
    which is what a browser can send; never from the query or a cookie. A browser that opens a
    WebSocket can choose nothing but subprotocols, so a key is taken from there too, as
    `bearer.KEY` with the key in base64url (without padding, as a subprotocol may have no "=");
    it is never repeated in the answer. Without keys every header passes, an empty or a made-up
    one too.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys if key)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises `Unauthorized` unless one of the headers carries a key. Names in lower case."""
        if not self._digests:
            return
        given = (
            _credential(headers.get("authorization", "")),
            headers.get("x-api-key", ""),
            headers.get("api-key", ""),
        )
        if not any(key and self._knows(key) for key in given) and not self.offered(headers):
            raise Unauthorized("A valid API key is needed, as Authorization: Bearer KEY.")

    def offered(self, headers: Mapping[str, str]) -> bool:
        """Whether one of the subprotocols is a key."""
        offers = headers.get("sec-websocket-protocol", "")
        given = (_unwrapped(offer.strip()) for offer in offers.split(","))
        return any(key and self._knows(key) for key in given)

    def _knows(self, key: str) -> bool:
        digest = _digest(key)
        found = False
        for known in self._digests:  # all of them: the time must not tell which one matched
            found |= hmac.compare_digest(digest, known)
        return found


class Hosts:
    """The Host headers that a server answers to. A page of a foreign site can point its own
    name at 127.0.0.1 (DNS rebinding) and would then speak to a server on loopback that asks
    for no key; so that one answers to loopback's names and its configured one alone."""

    def __init__(self, host: str, *, keyed: bool) -> None:
        self._names = None if keyed or not is_loopback(host) else _LOOPBACK | {_bracket(host)}

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises `BadRequest` for a Host that is not one of this server's. Every browser sends
        one, so a call without any is none of a foreign page's."""
        host = headers.get("host")
        if self._names is None or host is None:
            return
        if host not in self._names and _PORT.sub("", host).lower() not in self._names:
            raise BadRequest(
                "This Host header is not accepted: without an API key this server answers to "
                "localhost only."
            )


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page that is not of this server's host asks. Browsers let every page open
    a WebSocket, and post what it likes, with the cookies and passwords of the person before
    it; they send Origin with each, and other clients send none. Ports do not count, so that a
    dashboard on one's own machine may do it."""
    origin = headers.get("origin")
    if origin is None:
        return False
    pages, own = _place(origin.rpartition("/")[2]), _place(headers.get("host", ""))
    return pages != own and not (pages in _LOOPBACK and own in _LOOPBACK)


def check_page(call: Call) -> None:
    """Raises `Forbidden` where a page of another host would have something done. A key in a
    header is nothing that a browser adds by itself, as it does a password."""
    headers = call.headers
    if call.method in _SAFE or not is_foreign(headers):
        return
    bearer = headers.get("authorization", "")
    named = bearer and bearer.partition(" ")[0].lower() != "basic"
    if not (named or headers.get("x-api-key") or headers.get("api-key")):
        raise Forbidden("A page of another site may not call this server without a key.")


def challenge(call: Call) -> str:
    """The value of WWW-Authenticate: a browser that opens a page is asked for a password."""
    page = call.method == "GET" and "text/html" in call.headers.get("accept", "")
    return 'Basic realm="omnivec: the API key is the password"' if page else "Bearer"


def _credential(header: str) -> str:
    """The key in an Authorization header, "" where there is none."""
    scheme, space, token = header.partition(" ")
    if scheme.lower() == "bearer":
        return token
    if not space:
        return header
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(token, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _unwrapped(offer: str) -> str:
    """The key in a subprotocol, "" where there is none."""
    if not offer.startswith("bearer."):
        return ""
    text = offer.removeprefix("bearer.")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return ""


def _place(host: str) -> str:
    return _PORT.sub("", host).lower()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()
