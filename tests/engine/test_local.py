"""Tasks through the whole engine, on the runtime that needs no weights."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from omnivec import AsyncEngine, Engine
from omnivec.core.checkpoint import CheckpointError
from omnivec.core.errors import (
    BadRequest,
    Loading,
    ModelFailed,
    TooLong,
    UnknownModel,
    Unsupported,
)
from omnivec.core.nouns import (
    Describe,
    Encode,
    Extract,
    File,
    Image,
    Item,
    Relevance,
    Result,
    Score,
    Task,
    Text,
    Tokens,
    Vectors,
)
from omnivec.core.settings import Settings
from omnivec.engine.local import LocalEngine
from omnivec.hosts.assemble import local_engine

T = TypeVar("T")
FAULTY = "fake:dims=8,faults=on"


def within(work: Callable[[LocalEngine], Awaitable[T]], *models: str, **settings: Any) -> T:
    """Run `work` with a loaded engine."""

    async def scenario() -> T:
        engine = local_engine(Settings(models=models or ("fake:dims=8",), **settings))
        await engine.load()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(scenario())


def run(task: Task, *models: str, **settings: Any) -> Result:
    return within(lambda engine: engine.run(task), *models, **settings)


def items(*texts: str) -> tuple[Item, ...]:
    return tuple(Item((Text(text),)) for text in texts)


def matrix(result: Result) -> np.ndarray[Any, Any]:
    return np.stack([out.dense for out in result.outputs if isinstance(out, Vectors)])


def scores(result: Result) -> list[float]:
    return [out.value for out in result.outputs if isinstance(out, Relevance)]


def test_vectors_are_in_order_and_of_unit_length() -> None:
    texts = [f"text number {i} " + "and more " * (i % 50) for i in range(200)]
    together = matrix(run(Encode(items(*texts))))
    assert together.shape == (200, 8)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert np.allclose(together[77], matrix(run(Encode(items(texts[77]))))[0], atol=1e-6)


def test_dims_cut_first_and_normalise_after() -> None:
    whole = matrix(run(Encode(items("a text"))))[0]
    result = run(Encode(items("a text"), dims=3))
    assert result.dims == 3
    assert np.allclose(matrix(result)[0], whole[:3] / np.linalg.norm(whole[:3]), atol=1e-6)


def test_without_normalize_the_cut_vector_stays_as_it_is() -> None:
    whole = matrix(run(Encode(items("a text"), normalize=False)))[0]
    assert np.array_equal(
        matrix(run(Encode(items("a text"), dims=3, normalize=False)))[0], whole[:3]
    )


@pytest.mark.parametrize("dims", [0, -1, 9, 10**9])
def test_dims_out_of_range_are_refused(dims: int) -> None:
    with pytest.raises(Unsupported, match="1 to 8") as refused:
        run(Encode(items("a"), dims=dims))
    assert refused.value.param == "dims"


def test_a_default_length_is_kept_as_far_as_the_model_goes() -> None:
    assert run(Encode(items("a")), default_dims=4).dims == 4
    assert run(Encode(items("a")), default_dims=2048).dims == 8


def test_usage_counts_tokens_and_truncation_exactly() -> None:
    one = run(Encode(items("a few words here"))).usage
    two = run(Encode(items("a few words here", "a few words here"))).usage
    assert (two.tokens, two.items, two.truncated) == (2 * one.tokens, 2, 0)
    cut = run(Encode(items("word " * 5000, "short"), max_tokens=16)).usage
    assert cut.truncated == 1
    assert cut.tokens < one.tokens + 16


def test_refused_truncation_names_the_item_beyond_the_first_chunk() -> None:
    texts = ["short"] * 70 + ["word " * 5000]
    with pytest.raises(TooLong) as refused:
        run(Encode(items(*texts), overflow="refuse", max_tokens=16))
    assert refused.value.param == "[70]"
    assert "16" in refused.value.message


@pytest.mark.parametrize(
    ("model", "long", "param"),
    [
        ("fake:dims=8", 0, "query"),
        ("fake:dims=8", 1, "[0]"),
        ("fake:dims=8", 3, "[2]"),
        ("fake-reranker", 0, "[0]"),  # already the first pair is too long
        ("fake-reranker", 3, "[2]"),
    ],
)
def test_refused_truncation_names_the_query_or_the_document(
    model: str, long: int, param: str
) -> None:
    texts = ["short"] * 4
    texts[long] = "word " * 5000
    task = Score(items(texts[0])[0], items(*texts[1:]), overflow="refuse", max_tokens=32)
    with pytest.raises(TooLong) as refused:
        run(task, model)
    assert refused.value.param == param


def test_the_servers_own_overflow_setting_holds_when_none_is_asked() -> None:
    with pytest.raises(TooLong):
        run(Encode(items("word " * 5000), max_tokens=16), overflow="refuse")


def test_a_cross_encoder_scores_pairs() -> None:
    task = Score(items("query")[0], items("one", "two", "three"))
    found = scores(run(task, "fake-reranker"))
    assert len(found) == 3
    assert len(set(found)) == 3
    assert all(0 < score < 1 for score in found)


def test_a_bi_encoder_scores_by_cosine() -> None:
    texts = ("one", "two", "three")
    result = run(Score(items("asked")[0], items(*texts)))
    query = matrix(run(Encode(items("asked"), role="query")))[0]
    documents = matrix(run(Encode(items(*texts), role="document")))
    raw = [out.raw for out in result.outputs if isinstance(out, Relevance)]
    assert raw == pytest.approx(documents @ query, abs=1e-6)
    assert scores(result) == [max(0.0, score) for score in raw]


def test_a_reranker_is_preferred_for_scoring_and_cannot_embed() -> None:
    models = ("fake:dims=8", "fake-reranker")
    score = run(Score(items("a")[0], items("b")), *models)
    assert score.card.name == "fake-reranker"
    assert run(Encode(items("a")), *models).card.name == "fake"
    with pytest.raises(Unsupported, match="cannot make embeddings"):
        run(Encode(items("a"), model="fake-reranker"), *models)


@pytest.mark.parametrize("name", ["nobody/nothing", "../../etc/passwd", "a\0b", "m" * 10**6])
def test_an_unknown_model_is_a_fault_that_repeats_nothing(name: str) -> None:
    with pytest.raises(UnknownModel) as refused:
        run(Encode(items("a"), model=name))
    assert "passwd" not in refused.value.message
    assert refused.value.param == "model"


def test_images_are_refused_by_a_model_that_takes_text() -> None:
    image = Item((Image(File("/cat.jpg")),))
    with pytest.raises(Unsupported, match="takes text") as refused:
        run(Encode((*items("a"), image)))
    assert refused.value.param == "[1]"


def test_no_items_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        run(Encode(()))


def test_token_ids_of_the_model_and_refused_ones() -> None:
    ids = Item((Tokens((5, 6, 7)),))
    assert matrix(run(Encode((ids,)), token_ids="model")).shape == (1, 8)
    with pytest.raises(BadRequest, match="takes text"):
        run(Encode((ids,)), token_ids="refuse")
    with pytest.raises(BadRequest, match="check_embedding_ctx_length"):
        run(Encode((ids,)), token_ids="cl100k")


def test_an_item_that_breaks_the_model_fails_alone() -> None:
    async def scenario(engine: LocalEngine) -> list[object]:
        texts = [f"text {i}" for i in range(31)]
        texts.insert(7, "[[raise]]")
        tasks = [engine.run(Encode(items(text))) for text in texts]
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcome = within(scenario, FAULTY)
    assert isinstance(outcome[7], ModelFailed)
    assert sum(isinstance(result, Result) for result in outcome) == 31


@pytest.mark.parametrize("marker", ["[[nan]]", "[[raise]]"])
def test_a_broken_item_fails_its_own_request_as_a_whole(marker: str) -> None:
    with pytest.raises(ModelFailed) as failed:
        run(Encode(items("good", marker, "good")), FAULTY)
    assert marker not in failed.value.message


def test_a_crash_is_survived() -> None:
    async def scenario(engine: LocalEngine) -> tuple[object, Result]:
        crashed = await asyncio.gather(
            engine.run(Encode(items("[[crash]]"))), return_exceptions=True
        )
        return crashed[0], await engine.run(Encode(items("after")))

    crashed, after = within(scenario, FAULTY)
    assert isinstance(crashed, ModelFailed)
    assert matrix(after).shape == (1, 8)


def test_a_hang_is_given_up() -> None:
    async def scenario(engine: LocalEngine) -> tuple[object, Result]:
        hung = await asyncio.gather(engine.run(Encode(items("[[hang]]"))), return_exceptions=True)
        return hung[0], await engine.run(Encode(items("after")))

    hung, after = within(scenario, FAULTY, batch_timeout=1.0)
    assert isinstance(hung, ModelFailed)
    assert matrix(after).shape == (1, 8)


def test_one_model_that_fails_takes_nothing_else_down(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known"}')

    async def scenario(engine: LocalEngine) -> tuple[Result, Result]:
        with pytest.raises(Loading, match="could not be loaded"):
            await engine.run(Encode(items("a"), model="broken"))
        unnamed = await engine.run(Encode(items("a")))
        assert unnamed.card.name == "fake"
        assert (await engine.run(Score(items("a")[0], items("b")))).card.name == "fake"
        return await engine.run(Encode(items("a"), model="fake")), await engine.run(Describe())

    answer, described = within(scenario, f"broken={tmp_path}", "fake:dims=8")
    assert matrix(answer).shape == (1, 8)
    assert [card.state for card in described.cards] == ["failed", "loaded"]
    assert described.cards[0].reason


def test_a_request_waits_for_a_model_that_is_loading_and_is_told_when_it_is_too_long() -> None:
    async def scenario() -> tuple[Result, object]:
        engine = local_engine(Settings(models=("fake:dims=8,slow=0.3",)))
        hasty = local_engine(Settings(models=("fake:dims=8,slow=0.3",), load_wait=0.01))
        loads = [asyncio.ensure_future(one.load()) for one in (engine, hasty)]
        answers = await asyncio.gather(
            engine.run(Encode(items("a"))), hasty.run(Encode(items("a"))), return_exceptions=True
        )
        await asyncio.gather(*loads)
        await asyncio.gather(engine.close(), hasty.close())
        return answers[0], answers[1]  # type: ignore[return-value]

    patient, hasty = asyncio.run(scenario())
    assert isinstance(patient, Result)
    assert isinstance(hasty, Loading)
    assert hasty.retry_after


def test_an_instruction_that_a_model_cannot_follow_is_reported() -> None:
    plain = run(Encode(items("a")))
    told = run(Encode((Item((Text("a"),), "Find a needle"),)))
    assert told.ignored == ("instruction",)
    assert np.array_equal(matrix(plain), matrix(told))


def test_wishes_for_dense_vectors_are_reported_where_there_are_none() -> None:
    task = Encode(items("a"), "bm25", kinds=("sparse",), dims=8, normalize=False)
    assert run(task, "omnivec/bm25").ignored == ("dimensions", "normalize")
    assert run(Encode(items("a"), kinds=("sparse",), normalize=True), "omnivec/bm25").ignored == ()
    assert run(Encode(items("a"), dims=4, normalize=False), "fake:dims=8").ignored == ()


def test_the_embedded_engine_gives_arrays() -> None:
    with Engine("fake:dims=8", "fake-reranker") as engine:
        assert engine.embed(["a", "b"]).shape == (2, 8)
        assert engine.embed(["a"], dims=2).dtype == np.float32
        assert engine.rerank("q", ["x", "y", "z"]).shape == (3,)
        assert [card.name for card in engine.cards] == ["fake", "fake-reranker"]
        with pytest.raises(TypeError):
            engine.embed("one text")
        with pytest.raises(Unsupported):
            engine.embed(["a"], dims=99)
        many = engine.embed([str(i) for i in range(3000)])
        assert np.array_equal(many[2999], engine.embed(["2999"])[0])


def test_the_embedded_engine_says_why_a_model_cannot_be_had(tmp_path: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"), Engine(str(tmp_path)):
        pass


def test_the_async_engine_is_the_same() -> None:
    async def scenario() -> Any:
        async with AsyncEngine("fake:dims=8") as engine:
            return await engine.embed(["a"]), await engine.rerank("a", ["a", "b"])

    vectors, found = asyncio.run(scenario())
    assert vectors.shape == (1, 8)
    assert found.shape == (2,)


# ── profiles ─────────────────────────────────────────────────────────────────────────────

OWN = """
[[group]]
models = [{ id = "fake" }]

