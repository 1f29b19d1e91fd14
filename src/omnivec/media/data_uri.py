"""Files inside a URL: `data:image/png;base64,iVBOR…` (RFC 2397, base64 alone)."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

HEAD = 256
"""Characters before the comma."""
_BLANK = b" \t\r\n\v\f"
_ANY = ("", "application/octet-stream")


class Malformed(Exception):  # noqa: N818 - said of the URI
    """It has no file in base64."""


def is_one(url: str) -> bool:
    return url[:5].lower() == "data:"


def read(url: str, kind: str) -> bytes:
    """The file, its media type beginning with `kind` if it has one.
    What it really is, its own first bytes say. Raises Malformed."""
    head, comma, _ = url[5 : 5 + HEAD].partition(",")
    named, *options = head.lower().split(";")
    if not comma or not options or options[-1].strip() != "base64":
        raise Malformed
    if named.strip() not in _ANY and not named.strip().startswith(kind):
        raise Malformed
    start = 5 + len(head) + 1
    try:
        letters = url[start:].encode("ascii")
    except UnicodeEncodeError:
        raise Malformed from None
    if b"%" in letters:
        letters = unquote_to_bytes(letters)
    letters = letters.translate(None, _BLANK).rstrip(b"=")
    try:
        data = base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except binascii.Error:
        raise Malformed from None
    if not data:
        raise Malformed
    return data
