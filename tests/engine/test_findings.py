"""Extraction through the whole engine, on the runtimes that open real checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from checkpoints import SENTENCES
from omnivec.core.errors import BadRequest, TooLong, UnknownModel, Unsupported
from omnivec.core.nouns import (
    Class,
    Encode,
    Extract,
    Findings,
    Item,
    Result,
    Score,
    Task,
    Text,
)
from omnivec.core.settings import Settings
from omnivec.engine import store
from omnivec.engine.local import LocalEngine
from omnivec.hosts.assemble import local_engine

T = TypeVar("T")
LABELS = ("a quick fox", "vectors", "the weather in Berlin", "dog")
NLI = ("contradiction", "neutral", "entailment")
EMOTIONS = ("joy", "anger", "surprise", "fear", "calm")
TEXTS = [*SENTENCES, "fox", " ".join(SENTENCES)] * 3


@pytest.fixture(scope="session")
def nli(tiny: Callable[..., Path]) -> str:
    return f"nli={tiny('bert', num_labels=3, labels=NLI)}"


@pytest.fixture(scope="session")
def emotions(tiny: Callable[..., Path]) -> str:
    return f"emotions={tiny('xlm_roberta', num_labels=5, labels=EMOTIONS)}"


class Rows:
    """How many rows went through a model."""

    def __init__(self) -> None:
        self.count = 0

    def batch(self, model: str, rows: int, tokens: int, seconds: float) -> None:
        self.count += rows


def within(
    work: Callable[[LocalEngine], Awaitable[T]],
    *models: str,
    watch: Rows | None = None,
    **settings: Any,
) -> T:
    async def scenario() -> T:
        chosen = Settings(models=models, dtype="f32", device="cpu", **settings)
        engine = local_engine(chosen, watch=watch or Rows())
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


def findings(result: Result) -> list[Findings]:
    return [output for output in result.outputs if isinstance(output, Findings)]


def told(task: str, model: str, *args: Any, **wishes: Any) -> list[dict[str, float]]:
    """What transformers' pipeline says: scores by label, for each text."""
    import transformers

    reference = transformers.pipeline(task, model=model.partition("=")[2] or model, device="cpu")
    found = reference(*args, **wishes)
    if task == "text-classification":
        return [{one["label"]: one["score"] for one in row} for row in found]
    return [dict(zip(row["labels"], row["scores"], strict=True)) for row in found]


def assert_same(found: list[Findings], expected: list[dict[str, float]]) -> None:
    assert len(found) == len(expected)
    for one, scores in zip(found, expected, strict=True):
        assert {each.label for each in one.classes} == scores.keys()
        mine = [each.score for each in one.classes]
        theirs = [scores[each.label] for each in one.classes]
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
        assert mine == sorted(mine, reverse=True)


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        ("bert", "openvino"),
        ("roberta", "openvino"),
        ("xlm_roberta", "openvino"),
        ("distilbert", "openvino"),
        ("modernbert", "openvino"),
        ("deberta_v2", "torch"),
        ("bart", "torch"),
    ],
)
def test_as_the_pipelines(tiny: Callable[..., Path], kind: str, runtime: str) -> None:
    """Each on the runtime that is chosen for it; the pairs of one item ride in many batches."""
    folder = str(tiny(kind, num_labels=3, labels=NLI))
    result = run(Extract(items(*TEXTS), labels=LABELS), folder)
    assert result.card.runtime == runtime
    expected = told("zero-shot-classification", folder, TEXTS, candidate_labels=list(LABELS))
    assert_same(findings(result), expected)
    own = str(tiny(kind, num_labels=5, labels=EMOTIONS))
    expected = told("text-classification", own, TEXTS, top_k=None, truncation=True)
    assert_same(findings(run(Extract(items(*TEXTS)), own)), expected)


