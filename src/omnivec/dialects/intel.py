"""Intel's Multimodal Embedding Serving: one input of a kind in, one vector or rows of them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from omnivec.core.errors import (
    AbsentFile,
    BadRequest,
    Fault,
    Forbidden,
    Loading,
    ModelFailed,
    UnknownModel,
    Unsupported,
    WrongMedium,
)
from omnivec.core.nouns import (
    Call,
    Card,
    Describe,
    Encode,
    File,
    Image,
    Item,
    Limits,
    Manifest,
    Part,
    Reply,
    Result,
    Source,
    Task,
    Text,
    Url,
    Video,
)
from omnivec.core.outputs import dense
from omnivec.core.seams import Endpoint
from omnivec.dialects import _fastapi, _forms, _media, _wire
from omnivec.dialects._intel import (
    REGISTRY,
    IntelCapabilities,
    IntelCurrent,
    IntelEmbedding,
    IntelEmbeddingRequest,
    IntelFramesBatch,
    IntelHealth,
    IntelImage,
    IntelImageBase64,
    IntelImageUrl,
    IntelInput,
    IntelModels,
    IntelText,
    IntelVideo,
    IntelVideoBase64,
    IntelVideoFrames,
    IntelVideoUrl,
)

# ── embeddings ───────────────────────────────────────────────────────────────────────────


class UnknownTypeFault(BadRequest):
    """`input.type` is none of those that there are."""


def is_object(fields: Mapping[str, msgspec.Raw]) -> bool:
    return bytes(fields.get("input", b"")).lstrip().startswith(b"{")


def is_typed(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Of a large body the beginning is there, and its clients write `type` first."""
    return is_object(fields) and b'"type"' in bytes(fields["input"])


def decode_embeddings(call: Call) -> Task:
    request = _read(call)
    given = request.input
    call.memo["shape"] = (_is_single(given), request.encoding_format == "base64")
    return Encode(
        items=tuple(Item((part,)) for part in _parts(given, call.limits)),
        model=_wire.model_name(request.model),
        role=_role(given),
        each_frame=isinstance(given, IntelVideo | IntelFramesBatch),
    )


def _read(call: Call) -> IntelEmbeddingRequest:
    try:
        return _wire.read(call, IntelEmbeddingRequest)
    except BadRequest as fault:
        if fault.param == "input.type" and "not accepted" in fault.message:
            raise UnknownTypeFault("Invalid input type", param="input.type") from None
        raise


def _is_single(given: IntelInput) -> bool:
    """Whether it is answered by one vector without a list around it."""
    if isinstance(given, IntelText):
        return isinstance(given.text, str)
    return isinstance(given, IntelImage) and isinstance(_field(given)[0], str)


def _role(given: IntelInput) -> str | None:
    """A single text is what someone looks for; a list is what is looked through."""
    if not isinstance(given, IntelText):
        return None
    return "query" if isinstance(given.text, str) else "document"


def _parts(given: IntelInput, limits: Limits) -> Sequence[Part]:
    """One for each item. Raises BadRequest."""
    if isinstance(given, IntelFramesBatch):
        return [Manifest(_file(given.frames_manifest_path, "input.frames_manifest_path", _LISTS))]
    if isinstance(given, IntelVideo):
        return [Video(_film(given), given.segment_config.clip(limits.clip, limits.items))]
    if isinstance(given, IntelText):
        texts = [given.text] if isinstance(given.text, str) else given.text
        _wire.check_count(len(texts), limits.items, "input.text")
        return [Text(text) for text in texts]
    if isinstance(given, IntelVideoFrames):
        frames = enumerate(given.video_frames)
        images = [one for i, frame in frames for one in _images(frame, f"input.video_frames[{i}]")]
        _wire.check_count(len(images), limits.items, "input.video_frames")
        return images
    images = _images(given, "input")
    _wire.check_count(len(images), limits.items, f"input.{_field(given)[1]}")
    return images


def _field(given: IntelImage) -> tuple[str | list[str], str]:
    """What it holds, and under which name."""
    if isinstance(given, IntelImageUrl):
        return given.image_url, "image_url"
    if isinstance(given, IntelImageBase64):
        return given.image_base64, "image_base64"
    return given.image_path, "image_path"


def _images(given: IntelImage, place: str) -> list[Image]:
    held, name = _field(given)
    field = f"{place}.{name}"
    if isinstance(held, str):
        return [Image(_source(held, name, field))]
    return [Image(_source(one, name, f"{field}[{i}]")) for i, one in enumerate(held)]


def _source(text: str, name: str, field: str) -> Source:
    if name == "image_url":
        return Url(text)
    return _media.unpack(text, field) if name == "image_base64" else _file(text, field)


def _film(given: IntelVideo) -> Source:
    if isinstance(given, IntelVideoUrl):
        return Url(given.video_url)
    if isinstance(given, IntelVideoBase64):
        return _media.unpack(given.video_base64, "input.video_base64")
    return _file(given.video_path, "input.video_path", _VIDEOS)


