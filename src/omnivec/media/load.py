"""A request's pictures and videos, wherever they are, as pixels.

All of a request at once, each source once. Fetching is on the event loop; reading files,
base64 and talking to the decoder are on a few threads, of which no request has more than its
turn. A fault names the item, and says nothing of what is behind a URL or a path: for each of
these there is one text, whatever went wrong.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import msgspec

from omnivec.core.errors import BadRequest, Fault, TooLarge, Unsupported
from omnivec.core.nouns import Blob, File, Film, Image, Item, Part, Pixels, Url, Video
from omnivec.core.settings import Settings
from omnivec.media import data_uri
from omnivec.media.addresses import Allowed
from omnivec.media.budget import Budget, Purse
from omnivec.media.fetch import Fetcher, Refused
from omnivec.media.files import Forbidden, Roots
from omnivec.media.image_decoder import Decoder, Undecodable

log = logging.getLogger("omnivec.media")

Medium: TypeAlias = Image | Video

PICTURE = 20_000_000
"""Bytes of a picture's file."""
VIDEO = 512_000_000
MANY = 512
"""Different pictures and videos in one request."""

FETCH = (
    "This URL could not be fetched: it must lead to a picture or a video at a public http or "
    "https address (others only where --media-allow names them), within the server's limits."
)
FILE = (
    "This file cannot be read here: it must be a picture or a video below a folder that the "
    "server was given with --media-root, within the server's limits."
)
UNREADABLE = (
    "This is no picture that can be read: JPEG, PNG, WebP, GIF, BMP or TIFF, whole, of at most "
    "20 MB and 50 million pixels, its longer side at most 200 times the shorter one."
)
DATA = "A data URI must be `data:`, the media type, `;base64,` and the file in base64."


class Loader:
    """Raises SettingsError for settings of no use."""

    def __init__(self, settings: Settings, purse: Purse | None = None) -> None:
        self.purse = purse or Purse()
        self._fetcher = Fetcher(Allowed(settings.media_allow), settings.port)
        self._roots = Roots(settings.media_root)
        self._decoder = Decoder()
        self._turns = min(4, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(self._turns, "media")

    def close(self) -> None:
        self._fetcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._decoder.close()

    @asynccontextmanager
    async def loaded(
        self, items: Sequence[Item], names: Sequence[str]
    ) -> AsyncIterator[tuple[Item, ...]]:
        """The items, with pixels in place of sources; `names` are what their faults call them.
        Their memory counts as taken until the block ends. Raises BadRequest, TooLarge,
        Unsupported, Overloaded."""
        found: dict[Medium, str] = {}
        for item, name in zip(items, names, strict=True):
            for part in item.parts:
                if isinstance(part, Image | Video):
                    found.setdefault(part, name)
        if len(found) > MANY:
            raise TooLarge(f"A request may have at most {MANY} pictures and videos.")
        with self.purse.opened() as budget:
            pixels = await self._all(found, budget)
            yield tuple(_replaced(item, pixels) for item in items)

    async def _all(self, found: dict[Medium, str], budget: Budget) -> dict[Part, Pixels | Film]:
        turn = asyncio.Semaphore(self._turns)
        tasks = [
            asyncio.create_task(self._one(medium, name, budget, turn))
            for medium, name in found.items()
        ]
        try:
            return dict(zip(found, await asyncio.gather(*tasks), strict=True))
        finally:
            for task in tasks:
                task.cancel()

    async def _one(
        self, medium: Medium, name: str, budget: Budget, turn: asyncio.Semaphore
    ) -> Pixels | Film:
        if isinstance(medium, Video):
            raise Unsupported("Videos are not read here yet.", param=name)
        source = medium.source
        try:
            if isinstance(source, Url) and not data_uri.is_one(source.url):
                source = Blob(await self._fetcher.fetch(source.url, PICTURE))
            async with turn:
                work = partial(self._picture, source, budget)
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Refused as error:
            log.info("a URL was not fetched: %s", error)
            raise BadRequest(FETCH, param=name) from None
        except Fault as fault:
            raise type(fault)(fault.message, param=name, retry_after=fault.retry_after) from None

    def _picture(self, source: Blob | File | Url, budget: Budget) -> Pixels:
        """On a thread."""
        try:
            data = self._bytes(source)
            budget.take(len(data))
            return self._decoder.decode(data, lambda count: budget.take(3 * count))
        except (Forbidden, Undecodable):
            raise BadRequest(FILE if isinstance(source, File) else UNREADABLE) from None
        except data_uri.Malformed:
            raise BadRequest(DATA) from None

    def _bytes(self, source: Blob | File | Url) -> bytes:
        if isinstance(source, File):
            return self._roots.read(source.path, PICTURE)
        if isinstance(source, Url):
            return data_uri.read(source.url, "image/", PICTURE)
        if len(source.data) > PICTURE:
            raise Undecodable
        return source.data


def has_media(items: Sequence[Item]) -> bool:
    return any(isinstance(part, Image | Video) for item in items for part in item.parts)


def _replaced(item: Item, pixels: dict[Part, Pixels | Film]) -> Item:
    parts = tuple(pixels[part] if isinstance(part, Image | Video) else part for part in item.parts)
    return msgspec.structs.replace(item, parts=parts)
