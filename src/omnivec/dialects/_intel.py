"""Intel's wire types: inputs that say by `type` which of the other fields they have."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypedDict

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Clip
from omnivec.dialects import _wire

# Whole numbers that stand for a place in a video or for a count of its frames.
_Frames: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Seconds: TypeAlias = Annotated[float, Meta(ge=0)]


class SegmentConfig(msgspec.Struct, kw_only=True):
    """Which frames of a video. Of several keys the first of frame_indexes, extraction_fps and
    num_frames holds, within the window of startOffsetSec and clip_duration."""

    start: _Seconds | None = msgspec.field(name="startOffsetSec", default=None)
    duration: Annotated[
        float | None, Meta(description="Seconds from there; -1 to the end.", examples=[-1])
    ] = msgspec.field(name="clip_duration", default=None)
    frames: Annotated[
        _Frames | None, Meta(description="So many, evenly spread; 0 for all.", examples=[64])
    ] = msgspec.field(name="num_frames", default=None)
    fps: Annotated[float | None, Meta(description="Frames for each second.")] = msgspec.field(
        name="extraction_fps", default=None
    )
    indexes: Annotated[
        list[_Frames] | None, Meta(description="These, counted from the video's start.")
    ] = msgspec.field(name="frame_indexes", default=None)
    interval: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Every so many-th; only where num_frames is 0."),
    ] = msgspec.field(name="frame_interval", default=None)

    def clip(self, usual: Clip, most: int) -> Clip:
        """`usual` says what this leaves open. Raises BadRequest; paths begin at the body."""
        duration = usual.duration if self.duration is None else self._length(self.duration)
        frames = usual.frames if self.frames is None else self.frames
        indexes = tuple(self.indexes or ())
        if indexes:
            _wire.check_count(len(indexes), most, f"{_PLACE}.frame_indexes")
        if self.fps is not None and self.fps <= 0:
            raise _refused("extraction_fps", "a number above 0")
        return Clip(
            start=usual.start if self.start is None else self.start,
            duration=duration,
            indexes=indexes,
            fps=self.fps,
            interval=self.interval if frames == 0 else None,
            frames=frames,
        )

    @staticmethod
    def _length(seconds: float) -> float | None:
        if seconds == -1:
            return None
        if seconds < 0:
            raise _refused("clip_duration", "a number of at least 0, or -1")
        return seconds


_PLACE = "input.segment_config"


def _refused(name: str, accepted: str) -> BadRequest:
    param = f"{_PLACE}.{name}"
    return BadRequest(f"`{param}` must be {accepted}.", param=param)


class IntelText(msgspec.Struct, tag_field="type", tag="text"):
    """A text, which is embedded as a query and answered by one vector; or several, embedded as
    documents."""

    text: Annotated[str | list[str], Meta(examples=["A photo of a cat"])]


class IntelImageUrl(msgspec.Struct, tag_field="type", tag="image_url"):
    """A picture on the web, or several, answered by a vector for each."""

    image_url: Annotated[str | list[str], Meta(examples=["https://example.com/photo.jpg"])]


class IntelImageBase64(msgspec.Struct, tag_field="type", tag="image_base64"):
    """A picture as base64 or as a data: URI, or several, answered by a vector for each."""

    image_base64: str | list[str]


class IntelImageFile(msgspec.Struct, tag_field="type", tag="image_file"):
    """A picture on the server, or several, answered by a vector for each."""

    image_path: str | list[str]


class IntelVideoFrames(msgspec.Struct, tag_field="type", tag="video_frames"):
    """Pictures in their order, answered by a vector for each."""

    video_frames: list[IntelImageUrl | IntelImageBase64 | IntelImageFile]


class IntelVideoUrl(msgspec.Struct, tag_field="type", tag="video_url"):
    """A video on the web, answered by a vector for each frame."""

    video_url: str
    segment_config: SegmentConfig


class IntelVideoBase64(msgspec.Struct, tag_field="type", tag="video_base64"):
    """A video as base64 or as a data: URI, answered by a vector for each frame."""

    video_base64: str
    segment_config: SegmentConfig


class IntelVideoFile(msgspec.Struct, tag_field="type", tag="video_file"):
    """A video on the server, answered by a vector for each frame."""

    video_path: Annotated[
        str, Meta(description="A name or a path below one of the server's media roots.")
    ]
    segment_config: SegmentConfig


class IntelFramesBatch(msgspec.Struct, tag_field="type", tag="frames_batch"):
    """A list of frames in a JSON file on the server, answered by a vector for each entry."""

    frames_manifest_path: str


IntelVideo: TypeAlias = IntelVideoUrl | IntelVideoBase64 | IntelVideoFile
IntelImage: TypeAlias = IntelImageUrl | IntelImageBase64 | IntelImageFile
IntelInput: TypeAlias = IntelText | IntelImage | IntelVideoFrames | IntelVideo | IntelFramesBatch


class IntelEmbeddingRequest(msgspec.Struct, kw_only=True):
    """One input of a kind to turn into vectors."""

    input: IntelInput
    model: Annotated[
        str | None,
        Meta(description="The model that is served; absent means the default.",
             examples=["CLIP/clip-vit-b-16"]),
    ] = None  # fmt: skip
    encoding_format: Annotated[
        Any,
        Meta(description='"base64" gives each vector as its little-endian float32 bytes, '
             "anything else gives numbers.", examples=["float"]),
    ] = None  # fmt: skip


class IntelEmbedding(TypedDict):
    """One vector of a single text or image; a list of vectors of everything else."""

    embedding: list[float | str | list[float]] | str


class IntelHealth(TypedDict):
    """Whether requests are answered."""

    status: str


class IntelModels(TypedDict):
    """The models that have a name here, by family, and the one that answers by default."""

    current_model: str
    available_models: dict[str, list[str]]
    total_models: int


class IntelCurrent(TypedDict):
    """The model that answers by default."""

    model: str
    device: Annotated[str, Meta(examples=["CPU"])]
    use_openvino: bool


class IntelCapabilities(TypedDict):
    """What the model that answers by default can read."""

    model: str
    modalities: Annotated[list[str], Meta(description='Of "text", "image", "video".')]
    supports_text: bool
    supports_image: bool
    supports_video: Annotated[bool, Meta(description="Also as single frames.")]


REGISTRY: dict[str, tuple[str, ...]] = {
    "MobileCLIP": (
        "mobileclip_s0",
        "mobileclip_s1",
        "mobileclip_s2",
        "mobileclip_b",
        "mobileclip_blt",
    ),
    "CLIP": ("clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14", "clip-vit-h-14"),
    "CN-CLIP": ("cn-clip-vit-b-16", "cn-clip-vit-l-14", "cn-clip-vit-h-14"),
    "SigLIP": ("siglip2-vit-b-16", "siglip2-vit-l-16", "siglip2-so400m-patch16-384"),
    "Blip2": ("blip2_transformers",),
    "QwenText": ("qwen3-embedding-0.6b", "qwen3-embedding-4b", "qwen3-embedding-8b"),
}
"""The service's own names, which the catalogue has as aliases of the weights' ids."""
