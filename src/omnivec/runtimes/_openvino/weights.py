"""Tensors of safetensors files, read where they lie: float32 ones are views of the file.

Those of torch.save's files are read by core/torchfile.py, and likewise views.

The format (github.com/huggingface/safetensors): 8 bytes with the header's length, little
endian; a JSON header of name to dtype, shape and byte offsets; then the bytes. It is read
here and not by the safetensors package because numpy has no bfloat16 and that package's
numpy reader refuses it.
"""

from __future__ import annotations

import mmap
from math import prod
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from omnivec.core import torchfile
from omnivec.core.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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


class Weights:
    """The tensors of `files`, which belong to the model called `name`.

    Raises CheckpointError when a file is cut short or its header is no header.
    """

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name = name
        self.prefix = ""
        self.rounding = False  # whether graphs made of these weights multiply in int8
        self._found: dict[str, tuple[Path, Array, str]] = {}
        self._mapped: list[mmap.mmap] = []
        for file in files:
            self._open(file)

    def __contains__(self, key: str) -> bool:
        return self.prefix + key in self._found

    def root(self, anchor: str) -> None:
        """Finds `anchor` under whatever prefix this file gives it ("bert.", "model.", none),
        and looks up every later name under the same prefix. Raises CheckpointError."""
        prefixes = [key.removesuffix(anchor) for key in self._found if key.endswith(anchor)]
        if not prefixes:
            raise self._missing(anchor)
        self.prefix = min(prefixes, key=len)

    def take(self, key: str, *shape: int | None) -> Floats:
        """The tensor as float32, of `shape` (None: any size). Raises CheckpointError when it
        is missing or has another shape."""
        if key not in self:
            raise self._missing(self.prefix + key)
        file, array, dtype = self._found[self.prefix + key]
        if len(array.shape) != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, array.shape, strict=True)
        ):
            wanted = " x ".join("any" if size is None else str(size) for size in shape)
            raise CheckpointError(
                f"{self.name}: tensor {self.prefix + key!r} of {file.name} is "
                f"{' x '.join(map(str, array.shape))}, and config.json says {wanted}"
            )
        return _floats(array, dtype)

    def outer(self) -> Weights:
        """The same tensors without the prefix: where a classification head lies."""
        other = Weights(self.name, ())
        other._found = self._found
        return other

    def rounded(self) -> Weights:
        """The same tensors for the body of a graph in int8; heads take the others."""
        other = self.outer()
        other.prefix, other.rounding = self.prefix, True
        return other

    def rest(self) -> None:
        """Gives the files' pages back to the system, which reads them again when they are
        next touched: once a graph has packed its weights, few ever are."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._mapped:
                mapped.madvise(mmap.MADV_DONTNEED)

    def _open(self, file: Path) -> None:
        try:
            with file.open("rb") as opened:
                # copy on write, because OpenVINO shares writable memory only; nothing writes
                mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise self._corrupt(file) from error
        self._mapped.append(mapped)
        content = np.frombuffer(mapped, np.uint8)
        if file.suffix != ".safetensors":
            for key, tensor in torchfile.read(self.name, file, content).items():
                self._found[key] = (file, tensor.array, tensor.dtype)
            return
        entries, start = self._header(file, content)
        for key, entry in entries.items():
            self._found[key] = (file, self._tensor(file, content[start:], entry), entry.dtype)

    def _header(self, file: Path, content: Array) -> tuple[dict[str, _Entry], int]:
        size = int.from_bytes(content[:_LENGTH].tobytes(), "little")
        start = _LENGTH + size
        if size > _LONGEST_HEADER or start > len(content):
            raise self._corrupt(file)
        try:
            raw = msgspec.json.decode(content[_LENGTH:start].tobytes(), type=dict[str, msgspec.Raw])
            raw.pop("__metadata__", None)
            entries = {key: msgspec.json.decode(raw[key], type=_Entry) for key in raw}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._corrupt(file) from error
        return entries, start

    def _tensor(self, file: Path, data: Array, entry: _Entry) -> Array:
        if entry.dtype not in _DTYPES:
            raise CheckpointError(
                f"{self.name}: {file.name} holds {entry.dtype} tensors; this runtime reads "
                f"{', '.join(_DTYPES)}"
            )
        dtype = _DTYPES[entry.dtype]
        begin, end = entry.data_offsets
        fits = 0 <= begin <= end <= len(data) and min(entry.shape, default=0) >= 0
        if not fits or end - begin != prod(entry.shape) * dtype.itemsize:
            raise self._corrupt(file)
        if begin % dtype.itemsize or not data[begin:].flags.aligned:
            return np.frombuffer(data[begin:end].tobytes(), dtype).reshape(entry.shape)
        return data[begin:end].view(dtype).reshape(entry.shape)

    def _corrupt(self, file: Path) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: {file.name} is not a whole safetensors file (cut short, or something "
            "else under that name); download the model again"
        )

    def _missing(self, key: str) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: tensor {key!r} is not among the weights; either the download is "
            "incomplete or config.json belongs to another model"
        )


def _floats(array: Array, dtype: str) -> Floats:
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)
