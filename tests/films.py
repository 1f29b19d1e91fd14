"""Videos for tests: made on the spot, changed, or from the data that lies beside the project."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest

from omnivec.core.nouns import Array

DATA = Path(__file__).parents[2] / "shared" / "data" / "video"
REAL = ("bottle-detection.mp4", "car-detection.mp4", "small_video.mp4", "bird.mkv", "book.mkv")
av.logging.set_level(None)


def real(name: str) -> bytes:
    if not DATA.is_dir():
        pytest.skip("the example videos lie beside the project, in shared/data, and are not here")
    return (DATA / name).read_bytes()


def make(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    frames: int = 40,
    size: tuple[int, int] = (64, 48),
    pixels: str = "yuv420p",
    codec_options: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> bytes:
    """A video at 25 frames a second, each unlike the others."""
    out = io.BytesIO()
    with av.open(out, "w", format=container, options=dict(options or {})) as written:
        stream = written.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.options = {"g": "12", **(codec_options or {})}
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, size), format="rgb24")
            written.mux(stream.encode(frame))
        written.mux(stream.encode())
    return out.getvalue()


def picture(index: int, size: tuple[int, int]) -> Array:
    width, height = size
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, :, 0] = index * 5 % 256
    rgb[index % height, :, 1] = 255
    rgb[:, index * 3 % width, 2] = 255
    return rgb


def remux(video: bytes, container: str, options: Mapping[str, str] | None = None) -> bytes:
    """The same packets, which must have decoding times, in another container."""
    out = io.BytesIO()
    with (
        av.open(io.BytesIO(video)) as read,
        av.open(out, "w", format=container, options=dict(options or {})) as written,
    ):
        source = read.streams.video[0]
        stream = written.add_stream_from_template(source)
        for packet in read.demux(source):
            if packet.size and packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    return out.getvalue()


def uneven(video: bytes) -> bytes:
    """The same packets in Matroska, every seventh shown for much longer."""
    out = io.BytesIO()
    with av.open(io.BytesIO(video)) as read, av.open(out, "w", format="matroska") as written:
        source = read.streams.video[0]
        stream = written.add_stream_from_template(source)
        step = 512  # of make's clock
        for packet in read.demux(source):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts += packet.pts // (7 * step) * 5 * step
                packet.dts += packet.dts // (7 * step) * 5 * step
                packet.stream = stream
                written.mux(packet)
    return out.getvalue()


def sound() -> bytes:
    """A file without a picture."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as written:
        stream = written.add_stream("aac", rate=8000, layout="mono")
        silence = np.zeros((1, 8000), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        written.mux(stream.encode(frame))
        written.mux(stream.encode())
    return out.getvalue()


def decode_all(video: bytes) -> list[Array]:
    """Every frame, [H, W, 3], decoded from the first to the last in this process."""
    with av.open(io.BytesIO(video)) as opened:
        return [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]


@lru_cache(8)
def digests(video: bytes) -> list[bytes]:
    """Of every frame, as `digest` makes them."""
    with av.open(io.BytesIO(video)) as opened:
        return [digest(frame.to_ndarray(format="rgb24")) for frame in opened.decode(video=0)]


def digest(rgb: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(rgb), digest_size=16).digest()


def with_matrix(video: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 that asks to be shown turned: a, b, c and d of its display matrix."""
    a, b, c, d = (one.to_bytes(2, "big", signed=True) + b"\0\0" for one in matrix)
    at = video.index(b"tkhd") + 4 + 40
    zero = b"\0" * 4
    return video[:at] + a + b + zero + c + d + zero + video[at + 24 :]


def declaring(video: bytes, seconds: int) -> bytes:
    """An MP4 that says it lasts that long."""
    changed = bytearray(video)
    for box, at in ((b"mvhd", 12), (b"mdhd", 12)):
        begin = video.index(box) + 4 + at
        scale = int.from_bytes(video[begin : begin + 4], "big")
        changed[begin + 4 : begin + 8] = (seconds * scale).to_bytes(4, "big")
    return bytes(changed)
