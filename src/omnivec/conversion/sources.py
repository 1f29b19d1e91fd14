"""What there is to convert: a folder in open_clip's layout, or a file of Apple's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.tensors import open_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.tensors import Tensor

SETTINGS = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TOKENIZER = "tokenizer.json"
SPELLINGS = ("tokenizer_config.json", "special_tokens_map.json")  # beside it, where they are
_ACCEPTED = (
    f"accepted: a folder with {SETTINGS} and {WEIGHTS[0]} or {WEIGHTS[1]}, as open_clip writes "
    "it; or Apple's own mobileclip_….pt, or a folder with one"
)


class Source(NamedTuple):
    """`settings` is empty where there are none, as beside Apple's own files. `folder` is where a
    tokenizer may be."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read(place: Path) -> Source:
    """Raises CheckpointError for what is no such thing."""
    if place.is_file():
        beside = Checkpoint(place.name, place.parent).json(SETTINGS)
        told = beside if isinstance(beside, dict) else {}
        return Source(place.name, place.parent, told, open_file(place.name, place)[1])
    if not place.is_dir():
        raise CheckpointError(f"{place} does not exist; {_ACCEPTED}", "NOT_FOUND")
    checkpoint = Checkpoint(place.name, place)
    settings = checkpoint.json(SETTINGS)
    if settings is None:
        own = sorted(place.glob("mobileclip*.pt"))
        if len(own) == 1:
            return read(own[0])
        raise CheckpointError(f"{place} is no checkpoint of open_clip's; {_ACCEPTED}")
    if not isinstance(settings, dict):
        raise CheckpointError(f"{place.name}: {SETTINGS} is not a JSON object")
    file = next((place / name for name in WEIGHTS if (place / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{place} has no weights; {_ACCEPTED}")
    return Source(place.name, place, settings, open_file(place.name, file)[1])
