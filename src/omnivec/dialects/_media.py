"""Pictures and videos as clients name them: by URL, by path on the server, as base64."""

from __future__ import annotations

import base64
import binascii

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Blob, File, Source, Url

_WEB = ("http://", "https://")
_BLOCK = 2**18
_HEAD = 256  # of a data: URI before its comma
_ALPHABET = str.maketrans("-_", "+/")  # of base64url


def named(where: str) -> Source:
    """What has no scheme that is fetched is a path."""
    return Url(where) if where.lower().startswith((*_WEB, "data:")) else File(where)


def sent(text: str, field: str) -> Source:
    """A URL, a data: URI, or bare base64; never a path. Raises BadRequest."""
    if text.lower().startswith((*_WEB, "data:")):
        return Url(text)
    if "://" in text[:32]:
        raise BadRequest(
            f"`{field}` must be an http or https URL, a data: URI or base64.", param=field
        )
    return unpack(text, field)


def unpack(text: str, field: str) -> Blob:
    """base64, also with line breaks, without padding or in its alphabet for URLs, and as a
    data: URI. In pieces, between which other threads come to their turn. Raises BadRequest."""
    start = text.find(",", 0, _HEAD) + 1 if text[:5].lower() == "data:" else 0
    end = len(text.rstrip("= \t\r\n"))  # the padding comes back where it is needed
    pieces, left = [], b""
    try:
        for at in range(start, end, _BLOCK):
            piece = text[at : min(at + _BLOCK, end)]
            left += "".join(piece.split()).translate(_ALPHABET).encode("ascii")
            whole = len(left) - len(left) % 4
            pieces.append(_decoded(left[:whole]))
            left = left[whole:]
        pieces.append(_decoded(left, b"=" * (-len(left) % 4)))
    except (UnicodeEncodeError, binascii.Error):
        pieces = []
    if not (data := b"".join(pieces)):
        raise BadRequest(f"`{field}` must be base64 and not empty.", param=field)
    return Blob(data)


def _decoded(packed: bytes, padding: bytes = b"") -> bytes:
    if b"=" in packed:
        raise binascii.Error("padding before the end")
    return base64.b64decode(packed + padding, validate=True)
