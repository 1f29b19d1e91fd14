"""Graphs that a model may have or do without: Qwen3-VL's language model, for texts alone."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import Unsupported
from omnivec.core.nouns import Describe, Encode, Item, Pixels, Result, Score, Text, Vectors
from omnivec.core.plugins import discover
from omnivec.core.seams import Runtime, Session
from omnivec.core.settings import Settings
from omnivec.engine.local import LocalEngine
from omnivec.engine.resident import Opener
from omnivec.hosts.assemble import local_engine
from omnivec.runtimes.torch import TorchRuntime
from seeing import build_qwen3_vl, picture

T = TypeVar("T")
TORCHLESS = {name: one for name, one in discover("runtimes").items() if name != "torch"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_qwen3_vl(tmp_path_factory.mktemp("models") / "embedding")


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Path:
    return shutil.copytree(folder, folder.with_name("reranker"))


def opener(runtimes: dict[str, Runtime] | None = None, **settings: Any) -> Opener:
    settings = {"dtype": "f32", **settings}
    return Opener(discover("families"), runtimes or discover("runtimes"), Settings(**settings))


def within(
    work: Callable[[LocalEngine], Awaitable[T]],
    *models: Path,
    runtimes: dict[str, Runtime] | None = None,
    **settings: Any,
) -> T:
    async def scenario() -> T:
        told = Settings(models=tuple(map(str, models)), dtype="f32", **settings)
        engine = local_engine(told, runtimes=runtimes)
        await engine.load()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(scenario())


def item(*parts: Any) -> Item:
    return Item(tuple(Text(part) if isinstance(part, str) else part for part in parts))


def matrix(result: Result) -> np.ndarray[Any, Any]:
    return np.stack([one.dense for one in result.outputs if isinstance(one, Vectors)])


# ── what is opened ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "opened"),
    [
        ({}, {"main": "torch", "text": "openvino"}),
        ({"device": "cpu"}, {"main": "torch", "text": "openvino"}),
        ({"memory": "250MB"}, {"main": "torch"}),
        ({"runtime": "torch"}, {"main": "torch"}),
        ({"runtime": "openvino"}, {"text": "openvino"}),
        ({"runtime": "openvino", "memory": "250MB"}, {"text": "openvino"}),
    ],
)
def test_a_spare_graph_is_opened_where_it_is_preferred_and_has_room(
    folder: Path, settings: dict[str, Any], opened: dict[str, str]
) -> None:
    checkpoint, made = Checkpoint("tiny", folder), opener(**settings)
    heads = made.family(checkpoint).graphs(checkpoint)
    plan = made.plan(checkpoint, heads)
    assert {graph: runtime.name for graph, runtime in plan.items()} == opened
    held = sum(runtime.weigh(checkpoint, graph, "f32") for graph, runtime in plan.items())
    assert made.describe(checkpoint).memory == held


def test_the_card_tells_what_is_open(folder: Path) -> None:
    model, card = opener().open(Checkpoint("tiny", folder))
    model.close()
    assert card.modalities == ("text", "image", "video")
    assert (card.runtime, card.device, card.dtype) == ("torch and openvino", "cpu", "f32")
    assert card.extra == ""
    model, card = opener(runtime="torch").open(Checkpoint("tiny", folder))
    model.close()
    assert (card.runtime, card.extra) == ("torch", "")


def test_no_graph_for_a_cpu_stands_beside_one_on_a_gpu(folder: Path) -> None:
    class Elsewhere(TorchRuntime):
        def describe(self, session: Session) -> tuple[str, str]:  # as if it were
            return "cuda", super().describe(session)[1]  # type: ignore[arg-type] # is one of its own

    runtimes = {**discover("runtimes"), "torch": Elsewhere()}
    model, card = opener(runtimes).open(Checkpoint("tiny", folder))
    model.close()
    assert (card.runtime, card.device) == ("torch", "cuda")
    assert "image" in card.modalities
    assert card.memory == runtimes["torch"].weigh(Checkpoint("tiny", folder), "main", "f32")


@pytest.mark.parametrize("settings", [{"runtime": "onnx"}, {"device": "cuda"}])
def test_where_nothing_can_be_opened_the_whole_one_is_spoken_of(
    folder: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match="tiny cannot be opened") as raised:
        opener(TORCHLESS, **settings).describe(Checkpoint("tiny", folder))
    assert "'qwen3_vl_text'" not in str(raised.value)
    assert raised.value.cause == "DEPENDENCY"


# ── without torch ────────────────────────────────────────────────────────────────────────


def test_without_torch_texts_are_served(
    folder: Path, reranker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = tuple(map(item, ("a fox", "the quick brown fox", "")))
    tasks = [
        Encode(texts, "embedding"),
        Score(texts[0], texts, "embedding"),
        Score(texts[0], texts, "reranker"),
    ]

    async def work(engine: LocalEngine) -> list[Result]:
        return [*[await engine.run(task) for task in tasks], await engine.run(Describe())]

    *found, told = within(work, folder, reranker, runtimes=TORCHLESS)
    *whole, _ = within(work, folder, reranker, runtime="torch")
    for card in told.cards:
        assert (card.state, card.modalities, card.runtime) == ("loaded", ("text",), "openvino")
    assert "pip install 'omnivec[torch]'" in caplog.text
    np.testing.assert_allclose(matrix(found[0]), matrix(whole[0]), atol=1e-5)
    for ours, theirs in zip(found[1:], whole[1:], strict=True):
        scores = [[one.value for one in each.outputs] for each in (ours, theirs)]
        np.testing.assert_allclose(*scores, atol=1e-5)


@pytest.mark.parametrize(
    ("runtimes", "runtime", "words"),
    [
        (TORCHLESS, "auto", "cannot read images. The server lacks the extra torch"),
        (None, "openvino", "cannot read images.$"),
    ],
)
def test_a_picture_is_refused_where_only_texts_are_read(
    folder: Path, runtimes: Any, runtime: str, words: str
) -> None:
    seen = Item((Pixels(picture(40, 40).rgb),))
    task = Encode((item("a"), seen))
    with pytest.raises(Unsupported, match=words) as caught:
        within(lambda engine: engine.run(task), folder, runtimes=runtimes, runtime=runtime)
    assert caught.value.param == "[1]"


# ── both ─────────────────────────────────────────────────────────────────────────────────


def test_texts_and_pictures_in_one_request_go_each_their_way(folder: Path, reranker: Path) -> None:
    seen = picture(40, 60)
    items = tuple(
        item(*parts) for parts in (("a fox",), (seen,), ("a fox", seen), ("dogs " * 9,), ())
    )
    tasks = [Encode(items, "embedding"), Score(items[0], items, "reranker")]

    async def work(engine: LocalEngine) -> list[Result]:
        return await asyncio.gather(*[engine.run(task) for task in tasks * 3])

    both = within(work, folder, reranker)
    whole = within(work, folder, reranker, runtime="torch")
    assert both[0].card.runtime == "torch and openvino"
    for ours, theirs in zip(both[::2], whole[::2], strict=True):
        np.testing.assert_allclose(matrix(ours), matrix(theirs), atol=1e-5)
    for ours, theirs in zip(both[1::2], whole[1::2], strict=True):
        scores = [[one.value for one in each.outputs] for each in (ours, theirs)]
        np.testing.assert_allclose(*scores, atol=1e-5)
