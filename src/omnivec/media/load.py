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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TypeAlias, TypeVar

from omnivec.core.errors import AbsentFile, BadRequest, Fault, TooLarge
from omnivec.core.nouns import (
    Blob,
    Clip,
    File,
    Film,
    Image,
    Item,
    Manifest,
    Part,
    Pixels,
    Source,
    Url,
    Video,
)
from omnivec.core.settings import Settings
from omnivec.media import data_uri, manifest
from omnivec.media.addresses import Allowed
from omnivec.media.budget import Budget, Purse
from omnivec.media.child import UNREADABLE as NO_VIDEO
from omnivec.media.fetch import Fetcher, Refused
from omnivec.media.files import Forbidden, Roots
from omnivec.media.image_decoder import Decoder, Undecodable
from omnivec.media.manifest import Listing
from omnivec.media.memory import filled
from omnivec.media.pieces import Give, Piece, cancel, in_turn, kept, moving, put, replaced, spread
from omnivec.media.showing import Shot
from omnivec.media.video import Decoders

log = logging.getLogger("omnivec.media")

T = TypeVar("T")
Medium: TypeAlias = Image | Video | Manifest

PICTURE = 20_000_000
"""Bytes of a picture's file."""
VIDEO = 256_000_000
LONG_VIDEO = 8_000_000_000
"""Of one on this machine, of which only parts are read."""
LIST = 16_000_000  # of a manifest
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
LOST = (
    "No valid frame images found in manifest: a picture or a video that it lists cannot be read "
    "here."
)
UNREADABLE = (
    "This is no picture that can be read: JPEG, PNG, WebP, GIF, BMP or TIFF, whole, of at most "
    "20 MB and 50 million pixels, its longer side at most 200 times the shorter one."
)
LARGE = (
    f"A picture's file may have {PICTURE // 10**6} MB, a video's {VIDEO // 10**6} MB, and one on "
    f"this server {LONG_VIDEO // 10**6} MB."
)
DATA = "A data URI must be `data:`, the media type, `;base64,` and the file in base64."


class Share(NamedTuple):
    """What one request may take, and its turn on the threads."""

    budget: Budget
    turn: asyncio.Semaphore


