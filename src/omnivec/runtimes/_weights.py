"""A checkpoint's tensors by name, for runtimes that make a graph of them by themselves."""

from __future__ import annotations

import mmap
from copy import copy
from typing import TYPE_CHECKING

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.tensors import Tensor, open_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from omnivec.core.nouns import Floats


class Weights:
    """The tensors of `files`, which belong to the model called `name`.

    What is made of them reads their memory, so they must be kept as long as it. Raises
    CheckpointError when a file is cut short or its header is no header.
    """

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name = name
        self.prefix = ""
        self._found: dict[str, Tensor] = {}
        self._mapped: list[mmap.mmap] = []
        self._beside: list[Weights] = []
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
        """The tensor as float32, of `shape` as `find` wants it."""
        return self.find(key, *shape).floats()

    def find(self, key: str, *shape: int | None) -> Tensor:
        """The tensor as it lies, of `shape` (None: any size). Raises CheckpointError when it
        is missing or has another shape."""
        if key not in self:
            raise self._missing(self.prefix + key)
        found = self._found[self.prefix + key]
        if len(found.shape) != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, found.shape, strict=True)
        ):
            wanted = " x ".join("any" if size is None else str(size) for size in shape)
            raise CheckpointError(
                f"{self.name}: tensor {self.prefix + key!r} of {found.file.name} is "
                f"{' x '.join(map(str, found.shape))}, and config.json says {wanted}"
            )
        return found

    def norm(self, key: str, size: int, *, bias: bool = True) -> list[Floats]:
        """A normalisation's scale and, with `bias`, its shift, [size] each: `key`.weight and
        `key`.bias, which old files call gamma and beta."""
        names = ("gamma", "beta") if f"{key}.gamma" in self else ("weight", "bias")
        return [self.take(f"{key}.{name}", size) for name in names[: 1 + bias]]

    def outer(self) -> Self:
        """The same tensors without the prefix: where a classification head lies."""
        other = copy(self)
        other.prefix = ""
        return other

    def matrices(self) -> dict[str, tuple[int, ...]]:
        """Their shapes, by the whole names of the layers that they belong to."""
        return {
            key.removesuffix(".weight"): tensor.shape
            for key, tensor in self._found.items()
            if key.endswith(".weight") and len(tensor.shape) == 2  # noqa: PLR2004 - a matrix
        }

    def beside(self, file: Path) -> Self:
        """The tensors of another file of the model; they are there as long as these."""
        other = type(self)(self.name, [file])
        self._beside.append(other)
        return other

    def rest(self) -> None:
        """Gives the files' pages back to the system, which reads them again when they are
        next touched: once a graph has packed its weights, few ever are."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._mapped:
                mapped.madvise(mmap.MADV_DONTNEED)

    def _open(self, file: Path) -> None:
        mapped, tensors = open_file(self.name, file)
        self._mapped.append(mapped)
        self._found.update(tensors)

    def _missing(self, key: str) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: tensor {key!r} is not among the weights; either the download is "
            "incomplete or config.json belongs to another model"
        )
