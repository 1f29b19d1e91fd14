"""Arrays in msgpack, byte for byte: what SIE's clients write and read."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from msgpacked import unpack_array
from omnivec.core.errors import BadRequest, TooLarge
from omnivec.dialects import _msgpack

ONE_TWO = bytes.fromhex(
    "85c4026e64c3c40474797065a33c6634c4046b696e64c400c40573686170659102c40464617461c408"
    "0000803f00000040"
)


def test_the_bytes_of_an_array() -> None:
    assert bytes(_msgpack.pack_array(np.array([1, 2], np.float32))) == ONE_TWO
    assert bytes(_msgpack.pack_array(np.array([1, 2], ">f4"))) == ONE_TWO
    every_other = np.array([1, 0, 2, 0], np.float32)[::2]
    assert bytes(_msgpack.pack_array(every_other)) == ONE_TWO


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535, 65536, 300 * 128 * 4])
def test_the_bytes_of_every_length(size: int) -> None:
    data = (np.arange(size) % 251).astype(np.uint8)
    whole = {b"nd": True, b"type": "|u1", b"kind": b"", b"shape": [size], b"data": data.tobytes()}
    assert _msgpack.write(_msgpack.pack_array(data)) == msgspec.msgpack.encode(whole)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 255, 65535, 65536])
def test_a_message_around_a_long_array_is_the_one_that_msgspec_writes(count: int) -> None:
    array = np.arange(_msgpack.LONG).astype(np.uint8)
    packed = _msgpack.pack_array(array)
    assert isinstance(packed, _msgpack.Long)
    short = [None, True, 7, 1.5, "naïve", b"raw", {"a": [1]}, _msgpack.pack_array(array[:3])]
    around = {"list": list(range(count)), "map": {str(i): i for i in range(count)}, "all": short}
    raw = msgspec.Raw(packed.head + packed.data)
    message, expected = {**around, "last": [packed]}, {**around, "last": [raw]}
    assert _msgpack.write(message) == msgspec.msgpack.encode(expected)


def test_what_is_no_message_is_refused_beside_a_long_array() -> None:
    packed = _msgpack.pack_array(np.zeros(_msgpack.LONG, np.uint8))
    with pytest.raises(TypeError):
        _msgpack.write([packed, object()])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "?"])
@pytest.mark.parametrize("shape", [(0,), (3,), (300, 128), (2, 3, 4), ()])
def test_there_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    packed = _msgpack.write(_msgpack.pack_array(array))
    found = unpack_array(msgspec.msgpack.decode(packed))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_inside_a_message() -> None:
    body = _msgpack.write({"values": _msgpack.pack_array(np.array([1, 2], np.float32)), "n": 1})
    found = msgspec.msgpack.decode(body)
    assert unpack_array(found["values"]).tolist() == [1, 2]
    assert found["n"] == 1


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("application/msgpack", True),
        ("application/x-msgpack", True),
        ("application/json, Application/MsgPack;q=0.5", True),
        ("application/json", False),
        ("", False),
        ("*/*", False),
    ],
)
def test_which_headers_name_it(header: str, named: bool) -> None:
    assert _msgpack.is_msgpack(header) is named


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81", b'{"items": []}', b"\xdf\xff\xff\xff\xff"])
def test_a_body_that_is_none(body: bytes) -> None:
    with pytest.raises(BadRequest):
        _msgpack.read(body, dict[str, int])


def test_a_wrong_field_is_told_by_its_path() -> None:
    class Shape(msgspec.Struct):
        items: list[int]

    with pytest.raises(BadRequest, match=r"`items\[1\]` must be an integer"):
        _msgpack.read(msgspec.msgpack.encode({"items": [1, "secret"]}), Shape)


# ── bodies of too many values ────────────────────────────────────────────────────────────


EXTENSIONS = [
    msgspec.msgpack.Ext(5, bytes(size)) for size in (0, 1, 2, 3, 4, 8, 16, 17, 300, 70000)
]
STRINGS = ["", "a" * 31, "a" * 32, "a" * 256, "a" * 65536]
NUMBERS = [0, 127, -1, -32, 128, 256, 65536, 2**32, -33, -129, -32769, -(2**31) - 1, 1.5]


@pytest.mark.parametrize(
    "values",
    [
        [None, True, False],
        STRINGS,
        [text.encode() for text in STRINGS],
        NUMBERS,
        EXTENSIONS,
        [[], {}, [None] * 15, [None] * 16, [None] * 65536, {str(i): i for i in range(300)}],
        [{str(i): i for i in range(count)} for count in (15, 16, 65536)],
    ],
    ids=["words", "strings", "bytes", "numbers", "extensions", "lists", "maps"],
)
def test_a_body_may_have_so_many_values_and_no_more(values: list[Any]) -> None:
    def count(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + sum(1 + count(one) for one in value.values())
        return 1 + sum(map(count, value)) if isinstance(value, list) else 1

    message = {"values": values}
    body, most = msgspec.msgpack.encode(message), count(message)
    assert _msgpack.read(body, dict[str, Any], most) == message
    with pytest.raises(TooLarge):
        _msgpack.read(body, dict[str, Any], most - 1)


def test_a_short_float_is_one_value() -> None:
    body = b"\x81\xa1a\x92" + b"\xca" + bytes(4) + b"\xc0"
    assert _msgpack.read(body, dict[str, Any], 5) == {"a": [0.0, None]}
    with pytest.raises(TooLarge):
        _msgpack.read(body, dict[str, Any], 4)


@pytest.mark.parametrize("tail", [b"", b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc4"])
def test_a_large_body_that_is_cut_short_is_no_message(tail: bytes) -> None:
    body = b"\x81\xa1a\xdd\x00\x01\x00\x00" + b"\xc0" * 9 + tail
    with pytest.raises(BadRequest) as caught:
        _msgpack.read(body, dict[str, Any], 15)
    assert not isinstance(caught.value, TooLarge)
