"""A model's files on disk, and the small ones read. No weights are touched here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from omnivec.core import towers

if TYPE_CHECKING:
    from omnivec.core.nouns import Floats

Cause: TypeAlias = Literal["GATED", "NOT_FOUND", "OOM", "NETWORK", "DEPENDENCY", "UNKNOWN"]


class CheckpointError(Exception):
    """A model cannot be served from these files. The text says why and what to do, for the
    person who runs the server; it may name files, so it never goes to a client. `cause` is
    for programs, in SIE's words."""

    def __init__(self, text: str, cause: Cause = "UNKNOWN") -> None:
        super().__init__(text)
        self.cause: Cause = cause


class Update(NamedTuple):
    """What is added to a linear layer: `a` float32 [r, in], and `b` float32 [out, r], times s."""

    a: Floats
    b: Floats


class Lora(Protocol):
    """An adapter that is put on a checkpoint; core/adapter.py reads those of PEFT."""

    name: str
    folder: Path

    def updates(self, matrices: Mapping[str, tuple[int, ...]]) -> Mapping[str, Update]:
        """Under the names of the base's `matrices`: their shapes [out, in] by the paths of their
        layers. Raises CheckpointError when the base has no such layer."""
        ...


class Checkpoint:
    """The folder `folder` that holds the model called `name`.

    `overrides` come from the model catalogue and win over what the files say: `prompts`,
    `hypothesis_template`, `judgement`, `pooling`, `max_tokens`. With `pickle` the weights may
    lie in `pytorch_model.bin`, whose tensors are read without unpickling (core/torchfile.py).
    `options` are a test model's (`fake:dims=8`). `adapters` can be put on it: sessions know
    them by their numbers, from 1 on.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        revision: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, str] | None = None,
        adapters: Sequence[Lora] = (),
    ) -> None:
        self.name = name
        self.folder = folder
        self.revision = revision
        self.overrides: Mapping[str, Any] = overrides or {}
        self.options: Mapping[str, str] = options or {}
        self.adapters = tuple(adapters)
        self.share = 1.0  # of its weights, of which a tower's part has some

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, or an empty dict where there is none."""
        found = self.json("config.json")
        return found if isinstance(found, dict) else {}

    @property
    def architecture(self) -> str:
        """`model_type` of config.json: "bert", "xlm-roberta", …; "" where it has none."""
        return str(self.config.get("model_type", ""))

    @property
    def is_half(self) -> bool:
        """Whether config.json says that the weights are stored in two bytes each, not in four."""
        told = self.config.get("dtype", self.config.get("torch_dtype"))
        return told in ("bfloat16", "float16")

    def part(self, graph: str) -> Checkpoint:
        """What the graph of that name is made of: the model of its own that the folder `graph`
        holds, as a Router's routes have; of a model of two towers ("text", "image") the files
        under that tower's section of config.json; else this checkpoint itself. Raises
        CheckpointError for a section of no sizes."""
        folder, _, tower = graph.rpartition("/")
        if self.has(f"{graph}/config.json"):
            return self._beneath(self.path(graph))
        if folder:
            return self.part(folder).part(tower)
        section = towers.section(self.config, graph)
        if section is None:
            return self
        made = self._beneath(self.folder)
        try:
            made.config, made.share = section, towers.share(self.config, graph)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{self.name}: config.json garbles the sizes of its towers; download the model "
                "again, or convert it again"
            ) from error
        return made

    def _beneath(self, folder: Path) -> Checkpoint:
        return Checkpoint(
            self.name,
            folder,
            revision=self.revision,
            overrides=self.overrides,
            options=self.options,
        )

    def path(self, relative: str) -> Path:
        """A file of this checkpoint. Raises CheckpointError for one outside its folder.

        Only the text of the path is judged: the files of a Hugging Face cache are symlinks
        that lead out of the folder by design.
        """
        full = Path(os.path.normpath(self.folder / relative))
        if not full.is_relative_to(os.path.normpath(self.folder)):
            raise CheckpointError(f"{self.name}: {relative!r} lies outside the model's folder")
        return full

    def has(self, relative: str) -> bool:
        return self.path(relative).is_file()

    def read(self, relative: str) -> bytes:
        """Raises CheckpointError when the file is missing or cannot be read."""
        try:
            return self.path(relative).read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{self.name}: {relative} cannot be read ({error.strerror}); "
                "download the model again or point at a complete folder"
            ) from error

    def json(self, relative: str) -> Any:
        """A JSON file's content; None when there is no such file. Raises CheckpointError."""
        if not self.has(relative):
            return None
        try:
            return msgspec.json.decode(self.read(relative))
        except (msgspec.DecodeError, RecursionError) as error:
            raise CheckpointError(f"{self.name}: {relative} is not valid JSON") from error

    def weights(self) -> list[Path]:
        """The files of the main graph's weights, in the index's order when sharded.

        They are safetensors, or with `pickle` what torch.save wrote. Raises CheckpointError
        when there is none, and says so when there is only a pickle.
        """
        if found := self._weights("model.safetensors"):
            return found
        pickled = self._weights("pytorch_model.bin")
        if pickled and not self.overrides.get("pickle"):
            raise CheckpointError(
                f"{self.name}: has only a pickle checkpoint (pytorch_model.bin); use a revision "
                "with model.safetensors, convert it, or set `pickle = true` in the model's entry"
            )
        if not pickled:
            raise CheckpointError(f"{self.name}: model.safetensors is missing from {self.folder}")
        return pickled

    def size(self) -> int:
        """Bytes of the main graph's weights; of a tower about its part of them. Raises
        CheckpointError."""
        return int(self.share * sum(file.stat().st_size for file in self.weights()))

    def _weights(self, file: str) -> list[Path]:
        """That file, or the parts that its index lists. Raises CheckpointError for a gap."""
        index = self.json(f"{file}.index.json")
        if not isinstance(index, dict):
            return [self.path(file)] if self.has(file) else []
        shards = sorted(set(index.get("weight_map", {}).values()))
        missing = [shard for shard in shards if not self.has(shard)]
        if missing:
            raise CheckpointError(
                f"{self.name}: {missing[0]} is missing ({len(missing)} of {len(shards)} "
                "weight files); download the model again"
            )
        return [self.path(shard) for shard in shards]
