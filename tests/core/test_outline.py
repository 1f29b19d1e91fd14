from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from omnivec.core import outline
from omnivec.core.errors import BadRequest, TooLarge
from omnivec.core.outline import MalformedError, Outline, read_text


@pytest.fixture(params=[3, 7, 64, 2**18])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(outline, "BLOCK", request.param)
    return int(request.param)


TEXTS = ["", "a", '"', "\\", '\\"', "[,]", "{:}", "é", "🙂", "\n", '\\\\"', "a" * 50]


def some(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(5 if depth else 3)
    if kind == 0:
        return chance.choice(TEXTS)
    if kind == 1:
        return chance.randrange(-5, 10**6)
    if kind == 2:
        return None
    size = chance.randrange(4)
    if kind == 3:
        return [some(chance, depth - 1) for _ in range(size)]
    return {chance.choice(TEXTS) + str(i): some(chance, depth - 1) for i in range(size)}


def read(found: Outline, name: str, most: int) -> list[Any]:
    return [item for group in found.groups(name, most) for item in json.loads(group.text)]


def test_every_field_and_item_is_found(block: int) -> None:
    chance = random.Random(block)
    for _ in range(200):
        fields = {f"f{i}": some(chance, 3) for i in range(chance.randrange(5))}
        fields["list"] = [some(chance, 2) for _ in range(1 + chance.randrange(6))]
        blank = chance.choice([None, 1])
        body = json.dumps(fields, ensure_ascii=chance.random() < 0.5, indent=blank).encode()
        found = Outline(b" \n" + body + b"\t")
        assert {name: json.loads(bytes(found.view(name))) for name in found.fields} == fields
        assert found.count("list") == len(fields["list"])
        assert read(found, "list", 100) == fields["list"]
        assert read(found, "list", 2) == fields["list"][:2]
        assert json.loads(found.rest({"list": b"[]"})) == {**fields, "list": []}


def test_an_object_within_is_found_like_one_alone(block: int) -> None:
    chance = random.Random(block)
    for _ in range(100):
        fields = {f"f{i}": some(chance, 2) for i in range(chance.randrange(4))}
        fields["list"] = [some(chance, 1) for _ in range(1 + chance.randrange(4))]
        body = json.dumps({"a": [1, 2], "within": fields, "z": "é"}, ensure_ascii=False).encode()
        found = Outline(body).inner("within")
        assert {name: json.loads(bytes(found.view(name))) for name in found.fields} == fields
        assert read(found, "list", 100) == fields["list"]
        assert json.loads(found.rest({"list": b"[]"})) == {**fields, "list": []}
    with pytest.raises(MalformedError):
        Outline(body).inner("a")


def test_items_are_in_groups_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "PIECE", 100)
    items = ["a" * 30] * 10 + ["b" * 300] + ["c"] * 3
    groups = list(Outline(json.dumps({"x": items}).encode()).groups("x", 100))
    assert [group.first for group in groups] == [0, 3, 5, 7, 9, 10, 11]
    assert sum(group.size for group in groups) == len(items)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"  ", b"[]", b'"a"', b"{", b"}", b'{"a":1', b'{"a":1}}', b'{"a":1}{"b":2}'),
        *(b'{"a}', b'{"a"}', b'{"a":}', b'{"a":1:2}', b'{"a":1,}', b'{"a":1,"b"}', b"{a:1}"),
        *(b'{"a":1} and more', b'{"] a[:[\\"{\n:},]\n\\}', b'{"a":"' + b"b" * 99),
    ],
)
def test_what_is_no_object_is_refused(body: bytes, block: int) -> None:
    with pytest.raises(MalformedError):
        Outline(body)


def test_what_is_not_utf8_is_refused(block: int) -> None:
    for body in (b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}'):
        with pytest.raises(BadRequest, match="UTF-8"):
            Outline(body)


def test_too_much_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(TooLarge, match="fields"):
        Outline(b"{" + b",".join([b'"a":1'] * 3000) + b"}")
    heavy = b"[" + b"[]," * 70_000 + b"1]"
    with pytest.raises(TooLarge, match="Beside"):
        Outline(b'{"a":' + heavy + b',"x":[1]}').rest({"x": b"[]"})
    with pytest.raises(BadRequest, match="at most 65536 values") as caught:
        list(Outline(b'{"x":[1,' + heavy + b"]}").groups("x", 10))
    assert caught.value.param == "x[1]"


def test_items_beyond_what_can_be_told_apart_are_never_left_out() -> None:
    body = b'{"a":[1,2,3],"x":[1,2,3,4]}'
    found = Outline(body, most=3)
    assert found.count("a") == 3
    assert found.count("x") > 10**9
    assert read(found, "x", 1) == [1]
    with pytest.raises(TooLarge):
        list(found.groups("x", 10))


@pytest.mark.parametrize("unit", ["a", "é", "汉", "🙂", '"', "\\", "\n", "\\\U0001f642é"])
@pytest.mark.parametrize("plain", [True, False])
def test_a_long_text_is_read_in_pieces(unit: str, plain: bool) -> None:
    text = "x" + unit * 300_000
    assert read_text(json.dumps(text, ensure_ascii=plain).encode()) == text


@pytest.mark.parametrize("end", [b'\\"', b"", b"\\ud83d" + b'"', b'\n"', b'\\u12"', b'\\x"'])
def test_a_long_text_that_is_none_is_refused(end: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_text(b'"' + b"a" * 300_000 + end)
