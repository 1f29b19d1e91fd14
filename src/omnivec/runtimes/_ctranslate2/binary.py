"""The file `model.bin` of CTranslate2, version 6, written without its own classes for that: they
import torch where it is installed.

The format (github.com/OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py), all of it
little endian: the version; the model's kind and that kind's own revision; how many variables
there are and each one's name, number of axes, axes, number of its dtype, bytes, and the bytes
themselves; how many aliases there are. A text is its length with the zero byte that ends it, and
its bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from omnivec.core.nouns import Array

VERSION = 6
KIND, REVISION = "TransformerEncoderSpec", 1
DTYPES = {"float32": 0, "int8": 1, "int16": 2}


def write(file: Path, variables: Mapping[str, Array]) -> None:
    """Raises OSError."""
    with file.open("wb") as opened:
        opened.writelines(_pieces(variables))


def _pieces(variables: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    yield struct.pack("<I", VERSION) + _text(KIND)
    yield struct.pack("<II", REVISION, len(variables))
    for name, array in variables.items():
        axes = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        yield _text(name) + axes + struct.pack("<BI", DTYPES[array.dtype.name], array.nbytes)
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    yield struct.pack("<I", 0)


def _text(text: str) -> bytes:
    content = text.encode() + b"\0"
    return struct.pack("<H", len(content)) + content
