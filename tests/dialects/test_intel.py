from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
import pytest
from dialogue import CARD, WIDTH, ask, decode, read, route, work

from omnivec.core import errors
from omnivec.core.errors import Fault
from omnivec.core.nouns import (
    Blob,
    Call,
    Card,
    Clip,
    Describe,
    Encode,
    File,
    Image,
    Item,
    Limits,
    Manifest,
    Part,
    Result,
    Text,
    Url,
    Vectors,
    Video,
)
from omnivec.dialects import intel
from omnivec.dialects._intel import REGISTRY
from omnivec.engine.catalog import catalog

PATH = "/embeddings"
PIXEL = b"\x89PNG\r\n\x1a\n\xff\xfe?>"
PACKED = base64.b64encode(PIXEL).decode()


def ask_for(given: Any, **more: Any) -> Any:
    return ask("POST", PATH, {"input": given, "encoding_format": "float", **more})


def task_of(given: Any, **more: Any) -> Encode:
    task = decode(PATH, {"input": given, **more})
    assert isinstance(task, Encode)
    return task


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"input": {"type": "text", "text": "a"}}, "intel"),
        ({"input": {"type": "foo"}}, "intel"),
        ({"input": "a"}, "openai"),
        ({"input": ["a"]}, "openai"),
        ({"input": [{"text": "a"}]}, "openai"),
        ({}, "openai"),
    ],
)
def test_whose_body_it_is(path: str, body: dict[str, Any], name: str) -> None:
    for raw in (msgspec.json.encode(body), msgspec.json.format(msgspec.json.encode(body))):
        assert route("POST", path, raw).dialect.name == name


def test_an_object_without_a_type_is_intels_on_its_own_path() -> None:
    body = msgspec.json.encode({"input": {"text": "a"}})
    assert route("POST", "/embeddings", body).dialect.name == "intel"
    assert route("POST", "/v1/embeddings", body).dialect.name == "openai"


# ── what is asked ────────────────────────────────────────────────────────────────────────

FRAMES = [
    {"type": "image_url", "image_url": "https://example.com/1.jpg"},
    {"type": "image_base64", "image_base64": PACKED},
]
ONE: list[tuple[Any, Part]] = [
    ({"type": "text", "text": "a"}, Text("a")),
    ({"type": "text", "text": ""}, Text("")),
    ({"type": "image_url", "image_url": "https://x.org/a"}, Image(Url("https://x.org/a"))),
    ({"type": "image_url", "image_url": "file:///etc/passwd"}, Image(Url("file:///etc/passwd"))),
    ({"type": "image_base64", "image_base64": PACKED}, Image(Blob(PIXEL))),
    ({"type": "image_base64", "image_base64": f"data:image/png;base64,{PACKED}"},
     Image(Blob(PIXEL))),
    ({"type": "image_base64", "image_base64": PACKED.rstrip("=") + "\n"}, Image(Blob(PIXEL))),
    ({"type": "image_base64",
      "image_base64": base64.urlsafe_b64encode(PIXEL).decode()}, Image(Blob(PIXEL))),
    ({"type": "image_file", "image_path": "/tmp/a.jpg"}, Image(File("/tmp/a.jpg"))),
]  # fmt: skip
FILM = {"segment_config": {}}
FILMS: list[tuple[Any, Part]] = [
    ({"type": "video_url", "video_url": "https://x.org/a", **FILM}, Video(Url("https://x.org/a"))),
    ({"type": "video_base64", "video_base64": PACKED, **FILM}, Video(Blob(PIXEL))),
    ({"type": "video_file", "video_path": "a.mp4", **FILM}, Video(File("a.mp4"))),
    (
        {"type": "video_file", "video_path": "base64DecodedVideo_aa", **FILM},
        Video(File("base64DecodedVideo_aa")),
    ),
    (
        {"type": "frames_batch", "frames_manifest_path": "/data/manifests/frames.json"},
        Manifest(File("/data/manifests/frames.json")),
    ),
]


