"""Tensors of a file that torch.save wrote, read without unpickling anything.

Such a file is a zip whose entries lie uncompressed: `data.pkl`, a pickle that says which tensors
there are, and `data/0`, `data/1` … with their bytes. To unpickle is to import and call whatever
a file names. That is done nowhere here, so no code can run: `pickletools` decodes the opcodes
without acting on them, and `_Machine` knows those of them that make dicts, lists, tuples, texts
and numbers. The few names that a dict of tensors needs are words to it, which it compares;
every other name and opcode is refused.
"""

from __future__ import annotations

import pickletools
import zipfile
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnivec.core.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from omnivec.core.nouns import Array

DTYPES: Mapping[str, tuple[str, np.dtype[Any]]] = {
    "torch DoubleStorage": ("F64", np.dtype("<f8")),
    "torch FloatStorage": ("F32", np.dtype("<f4")),
    "torch HalfStorage": ("F16", np.dtype("<f2")),
    "torch BFloat16Storage": ("BF16", np.dtype("<u2")),
    "torch LongStorage": ("I64", np.dtype("<i8")),
    "torch IntStorage": ("I32", np.dtype("<i4")),
    "torch ByteStorage": ("U8", np.dtype("u1")),
    "torch BoolStorage": ("BOOL", np.dtype("?")),
}
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = {_DICT, _TENSOR, _PARAMETER, *DTYPES}

_LONGEST_PICKLE = 8 * 2**20  # bytes; a thousand tensors take a tenth of a megabyte
_LOCAL_HEADER = 30  # bytes of a zip entry's own header, before its name and its extra field
_MOST_AXES = 8


class Tensor(NamedTuple):
    """`array` is a view of the file; `dtype` is called as in safetensors: "F32", "BF16" (whose
    bits are a uint16 array), …"""

    array: Array
    dtype: str


class _Refused(Exception):  # noqa: N818 - told as a CheckpointError
    """What is not as torch.save writes a dict of tensors."""


class _Name(NamedTuple):
    word: str


_ODD = (OSError, ValueError, OverflowError, NotImplementedError)
"""What NumPy and zipfile raise for numbers that no file has, and zipfile (the last one) for ways
of packing that it does not know."""


def read(name: str, file: Path, content: Array | None = None) -> dict[str, Tensor]:
    """The tensors of `file`, which belongs to the model called `name`, by their keys.

    A file that holds a single layer's `weight` and `bias` gives them as `linear.weight` and
    `linear.bias`. `content` is the file's bytes where the caller has them mapped. Raises
    CheckpointError for anything but a whole file of tensors.
    """
    try:
        found = _read(file, content)
    except (_Refused, zipfile.BadZipFile, *_ODD) as error:
        why = str(error) if isinstance(error, _Refused) else "it is cut short or something else"
        raise CheckpointError(
            f"{name}: {file.name} is not a file of tensors as torch.save writes it ({why}); "
            "download the model again, or convert it to safetensors"
        ) from error
    if found.keys() <= {"weight", "bias"}:
        return {f"linear.{key}": tensor for key, tensor in found.items()}
    return found


def _read(file: Path, content: Array | None) -> dict[str, Tensor]:
    if content is None:
        content = np.memmap(file, np.uint8, "c")  # a copy on write, which nothing writes
    entries = _entries(file, content)
    root = next((key.removesuffix("data.pkl") for key in entries if key.endswith("/data.pkl")), "")
    pickled = entries.get(f"{root}data.pkl", content[:0])
    if not 0 < len(pickled) <= _LONGEST_PICKLE:
        raise _Refused("it has no data.pkl of a sensible size")
    if entries.get(f"{root}byteorder", np.array([], np.uint8)).tobytes() not in (b"", b"little"):
        raise _Refused("its numbers are big-endian")
    stored = {key.removeprefix(f"{root}data/"): entry for key, entry in entries.items()}
    found = _Machine(stored).run(pickled.tobytes())
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise _Refused("it holds something besides tensors")
    if not found:
        raise _Refused("it holds no tensors")
    return found


def _entries(file: Path, content: Array) -> dict[str, Array]:
    """The zip's entries as views of `content`. A compressed one could swell; torch has none."""
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    return {info.filename: _entry(info, content) for info in infos}


def _entry(info: zipfile.ZipInfo, content: Array) -> Array:
    stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
    if not stored or info.flag_bits & 1:
        raise _Refused("an entry is compressed or encrypted")
    header = content[max(0, info.header_offset) :][:_LOCAL_HEADER].tobytes()
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\3\4"):
        raise _Refused("an entry is not where the zip says")
    start = info.header_offset + _LOCAL_HEADER
    start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if start + info.file_size > len(content):
        raise _Refused("an entry ends behind the file")
    return content[start : start + info.file_size]