class Loader:
    """Raises SettingsError for settings of no use."""

    def __init__(self, settings: Settings, purse: Purse | None = None) -> None:
        self.purse = purse or Purse()
        self._fetcher = Fetcher(Allowed(settings.media_allow), settings.port)
        self._roots = Roots(settings.media_root)
        self._most = settings.max_items
        self._decoder = Decoder()
        self._decoders = Decoders()
        self._turns = min(4, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(self._turns, "media")

    def close(self) -> None:
        self._fetcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._decoder.close()
        self._decoders.close()

    @asynccontextmanager
    async def loaded(
        self, items: Sequence[Item], names: Sequence[str]
    ) -> AsyncIterator[tuple[Item, ...]]:
        """The items, with pixels in place of sources; `names` are what their faults call them.
        Their memory counts as taken until the block ends. Raises BadRequest, TooLarge,
        Unsupported, Overloaded."""
        found = _found(items, names)
        with self.purse.opened() as budget:
            pixels = await self._all(found, self._share(budget))
            yield tuple(replaced(item, pixels) for item in items)

    @asynccontextmanager
    async def flowing(
        self, items: Sequence[Item], names: Sequence[str]
    ) -> AsyncIterator[AsyncIterator[Piece]]:
        """Like `loaded`, but an item for each frame of their videos, in order and as they are
        decoded: the caller frees each one's memory, and what is under way ends with the block.
        Both the block and the pieces raise these faults."""
        found = _found(items, names)
        with self.purse.opened() as budget:
            pieces = self._pieces(items, found, self._share(budget))
            async with aclosing(pieces):
                yield pieces

    def _share(self, budget: Budget) -> Share:
        return Share(budget, asyncio.Semaphore(self._turns))

    async def _pieces(
        self, items: Sequence[Item], found: dict[Medium, str], share: Share
    ) -> AsyncGenerator[Piece, None]:
        places = moving(items)
        films = {item.parts[at] for item, at in zip(items, places, strict=True) if at is not None}
        still = {medium: name for medium, name in found.items() if medium not in films}
        pixels = await self._all(still, share)
        for origin, (item, place) in enumerate(zip(items, places, strict=True)):
            rest = replaced(item, pixels)
            medium = None if place is None else rest.parts[place]
            if place is None or not isinstance(medium, Video | Manifest):
                for one in spread(rest):
                    yield Piece(origin, one)
                continue
            async with aclosing(self._frames(medium, found[medium], share)) as frames:
                async for frame, free in frames:
                    yield Piece(origin, put(rest, place, frame), frame.rgb.nbytes, free)

    async def _all(self, found: dict[Medium, str], share: Share) -> dict[Part, Pixels | Film]:
        names = found.values()
        loads = [self._one(medium, name, share) for medium, name in zip(found, names, strict=True)]
        return dict(zip(found, await _together(loads), strict=True))

    async def _one(self, medium: Medium, name: str, share: Share) -> Pixels | Film:
        """Raises faults that name the item."""
        with _named(name):
            if isinstance(medium, Image):
                return await self._picture(medium.source, share)
            if isinstance(medium, Video):
                return await self._film(medium.source, medium.clip, share)
            return await self._listed(await self._listing(medium.source), share)

    async def _frames(
        self, medium: Video | Manifest, name: str, share: Share
    ) -> AsyncGenerator[tuple[Pixels, Give], None]:
        """One by one, where they need not be there all at once, and what gives back their memory
        then. Raises as `_one` does."""
        with _named(name):
            if isinstance(medium, Video):
                async with aclosing(self._shots(medium.source, medium.clip, share)) as shots:
                    async for shot in shots:
                        yield shot.pixels, share.budget.give
                return
            listing = await self._listing(medium.source)
            if not listing.is_straight:
                for frame in (await self._listed(listing, share)).frames:
                    yield frame, kept
                return
            async with aclosing(self._rows(listing, share)) as rows:
                async for row in rows:
                    yield row, share.budget.give

    # ── pictures ─────────────────────────────────────────────────────────────────────────

    async def _picture(self, source: Source, share: Share) -> Pixels:
        fetched = await self._fetched(source, PICTURE, share)
        async with share.turn:
            return await self._aside(self._decoded, fetched, share.budget)

    def _decoded(self, source: Source | bytes, budget: Budget) -> Pixels:
        """On a thread. Raises Forbidden, Malformed, Undecodable."""
        try:
            data = self._content(source, "image/", PICTURE, budget)
            pixels = self._decoder.decode(data, lambda count: budget.take(3 * count))
        except Undecodable:
            if isinstance(source, File):  # what is there and is no picture might as well not be
                raise Forbidden from None
            raise
        if not isinstance(source, Blob):  # which is a part of the request, and stays
            budget.give(len(data))
        return pixels

    # ── videos ───────────────────────────────────────────────────────────────────────────

    async def _film(self, source: Source, clip: Clip, share: Share) -> Film:
        async with aclosing(self._shots(source, clip, share)) as shots:
            taken = [shot async for shot in shots]
        return Film(tuple(shot.pixels for shot in taken), tuple(shot.time for shot in taken))

    async def _shots(self, source: Source, clip: Clip, share: Share) -> AsyncGenerator[Shot, None]:
        fetched = await self._fetched(source, VIDEO, share)
        if not isinstance(fetched, File):
            copy = filled(partial(self._copy, fetched, share.budget), self._threads)
            del fetched  # else it would be there twice until the last frame
            async with copy as descriptor:
                async with aclosing(self._taken(descriptor, clip, share)) as shots:
                    async for shot in shots:
                        yield shot
                share.budget.give(os.fstat(descriptor).st_size)
            return
        with await self._aside(self._roots.open, fetched.path, LONG_VIDEO) as file:
            try:
                async with aclosing(self._taken(file.fileno(), clip, share)) as shots:
                    async for shot in shots:
                        yield shot
            except BadRequest as fault:  # what is there and is no video might as well not be
                raise (Forbidden if fault.message == NO_VIDEO else fault) from None

    def _copy(self, source: Source | bytes, budget: Budget, file: BinaryIO) -> None:
        """On a thread. Raises Malformed."""
        data = self._content(source, "video/", VIDEO, budget)
        budget.take(len(data))
        file.write(data)
        if not isinstance(source, Blob):  # which is a part of the request, and stays
            budget.give(len(data))

    async def _taken(self, descriptor: int, clip: Clip, share: Share) -> AsyncGenerator[Shot, None]:
        async with aclosing(self._decoders.stream(descriptor, clip)) as shots:
            async for shot in shots:
                share.budget.take(shot.pixels.rgb.nbytes)
                yield shot

    # ── lists of frames ──────────────────────────────────────────────────────────────────

    async def _listing(self, source: File) -> Listing:
        content = await self._aside(self._roots.read, source.path, LIST)
        return await self._aside(manifest.read, content, self._most)

    async def _listed(self, listing: Listing, share: Share) -> Film:
        """All frames that a manifest lists."""
        frames: dict[int, Pixels] = {}
        with _there():
            if listing.clip is not None and listing.video is not None:
                async with aclosing(self._shots(listing.video, listing.clip, share)) as shots:
                    frames = {shot.index: shot.pixels async for shot in shots}
            found = await _together([self._picture(one, share) for one in listing.pictures])
        return listing.film(dict(zip(listing.pictures, found, strict=True)), frames)

    async def _rows(self, listing: Listing, share: Share) -> AsyncGenerator[Pixels, None]:
        """The same one by one, of a list that is straight."""
        works = [partial(self._picture, one, share) for one in listing.pictures]
        with _there():
            async with (
                aclosing(in_turn(works, self._turns)) as pictures,
                aclosing(self._listed_shots(listing, share)) as shots,
            ):
                for place, entry in enumerate(listing.entries):
                    if entry.image_path:
                        yield await anext(pictures)
                        continue
                    shot = await anext(shots, None)
                    if shot is None or shot.index != entry.frame_number:
                        raise listing.absent(place)
                    yield shot.pixels

    async def _listed_shots(self, listing: Listing, share: Share) -> AsyncGenerator[Shot, None]:
        if listing.clip is None or listing.video is None:
            return
        async with aclosing(self._shots(listing.video, listing.clip, share)) as shots:
            async for shot in shots:
                yield shot

    # ── bytes ────────────────────────────────────────────────────────────────────────────

    async def _fetched(self, source: Source, most: int, share: Share) -> Source | bytes:
        """The content of what must be fetched, taken from the budget as it comes."""
        if isinstance(source, Url) and not data_uri.is_one(source.url):
            return await self._fetcher.fetch(source.url, most, share.budget.take)
        return source

    def _content(self, source: Source | bytes, kind: str, most: int, budget: Budget) -> bytes:
        """On a thread, for what was not fetched."""
        if isinstance(source, bytes):
            return source
        data = self._read(source, kind, most)
        budget.take(len(data))
        return data

    def _read(self, source: Source, kind: str, most: int) -> bytes:
        if isinstance(source, File):
            return self._roots.read(source.path, most)
        data = source.data if isinstance(source, Blob) else data_uri.read(source.url, kind)
        if len(data) > most:
            raise TooLarge(LARGE)
        return data

    async def _aside(self, work: Callable[..., T], *given: Any) -> T:
        """On one of the threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(work, *given))


async def _together(loads: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; the first that fails ends the others."""
    tasks = [asyncio.create_task(load) for load in loads]
    try:
        return await asyncio.gather(*tasks)
    finally:
        cancel(tasks)
        tasks.clear()  # else a fault holds, through its traceback, what the others have loaded


def has_media(items: Sequence[Item]) -> bool:
    return any(isinstance(part, Image | Video | Manifest) for item in items for part in item.parts)


def _found(items: Sequence[Item], names: Sequence[str]) -> dict[Medium, str]:
    """Each medium once, and the name of the first item that has it. Raises TooLarge."""
    found: dict[Medium, str] = {}
    for item, name in zip(items, names, strict=True):
        for part in item.parts:
            if isinstance(part, Image | Video | Manifest):
                found.setdefault(part, name)
    if len(found) > MANY:
        raise TooLarge(f"A request may have at most {MANY} pictures and videos.")
    return found


@contextmanager
def _there() -> Iterator[None]:
    """A file that cannot be had, of a manifest that is there itself."""
    try:
        yield
    except Forbidden:
        raise BadRequest(LOST) from None


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What goes wrong with a medium, as a fault that names the item."""
    try:
        yield
    except Refused as error:
        log.info("the URL of %s was not fetched: %s", name, error)
        raise BadRequest(FETCH, param=name) from None
    except Forbidden:
        raise AbsentFile(FILE, param=name) from None
    except data_uri.Malformed:
        raise BadRequest(DATA, param=name) from None
    except Undecodable:
        raise BadRequest(UNREADABLE, param=name) from None
    except Fault as fault:
        raise type(fault)(fault.message, param=name, retry_after=fault.retry_after) from None
