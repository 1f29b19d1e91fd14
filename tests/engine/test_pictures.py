"""Pictures and films through the whole engine, and what is computed once of them."""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image as Pillow

import wire
from omnivec.core.errors import BadRequest, TooLong, Unsupported
from omnivec.core.nouns import (
    Array,
    Blob,
    Card,
    Encode,
    Extract,
    File,
    Film,
    Image,
    Item,
    Output,
    Pixels,
    Relevance,
    Result,
    Score,
    Task,
    Text,
    Tokens,
    Unit,
    Url,
    Vectors,
    Video,
)
from omnivec.core.settings import Settings
from omnivec.engine.local import LocalEngine
from omnivec.engine.memory import _name
from omnivec.engine.pictures import check_media
from omnivec.engine.work import is_short, size
from omnivec.hosts.assemble import local_engine
from omnivec.media.pieces import spread

SEEING = "seeing=fake:image=on,dims=8"
CAT = wire.DATA / "images" / "chelsea.png"


def run(*tasks: Task, models: tuple[str, ...] = (SEEING,), **settings: Any) -> list[Result]:
    async def scenario() -> list[Result]:
        engine = local_engine(Settings(models=models, **settings))
        await engine.load()
        try:
            return [await engine.run(task) for task in tasks]
        finally:
            await engine.close()

    return asyncio.run(scenario())


def test_a_picture_is_gone_when_it_was_answered() -> None:
    async def ask(engine: LocalEngine, count: int) -> list[weakref.ref[Array]]:
        pixels = [np.full((300, 300, 3), shade, np.uint8) for shade in range(count)]
        await engine.run(Encode(tuple(Item((Pixels(rgb),)) for rgb in pixels)))
        return [weakref.ref(rgb) for rgb in pixels]

    def left(asked: list[weakref.ref[Array]]) -> int:
        end = time.monotonic() + 30
        while (count := sum(ref() is not None for ref in asked)) and time.monotonic() < end:
            time.sleep(0.01)
        return count

    async def scenario() -> int:
        engine = local_engine(Settings(models=(SEEING,)))
        await engine.load()
        try:
            asked = [*await ask(engine, 1), *await ask(engine, 3)]
            return await asyncio.to_thread(left, asked)
        finally:
            await engine.close()

    assert asyncio.run(scenario()) == 0


def rows(result: Result) -> list[list[float]]:
    return [out.dense.tolist() for out in result.outputs if isinstance(out, Vectors)]  # type: ignore[union-attr]


def plain(height: int, width: int, value: int = 0) -> Pixels:
    return Pixels(np.full((height, width, 3), value, np.uint8))


def film(*values: int) -> Film:
    frames = tuple(plain(4, 4, value) for value in values)
    return Film(frames, tuple(float(i) for i in range(len(frames))))


def item(*parts: Any) -> Item:
    return Item(tuple(parts))


# ── encoding and scoring ─────────────────────────────────────────────────────────────────


def test_a_picture_has_one_vector_from_wherever_it_comes() -> None:
    pixels = Pixels(np.asarray(Pillow.open(CAT).convert("RGB")))
    items = [
        item(Image(File(str(CAT)))),
        item(Image(Blob(CAT.read_bytes()))),
        item(pixels),
        item(pixels, Text("a cat")),
        item(Text("a cat")),
    ]
    (result,) = run(Encode(tuple(items)), media_root=(str(CAT.parent),))
    one, two, three, mixed, text = rows(result)
    assert one == two == three
    assert len({tuple(row) for row in (one, mixed, text)}) == 3
    assert result.usage.items == 5
    assert result.timing.prepare > 0.01  # loading is in it
    assert result.timing.total >= result.timing.prepare


def test_pictures_are_scored_against_text_and_text_against_pictures() -> None:
    cat = item(Image(Blob(CAT.read_bytes())))
    query, documents = item(Text("a cat")), (item(Text("a cat")), cat, cat)
    by_text, by_picture = run(Score(query, documents), Score(cat, documents))
    found = [out.value for out in by_text.outputs if isinstance(out, Relevance)]
    assert found[0] > 0.99
    assert found[1] == found[2] < 0.99
    found = [out.value for out in by_picture.outputs if isinstance(out, Relevance)]
    assert found[1] > 0.99


def test_faults_name_the_item() -> None:
    bad, good = item(Image(Blob(b"x"))), item(Text("a"))
    for task, param in (
        (Encode((good, bad)), "[1]"),
        (Score(good, (good, good, bad)), "[2]"),
        (Score(bad, (good,)), "query"),
    ):
        with pytest.raises(BadRequest) as refused:
            run(task)
        assert refused.value.param == param


def test_a_model_that_reads_text_fetches_nothing() -> None:
    picture = item(Image(Url("http://127.0.0.1:1/never.png")))
    with pytest.raises(Unsupported, match="cannot read images") as refused:
        run(Encode((item(Text("a")), picture)), models=("fake",))
    assert refused.value.param == "[1]"
    with pytest.raises(Unsupported) as refused:
        run(Score(picture, (item(Text("a")),)), models=("fake",))
    assert refused.value.param == "query"
    with pytest.raises(Unsupported, match="cannot read videos"):
        run(Encode((item(Video(Blob(b"x"))),)), models=("fake",))