class _Machine:
    """Interprets a pickle as far as tensors need it. `stored` are the bytes of the storages."""

    def __init__(self, stored: Mapping[str, Array]) -> None:
        self._stored = stored
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._acts: Mapping[str, Callable[[Any], None]] = {
            **dict.fromkeys(_IGNORED, lambda _: None),
            **dict.fromkeys(_PLAIN, self._stack.append),
            **{opcode: partial(self._make, made) for opcode, made in _MADE.items()},
            **{opcode: partial(self._tuple, count) for opcode, count in _TUPLES.items()},
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._put),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), self._get),
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "TUPLE": lambda _: self._stack.append(tuple(self._marked())),
            "GLOBAL": self._name,
            "BINPERSID": lambda _: self._stack.append(self._storage(self._pop())),
            "REDUCE": lambda _: self._reduce(),
            "BUILD": lambda _: self._pop(),  # a state dict's `_metadata`
            "SETITEM": lambda _: self._set([self._pop(), self._pop()][::-1]),
            "SETITEMS": lambda _: self._set(self._marked()),
            "APPEND": lambda _: self._append([self._pop()]),
            "APPENDS": lambda _: self._append(self._marked()),
        }

    def run(self, pickled: bytes) -> Any:
        """What the pickle describes. Raises _Refused; ValueError where it is no pickle."""
        for opcode, value, _ in pickletools.genops(pickled):
            if opcode.name == "STOP":
                return self._pop()
            if opcode.name not in self._acts:
                raise _Refused(f"its pickle has the opcode {opcode.name}")
            self._acts[opcode.name](value)
        raise _Refused("its pickle does not end")

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise _Refused("its pickle takes what is not there")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise _Refused("its pickle fills what is no dict or list")
        return self._stack[-1]

    def _marked(self) -> list[Any]:
        if not self._marks:
            raise _Refused("its pickle takes what is not there")
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    def _make(self, made: Callable[[], Any], _: Any) -> None:
        self._stack.append(made())

    def _tuple(self, count: int, _: Any) -> None:
        self._stack.append(tuple([self._pop() for _ in range(count)][::-1]))

    def _put(self, place: int) -> None:
        self._memo[place] = self._top(object)

    def _get(self, place: int) -> None:
        if place not in self._memo:
            raise _Refused("its pickle takes what is not there")
        self._stack.append(self._memo[place])

    def _set(self, pairs: list[Any]) -> None:
        made = self._top(dict)
        keys = pairs[::2]
        if len(pairs) % 2 or not all(isinstance(key, str) for key in keys):
            raise _Refused("a key is not a text")
        made.update(zip(keys, pairs[1::2], strict=True))

    def _append(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    # ── names and tensors ────────────────────────────────────────────────────────────────

    def _name(self, word: str) -> None:
        if word not in _NAMES:
            raise _Refused("its pickle names what no tensor needs")
        self._stack.append(_Name(word))

    def _reduce(self) -> None:
        told, name = self._pop(), self._pop()
        if name == _Name(_DICT) and told == ():
            self._stack.append({})
        elif name == _Name(_TENSOR) and isinstance(told, tuple):
            self._stack.append(_strided(*told[:4]) if len(told) >= 4 else None)  # noqa: PLR2004
        elif name == _Name(_PARAMETER) and isinstance(told, tuple) and told:
            self._stack.append(told[0])
        else:
            raise _Refused("its pickle calls what is no name of a tensor")

    def _storage(self, told: Any) -> Tensor:
        """Of ("storage", its type, key, device, how many numbers), as torch names them."""
        match told:
            case ("storage", _Name(word), str(key), str(), int(count)) if word in DTYPES:
                name, dtype = DTYPES[word]
            case _:
                raise _Refused("it names something that is not stored in it")
        content = self._stored.get(key)
        size = count * dtype.itemsize
        if content is None or not 0 <= size <= len(content):
            raise _Refused("a tensor's bytes are missing")
        if content.ctypes.data % dtype.itemsize:
            raise _Refused("a tensor's bytes are not aligned")
        return Tensor(content[:size].view(dtype), name)


def _strided(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """The numbers from `offset` on, `stride` apart along each axis of `size`."""
    if not (isinstance(storage, Tensor) and isinstance(size, tuple) and isinstance(stride, tuple)):
        raise _Refused("a tensor is of no storage, or has no size")
    numbers = (offset, *size, *stride)
    plain = all(type(number) is int and number >= 0 for number in numbers)
    if not plain or len(size) != len(stride) or len(size) > _MOST_AXES:
        raise _Refused("a tensor's size is not a size")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # no more numbers than are stored: with strides of 0 a few would stand for any number
    if not 1 <= prod(size) <= len(storage.array) or last >= len(storage.array):
        raise _Refused("a tensor reaches behind its bytes")
    flat = storage.array[offset:]
    steps = [step * flat.itemsize for step in stride]
    return Tensor(np.lib.stride_tricks.as_strided(flat, size, steps), storage.dtype)


_IGNORED = ("PROTO",)
_PLAIN = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
_MADE: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