@pytest.mark.parametrize(("given", "part"), ONE)
def test_one_text_or_image_is_answered_by_one_vector(given: Any, part: Part) -> None:
    role = "query" if given["type"] == "text" else None
    assert task_of(given) == Encode((Item((part,)),), role=role)
    (row,) = work(task_of(given)).outputs
    assert isinstance(row, Vectors)
    assert row.dense is not None
    assert read(ask_for(given)) == {"embedding": row.dense.tolist()}


@pytest.mark.parametrize(("given", "part"), FILMS)
def test_a_video_is_answered_by_a_row_for_each_frame(given: Any, part: Part) -> None:
    assert task_of(given) == Encode((Item((part,)),), each_frame=True)
    rows = read(ask_for(given))["embedding"]
    assert len(rows) == (2 if isinstance(part, Manifest) else 64)
    assert {len(row) for row in rows} == {WIDTH}


def test_a_single_frame_is_a_list_all_the_same() -> None:
    given = {"type": "video_file", "video_path": "a.mp4", "segment_config": {"num_frames": 1}}
    assert np.shape(read(ask_for(given))["embedding"]) == (1, WIDTH)
    assert np.shape(read(ask_for({"type": "video_frames", "video_frames": FRAMES[:1]}))
                    ["embedding"]) == (1, WIDTH)  # fmt: skip


def test_frames_are_pictures_in_their_order() -> None:
    task = task_of({"type": "video_frames", "video_frames": FRAMES})
    pictures = [Image(Url("https://example.com/1.jpg")), Image(Blob(PIXEL))]
    assert task == Encode(tuple(Item((one,)) for one in pictures))


@pytest.mark.parametrize("texts", [["a"], ["a", "b"]])
def test_a_list_of_texts_is_of_documents(texts: list[str]) -> None:
    task = task_of({"type": "text", "text": texts})
    assert task == Encode(tuple(Item((Text(text),)) for text in texts), role="document")
    assert np.shape(read(ask_for({"type": "text", "text": texts}))["embedding"]) == (
        len(texts),
        WIDTH,
    )


