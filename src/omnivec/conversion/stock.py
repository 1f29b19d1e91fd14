"""The tensors of a checkpoint that is being converted, and which of them have been used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnivec.core.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from omnivec.core.nouns import Floats
    from omnivec.core.tensors import Tensor

_COUNTS = "num_batches_tracked"  # of a batch norm's training, which no result depends on


class Stock:
    """Tensors of `tensors` below `prefix`, which belong to what is called `name`. What is taken
    is remembered, so that a converter can say at its end what it did not understand."""

    def __init__(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        prefix: str = "",
        used: set[str] | None = None,
    ) -> None:
        self.name = name
        self._tensors = tensors
        self._prefix = prefix
        self._used: set[str] = set() if used is None else used

    def __contains__(self, key: str) -> bool:
        return self._prefix + key in self._tensors

    def under(self, prefix: str) -> Stock:
        return Stock(self.name, self._tensors, f"{self._prefix}{prefix}.", self._used)

    def take(self, key: str) -> Floats:
        """As float32. Raises CheckpointError when it is missing."""
        whole = self._prefix + key
        if whole not in self._tensors:
            raise CheckpointError(
                f"{self.name}: tensor {whole!r} is not among the weights; the download is "
                "incomplete, or this is not the model that its configuration names"
            )
        self._used.add(whole)
        return self._tensors[whole].floats()

    def count(self, key: str) -> int:
        """How many of `key.0`, `key.1` … there are."""
        start = f"{self._prefix}{key}."
        below = (one.removeprefix(start) for one in self._tensors if one.startswith(start))
        names = {one.partition(".")[0] for one in below}
        count = 0
        while str(count) in names:
            count += 1
        return count

    def rest(self) -> Iterator[str]:
        """The names of those that nothing has taken."""
        for key in self._tensors:
            ours = key.startswith(self._prefix) and not key.endswith(_COUNTS)
            if ours and key not in self._used:
                yield key