def test_wishes_of_a_zero_shot_request(nli: str) -> None:
    texts, template = list(SENTENCES), "Is this {}?"
    wishes = {"candidate_labels": list(LABELS), "multi_label": True}
    expected = told("zero-shot-classification", nli, texts, hypothesis_template=template, **wishes)

    async def ask(engine: LocalEngine) -> tuple[Result, Result]:
        task = Extract(items(*texts), labels=LABELS, multi_label=True, template=template)
        cut = Extract(
            items(*texts), labels=LABELS, multi_label=True, template=template, threshold=0.5, top=2
        )
        return await engine.run(task), await engine.run(cut)

    whole, cut = within(ask, nli)
    assert_same(findings(whole), expected)
    for one, less in zip(findings(whole), findings(cut), strict=True):
        assert less.classes == tuple(each for each in one.classes if each.score >= 0.5)[:2]
    assert whole.ignored == ()


def test_labels_of_the_request_restrict_a_models_own(emotions: str) -> None:
    async def ask(engine: LocalEngine) -> list[Result]:
        wanted = ({}, {"labels": ("calm", "joy")}, {"threshold": 1.0}, {"top": 1})
        return [await engine.run(Extract(items("fox"), **each)) for each in wanted]

    whole, some, none, best = (findings(one)[0].classes for one in within(ask, emotions))
    assert {one.label for one in whole} == set(EMOTIONS)
    assert some == tuple(one for one in whole if one.label in ("calm", "joy"))
    assert none == ()
    assert best == whole[:1]


def test_an_end_token_inside_a_text_harms_no_other(tiny: Callable[..., Path]) -> None:
    """BART's head counts them, and refuses a batch whose rows have different numbers."""
    folder = str(tiny("bart", num_labels=3, labels=NLI))
    texts = ["a fox", "a </s> dog", "the river"]

    async def ask(engine: LocalEngine) -> tuple[list[Findings], list[Findings]]:
        together = await engine.run(Extract(items(*texts), labels=LABELS))
        alone = [await engine.run(Extract(items(text), labels=LABELS)) for text in texts]
        return findings(together), [findings(one)[0] for one in alone]

    together, alone = within(ask, folder)
    for one, other in zip(together, alone, strict=True):
        assert [each.label for each in one.classes] == [each.label for each in other.classes]
        scores = [each.score for each in other.classes]
        np.testing.assert_allclose([each.score for each in one.classes], scores, atol=1e-5)


def test_a_label_that_is_there_twice_counts_once(nli: str) -> None:
    twice = run(Extract(items("fox"), labels=("dog", "fox", "dog")), nli)
    once = run(Extract(items("fox"), labels=("dog", "fox")), nli)
    assert twice.outputs == once.outputs


def test_equal_scores_stay_in_the_labels_order(nli: str) -> None:
    (found,) = findings(run(Extract(items("fox"), labels=("Fox", "fox", "FOX")), nli))
    assert [one.label for one in found.classes] == ["Fox", "fox", "FOX"]
    assert found.classes[0].score == pytest.approx(1 / 3)


def test_usage_counts_every_pair_and_each_cut_item_once(nli: str) -> None:
    result = run(Extract(items("f f", "f " * 100), labels=("a", "b")), nli)
    assert (result.usage.items, result.usage.truncated) == (2, 1)
    assert result.usage.tokens > 2 * 64


