"""Tensors of safetensors files, read where they lie: float32 ones are views of the file.

The format (github.com/huggingface/safetensors): 8 bytes with the header's length, little
endian; a JSON header of name to dtype, shape and byte offsets; then the bytes. It is read
here and not by the safetensors package because numpy has no bfloat16 and that package's
numpy reader refuses it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Array, Floats

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # the upper half of a float32
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_LENGTH = 8  # bytes that tell the length of the header
_LONGEST_HEADER = 100_000_000  # bytes, as in the format's own reader


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Tensor(NamedTuple):
    """One tensor of `file` as it lies there; numpy has no type for some of them."""

    file: Path
    stored: Array
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def floats(self) -> Floats:
        """As float32; of a float32 tensor no copy is made."""
        if self.dtype == "BF16":
            return (self.stored.astype(np.uint32) << 16).view(np.float32)
        return self.stored.astype(np.float32, copy=False)


class TensorFile:
    """The tensors of one file, which belong to what is called `name`.

    Raises CheckpointError when the file is cut short or its header is no header.
    """

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.file = file
        try:
            with file.open("rb") as opened:
                # copy on write, because OpenVINO shares writable memory only; nothing writes
                self.mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise self._corrupt() from error
        self._content = np.frombuffer(self.mapped, np.uint8)
        self._entries, self._start = self._header()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Each by its name. Raises CheckpointError for one that is not wholly there."""
        data = self._content[self._start :]
        for key, entry in self._entries.items():
            yield key, Tensor(self.file, self._tensor(data, entry), entry.dtype)

    def _header(self) -> tuple[dict[str, _Entry], int]:
        content = self._content
        size = int.from_bytes(content[:_LENGTH].tobytes(), "little")
        start = _LENGTH + size
        if size > _LONGEST_HEADER or start > len(content):
            raise self._corrupt()
        try:
            raw = msgspec.json.decode(content[_LENGTH:start].tobytes(), type=dict[str, msgspec.Raw])
            raw.pop("__metadata__", None)
            entries = {key: msgspec.json.decode(raw[key], type=_Entry) for key in raw}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._corrupt() from error
        return entries, start

    def _tensor(self, data: Array, entry: _Entry) -> Array:
        if entry.dtype not in _DTYPES:
            raise CheckpointError(
                f"{self.name}: {self.file.name} holds {entry.dtype} tensors; this runtime reads "
                f"{', '.join(_DTYPES)}"
            )
        dtype = _DTYPES[entry.dtype]
        begin, end = entry.data_offsets
        fits = 0 <= begin <= end <= len(data) and min(entry.shape, default=0) >= 0
        if not fits or end - begin != prod(entry.shape) * dtype.itemsize:
            raise self._corrupt()
        if begin % dtype.itemsize or not data[begin:].flags.aligned:
            return np.frombuffer(data[begin:end].tobytes(), dtype).reshape(entry.shape)
        return data[begin:end].view(dtype).reshape(entry.shape)

    def _corrupt(self) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: {self.file.name} is not a whole safetensors file (cut short, or "
            "something else under that name); download the model again"
        )
