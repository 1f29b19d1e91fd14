"""Tensors of safetensors files, read where they lie: float32 ones are views of the file.

Those of torch.save's files are read by core/torchfile.py, and likewise views.

The format (github.com/huggingface/safetensors): 8 bytes with the header's length, little
endian; a JSON header of name to dtype, shape and byte offsets; then the bytes. It is read
here and not by the safetensors package because numpy has no bfloat16 and that package's
numpy reader refuses it.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from omnivec.core import torchfile
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import OUTPUT
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
INPUT = "embed_tokens.weight"
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


def open_file(name: str, file: Path) -> tuple[mmap.mmap, dict[str, Tensor]]:
    """The file, mapped, and its tensors by name; they belong to what is called `name`.

    Raises CheckpointError when the file is cut short or its header is no header.
    """
    try:
        with file.open("rb") as opened:
            # copy on write, because OpenVINO shares writable memory only; nothing writes
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise _corrupt(name, file) from error
    content = np.frombuffer(mapped, np.uint8)
    if file.suffix != ".safetensors":
        found = torchfile.read(name, file, content)
        return mapped, {key: Tensor(file, one.array, one.dtype) for key, one in found.items()}
    entries, start = _header(name, file, content)
    data = content[start:]
    return mapped, {
        key: Tensor(file, _stored(name, file, data, entry), entry.dtype)
        for key, entry in entries.items()
    }


def output_rows(checkpoint: Checkpoint, ids: Sequence[int]) -> Floats:
    """The output embeddings of some tokens, [len(ids), H]; those of the input where the model
    ties them, or where its files have no others and config.json does not say. Only these rows
    are read. Raises CheckpointError."""
    found: dict[str, Tensor] = {}
    for file in checkpoint.weights():
        found |= open_file(checkpoint.name, file)[1]
    tied = checkpoint.config.get("tie_word_embeddings")
    own = any(key.endswith(OUTPUT) for key in found)
    wanted = INPUT if tied or (tied is None and not own) else OUTPUT
    table = next((one for key, one in found.items() if key.endswith(wanted)), None)
    if table is None or len(table.shape) != 2:  # noqa: PLR2004 - a matrix
        raise CheckpointError(
            f"{checkpoint.name}: the weights have no {wanted}, so that no word's logit can be "
            "told; download the model again"
        )
    if not all(0 <= one < table.shape[0] for one in ids):
        raise CheckpointError(
            f"{checkpoint.name}: its answers are tokens {ids}, and it has {table.shape[0]}"
        )
    return table._replace(stored=table.stored[list(ids)]).floats()


def _header(name: str, file: Path, content: Array) -> tuple[dict[str, _Entry], int]:
    size = int.from_bytes(content[:_LENGTH].tobytes(), "little")
    start = _LENGTH + size
    if size > _LONGEST_HEADER or start > len(content):
        raise _corrupt(name, file)
    try:
        raw = msgspec.json.decode(content[_LENGTH:start].tobytes(), type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        entries = {key: msgspec.json.decode(raw[key], type=_Entry) for key in raw}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(name, file) from error
    return entries, start


def _stored(name: str, file: Path, data: Array, entry: _Entry) -> Array:
    if entry.dtype not in _DTYPES:
        raise CheckpointError(
            f"{name}: {file.name} holds {entry.dtype} tensors; this runtime reads "
            f"{', '.join(_DTYPES)}"
        )
    dtype = _DTYPES[entry.dtype]
    begin, end = entry.data_offsets
    fits = 0 <= begin <= end <= len(data) and min(entry.shape, default=0) >= 0
    if not fits or end - begin != prod(entry.shape) * dtype.itemsize:
        raise _corrupt(name, file)
    if begin % dtype.itemsize or not data[begin:].flags.aligned:
        flat = np.frombuffer(data[begin:end].tobytes(), dtype)
    else:
        flat = data[begin:end].view(dtype)
    try:
        return flat.reshape(entry.shape)
    except (ValueError, OverflowError) as error:  # of too many axes, or of an endless one
        raise _corrupt(name, file) from error


def _corrupt(name: str, file: Path) -> CheckpointError:
    return CheckpointError(
        f"{name}: {file.name} is not a whole safetensors file (cut short, or something else "
        "under that name); download the model again"
    )