@pytest.mark.parametrize(
    ("kind", "field"),
    [("image_url", "image_url"), ("image_base64", "image_base64"), ("image_file", "image_path")],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_list_of_images_is_answered_by_rows(kind: str, field: str, count: int) -> None:
    given = {"type": kind, field: [PACKED] * count}
    assert len(task_of(given).items) == count
    assert np.shape(read(ask_for(given))["embedding"]) == (count, WIDTH)


def test_the_model_and_other_fields() -> None:
    given = {"type": "text", "text": "a", "image_url": 5, "x": [{}]}
    assert task_of(given, model="minilm", encoding_format="whatever", user=1).model == "minilm"
    assert task_of(given, model="").model is None
    assert task_of(given, encoding_format=5) == task_of(given)


def test_base64_is_answered_when_it_is_asked_for() -> None:
    single = {"type": "text", "text": "a"}
    numbers = np.array(read(ask_for(single))["embedding"], "<f4")
    packed = read(ask_for(single, encoding_format="base64"))["embedding"]
    assert base64.b64decode(packed) == numbers.tobytes()
    rows = read(ask_for({"type": "text", "text": ["a"]}, encoding_format="base64"))["embedding"]
    assert rows == [packed]


# ── which frames ─────────────────────────────────────────────────────────────────────────

CLIPS: list[tuple[dict[str, Any], Clip]] = [
    ({}, Clip()),
    ({"startOffsetSec": 0, "clip_duration": -1, "num_frames": 64}, Clip()),
    ({"startOffsetSec": 1.5, "clip_duration": 2}, Clip(start=1.5, duration=2)),
    ({"startOffsetSec": "1"}, Clip(start=1)),
    ({"clip_duration": 0}, Clip(duration=0)),
    ({"num_frames": 8}, Clip(frames=8)),
    ({"num_frames": 0}, Clip(frames=0)),
    ({"num_frames": 0, "frame_interval": 5}, Clip(frames=0, interval=5)),
    ({"frame_interval": 5}, Clip()),
    ({"num_frames": 8, "frame_interval": 5}, Clip(frames=8)),
    ({"extraction_fps": 2.5, "num_frames": 8}, Clip(fps=2.5, frames=8)),
    ({"frame_indexes": [20, 1, 10, 10]}, Clip(indexes=(20, 1, 10, 10))),
    ({"frame_indexes": []}, Clip()),
    ({"frame_indexes": [1], "extraction_fps": 1}, Clip(indexes=(1,), fps=1)),
    (dict.fromkeys(("startOffsetSec", "num_frames", "extraction_fps", "frame_indexes")), Clip()),
    ({"unknown": 1}, Clip()),
]


def clip_of(config: Any, limits: Limits | None = None) -> Clip:
    given = {"type": "video_url", "video_url": "https://x.org/a", "segment_config": config}
    task = decode(PATH, {"input": given}, limits)
    assert isinstance(task, Encode)
    part = task.items[0].parts[0]
    assert isinstance(part, Video)
    return part.clip


@pytest.mark.parametrize(("config", "clip"), CLIPS)
def test_every_key_of_segment_config(config: dict[str, Any], clip: Clip) -> None:
    assert clip_of(config) == clip


def test_the_settings_say_what_a_request_leaves_open() -> None:
    limits = Limits(clip=Clip(start=1, duration=9, frames=8))
    assert clip_of({}, limits) == limits.clip
    said = {"startOffsetSec": 0, "clip_duration": -1, "num_frames": 64}
    assert clip_of(said, limits) == Clip()
    every = Limits(clip=Clip(frames=0))
    assert clip_of({"frame_interval": 5}, every) == Clip(frames=0, interval=5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("startOffsetSec", -1),
        ("startOffsetSec", "soon"),
        ("clip_duration", -2),
        ("clip_duration", -0.5),
        ("num_frames", -1),
        ("num_frames", 2**31),
        ("num_frames", 1.5),
        ("extraction_fps", 0),
        ("extraction_fps", -1),
        ("frame_indexes", 5),
        ("frame_indexes", [-1]),
        ("frame_indexes", [0] * 9),
        ("frame_interval", 0),
    ],
)
def test_what_cannot_be_selected_is_422(key: str, value: Any) -> None:
    given = {"type": "video_file", "video_path": "a.mp4", "segment_config": {key: value}}
    reply = ask("POST", PATH, {"input": given}, limits=Limits(items=8))
    assert reply.status == 422
    (told,) = read(reply)["detail"]
    assert told["loc"][:4] == ["body", "input", "segment_config", key]


