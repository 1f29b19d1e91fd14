"""The engine inside a program: what it accepts, what it refuses, and how it waits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import films
import omnivec
from omnivec import AsyncEngine, Engine
from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import Clip, Item, Pixels, Text


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("fake:dims=8", "fake-reranker") as opened:
        yield opened


def test_an_engine_that_is_not_open_says_how_to_open_it() -> None:
    engine = Engine("fake:dims=8")
    for call in (lambda: engine.embed(["a"]), lambda: engine.rerank("a", []), lambda: engine.cards):
        with pytest.raises(RuntimeError, match=r"with Engine\(\.\.\.\) as engine"):
            call()
    with engine:
        assert engine.embed(["a"]).shape == (1, 8)
    with pytest.raises(RuntimeError, match="with Engine"):
        engine.embed(["a"])
    with engine:  # and it can be opened again
        assert engine.embed(["a"]).shape == (1, 8)


def test_the_async_engine_says_so_too() -> None:
    async def scenario() -> None:
        engine = AsyncEngine("fake:dims=8")
        with pytest.raises(RuntimeError, match="async with AsyncEngine"):
            await engine.embed(["a"])
        async with engine:
            assert (await engine.embed([])).shape == (0, 8)
        with pytest.raises(RuntimeError, match="async with AsyncEngine"):
            await engine.rerank("a", ["b"])

    asyncio.run(scenario())


def test_nothing_in_makes_nothing_of_the_right_shape(engine: Engine) -> None:
    vectors = engine.embed([])
    assert (vectors.shape, vectors.dtype) == ((0, 8), np.float32)
    assert engine.embed([], dims=3).shape == (0, 3)
    scores = engine.rerank("q", [])
    assert (scores.shape, scores.dtype) == ((0,), np.float32)
    with pytest.raises(Unsupported):
        engine.embed([], dims=99)


def test_any_iterable_of_texts_will_do(engine: Engine) -> None:
    wanted = engine.embed(["a", "b"])
    assert np.array_equal(engine.embed(text for text in "ab"), wanted)
    assert np.array_equal(engine.embed(np.array(["a", "b"])), wanted)
    assert np.array_equal(engine.rerank("q", iter("ab")), engine.rerank("q", ("a", "b")))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda engine: engine.embed("one"), "a list of texts, not one text"),
        (lambda engine: engine.embed(b"one"), "a list of texts, not one text"),
        (lambda engine: engine.embed(None), "in a list, not NoneType"),
        (lambda engine: engine.embed(["a", None]), "number 1 is NoneType"),
        (lambda engine: engine.embed([b"a"]), "number 0 is bytes"),
        (lambda engine: engine.rerank(None, ["a"]), "number 0 is NoneType"),
        (lambda engine: engine.rerank("q", "one"), "a list of texts, not one text"),
        (lambda engine: engine.rerank("q", [1]), "number 0 is int"),
    ],
)
def test_what_is_not_texts_is_refused(
    engine: Engine, call: Callable[[Any], Any], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        call(engine)


def test_vectors_of_other_kinds() -> None:
    with Engine("fake:dims=8", "omnivec/bm25") as engine:
        found = engine.encode(["a cat", "cats and a dog"], kinds=["sparse"])
        asked = engine.encode(["Cat?"], kinds=["sparse"], role="query")
        whole = engine.encode(["a cat"], dims=4)
        assert engine.encode([], kinds=["sparse"]) == []
        with pytest.raises(Unsupported, match="dense"):
            engine.encode(["a"], kinds=["multivector"], model="fake")
        with pytest.raises(TypeError, match="encode takes a list of texts"):
            engine.encode("a")
        assert np.array_equal(whole[0].dense, engine.embed(["a cat"], dims=4)[0])
    assert [len(one.sparse.indices) for one in found] == [1, 2]
    assert found[0].dense is None
    assert asked[0].sparse.values.tolist() == [1.0]
    assert asked[0].sparse.indices[0] == found[0].sparse.indices[0]
    assert asked[0].sparse.indices[0] in found[1].sparse.indices


def test_a_small_queue_is_waited_for() -> None:
    texts = [str(i) for i in range(60)]

    async def scenario() -> tuple[Any, ...]:
        async with AsyncEngine("fake:dims=8,slow=0.005", "fake-reranker", queue=4) as engine:
            calls = [engine.embed(texts) for _ in range(3)]
            return await asyncio.gather(*calls, engine.rerank("q", texts))

    *found, scores = asyncio.run(scenario())
    with Engine("fake:dims=8", "fake-reranker") as engine:
        wanted, expected = engine.embed(texts), engine.rerank("q", texts)
    assert all(np.array_equal(one, wanted) for one in found)
    assert np.array_equal(scores, expected)


def test_a_fault_counts_from_the_first_text() -> None:
    texts = ["short"] * 9 + ["long " * 2000]
    with (
        Engine("fake:dims=8", queue=4, overflow="refuse") as engine,
        pytest.raises(BadRequest) as caught,
    ):
        engine.embed(texts)
    assert caught.value.param is not None
    assert caught.value.param.startswith("[9]")


def test_the_package_lists_its_names_and_logs_nothing_by_itself() -> None:
    assert {"Engine", "AsyncEngine", "__version__"} <= set(dir(omnivec))
    script = "import logging, omnivec; logging.getLogger('omnivec.engine').error('loud')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stderr == b""


# ── pictures and videos ──────────────────────────────────────────────────────────────────

SEEING = "fake:image=on,dims=8"


def test_a_path_is_a_picture(tmp_path: Path) -> None:
    texts = ["a.png", "b"]
    shades = [(9 * number, 0, 200) for number in range(20)]
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path, shade in zip(paths, shades, strict=True):
        Image.new("RGB", (5, 4), shade).save(path)
    decoded = [Pixels(np.full((4, 5, 3), shade, np.uint8)) for shade in shades]
    with Engine(SEEING) as engine:
        found = engine.embed([*texts, *paths])
        assert np.array_equal(found[:2], engine.embed(texts))
        assert np.array_equal(found[2:], engine.embed(decoded))
        assert len({row.tobytes() for row in found}) == 22
        both = Item((Text("b"), decoded[0]))
        assert np.array_equal(engine.embed([both]), engine.embed([both]))
        assert engine.rerank(paths[0], [*texts, *paths]).argmax() == 2
        one = engine.encode([paths[3]])[0].dense
        assert np.array_equal(one, found[5])


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (5, 4)).save(good)
    bad.write_bytes(b"no picture")
    with Engine(SEEING, "omnivec/bm25") as engine:
        with pytest.raises(BadRequest, match="no picture that can be read") as caught:
            engine.embed([good] * 10 + [bad], model="fake")
        assert caught.value.param == "[10]"
        with pytest.raises(FileNotFoundError):
            engine.embed([tmp_path / "nowhere.png"])
        with pytest.raises(Unsupported, match="cannot read images"):
            engine.encode([good], kinds=["sparse"], model="omnivec/bm25")


def test_a_film_has_frames_and_times(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(films.make())
    with Engine(SEEING) as engine:
        film = engine.film(path, Clip(frames=3))
        assert len(film.frames) == len(film.times) == 3
        assert list(film.times) == sorted(set(film.times))
        assert engine.embed(film.frames).shape == (3, 8)
        (path.parent / "not.mp4").write_bytes(b"no film")
        with pytest.raises(BadRequest):
            engine.film(path.parent / "not.mp4")
    with pytest.raises(RuntimeError, match="with Engine"):
        engine.film(path)
