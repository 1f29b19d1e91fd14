from __future__ import annotations

import base64
import struct
from typing import Annotated

import msgspec
import numpy as np
import pytest

from omnivec.core.errors import BadRequest, ModelFailed, Unsupported
from omnivec.core.nouns import Call, Card, Relevance, Result, Usage
from omnivec.dialects import _models, _wire


class Inner(msgspec.Struct):
    name: str


class Shape(msgspec.Struct):
    text: str
    count: int | None = None
    flag: bool | None = None
    share: float | None = None
    mixed: str | list[str | list[Annotated[int, msgspec.Meta(ge=0)]]] | None = None
    inner: list[Inner] | None = None
    table: dict[str, int] | None = None


def read(body: bytes) -> Shape:
    return _wire.read(Call("POST", "/", body), Shape)


@pytest.mark.parametrize(
    ("extra", "param", "words"),
    [
        ('"count": true', "count", "must be an integer"),
        ('"count": 1.5', "count", "must be an integer"),
        ('"count": [1]', "count", "must be an integer"),
        ('"count": 1e999', "count", "number out of range"),
        ('"count": ' + "9" * 5000, "count", "number out of range"),
        ('"share": 1e999', "share", "number out of range"),
        ('"flag": "maybe"', "flag", "must be true or false"),
        ('"mixed": {"a": 1}', "mixed", "must be a string or an array"),
        ('"mixed": ["a", true]', "mixed[1]", "must be a string or an array"),
        ('"mixed": ["a", [5, "x"]]', "mixed[1][1]", "must be an integer"),
        ('"mixed": [[5, -1]]', "mixed[0][1]", "must be an integer of at least 0"),
        ('"inner": [{"name": "a"}, {}]', "inner[1].name", "is required"),
        ('"inner": [{"name": 5}]', "inner[0].name", "must be a string"),
        ('"inner": [5]', "inner[0]", "must be an object"),
        ('"table": {"key`": "x"}', "table", "must be an integer"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_accepted(extra: str, param: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(b'{"text": "a", ' + extra.encode() + b"}")
    assert caught.value.param == param
    assert caught.value.message.startswith(f"`{param}` ")
    assert words in caught.value.message


@pytest.mark.parametrize("body", [b"{}", b'{"text": null}'])
def test_a_required_field(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert caught.value.param == "text"


@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        ('"flag": "true"', "flag", True),
        ('"flag": "False"', "flag", False),
        ('"flag": 1', "flag", True),
        ('"count": null', "count", None),
        ('"count": 4', "count", 4),
        ('"count": "4"', "count", 4),
        ('"mixed": ["1", [2]]', "mixed", ["1", [2]]),
        ('"other": [NULL]'.lower(), "count", None),
    ],
)
def test_a_lax_field(extra: str, field: str, value: object) -> None:
    assert getattr(read(b'{"text": "a", ' + extra.encode() + b"}"), field) == value


def test_an_escaped_nul_and_every_script_are_text() -> None:
    assert read('{"text": "a\\u0000 ελ 中 \\ud83d\\ude00 🙂"}'.encode()).text == "a\0 ελ 中 😀 🙂"


@pytest.mark.parametrize(
    ("wish", "overflow"),
    [
        (None, None),
        (True, "truncate"),
        ("true", "truncate"),
        ("END", "truncate"),
        ("Right", "truncate"),
        (False, "refuse"),
        ("NONE", "refuse"),
        ("false", "refuse"),
    ],
)
def test_a_wish_about_overflow(wish: bool | str | None, overflow: str | None) -> None:
    assert _wire.overflow(wish, "truncate") == overflow


def test_a_cut_at_the_start_is_refused() -> None:
    with pytest.raises(Unsupported):
        _wire.overflow("START", "truncate")
    with pytest.raises(BadRequest):
        _wire.overflow("middle", "truncate")


def test_base64_is_little_endian_float32() -> None:
    vector = np.array([1.5, -0.1, 3e-39, 1.0], np.float32)
    assert struct.unpack("<4f", base64.b64decode(_wire.pack(vector))) == tuple(vector.tolist())
    columns = np.arange(8, dtype=np.float32).reshape(2, 4)[:, 1]  # rows of a cut matrix
    assert struct.unpack("<2f", base64.b64decode(_wire.pack(columns))) == (1.0, 5.0)


def test_digits_read_back_as_the_same_float32() -> None:
    vector = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    body = _wire.write([_wire.row(vector), _wire.row(vector[::2])]).body
    whole, half = msgspec.json.decode(body)
    assert np.array_equal(np.array(whole, np.float32), vector)
    assert np.array_equal(np.array(half, np.float32), vector[::2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_never_null(bad: float) -> None:
    vector = np.array([0.5, bad], np.float32)
    for write in (_wire.row, _wire.pack):
        with pytest.raises(ModelFailed):
            write(vector)
    with pytest.raises(ModelFailed):
        _wire.score(Relevance(value=bad, raw=0.0))
    with pytest.raises(ModelFailed):
        _wire.score(Relevance(value=0.5, raw=bad), raw=True)


def test_equal_scores_keep_their_order() -> None:
    outputs = tuple(Relevance(value, -value) for value in (0.5, 0.9, 0.5, 0.9))
    result = Result(Card("m"), outputs)
    assert [i for i, _ in _wire.ranked(result, raw=False, top=None)] == [1, 3, 0, 2]
    assert _wire.ranked(result, raw=True, top=2) == [(0, -0.5), (2, -0.5)]
    assert len(_wire.ranked(result, raw=False, top=9)) == 4


def test_scores_that_are_clipped_are_told_apart_by_the_raw_ones() -> None:
    outputs = tuple(Relevance(max(0.0, raw), raw) for raw in (-0.3, -0.1, 0.2, -0.2))
    result = Result(Card("m"), outputs)
    expected = [(2, 0.2), (1, 0.0), (3, 0.0), (0, 0.0)]
    assert _wire.ranked(result, raw=False, top=None) == expected
    assert _wire.ranked(result, raw=False, top=2) == expected[:2]


def test_what_was_cut_is_told() -> None:
    usage = Usage(tokens=9, items=32, truncated=3)
    told = _wire.usage(Result(Card("m"), usage=usage))
    assert told == {"prompt_tokens": 9, "total_tokens": 9, "truncated": 3}
    assert _wire.usage(Result(Card("m"))) == {"prompt_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(
    ("param", "located"),
    [
        (None, None),
        ("[3]", "input[3]"),
        ("items[3]", "items[3]"),
        ("dims", "dimensions"),
        ("input[3]", "input[3]"),
    ],
)
def test_the_engines_path_in_the_dialects_words(param: str | None, located: str | None) -> None:
    assert _wire.locate(param, {"": "input", "dims": "dimensions"}) == located


def test_a_model_without_vectors() -> None:
    entry = _models.model_entry(Card("m", tasks=("score",), dims=7))
    assert (entry["dims"], entry["outputs"], entry["capabilities"]) == ({}, ["score"], ["rerank"])