[group.profiles.short]
dimensions = 3
normalize = false
output_dtype = "float16"
max_seq_length = 6

[group.profiles.sparse]
output_types = ["sparse"]
"""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "own.toml").write_text(OWN)
    return {"catalogue": str(tmp_path / "own.toml")}


def test_a_profile_is_applied_whichever_way_it_is_named(own: dict[str, str]) -> None:
    text = "a text of more than six tokens"
    asked = Encode(items(text), "fake", dims=3, normalize=False, max_tokens=6, dtype="float16")
    expected = run(asked, **own)
    for name, profile in (("fake", "short"), ("fake:short", None)):
        result = run(Encode(items(text), name, dtype=None, profile=profile), **own)
        assert np.array_equal(matrix(result), matrix(expected))
        assert matrix(result).dtype == np.float16
        assert (result.dims, result.dtype, result.usage) == (3, "float16", expected.usage)
    longer = run(Encode(items(text), "fake:short", dims=5), **own)
    assert longer.dims == 5


@pytest.mark.parametrize(
    "task",
    [
        Encode(items("a"), "fake", profile="secret"),
        Encode(items("a"), "fake:secret"),
        Score(items("a")[0], items("b"), "fake:secret"),
        Extract(items("a"), "fake", profile="secret"),
        Describe("fake:secret"),
    ],
)
def test_an_unknown_profile_is_told_the_others(task: Task, own: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="it has default, short, sparse") as caught:
        run(task, **own)
    assert "secret" not in caught.value.message


def test_a_kind_that_no_model_makes_is_named_with_models_that_do() -> None:
    words = "No model here makes sparse vectors; .* omnivec/bm25 or BAAI/bge-m3"
    with pytest.raises(UnknownModel, match=words):
        run(Encode(items("a"), kinds=("sparse",)), "fake:dims=8")
    with pytest.raises(UnknownModel, match="No model here can make embeddings"):
        run(Encode(items("a")), "fake-reranker")


def test_a_profile_may_ask_for_more_than_the_model_makes(own: dict[str, str]) -> None:
    with pytest.raises(Unsupported, match="makes dense vectors only") as caught:
        run(Encode(items("a"), "fake:sparse", yields=True), **own)
    assert caught.value.param == "kinds"


def test_without_a_wish_a_model_makes_what_it_can() -> None:
    task = Encode(items("two words"), "bm25", kinds=(), yields=True)
    (output,) = run(task, "omnivec/bm25").outputs
    assert isinstance(output, Vectors)
    assert output.dense is None
    assert output.sparse is not None


def test_a_card_is_found_under_a_profiles_name(own: dict[str, str]) -> None:
    for name in ("fake", "fake:short", "fake:latest", "fake:default"):
        (card,) = run(Describe(name), **own).cards
        assert (card.name, sorted(card.profiles)) == ("fake", ["short", "sparse"])
