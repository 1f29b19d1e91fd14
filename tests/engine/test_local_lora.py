"""Adapters through the whole engine, on tiny checkpoints, against PEFT."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest

from adapters import BASE, build_adapter, peft_model
from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Loading, LoadingAdapter, UnknownModel, Unsupported
from omnivec.core.nouns import Describe, Encode, Item, Relevance, Result, Score, Text, Unit, Vectors
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings
from omnivec.engine.local import LocalEngine
from omnivec.engine.resident import Opener
from omnivec.hosts.assemble import local_engine

T = TypeVar("T")
TEXTS = ("a blue bird", "the law of large numbers, told again", "tax")
NAMES = (None, "law", "tax")


class Served(NamedTuple):
    base: Path
    law: Path
    tax: Path

    @property
    def lora(self) -> tuple[str, ...]:
        return f"law={self.law}", f"tax={self.tax}"


@pytest.fixture(scope="module")
def served(tiny: Callable[..., Path], adapter: Callable[..., Path]) -> Served:
    return Served(
        tiny("bert"),
        adapter("bert", seed=1, r=4, target_modules=["query", "value"]),
        adapter("bert", seed=2, r=2, target_modules="all-linear"),
    )


def items(*texts: str) -> tuple[Item, ...]:
    return tuple(Item((Text(text),)) for text in texts)


def within(work: Callable[[LocalEngine], Awaitable[T]], *models: Path, **settings: Any) -> T:
    async def scenario() -> T:
        told = {"dtype": "f32", **settings}
        engine = local_engine(Settings(models=tuple(map(str, models)), **told))
        await engine.load()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(scenario())


def matrix(result: Result) -> np.ndarray:
    return np.stack([out.dense for out in result.outputs if isinstance(out, Vectors)])


def expected(served: Served, texts: Sequence[str], name: str | None) -> np.ndarray:
    """PEFT's hidden states, pooled by their mean and normalised."""
    import torch
    import transformers

    model = peft_model(served.base, {"law": served.law, "tax": served.tax})
    tokens = transformers.AutoTokenizer.from_pretrained(served.base)
    rows = []
    for text in texts:
        fed = tokens(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**fed, adapter_names=[name or BASE]).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_requests_with_and_without_at_once(served: Served, runtime: str) -> None:
    async def work(engine: LocalEngine) -> list[Result]:
        tasks = [Encode(items(*TEXTS), adapter=name) for name in NAMES * 4]
        return await asyncio.gather(*map(engine.run, tasks))

    results = within(work, served.base, lora=served.lora, runtime=runtime)
    for result, name in zip(results, NAMES * 4, strict=True):
        np.testing.assert_allclose(matrix(result), expected(served, TEXTS, name), atol=1e-5)
    assert results[0].card.adapters == ("law", "tax")


def test_they_may_share_a_batch(served: Served) -> None:
    settings = Settings(dtype="f32")
    adapters = [Adapter("law", served.law), Adapter("tax", served.tax)]
    opener = Opener(discover("families"), discover("runtimes"), settings)
    model, _ = opener.open(Checkpoint("tiny", served.base, adapters=adapters))
    units = [
        Unit(parts=(Text(text),), adapter=name) for text, name in itertools.product(TEXTS, NAMES)
    ]
    features = model.prepare(units)
    assert {feature.group for feature in features} == {None}
    for unit, output in zip(units, model.forward(features), strict=True):
        row = output.dense / np.linalg.norm(output.dense)
        (same,) = expected(served, [unit.parts[0].text], unit.adapter)
        np.testing.assert_allclose(row, same, atol=1e-5)
    model.close()


def test_the_same_text_of_two_adapters_is_not_the_same_vector(
    served: Served, tmp_path: Path
) -> None:
    """Neither where one waits for the other nor where it was kept on disk."""

    async def work(engine: LocalEngine) -> list[Result]:
        tasks = [Encode(items("one text"), adapter=name) for name in NAMES]
        return [
            *await asyncio.gather(*map(engine.run, tasks)),
            *[await engine.run(t) for t in tasks],
        ]

    kept = f"16MB,{tmp_path / 'cache'}"
    results = within(work, served.base, lora=served.lora, cache=kept)
    again = within(work, served.base, lora=served.lora, cache=kept)
    for result, name in zip([*results, *again], NAMES * 4, strict=True):
        np.testing.assert_allclose(matrix(result), expected(served, ["one text"], name), atol=1e-5)


def test_a_kept_vector_is_not_that_of_a_changed_adapter(served: Served, tmp_path: Path) -> None:
    def asked() -> np.ndarray:
        return matrix(
            within(
                lambda engine: engine.run(Encode(items("one text"), adapter="law")),
                served.base,
                lora=(f"law={folder}",),
                cache=f"16MB,{tmp_path / 'cache'}",
            )
        )

    folder = shutil.copytree(served.law, tmp_path / "law")
    before = asked()
    shutil.copy(
        build_adapter(served.base, tmp_path / "new", seed=9, r=4, target_modules=["query", "value"])
        / "adapter_model.safetensors",
        folder,
    )
    assert np.abs(before - asked()).max() > 1e-3


