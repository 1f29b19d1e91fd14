"""Pictures and videos as clients name them: by URL, by path on the server, as base64."""

from __future__ import annotations

import base64
import binascii

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Blob, File, Source, Url

_WEB = ("http://", "https://")
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
    data: URI. Raises BadRequest."""
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    try:
        packed = "".join(text.split()).translate(_ALPHABET).rstrip("=").encode("ascii")
        data = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        data = b""
    if not data:
        raise BadRequest(f"`{field}` must be base64 and not empty.", param=field)
    return Blob(data)
