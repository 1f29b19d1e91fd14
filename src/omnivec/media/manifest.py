"""Lists of frames that were taken out of a video before: Intel's FramesManifest. Pure.

    listing = read(content, most)
    film = listing.film(pictures, frames)

One row for each entry, in their order. An entry's own picture is used where it has one (a crop
is such a picture; `crop_bbox` changes nothing), else its frame of the video. Nothing is left out
without a word: the caller counts on as many rows as entries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Clip, File, Film, Pixels

T = TypeVar("T")
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
_Edge: TypeAlias = Annotated[float, Meta(ge=0)]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A frame, or what was found in one. Fields that it has besides mean nothing here."""

    frame_number: Count
    timestamp: Annotated[float, Meta(ge=0)]  # seconds
    type: Literal["full_frame", "detected_crop"]
    image_path: str | None = None
    frame_interval: Annotated[int, Meta(ge=1)] | None = None
    is_detected_crop: bool | None = None
    detection_confidence: _Share | None = None
    crop_bbox: tuple[_Edge, _Edge, _Edge, _Edge] | None = None
    crop_index: Count | None = None


class _Listed(msgspec.Struct, kw_only=True):
    """The manifest as an object. A writer that gives both `total_metadata_entries` and
    `frame_metadata_map` means the entries of `all_frame_metadata`, and they are read then."""

    frames: msgspec.Raw
    video_path: str | None = None
    all_frame_metadata: msgspec.Raw = msgspec.Raw(b"null")
    frame_metadata_map: dict[str, Any] | None = None
    total_metadata_entries: Count | None = None


class Listing(msgspec.Struct, frozen=True):
    entries: tuple[Entry, ...]
    video: File | None

    @property
    def pictures(self) -> tuple[File, ...]:
        """The files to open besides the video, each once."""
        paths = (entry.image_path for entry in self.entries if entry.image_path)
        return tuple(File(path) for path in dict.fromkeys(paths))

    @property
    def clip(self) -> Clip | None:
        """The frames of the video that are needed, ascending and each once; None for none."""
        numbers = {entry.frame_number for entry in self.entries if not entry.image_path}
        return Clip(indexes=tuple(sorted(numbers))) if numbers else None

    @property
    def is_straight(self) -> bool:
        """Whether one reading of the video gives all of its frames in the entries' order, and no
        picture is there twice."""
        paths = [entry.image_path for entry in self.entries if entry.image_path]
        numbers = [entry.frame_number for entry in self.entries if not entry.image_path]
        rising = all(one < other for one, other in pairwise(numbers))
        return rising and len(set(paths)) == len(paths)

    def absent(self, place: int) -> BadRequest:
        return BadRequest(
            f"{_WRONG}: entry {place} has a picture or a frame of the video that is not there."
        )

    def film(self, pictures: Mapping[File, Pixels], frames: Mapping[int, Pixels]) -> Film:
        """A frame for each entry; `frames` of the video by their number. Raises BadRequest where
        one is not there."""
        rows = [
            pictures.get(File(entry.image_path))
            if entry.image_path
            else frames.get(entry.frame_number)
            for entry in self.entries
        ]
        found = tuple(row for row in rows if row is not None)
        if len(found) < len(rows):
            raise self.absent(rows.index(None))
        return Film(found, tuple(entry.timestamp for entry in self.entries))


# ── reading ──────────────────────────────────────────────────────────────────────────────

_WRONG = "Invalid manifest structure"


def read(content: bytes, most: int) -> Listing:
    """A manifest of at most `most` entries: an object with `frames`, or the list alone. Raises
    BadRequest in words of its own; the manifest is not repeated."""
    listed = _object(content)
    name, raw = _chosen(listed)
    entries = tuple(_decoded(raw, list[Entry], name))
    if not entries:
        raise BadRequest("No valid frame images found in manifest")
    if len(entries) > most:
        raise BadRequest(f"{_WRONG}: `{name}` may have at most {most} entries.")
    _check(entries, name, video=bool(listed.video_path))
    return Listing(entries, File(listed.video_path) if listed.video_path else None)


def _object(content: bytes) -> _Listed:
    if content.lstrip().startswith(b"["):
        return _Listed(frames=msgspec.Raw(content))
    return _decoded(content, _Listed, "")


def _chosen(listed: _Listed) -> tuple[str, msgspec.Raw]:
    whole = listed.total_metadata_entries is not None and listed.frame_metadata_map is not None
    if whole and listed.video_path and bytes(listed.all_frame_metadata) != b"null":
        return "all_frame_metadata", listed.all_frame_metadata
    return "frames", listed.frames


def _check(entries: Sequence[Entry], name: str, *, video: bool) -> None:
    for place, entry in enumerate(entries):
        if not entry.image_path and not video:
            raise BadRequest(
                f"{_WRONG}: `{name}[{place}].image_path` is required where there is no video_path."
            )
        if (box := entry.crop_bbox) is not None:
            left, top, right, bottom = map(round, box)
            if left >= right or top >= bottom:
                raise BadRequest(
                    f"{_WRONG}: `{name}[{place}].crop_bbox` must be left, top, right and bottom."
                )


_PLACE = re.compile(r" - at `\$([^`]*)`$")
_MISSING = re.compile(r"required field `(\w+)`")


def _decoded(raw: bytes | msgspec.Raw, shape: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(raw, type=shape, strict=True)
    except msgspec.ValidationError as error:
        raise _refused(str(error), name) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadRequest("Invalid JSON in manifest file") from None


def _refused(error: str, name: str) -> BadRequest:
    """msgspec's "Expected `int`, got `str` - at `$[3].x`": the place, without the value."""
    found = _PLACE.search(error)
    place = (name + (found[1] if found else "").replace("[...]", "")).lstrip(".")
    if missing := _MISSING.search(error):
        place = f"{place}.{missing[1]}".lstrip(".")
        return BadRequest(f"{_WRONG}: `{place}` is required.")
    if not place:
        return BadRequest(f"{_WRONG}: it must be an object with `frames`, or a list of frames.")
    return BadRequest(f"{_WRONG}: `{place}` has a value that is not accepted there.")
