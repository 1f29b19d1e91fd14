"""What one request may ask, and how much of a body is read for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from omnivec.core.errors import TooLarge
from omnivec.core.nouns import Call, Clip, Limits
from omnivec.core.settings import Settings

Read = Callable[[], Awaitable[bytes]]


def limits(settings: Settings) -> Limits:
    last = settings.video_duration
    clip = Clip(settings.video_start, None if last < 0 else last, frames=settings.video_frames)
    return Limits(settings.max_items, settings.default_dims, clip)


async def read_within(most: int, call: Call, read: Read | None) -> bytes:
    """The body, where at most so many bytes are wanted; 0: none is read. Raises TooLarge, if it
    can before any of it was read."""
    if not most:
        return b""
    length = call.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise TooLarge(f"A body here may be {most} bytes long.")
    body = call.body if read is None else await read()
    if len(body) > most:
        raise TooLarge(f"A body here may be {most} bytes long.")
    return body
