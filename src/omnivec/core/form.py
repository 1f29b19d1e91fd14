"""What a form with files says (multipart/form-data), once it was read."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

TEXTS = ("input", "inputs", "text")
"""The fields whose texts are inputs."""


class Upload(msgspec.Struct, frozen=True):
    """A file of a form; its own bytes say which medium it is. `url` stands for it in a body,
    wherever that may have the URL of a picture or of a video."""

    medium: Literal["image", "video"]
    url: str


class Field(msgspec.Struct, frozen=True):
    """`name` without the brackets that some clients write behind it."""

    name: str
    value: str | Upload


Form: TypeAlias = tuple[Field, ...]
"""The fields in their order; names may come more than once."""