# ── refusals ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({}, ["type"]),
        ({"type": None}, ["type"]),
        ({"type": 5}, ["type"]),
        ({"type": "text"}, ["text"]),
        ({"type": "text", "text": None}, ["text"]),
        ({"type": "text", "text": {}}, ["text"]),
        ({"type": "text", "text": []}, ["text"]),
        ({"type": "text", "text": ["a", 5]}, ["text", 1]),
        ({"type": "text", "text": ["a"] * 9}, ["text"]),
        ({"type": "image_url", "text": "a"}, ["image_url"]),
        ({"type": "image_url", "image_url": {"url": "a"}}, ["image_url"]),
        ({"type": "image_url", "image_url": []}, ["image_url"]),
        ({"type": "image_base64", "image_base64": ""}, ["image_base64"]),
        ({"type": "image_base64", "image_base64": "data:image/png;base64,"}, ["image_base64"]),
        ({"type": "image_base64", "image_base64": "é"}, ["image_base64"]),
        ({"type": "image_base64", "image_base64": [PACKED, "?"]}, ["image_base64", 1]),
        ({"type": "image_file", "image_path": "../a.jpg"}, ["image_path"]),
        ({"type": "image_file", "image_path": "a\x00.jpg"}, ["image_path"]),
        ({"type": "image_file", "image_path": ""}, ["image_path"]),
        ({"type": "video_frames", "video_frames": []}, ["video_frames"]),
        ({"type": "video_frames", "video_frames": ["a"]}, ["video_frames", 0]),
        ({"type": "video_frames", "video_frames": [*FRAMES, {}]}, ["video_frames", 2, "type"]),
        ({"type": "video_frames", "video_frames": FRAMES * 5}, ["video_frames"]),
        ({"type": "video_url", "video_url": "https://x.org/a"}, ["segment_config"]),
        ({"type": "video_url", "segment_config": {}}, ["video_url"]),
        ({"type": "video_url", "video_url": "a", "segment_config": []}, ["segment_config"]),
        ({"type": "video_base64", "video_base64": "!", **FILM}, ["video_base64"]),
        ({"type": "video_file", "video_path": "../escape.mp4", **FILM}, ["video_path"]),
        ({"type": "video_file", "video_path": "/tmp/../escape.mp4", **FILM}, ["video_path"]),
        ({"type": "video_file", "video_path": "video.exe", **FILM}, ["video_path"]),
        ({"type": "frames_batch"}, ["frames_manifest_path"]),
        ({"type": "frames_batch", "frames_manifest_path": "a.txt"}, ["frames_manifest_path"]),
        ({"type": "frames_batch", "frames_manifest_path": "../a.json"}, ["frames_manifest_path"]),
        ({"type": "frames_batch", "frames_manifest_path": "frames"}, ["frames_manifest_path"]),
    ],
)  # fmt: skip
def test_a_wrong_input_is_422_with_its_place(given: Any, where: list[Any]) -> None:
    reply = ask("POST", PATH, {"input": given}, limits=Limits(items=8))
    assert reply.status == 422
    (told,) = read(reply)["detail"]
    assert told.keys() == {"type", "loc", "msg"}
    assert told["loc"] == ["body", "input", *where]
    missing = told["msg"].endswith("is required.")
    assert told["type"] == ("missing" if missing else "value_error")


def test_an_unknown_type_is_400() -> None:
    reply = ask_for({"type": "foo", "text": "a"})
    assert (reply.status, read(reply)) == (400, {"detail": "Invalid input type"})


MISMATCH = (
    "Model mismatch: the requested model does not match the currently loaded model. Please use "
    "the correct model name or restart the server with the desired model."
)


@pytest.mark.parametrize(
    ("fault", "status", "detail"),
    [
        (errors.UnknownModel("x", param="model"), 400, MISMATCH),
        (errors.WrongMedium("x", param="input[0]", medium="image"), 400,
         "Image inputs are not supported by the active model"),
        (errors.WrongMedium("x", param="input[0]", medium="video"), 400,
         "Video inputs are not supported by the active model"),
        (errors.AbsentFile("No file.", param="input[0]"), 404, "File not found: No file."),
        (errors.NotFound("No path."), 404, "No path."),
        (errors.BadRequest("x", param="input[2]"), 422, "Invalid input data: x"),
        (errors.TooLong("x", param="input[0]"), 422, "Invalid input data: x"),
        (errors.Unsupported("x", param="input[0]"), 422, "Invalid input data: x"),
        (errors.Forbidden("x", param="input[0]"), 422, "Invalid input data: x"),
        (errors.Forbidden("x"), 403, "x"),
        (errors.ModelFailed("x"), 500, "Error creating embedding: x"),
        (errors.Loading("x", retry_after=2), 503, "Model is not initialized"),
        (errors.LoadFailed("x"), 503, "Model is not initialized"),
        (errors.Unauthorized("x"), 401, "x"),
        (errors.Overloaded("x", retry_after=1), 429, "x"),
        (errors.TooLarge("x", param="input[0]"), 413, "x"),
        (errors.WrongType("x"), 415, "x"),
    ],
)  # fmt: skip
def test_the_error_table(fault: Fault, status: int, detail: str) -> None:
    reply = intel.PLUGIN.fault(fault)
    assert (reply.status, read(reply)) == (status, {"detail": detail})


# ── what is served ───────────────────────────────────────────────────────────────────────

CLIP = Card(
    name="openai/clip-vit-base-patch16",
    aliases=("CLIP/clip-vit-b-16", "clip-vit-b-16"),
    tasks=("encode", "score"),
    modalities=("image", "text"),
    runtime="openvino",
    device="cpu",
    state="loaded",
)


