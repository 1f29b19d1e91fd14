"""What a request leaves open, and who says it then."""

from __future__ import annotations

from typing import Any

import pytest

from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import (
    Blob,
    Card,
    Encode,
    Extract,
    Image,
    Item,
    Score,
    Text,
    Wishes,
)
from omnivec.engine.wishes import settle

CARD = Card(
    name="org/model",
    kinds=("dense", "sparse"),
    profiles={
        "sparse": Wishes(kinds=("sparse",)),
        "all": Wishes(
            instruction="Find",
            role="query",
            normalize=False,
            dims=8,
            max_tokens=16,
            dtype="int8",
        ),
        "nothing": Wishes(),
    },
)
ITEMS = (Item((Text("a"),)), Item((Text("b"),), "Own"))


def encode(**fields: Any) -> Encode:
    return Encode(ITEMS, **{"dtype": None, **fields})


def test_a_plain_request_stays_as_it_is() -> None:
    task = encode()
    assert settle(task, CARD) is task
    assert settle(task, Card(name="")) is task
    score = Score(ITEMS[0], ITEMS)
    assert settle(score, CARD) is score


@pytest.mark.parametrize(
    "fields",
    [
        {"profile": "all"},
        {"model": "org/model:all"},
        {"model": "model:all"},
        {"model": "org/model:nothing", "profile": "all"},
    ],
)
def test_a_profile_says_what_the_request_does_not(fields: dict[str, Any]) -> None:
    task = settle(encode(**fields), CARD)
    assert (task.role, task.normalize, task.dims) == ("query", False, 8)
    assert (task.max_tokens, task.dtype, task.kinds) == (16, "int8", ("dense",))
    assert [item.instruction for item in task.items] == ["Find", "Own"]


def test_what_the_request_says_stays() -> None:
    said = {"role": "document", "normalize": True, "dims": 4, "max_tokens": 5, "dtype": "float16"}
    task = settle(encode(profile="all", **said), CARD)
    assert {name: getattr(task, name) for name in said} == said


def test_a_type_that_a_dialect_cannot_write_is_no_profiles_to_choose() -> None:
    assert settle(Encode(ITEMS, profile="all"), CARD).dtype == "float32"


def test_the_default_profile_holds_where_none_is_named() -> None:
    card = Card(name="m", kinds=("dense",), profiles={"default": Wishes(dims=3)})
    assert settle(encode(), card).dims == 3
    assert settle(encode(profile="default"), card).dims == 3
    assert settle(encode(model="m:latest"), card).dims == 3
    assert settle(encode(profile="default"), CARD).dims is None


def test_kinds_of_a_profile_win_over_those_of_a_request_that_lets_them() -> None:
    assert settle(encode(profile="sparse", yields=True), CARD).kinds == ("sparse",)
    assert settle(encode(profile="sparse", kinds=()), CARD).kinds == ("sparse",)
    assert settle(encode(profile="sparse", kinds=("sparse",)), CARD).kinds == ("sparse",)
    both = Card(
        name="m", kinds=("dense", "sparse"), profiles={"default": Wishes(kinds=("dense", "sparse"))}
    )
    assert settle(encode(), both).kinds == ("dense",)
    assert settle(encode(kinds=("sparse",)), both).kinds == ("sparse",)
    assert settle(encode(kinds=("sparse",), yields=True), both).kinds == ("dense", "sparse")
    with pytest.raises(Unsupported, match="makes sparse vectors; here dense") as caught:
        settle(encode(profile="sparse"), CARD)
    assert caught.value.param == "profile"


@pytest.mark.parametrize(
    ("made", "kinds"),
    [
        (("dense", "sparse"), ("dense",)),
        (("sparse",), ("sparse",)),
        (("multivector",), ("multivector",)),
        ((), ()),
    ],
)
def test_without_any_wish_it_is_dense_or_what_the_model_makes(made: Any, kinds: Any) -> None:
    assert settle(encode(kinds=(), yields=True), Card(name="m", kinds=made)).kinds == kinds


def test_an_instruction_for_scoring_is_the_querys() -> None:
    task = settle(Score(ITEMS[0], ITEMS, profile="all"), CARD)
    assert (task.query.instruction, task.max_tokens) == ("Find", 16)
    assert [item.instruction for item in task.items] == [None, "Own"]
    assert settle(Score(ITEMS[1], ITEMS, profile="all"), CARD).query.instruction == "Own"


@pytest.mark.parametrize(
    ("task", "param"),
    [
        (Encode(ITEMS, profile="secret"), "profile"),
        (Encode(ITEMS, model="org/model:secret"), "model"),
        (Score(ITEMS[0], ITEMS, profile="secret"), "profile"),
        (Extract(ITEMS, model="org/model:secret"), "model"),
    ],
)
def test_an_unknown_profile_is_told_the_known_ones(task: Encode | Score, param: str) -> None:
    with pytest.raises(BadRequest, match="it has all, default, nothing, sparse") as caught:
        settle(task, CARD)
    assert caught.value.param == param
    assert "secret" not in caught.value.message


PLAIN = Card(name="m", kinds=("dense",), prompts={"query": ""})
PICTURE = Item((Image(Blob(b"")), Text("a"), Text("b")), "See")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Item((Text("a"),), "Find"), Item((Text("Find a"),))),
        (Item((Text("a"),)), Item((Text("a"),))),
        (PICTURE, Item((Image(Blob(b"")), Text("See a"), Text("b")))),
        (Item((Image(Blob(b"")),), "See"), Item((Image(Blob(b"")),), "See")),
    ],
)
def test_an_instruction_stands_before_the_text_where_there_are_no_prompts(
    item: Item, expected: Item
) -> None:
    assert settle(Encode((item,), prefixes=True), PLAIN).items == (expected,)
    assert settle(Encode((item,)), PLAIN).items == (item,)


@pytest.mark.parametrize(
    "card",
    [
        Card(name="m", kinds=("dense",), prompts={"query": "query: "}),
        Card(name="m", kinds=("dense",), instructions=True),
        Card(name="omnivec/bm25", kinds=("sparse",), architecture="omnivec-bm25"),
    ],
)
def test_a_model_with_prompts_or_for_single_words_has_its_own_way_with_an_instruction(
    card: Card,
) -> None:
    task = Encode((Item((Text("a"),), "Find"),), kinds=card.kinds, prefixes=True)
    assert settle(task, card) is task


def test_a_profiles_instruction_stands_there_too() -> None:
    card = Card(name="m", kinds=("dense",), profiles={"law": Wishes(instruction="Find law")})
    task = settle(Encode(ITEMS, profile="law", prefixes=True), card)
    assert [item.parts for item in task.items] == [(Text("Find law a"),), (Text("Own b"),)]
