"""The pictures that are sent: real photographs, or waves and noise where there are none."""

from __future__ import annotations

import base64
import io
import random

import numpy as np

from bench.places import PHOTOS

COUNT = 256
SIZE = (534, 400)  # rows, columns: those of most of the photographs
QUALITY = 88
URI = "data:image/jpeg;base64,"


def files(count: int = COUNT) -> list[bytes]:
    """JPEG files, no two alike, always the same."""
    found = sorted(PHOTOS.glob("*/*.jpg"))
    random.Random(0).shuffle(found)
    return [path.read_bytes() for path in found[:count]] if found else _drawn(count)


def uris(count: int = COUNT) -> list[str]:
    return [URI + base64.b64encode(file).decode() for file in files(count)]


def _drawn(count: int) -> list[bytes]:
    from PIL import Image

    noise = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    made = []
    for at in range(count):
        waves = 60 * (np.sin(columns / (20 + at)) + np.cos(rows / (15 + at))) + 120
        pixels = np.stack([waves, columns * 0.4, rows * 0.4], 2) + noise.normal(0, 4, (*SIZE, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
        made.append(file.getvalue())
    return made