def told(path: str, *cards: Card) -> tuple[int, Any]:
    asked = route("GET", path, b"", speaker="intel")
    assert asked.endpoint.decode(asked.call) == Describe()
    result = Result(cards[0] if cards else Card(name=""), cards=cards)
    try:
        reply = asked.endpoint.encode(asked.call, Describe(), result)
    except Fault as fault:
        reply = intel.PLUGIN.fault(fault)
    return reply.status, read(reply)


def test_the_seeds_answers_for_its_own_model() -> None:
    assert told("/health", CLIP) == (200, {"status": "healthy"})
    current = {"model": "CLIP/clip-vit-b-16", "device": "CPU", "use_openvino": True}
    assert told("/model/current", CLIP) == (200, current)
    assert told("/model/capabilities", CLIP)[1] == {
        "model": "CLIP/clip-vit-b-16",
        "modalities": ["text", "image"],
        "supports_text": True,
        "supports_image": True,
        "supports_video": True,
    }


def test_the_models_are_the_registry() -> None:
    for path in ("/models", "/model/list"):
        status, told_of = told(path, CLIP)
        assert status == 200
        assert told_of["current_model"] == "CLIP/clip-vit-b-16"
        assert told_of["available_models"] == {k: list(v) for k, v in REGISTRY.items()}
        assert told_of["total_models"] == 19


def test_models_beyond_the_registry_are_listed_too() -> None:
    _, told_of = told("/models", CLIP, CARD, Card(name="mine"))
    assert told_of["available_models"]["sentence-transformers"] == ["all-MiniLM-L6-v2"]
    assert told_of["available_models"]["models"] == ["mine"]
    assert told_of["total_models"] == 21


def test_a_text_model() -> None:
    qwen = Card(name="Qwen/Qwen3-Embedding-0.6B", tasks=("encode",), state="available")
    capable = told("/model/capabilities", Card(name="r", tasks=("score",)), qwen)[1]
    assert capable == {
        "model": qwen.name,
        "modalities": ["text"],
        "supports_text": True,
        "supports_image": False,
        "supports_video": False,
    }


def test_a_model_that_is_not_there_yet() -> None:
    loading = msgspec.structs.replace(CLIP, state="loading", awaited=True, device="")
    failed = msgspec.structs.replace(CLIP, state="failed")
    for cards in ((loading,), (failed,), ()):
        assert told("/health", *cards) == (500, {"detail": "Model is not healthy"})
        assert told("/model/capabilities", *cards) == (503, {"detail": "Model is not initialized"})
        assert told("/model/current", *cards)[0] == 200
    assert told("/model/current", loading)[1]["device"] == "CPU"
    assert told("/health", failed, CARD) == (200, {"status": "healthy"})


def test_its_paths_that_others_have_are_its_own_under_its_profile_only() -> None:
    assert route("GET", "/models", b"").dialect.name == "openai"
    assert route("GET", "/models", b"", speaker="intel").dialect.name == "intel"
    for path in ("/model/list", "/model/current", "/model/capabilities"):
        assert route("GET", path, b"").dialect.name == "intel"


def test_every_name_of_the_registry_is_known_to_the_catalogue() -> None:
    names = [f"{family}/{name}" for family, names in REGISTRY.items() for name in names]
    assert len(names) == 19
    found = [catalog().find(name) for name in (*names, "Blip2/blip2")]
    bare = [catalog().find(name.partition("/")[2]) for name in (*names, "Blip2/blip2")]
    assert None not in found
    assert found == bare
    assert len({entry.id for entry in found if entry}) == 19


def test_a_vector_that_is_not_finite_is_a_failure() -> None:
    call = Call("POST", PATH, memo={"shape": (True, False)})
    vector = Vectors(np.array([np.nan, 0], np.float32))
    with pytest.raises(errors.ModelFailed):
        intel.encode_embeddings(call, Encode(()), Result(CARD, (vector,)))
