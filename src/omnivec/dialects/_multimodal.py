"""Items of texts, pictures and videos, in the shapes that clients of OpenAI's kind give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import Image, Part, Text, Video
from omnivec.dialects import _media, _wire

Where: TypeAlias = Annotated[str, Meta(description="A URL, a data: URI or base64.")]


class MixedInput(msgspec.Struct, kw_only=True):
    """One input, as Jina's clients write it: a text, an image, a video, or several of them."""

    text: str | None = None
    image: Where | None = None
    video: Where | None = None

    def parts(self, field: str) -> tuple[Part, ...]:
        """Raises BadRequest."""
        found: list[Part] = [] if self.text is None else [Text(self.text)]
        if self.image:
            found.append(Image(_media.sent(self.image, f"{field}.image")))
        if self.video:
            found.append(Video(_media.sent(self.video, f"{field}.video")))
        if not found:
            raise BadRequest(f"`{field}` must have `text`, `image` or `video`.", param=field)
        return tuple(found)


class MediaUrl(msgspec.Struct):
    url: Where


class ContentPart(msgspec.Struct, kw_only=True):
    """A piece of a message: the field that `type` names."""

    type: Annotated[str | None, Meta(examples=["text", "image_url"])] = None
    text: str | None = None
    image_url: Annotated[
        MediaUrl | str | None, Meta(description="An object with `url`, or that alone.")
    ] = None
    image_base64: Annotated[str | None, Meta(description="Voyage's.")] = None
    image: Annotated[Where | None, Meta(description="Qwen's.")] = None
    video_url: MediaUrl | str | None = None
    video_base64: str | None = None
    video: Where | None = None

    def part(self, field: str) -> Part:
        """Raises BadRequest; Unsupported for sounds."""
        kind = self.type or ""
        if kind == "text" and self.text is not None:
            return Text(self.text)
        if kind in _SOUNDS:
            raise Unsupported(f"`{field}` must be of text, an image or a video.", param=field)
        if kind in _MEDIA and (where := getattr(self, kind)):
            url = where.url if isinstance(where, MediaUrl) else where
            source = _media.sent(url, f"{field}.{kind}")
            return Video(source) if kind.startswith("video") else Image(source)
        raise BadRequest(
            f'`{field}` must be an object with `type` "text" and `text`, or `type` "image_url" '
            "and `image_url`.",
            param=field,
        )


_SOUNDS = ("audio", "audio_url", "input_audio")
_MEDIA = ("image_url", "image_base64", "image", "video_url", "video_base64", "video")

Content: TypeAlias = str | list[ContentPart] | None


def parts_of(content: Content, field: str, most: int) -> tuple[Part, ...]:
    """What a message says; nothing where it is empty. Raises BadRequest, Unsupported."""
    if isinstance(content, str):
        return (Text(content),) if content else ()
    pieces: Sequence[ContentPart] = content or ()
    if len(pieces) > most:
        _wire.check_count(len(pieces), most, field)
    return tuple(piece.part(f"{field}[{i}]") for i, piece in enumerate(pieces))
