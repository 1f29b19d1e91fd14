"""A model's files on disk, and the small ones read. No weights are touched here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from omnivec.core.adapter import Adapter


class CheckpointError(Exception):
    """A model cannot be served from these files. The text says why and what to do, for the
    person who runs the server; it may name files, so it never goes to a client."""


class Checkpoint:
    """The folder `folder` that holds the model called `name`.

    `overrides` come from the model catalogue and win over what the files say: `prompts`,
    `pooling`, `max_tokens`. `options` are a test model's (`fake:dims=8`). `adapters` can be
    put on it: sessions know them by their numbers, from 1 on.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        revision: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, str] | None = None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        self.name = name
        self.folder = folder
        self.revision = revision
        self.overrides: Mapping[str, Any] = overrides or {}
        self.options: Mapping[str, str] = options or {}
        self.adapters = tuple(adapters)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, or an empty dict where there is none."""
        found = self.json("config.json")
        return found if isinstance(found, dict) else {}

    @property
    def architecture(self) -> str:
        """`model_type` of config.json: "bert", "xlm-roberta", …; "" where it has none."""
        return str(self.config.get("model_type", ""))

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
        """The safetensors files of the main graph, in the index's order when sharded.

        Raises CheckpointError when there is none, and says so when there is only a pickle.
        """
        index = self.json("model.safetensors.index.json")
        if isinstance(index, dict):
            shards = sorted(set(index.get("weight_map", {}).values()))
            missing = [shard for shard in shards if not self.has(shard)]
            if missing:
                raise CheckpointError(
                    f"{self.name}: {missing[0]} is missing ({len(missing)} of {len(shards)} "
                    "weight files); download the model again"
                )
            return [self.path(shard) for shard in shards]
        if self.has("model.safetensors"):
            return [self.path("model.safetensors")]
        if self.has("pytorch_model.bin") or self.has("pytorch_model.bin.index.json"):
            raise CheckpointError(
                f"{self.name}: has only a pickle checkpoint (pytorch_model.bin), which can run "
                "code when it is opened; use a revision with model.safetensors, or convert it"
            )
        raise CheckpointError(f"{self.name}: model.safetensors is missing from {self.folder}")
