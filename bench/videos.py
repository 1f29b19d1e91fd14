"""What frames of a video cost: a few of them, all, and a few the way that decodes everything.
No server and no model."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

from bench.places import VIDEOS
from omnivec.core.nouns import Clip
from omnivec.media.video import Decoders

FEW = 8
NAMES = ("bottle-detection.mp4", "car-detection.mp4")
SEEKING = f"{FEW} frames"
EVERY = "all frames"
DECODING = f"{FEW} frames, decoding all"
ONE = "1 frame"
WAYS = (SEEKING, EVERY, DECODING, ONE)


def measure(repeats: int) -> Iterator[dict[str, Any]]:
    """Each way in turn, so that a repeat's figures may be compared; a warm child."""
    with asyncio.Runner() as runner:
        decoders = Decoders(most=1)
        try:
            for name in NAMES if VIDEOS.is_dir() else ():
                video = (VIDEOS / name).read_bytes()
                runner.run(_take(decoders, video, Clip(frames=1)))
                for repeat in range(repeats):
                    for way in WAYS:
                        frames, spent = runner.run(_timed(decoders, video, way))
                        about = {"suite": "videos", "server": "omnivec", "repeat": repeat}
                        named = {"workload": f"{name}: {way}", "frames": frames}
                        yield {**about, **named, "ms": 1e3 * spent}
        finally:
            decoders.close()


async def _timed(decoders: Decoders, video: bytes, way: str) -> tuple[int, float]:
    ways: dict[str, Callable[[], Awaitable[int]]] = {
        SEEKING: lambda: _take(decoders, video, Clip(frames=FEW)),
        EVERY: lambda: _take(decoders, video, Clip(frames=0)),
        DECODING: lambda: asyncio.to_thread(_decode_all, video),
        ONE: lambda: _take(decoders, video, Clip(indexes=(0,))),
    }
    began = time.perf_counter()
    frames = await ways[way]()
    return frames, time.perf_counter() - began


async def _take(decoders: Decoders, video: bytes, clip: Clip) -> int:
    """Frames are let go as they come, as they are when a model takes them."""
    async with aclosing(decoders.stream(video, clip)) as shots:
        return sum([1 async for _ in shots])


def _decode_all(video: bytes) -> int:
    """What Intel's service does, but for its copies: decodes everything in this process, and
    turns into RGB what was asked for."""
    import av

    with av.open(io.BytesIO(video)) as opened:
        total = opened.streams.video[0].frames
        wanted = {index * total // FEW for index in range(FEW)}
        shown = enumerate(opened.decode(video=0))
        return sum(1 for index, frame in shown if index in wanted and _rgb(frame))


def _rgb(frame: Any) -> bool:
    return bool(frame.to_ndarray(format="rgb24").size)