@pytest.mark.parametrize(
    ("task", "param", "words"),
    [
        (Extract(items("a")), "labels", "name at least one"),
        (Extract(items("a"), labels=("x", " ")), "labels[1]", "not empty"),
        (Extract(items("a"), labels=("\ud800",)), "labels[0]", "Unicode"),
        (Extract(items("a"), labels=("x",), template="none"), "template", "one {}"),
        (Extract(items("a"), labels=("x",), template="{} {}"), "template", "one {}"),
        (Extract(items("a"), labels=("x",), template="{}" + "x" * 1000), "template", "1000"),
        (Extract(items("a"), labels=("x",), template="\ud800{}"), "template", "one {}"),
        (Extract(items(*"abc"), labels=("x", "y", "z")), "labels", "At most 8 pairs"),
        (Extract((), labels=("x",)), "[0]", "At least one input"),
        (Extract(items("a", "b", "\ud800"), labels=("x", "y")), "[2]", "surrogate"),
    ],
)
def test_what_a_zero_shot_model_refuses(nli: str, task: Extract, param: str, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        run(task, nli, max_items=8)
    assert refused.value.param == param
    assert words in refused.value.message


def test_a_text_that_is_too_long_is_named_by_its_item(nli: str) -> None:
    texts = items(*["f"] * 70, "f " * 100)
    with pytest.raises(TooLong) as refused:
        run(Extract(texts, labels=("x", "y", "z"), overflow="refuse"), nli)
    assert refused.value.param == "[70]"


def test_an_unknown_label_is_told_the_models_own(emotions: str) -> None:
    with pytest.raises(BadRequest, match=r"labels are joy, anger, surprise, fear, calm\.") as no:
        run(Extract(items("a"), labels=("joy", "secret")), emotions)
    assert no.value.param == "labels"
    assert "secret" not in no.value.message


def test_many_labels_are_not_all_told(tiny: Callable[..., Path]) -> None:
    folder = tiny("bert", num_labels=30)
    with pytest.raises(BadRequest, match="LABEL_19 and 10 more"):
        run(Extract(items("a"), labels=("secret",)), str(folder))


def test_each_model_does_what_it_can(nli: str, emotions: str) -> None:
    async def ask(engine: LocalEngine) -> None:
        chosen = await engine.run(Extract(items("fox"), labels=("dog",)))
        assert chosen.card.name == "nli"
        assert (await engine.run(Encode(items("fox")))).card.name == "fake"
        assert (await engine.run(Score(items("fox")[0], items("a", "b")))).card.name == "fake"
        with pytest.raises(Unsupported, match="cannot classify"):
            await engine.run(Extract(items("fox"), "fake", labels=("dog",)))
        for name in ("nli", "emotions"):
            with pytest.raises(Unsupported, match="cannot make embeddings"):
                await engine.run(Encode(items("fox"), name))
            with pytest.raises(Unsupported, match="cannot rerank"):
                await engine.run(Score(items("fox")[0], items("a"), name))
        with pytest.raises(UnknownModel):
            await engine.run(Extract(items("fox"), "other", labels=("dog",)))

    within(ask, "fake:dims=8", nli, emotions)


def test_where_none_can_extract() -> None:
    with pytest.raises(UnknownModel, match=r"classifies; .* facebook/bart-large-mnli"):
        run(Extract(items("a"), labels=("x",)), "fake:dims=8")
    with pytest.raises(UnknownModel, match=r"classifies; .* SamLowe/roberta-base-go_emotions"):
        run(Extract(items("a")), "fake:dims=8")


def test_what_cannot_be_heeded_is_told(nli: str, emotions: str) -> None:
    asked = (Item((Text("fox"),), "Find it"),)
    task = Extract(asked, labels=("dog",), multi_label=True, template="On {}.")
    assert run(task, nli).ignored == ("instruction",)
    task = Extract(asked, multi_label=False, template="On {}.")
    assert run(task, emotions).ignored == ("instruction", "multi_label", "hypothesis_template")


@pytest.mark.parametrize("labels", [("dog", "river"), ()])
def test_findings_are_remembered(
    nli: str,
    emotions: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    labels: tuple[str, ...],
) -> None:
    """Pairs by their hypotheses, a model's own labels whichever of them were asked for."""
    monkeypatch.setattr(store, "PATIENCE", 10.0)  # a test machine may be busy
    monkeypatch.setattr(store, "OPENING", 30.0)
    model = nli if labels else emotions

    task = Extract(items("fox", "dog"), labels=labels, multi_label=True)

    async def ask(engine: LocalEngine, rows: Rows) -> tuple[Result, int]:
        rows.count = 0  # the first, which proves the model
        return await engine.run(task), rows.count

    def asked() -> tuple[Result, int]:
        rows = Rows()
        return within(lambda engine: ask(engine, rows), model, watch=rows, cache=cache)

    cache = f"16MB,{tmp_path}"
    first, computed = asked()
    assert computed == 2 * max(1, len(labels))
    again, computed = asked()
    assert computed == 0
    assert again.outputs == first.outputs
    assert again.usage == first.usage
    assert all(isinstance(one, Class) for found in findings(again) for one in found.classes)
