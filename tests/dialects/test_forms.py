"""The bodies that forms stand for, and what the dialects read in them."""

from __future__ import annotations

import msgspec
import pytest
from dialogue import DIALECTS

from omnivec.core.errors import BadRequest, Fault, Unsupported
from omnivec.core.form import Field, Form, Upload
from omnivec.core.nouns import Call, Clip, Encode, Image, Text, Url, Video
from omnivec.core.seams import Endpoint

CAT, DOG, FILM = Upload("image", "data:1"), Upload("image", "data:2"), Upload("video", "data:3")


def endpoint(dialect: str, path: str = "/v1/embeddings") -> Endpoint:
    found = DIALECTS[dialect]
    return next(
        one
        for one in found.endpoints
        for prefix in found.prefixes
        if one.form is not None and prefix + one.path == path
    )


def asked(dialect: str, *fields: tuple[str, str | Upload]) -> Encode:
    one = endpoint(dialect)
    form: Form = tuple(Field(*field) for field in fields)
    assert one.form is not None
    body = msgspec.json.encode(one.form(form))
    task = one.decode(Call("POST", one.path, body, headers={"content-type": "application/json"}))
    assert isinstance(task, Encode)
    return task


def parts(task: Encode) -> list[object]:
    return [item.parts for item in task.items]


def test_openai_takes_texts_and_files_in_their_order() -> None:
    task = asked(
        "openai", ("text", "a"), ("file", CAT), ("input", "b"), ("x", FILM),
        ("model", "minilm"), ("dimensions", "64"), ("user", "me"),
    )  # fmt: skip
    assert parts(task) == [
        (Text("a"),), (Image(Url("data:1")),), (Text("b"),), (Video(Url("data:3")),)
    ]  # fmt: skip
    assert (task.model, task.dims) == ("minilm", 64)


def test_synesis_pairs_a_text_with_the_file_behind_it() -> None:
    task = asked(
        "synesis", ("instruction", "Find."), ("text", "a"), ("text", "b"), ("file", CAT),
        ("file", DOG), ("dimension", "128"), ("normalize", "false"),
    )  # fmt: skip
    assert parts(task) == [
        (Text("a"),), (Text("b"), Image(Url("data:1"))), (Image(Url("data:2")),)
    ]  # fmt: skip
    assert {item.instruction for item in task.items} == {"Find."}
    assert (task.dims, task.normalize) == (128, False)


@pytest.mark.parametrize(
    ("fields", "expected", "single"),
    [
        ([("file", CAT)], [(Image(Url("data:1")),)], True),
        ([("file", CAT), ("file", DOG)], [(Image(Url("data:1")),), (Image(Url("data:2")),)], False),
        ([("text", "a")], [(Text("a"),)], True),
        ([("text", "a"), ("text", "b")], [(Text("a"),), (Text("b"),)], False),
        ([("file", FILM)], [(Video(Url("data:3"), Clip()),)], False),
        (
            [("file", FILM), ("num_frames", "8"), ("startOffsetSec", "1.5")],
            [(Video(Url("data:3"), Clip(start=1.5, frames=8)),)],
            False,
        ),
        (
            [("frame_indexes", "3, 1"), ("file", FILM), ("frame_indexes", "7")],
            [(Video(Url("data:3"), Clip(indexes=(3, 1, 7))),)],
            False,
        ),
        (
            [("segment_config", '{"extraction_fps": 2}'), ("file", FILM)],
            [(Video(Url("data:3"), Clip(fps=2)),)],
            False,
        ),
    ],
)
def test_intel_takes_images_or_a_video_or_texts(
    fields: list[tuple[str, str | Upload]], expected: list[object], single: bool
) -> None:
    task = asked("intel", *fields, ("model", "minilm"), ("encoding_format", "float"))
    assert parts(task) == expected
    assert task.each_frame == isinstance(task.items[0].parts[0], Video)
    one = endpoint("intel")
    form: Form = tuple(Field(*field) for field in fields)
    given = one.form(form)["input"] if one.form else {}
    held = given.get("image_url") or given.get("text") or given.get("video_url")
    assert isinstance(held, str) == (single or task.each_frame)


@pytest.mark.parametrize(
    ("dialect", "fields", "param"),
    [
        ("openai", [("model", "minilm")], "input"),
        ("openai", [("file", CAT), ("dimensions", "many")], "dimensions"),
        ("synesis", [("dimension", "64")], "inputs"),
        ("synesis", [("file", FILM)], "inputs"),
        ("intel", [("model", "minilm")], "input"),
        ("intel", [("text", "a"), ("file", CAT)], "input"),
        ("intel", [("file", CAT), ("file", FILM)], "input"),
        ("intel", [("file", FILM), ("num_frames", "-1")], "input.segment_config.num_frames"),
        (
            "intel",
            [("file", FILM), ("frame_indexes", "a")],
            "input.segment_config.frame_indexes[0]",
        ),
        ("intel", [("file", FILM), ("segment_config", "[]")], "segment_config"),
        ("intel", [("file", FILM), ("segment_config", "[" * 10**5)], "segment_config"),
    ],
)
def test_what_a_form_cannot_mean(
    dialect: str, fields: list[tuple[str, str | Upload]], param: str
) -> None:
    with pytest.raises(Fault) as refused:
        asked(dialect, *fields)
    assert isinstance(refused.value, BadRequest | Unsupported)
    assert refused.value.param == param


@pytest.mark.parametrize("dialect", ["openai", "synesis", "intel"])
@pytest.mark.parametrize("field", [("file", "/home/me/cat.jpg"), ("model", "minilm")])
def test_a_form_without_a_file_is_told_how_one_is_sent(
    dialect: str, field: tuple[str, str]
) -> None:
    with pytest.raises(BadRequest, match=r"no file and no `text`; .* `-F file=@PATH`"):
        asked(dialect, field)