def test_an_adapter_is_also_a_model_s_name(served: Served) -> None:
    async def work(engine: LocalEngine) -> tuple[Result, Result, Result]:
        named = await engine.run(Encode(items(*TEXTS), model="law"))
        listed = await engine.run(Describe())
        found = await engine.run(Describe(model=served.base.name))
        return named, listed, found

    named, listed, found = within(work, served.base, lora=served.lora)
    np.testing.assert_allclose(matrix(named), expected(served, TEXTS, "law"), atol=1e-5)
    assert [card.adapters for card in listed.cards] == [("law", "tax")]
    assert found.card.name == served.base.name


def test_a_bi_encoder_s_scores_are_of_the_adapter_s_vectors(served: Served) -> None:
    task = Score(items("bird")[0], items(*TEXTS), adapter="tax")
    result = within(lambda engine: engine.run(task), served.base, lora=served.lora)
    query, *documents = expected(served, ["bird", *TEXTS], "tax")
    scores = [out.raw for out in result.outputs if isinstance(out, Relevance)]
    np.testing.assert_allclose(scores, np.stack(documents) @ query, atol=1e-5)


def test_a_cross_encoder_s_scores(tiny: Callable[..., Path], adapter: Callable[..., Path]) -> None:
    import torch
    import transformers

    labels = {"num_labels": 1}
    base = tiny("xlm_roberta", **labels)
    folder = adapter("xlm_roberta", labels, labels=True, r=4, target_modules=["query", "dense"])
    task = Score(items("bird")[0], items(*TEXTS), adapter="law")
    result = within(lambda engine: engine.run(task), base, lora=(f"law={folder}",))
    model = peft_model(base, {"law": folder}, labels=True)
    tokens = transformers.AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        logits = [model(**tokens("bird", one, return_tensors="pt")).logits for one in TEXTS]
    raw = [out.raw for out in result.outputs if isinstance(out, Relevance)]
    np.testing.assert_allclose(raw, torch.cat(logits)[:, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize(("lora", "what"), [(True, "it has law, tax."), (False, "it has none.")])
def test_an_unknown_adapter(served: Served, lora: bool, what: str) -> None:
    task = Encode(items("a"), adapter="secret")
    with pytest.raises(Unsupported) as caught:
        within(lambda engine: engine.run(task), served.base, lora=served.lora if lora else ())
    assert caught.value.message == f"This model has no adapter of that name; {what}"
    assert caught.value.param == "adapter"


def test_a_name_that_is_neither_model_nor_adapter(served: Served) -> None:
    with pytest.raises(UnknownModel):
        within(
            lambda engine: engine.run(Encode(items("a"), model="lawful")),
            served.base,
            lora=served.lora,
        )


def test_while_it_loads_a_request_is_told_of_the_adapter(served: Served) -> None:
    async def scenario(task: Encode) -> Result:
        engine = local_engine(
            Settings(models=(str(served.base),), lora=served.lora, load_wait=0.01)
        )
        try:
            return await engine.run(task)
        finally:
            await engine.close()

    with pytest.raises(LoadingAdapter) as caught:
        asyncio.run(scenario(Encode(items("a"), adapter="law")))
    assert caught.value.retry_after == 1
    with pytest.raises(LoadingAdapter):
        asyncio.run(scenario(Encode(items("a"), model="tax")))
    with pytest.raises(Loading) as plain:
        asyncio.run(scenario(Encode(items("a"))))
    assert not isinstance(plain.value, LoadingAdapter)
    with pytest.raises(Unsupported, match="it has law, tax"):
        asyncio.run(scenario(Encode(items("a"), adapter="other")))


def test_one_for_another_model_is_told_in_the_card(
    served: Served, tiny: Callable[..., Path]
) -> None:
    async def work(engine: LocalEngine) -> tuple[str, str]:
        with pytest.raises(Loading) as caught:
            await engine.run(Encode(items("a"), adapter="law"))
        assert not isinstance(caught.value, LoadingAdapter)
        return engine.cards[0].state, engine.cards[0].reason

    state, reason = within(work, tiny("bert", hidden_size=48), lora=served.lora)
    assert state == "failed"
    assert reason.startswith("adapter law: '")
    assert "is 32 x 32, and 48 x 48 in the model that is served" in reason


def test_a_model_without_layers_has_none(served: Served, tiny: Callable[..., Path]) -> None:
    async def work(engine: LocalEngine) -> str:
        return engine.cards[0].reason

    reason = within(work, tiny("model2vec"), lora=served.lora)
    assert "LoRA adapters are not applied to models of the family static" in reason
