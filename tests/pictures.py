"""Pictures made on the spot: good ones, and ones that no decoder should believe."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def photo(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """Coarse noise, so that a lossy format keeps most of it."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    into = io.BytesIO()
    picture.save(into, kind, **options)
    return into.getvalue()


def png(width: int, height: int, *, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG whose header says so, whatever its data are. 8-bit RGB."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def tiff_of_directories(count: int) -> bytes:
    """A good first page, and so many more behind it."""
    entries = [
        (256, 3, 8),
        (257, 3, 8),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 8),
        (279, 4, 64),
    ]
    page = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    first, size = 8 + 64, len(page) + 4
    pages = b"".join(page + struct.pack("<I", first + (i + 1) * size) for i in range(count))
    return b"II*\0" + struct.pack("<I", first) + bytes(range(64)) + pages


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def animation(kind: str, frames: int) -> bytes:
    first, *others = [photo(seed=i) for i in range(frames)]
    return saved(first, kind, save_all=True, append_images=others, duration=10)


SIZES = [(0, 0), (1, 65_500), (65_500, 1), (12_500, 12_000), (14_500, 14_000), (2**31 - 1,) * 2]
"""Of pictures that must not even be begun."""

MASQUERADES = {
    "nothing": b"",
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "a page": b"<!DOCTYPE html><html><body>404</body></html>",
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a ZIP": b"PK\x03\x04" + b"\0" * 64,
    "gzip": b"\x1f\x8b\x08" + b"\0" * 64,
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    "ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "JPEG 2000": saved(photo(), "JPEG2000"),
    "an icon": saved(photo(), "ICO"),
    "a PPM": saved(photo(), "PPM"),
    "a TGA": saved(photo(), "TGA"),
    "AVIF": saved(photo(), "AVIF"),
    "random bytes": np.random.default_rng(0).bytes(4096),
    "a JPEG's first bytes": b"\xff\xd8\xff\xe0" + b"\0" * 64,
    "a PNG without data": png(30, 40),
    "a PNG of a text bomb": png(
        2,
        2,
        rows=b"\0" * 14,
        extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 50_000_000)),
    ),
    "a TIFF of one huge tile": b"II*\0\x08\0\0\0"
    + struct.pack("<H", 3)
    + b"".join(struct.pack("<HHII", tag, 4, 1, 2**31 - 1) for tag in (256, 257, 322))
    + b"\0" * 4,
}
"""Bytes that are no picture here."""