_LISTS = (".json",)
_VIDEOS = ("", ".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


def _file(path: str, field: str, endings: Sequence[str] = ()) -> File:
    """Where it may lie is for whoever opens it to say. Raises BadRequest."""
    plain = path.isprintable() and path.strip() and ".." not in path.split("/")
    if not plain:
        raise BadRequest(f"`{field}` must be a file's name or path, without `..`.", param=field)
    if endings and PurePosixPath(path).suffix.lower() not in endings:
        words = ", ".join(filter(None, endings))
        raise BadRequest(f"`{field}` must end in {words}.", param=field)
    return File(path)


def encode_embeddings(call: Call, _task: Task, result: Result) -> Reply:
    single, packed = call.memo["shape"]
    rows: list[Any] = [(_wire.pack if packed else _wire.row)(row) for row in dense(result.outputs)]
    if single:
        return _wire.write(IntelEmbedding(embedding=rows[0]))
    return _wire.write_lists(IntelEmbedding(embedding=rows), "embedding")


# ── what is served ───────────────────────────────────────────────────────────────────────


def decode_models(_call: Call) -> Task:
    return Describe()


def encode_health(_call: Call, _task: Task, result: Result) -> Reply:
    if any(card.awaited for card in result.cards) or not _able(result.cards):
        return _wire.write({"detail": "Model is not healthy"}, 500)
    return _wire.write(IntelHealth(status="healthy"))


def encode_models(_call: Call, _task: Task, result: Result) -> Reply:
    known = {family: list(names) for family, names in REGISTRY.items()}
    for card in result.cards:
        family, _, name = _name(card).rpartition("/")
        names = known.setdefault(family or "models", [])
        if name not in names:
            names.append(name)
    return _wire.write(
        IntelModels(
            current_model=_name(_current(result.cards)),
            available_models=known,
            total_models=sum(map(len, known.values())),
        )
    )


def encode_current(_call: Call, _task: Task, result: Result) -> Reply:
    card = _current(result.cards)
    return _wire.write(
        IntelCurrent(
            model=_name(card),
            device=card.device.upper() or "CPU",
            use_openvino=card.runtime == "openvino",
        )
    )


_MODALITIES = ("text", "image", "video")


def encode_capabilities(_call: Call, _task: Task, result: Result) -> Reply:
    card = _current(result.cards)
    if not _able([card]) or card.state == "loading":
        raise Loading("The model is not loaded.", retry_after=2)
    reads = card.modalities
    return _wire.write(
        IntelCapabilities(
            model=_name(card),
            modalities=[one for one in _MODALITIES if one in reads],
            supports_text="text" in reads,
            supports_image="image" in reads,
            supports_video="video" in reads or "image" in reads,
        )
    )


def _able(cards: Sequence[Card]) -> bool:
    return not {card.state for card in cards} <= {"failed"}


def _current(cards: Sequence[Card]) -> Card:
    """The model that a request without a name gets, as far as it is known already."""
    able = [card for card in cards if "encode" in card.tasks and card.state != "failed"]
    return next(iter([*able, *cards]), Card(name="", state="failed"))


_NAMES = {f"{family}/{name}" for family, names in REGISTRY.items() for name in names}


def _name(card: Card) -> str:
    """The service's own name of it, where it has one."""
    return next((name for name in card.aliases if name in _NAMES), card.name)


# ── the dialect ──────────────────────────────────────────────────────────────────────────

_MISMATCH = (
    "Model mismatch: the requested model does not match the currently loaded model. Please use "
    "the correct model name or restart the server with the desired model."
)


def _told(fault: Fault) -> tuple[int, Any]:
    """The status and the `detail`, in the service's own words where it has some."""
    of_item = (fault.param or "").startswith("input[")  # what the body names is at fault, not it
    if isinstance(fault, UnknownModel):
        return 400, _MISMATCH
    if isinstance(fault, WrongMedium):
        return 400, f"{fault.medium.title()} inputs are not supported by the active model"
    if isinstance(fault, UnknownTypeFault):
        return 400, fault.message
    if isinstance(fault, AbsentFile):
        return 404, f"File not found: {fault.message}"
    if isinstance(fault, BadRequest | Unsupported | Forbidden) and of_item:
        return 422, f"Invalid input data: {fault.message}"
    if isinstance(fault, BadRequest | Unsupported):
        return 422, [_fastapi.complaint(fault)]
    if isinstance(fault, Loading):
        return 503, "Model is not initialized"
    if isinstance(fault, ModelFailed):
        return 500, f"Error creating embedding: {fault.message}"
    return fault.status, fault.message


def _embeddings(path: str, recognises: Callable[[Mapping[str, msgspec.Raw]], bool]) -> Endpoint:
    return Endpoint(
        method="POST",
        path=path,
        decode=decode_embeddings,
        encode=encode_embeddings,
        summary="Turn a text, an image or a video into vectors (Intel).",
        request=IntelEmbeddingRequest,
        response=IntelEmbedding,
        example={
            "input": {"type": "text", "text": "A photo of a cat"},
            "encoding_format": "float",
        },
        recognises=recognises,
        counted="embeddings",
        items="input",
        form=_forms.intel,
    )


def _models(path: str, *, own: bool) -> Endpoint:
    return Endpoint(
        method="GET",
        path=path,
        decode=decode_models,
        encode=encode_models,
        summary="List the models by family (Intel).",
        response=IntelModels,
        own=own,
    )


class Intel:
    """`{"detail": ...}`: a list when the body is at fault, with 422, else a text."""

    name = "intel"
    prefixes = ("",)
    endpoints = (
        _embeddings("/embeddings", is_object),
        _embeddings("/v1/embeddings", is_typed),
        _models("/models", own=True),
        _models("/model/list", own=False),
        Endpoint(
            method="GET",
            path="/model/current",
            decode=decode_models,
            encode=encode_current,
            summary="Tell which model answers by default (Intel).",
            response=IntelCurrent,
        ),
        Endpoint(
            method="GET",
            path="/model/capabilities",
            decode=decode_models,
            encode=encode_capabilities,
            summary="Tell what that model can read (Intel).",
            response=IntelCapabilities,
        ),
        Endpoint(
            method="GET",
            path="/health",
            decode=decode_models,
            encode=encode_health,
            summary="Whether requests are answered (Intel).",
            response=IntelHealth,
            own=True,
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        status, detail = _told(fault)
        return _wire.write({"detail": detail}, status, _wire.fault_headers(fault))


PLUGIN = Intel()
