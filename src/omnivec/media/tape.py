"""A video's packets: listed once without decoding any, then read from where decoding must begin.

Only the child process of `decoder` imports this.
"""

from __future__ import annotations

import gc
import io
import math
import os
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import pairwise
from typing import Any, cast

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from omnivec.media.messages import Cause, Open

CODECS = frozenset({
    "av1", "h263", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2",
    "msmpeg4v3", "prores", "theora", "vp8", "vp9",
})  # fmt: skip
DECODERS = ",".join(sorted(CODECS | {"libdav1d", "msmpeg4"}))
ONE_EACH = frozenset({"av1", "h264", "hevc", "mjpeg", "prores", "vp8", "vp9"})
TIMED = frozenset({"mov", "matroska"})
"""In these containers a packet of these codecs is one frame and has the time when it is shown.
In others FFmpeg guesses."""

_NEAR = 16  # packets: no farther off than this, reading on costs less than a seek
_USUAL_RATE = 25.0  # frames a second, of a file that does not say
_VP8_SHOWN = 0x10


class Refused(Exception):  # noqa: N818 - it is an answer and no error of this program
    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause: Cause = cause


class _File(io.RawIOBase):
    """A descriptor's file from its start, wherever others that read it are."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0
        self._size = os.fstat(descriptor).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = os.pread(self._descriptor, self._size if size < 0 else size, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at


class Tape:
    """`order[i]` is the packet, by its place in the file, that frame `i` is decoded from; empty
    when packets do not say (then frames must be counted as they are decoded)."""

    stream: VideoStream
    _container: InputContainer

    def __init__(self, descriptor: int, wishes: Open) -> None:
        self._descriptor = descriptor
        self._wishes = wishes
        self.threads = min(wishes.threads, os.cpu_count() or 1)
        self.load()
        self.stamps: list[int | None] = []
        self.keys: list[int] = []
        self._starts: list[int | None] = []
        self._places: dict[int | None, int] = {}
        self._seeks = False
        self.order = self._list()
        self._seeks = bool(self.order)

    @property
    def rate(self) -> float:
        """Frames a second."""
        rate = float(self.stream.average_rate or 0)
        return rate if math.isfinite(rate) and rate > 0 else _USUAL_RATE

    @property
    def count(self) -> int | None:
        """Frames, as far as can be told without decoding. What a container says is taken when
        it has as many packets, though some may be there for others' sake and never be shown."""
        if self.stream.frames == len(self.stamps):
            return self.stream.frames
        return len(self.order) or None

    def close(self) -> None:
        self._container.close()
        self._file.close()

    def load(self) -> None:
        """To its start, with all that decodes it anew. Raises Refused."""
        self._next = 0
        wishes = self._wishes
        options = {
            "codec_whitelist": DECODERS,
            "protocol_whitelist": "none",
            "max_pixels": str(wishes.pixels),
        }
        self._file = _File(self._descriptor)
        try:
            opened = av.open(self._file, format=wishes.format, options=options, buffer_size=1 << 18)
        except (FFmpegError, EOFError, ValueError) as error:
            raise Refused("memory" if isinstance(error, MemoryError) else "unreadable") from error
        self._container = cast(InputContainer, opened)  # as it is opened for reading
        self.stream = self._video(self._container)

    def copy(self) -> Tape:
        """To be read and decoded beside this one, on one thread. Raises Refused."""
        other = copy(self)
        other.threads = 1
        other.load()
        return other

    def rewind(self) -> None:
        self.close()
        self.load()
        gc.collect()  # the parts of what was closed refer to one another, and have large buffers

    def read(self, start: int = 0) -> Iterator[tuple[int, Packet[Any]]]:
        """Packets and their places, from `start` on; what cannot be read ends them."""
        self._go(start)
        try:
            for packet in self._container.demux(self.stream):
                if packet.size == 0:
                    return  # PyAV's mark for the end
                place = self._next
                self._next += 1
                if place >= start:
                    yield place, packet
        except (FFmpegError, EOFError):
            return

    def learn(self, stamps: Sequence[int | None]) -> None:
        """What decoding all of it gave: the frames' times in their order. Where each is that of
        one packet, nothing has to be decoded for the sake of counting any more."""
        places = [place for stamp in stamps if (place := self._places.get(stamp)) is not None]
        times = [stamp for stamp in stamps if stamp is not None]
        if len(places) == len(times) == len(stamps) and self.keys[:1] == [0]:
            alone = len(self._places) == len(self.stamps)
            rising = all(one < other for one, other in pairwise(times))
            self.order = places if alone and rising else []

    def _go(self, place: int) -> None:
        """To `place` or somewhat before it. A seek is trusted only as far as the first packet
        after it is recognised, and only where containers say when a packet is shown."""
        if self._next <= place <= self._next + (_NEAR if self._seeks else len(self.stamps)):
            return
        if self._seeks and place and self._seek(place):
            return
        self.rewind()

    def _seek(self, place: int) -> bool:
        at = self._starts[place]
        if at is None:
            at = self.stamps[place]
        try:
            self._container.seek(at or 0, stream=self.stream)
            landed = next(iter(self._container.demux(self.stream)))
            found = self._places.get(landed.pts)
            if found is None or found > place:
                return False
            self._container.seek(at or 0, stream=self.stream)
        except (FFmpegError, StopIteration):
            return False
        self._next = found
        return True

    def _video(self, container: InputContainer) -> VideoStream:
        if not container.streams.video:
            raise Refused("no video")
        stream = container.streams.video[0]
        context: VideoCodecContext | None = stream.codec_context  # None: nothing here decodes it
        if context is None or context.codec.canonical_name not in CODECS:
            raise Refused("codec")
        wishes = self._wishes
        width, height = context.width, context.height
        if max(width, height) > wishes.side or width * height > wishes.pixels:
            raise Refused("size")
        context.thread_type = "AUTO"
        context.thread_count = self.threads
        return stream

    def _list(self) -> list[int]:
        codec = self.stream.codec_context.codec.canonical_name
        shown: list[int] = []
        for place, packet in self.read():
            if place >= self._wishes.packets:
                raise Refused("packets")
            self.stamps.append(packet.pts)
            self._starts.append(packet.dts)
            if packet.is_keyframe:
                self.keys.append(place)
            if not packet.is_discard and (codec != "vp8" or bytes(packet)[0] & _VP8_SHOWN):
                shown.append(place)
        if not self.stamps:
            raise Refused("empty")
        self._places = {stamp: place for place, stamp in enumerate(self.stamps)}
        return self._ranked(shown) if codec in ONE_EACH and self._wishes.format in TIMED else []

    def _ranked(self, shown: list[int]) -> list[int]:
        """Packets by their times, when all have one of their own and decoding can begin with
        the first: when it is a key, and none that follows it is to be shown before it."""
        times = [stamp for stamp in self.stamps if stamp is not None]
        if len(self._places) < len(self.stamps) or len(times) < len(self.stamps):
            return []
        if self.keys[:1] != [0] or min(times) < times[0]:
            return []
        return sorted(shown, key=times.__getitem__)