def test_pictures_go_to_the_model_that_takes_them() -> None:
    both = ("fake", SEEING)
    picture, text = Encode((item(plain(2, 2)),)), Encode((item(Text("a")),))
    one, two = run(picture, text, models=both)
    assert (one.card.name, two.card.name) == ("seeing", "fake")


# ── films ────────────────────────────────────────────────────────────────────────────────


def test_a_film_is_one_item_or_one_for_each_frame() -> None:
    task = Encode((item(Text("a")), item(film(1, 2, 3)), item(film(2))))
    frames = Encode(tuple(item(plain(4, 4, value)) for value in (1, 2, 3)))
    whole, each, alone = run(task, msgspec.structs.replace(task, each_frame=True), frames)
    assert len(whole.outputs) == 3
    assert len(each.outputs) == each.usage.items == 5
    text, *of_frames, again = rows(each)
    assert text == rows(whole)[0]
    assert of_frames == rows(alone)
    assert again == rows(alone)[1]


def test_frames_keep_what_is_beside_them_and_faults_name_the_film() -> None:
    split = spread(item(Text("b"), film(1, 2), film(3, 4)))
    assert [len(one.parts) for one in split] == [3, 3, 3, 3]
    assert isinstance(split[0].parts[0], Text)
    long = Encode(
        (item(film(1, 2, 3)), item(Text("a " * 2000), film(1, 2))),
        each_frame=True,
        overflow="refuse",
    )
    with pytest.raises(TooLong) as refused:
        run(long)
    assert refused.value.param == "[1]"


@pytest.mark.parametrize(
    ("modalities", "each_frame", "good"),
    [
        (("text",), False, False),
        (("text", "image"), False, False),
        (("text", "image"), True, True),
        (("text", "image", "video"), False, True),
        (("text", "video"), True, False),
    ],
)
def test_what_a_video_needs(modalities: tuple[str, ...], each_frame: bool, good: bool) -> None:
    task = Encode((item(Video(Blob(b"x"))),), each_frame=each_frame)
    card = Card(name="x", modalities=modalities)
    if good:
        check_media(task, card)
        assert each_frame or "video" in modalities
    else:
        with pytest.raises(Unsupported) as refused:
            check_media(task, card)
        assert refused.value.param == "[0]"


def test_an_extraction_takes_text() -> None:
    with pytest.raises(Unsupported):
        check_media(Extract((item(plain(2, 2)),)), Card(name="x"))


# ── what is computed once ────────────────────────────────────────────────────────────────


def unit(*parts: Any, **options: Any) -> Unit:
    return Unit(parts=tuple(parts), **options)


def test_what_tells_units_apart() -> None:
    first = plain(30, 100, 7)
    names = [
        _name(unit(first)),
        _name(unit(plain(100, 30, 7))),  # the same bytes in another shape
        _name(unit(plain(30, 100, 8))),
        _name(unit(first, Text("a"))),
        _name(unit(Text("a"), first)),
        _name(unit(first, role="query")),
        _name(unit(first, other=(first,))),
        _name(unit(Text("a"), other=(first,))),
        _name(unit(film(7))),
        _name(unit(film(7, 7))),
        _name(unit(plain(4, 4, 7))),
        _name(unit(Text("a"))),
        _name(unit(Tokens((1, 2)))),
    ]
    assert len(set(names)) == len(names)
    assert _name(unit(plain(30, 100, 7))) == names[0]
    assert _name(unit(Text("a"))) == unit(Text("a"))


def test_a_picture_is_computed_once_and_remembered(tmp_path: Any) -> None:
    cat = item(Image(Blob(CAT.read_bytes())))
    other = item(plain(30, 100))
    task = Encode((cat, other, cat, item(plain(100, 30))))

    async def scenario() -> tuple[list[Output], float, float]:
        settings = Settings(models=(SEEING,), cache=f"16MB,{tmp_path}")
        engine = local_engine(settings)
        await engine.load()
        try:
            first = await engine.run(task)
            joined = engine.stats()["seeing"]["joined"]
            for _ in range(200):  # until the disk has them
                second = await engine.run(task)
                if engine.stats()["seeing"]["recalled"] >= 3:
                    break
                await asyncio.sleep(0.05)
            assert rows(second) == rows(first)
            return list(first.outputs), joined, engine.stats()["seeing"]["recalled"]
        finally:
            await engine.close()

    _, joined, recalled = asyncio.run(scenario())
    assert joined == 1
    assert recalled >= 3


def test_a_picture_is_never_short_and_counts_for_its_size() -> None:
    assert not is_short(Encode((item(plain(1, 1)),)))
    assert size((plain(480, 640),)) == 4800
    assert size((plain(480, 640), Text("abc"))) == 4803
    assert size((film(1, 2),)) == 2 * size((plain(4, 4),))
