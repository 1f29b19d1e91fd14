"""Models that come and go, on the runtime that needs no weights and claims what it is told."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.errors import LoadFailed, Loading, ModelFailed, UnknownModel
from omnivec.core.nouns import Describe, Encode, Item, Keep, Result, Text, Vectors
from omnivec.core.settings import Settings
from omnivec.engine import resident as residents
from omnivec.engine import roster as rosters
from omnivec.engine.local import LocalEngine
from omnivec.engine.resident import Resident
from omnivec.hosts.assemble import local_engine
from omnivec.server.probes import readiness

T = TypeVar("T")


def fake(name: str, memory: int = 100, **options: object) -> str:
    told = ",".join(f"{key}={value}" for key, value in {"memory": memory, **options}.items())
    return f"{name}=fake:{told}"


def within(work: Callable[[LocalEngine], Awaitable[T]], *models: str, **settings: Any) -> T:
    async def scenario() -> T:
        engine = local_engine(Settings(models=models, **settings))
        await engine.load()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(scenario())


def ask(model: str, text: str = "a") -> Encode:
    return Encode((Item((Text(text),)),), model)


async def states(engine: LocalEngine) -> dict[str, str]:
    return {card.name: card.state for card in (await engine.run(Describe())).cards}


def vector(result: Result) -> np.ndarray[Any, Any]:
    output = result.outputs[0]
    assert isinstance(output, Vectors)
    assert output.dense is not None
    return output.dense


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a card is replaced, and tells nobody
            await asyncio.sleep(0.005)


def test_what_does_not_fit_at_the_start_is_loaded_when_it_is_asked_for() -> None:
    async def work(engine: LocalEngine) -> None:
        assert await states(engine) == {"a": "loaded", "b": "loaded", "c": "available"}
        await engine.run(ask("a"))
        answer = await engine.run(ask("c"))
        assert vector(answer).shape == (7,)
        assert await states(engine) == {"a": "loaded", "b": "available", "c": "loaded"}

    within(work, fake("a"), fake("b"), fake("c", dims=7), memory="250B")


def test_a_card_tells_dimensions_before_its_model_was_ever_loaded() -> None:
    async def work(engine: LocalEngine) -> None:
        cards = {card.name: card for card in (await engine.run(Describe())).cards}
        assert (cards["b"].state, cards["b"].dims, cards["b"].memory) == ("available", 9, 200)
        assert cards["b"].tasks == ("encode", "score")

    within(work, fake("a"), fake("b", memory=200, dims=9), memory="250B")


def test_lazy_loads_nothing_but_what_is_pinned() -> None:
    async def work(engine: LocalEngine) -> None:
        assert await states(engine) == {"a": "available", "b": "loaded"}
        assert engine.cards[0].dims == 6
        await engine.run(ask("a"))
        assert await states(engine) == {"a": "loaded", "b": "loaded"}

    within(work, fake("a", dims=6), fake("b"), lazy=True, pin=("b",))


def test_a_pinned_model_stays_and_what_finds_no_room_beside_it_says_so() -> None:
    async def work(engine: LocalEngine) -> None:
        await engine.run(ask("c"))
        loaded = {name for name, state in (await states(engine)).items() if state == "loaded"}
        assert loaded == {"a", "c"}
        with pytest.raises(LoadFailed) as refused:
            await engine.run(ask("large"))
        assert (refused.value.cause, refused.value.attempts) == ("OOM", 1)
        assert refused.value.retry_after
        assert (await states(engine))["a"] == "loaded"

    models = (fake("a"), fake("b"), fake("c"), fake("large", memory=200))
    within(work, *models, memory="250B", pin=("a",))


def test_a_pin_that_is_no_model_here_is_an_error_at_the_start() -> None:
    with pytest.raises(CheckpointError, match="'x'"):
        local_engine(Settings(models=("fake",), pin=("x",)))


def test_a_model_in_use_is_never_unloaded_and_who_waits_for_it_is_answered() -> None:
    """`a` is at work for half a second, `b` wants its place, and more for `a` come meanwhile."""

    async def work(engine: LocalEngine) -> None:
        busy = [asyncio.create_task(engine.run(ask("a", f"text {i}"))) for i in range(5)]
        await asyncio.sleep(0.1)
        other = asyncio.create_task(engine.run(ask("b")))
        await asyncio.sleep(0.1)
        late = [asyncio.create_task(engine.run(ask("a", f"late {i}"))) for i in range(5)]
        answers = await asyncio.gather(*busy, other, *late)
        alone = await engine.run(ask("a", "late 3"))
        assert [len(vector(answer)) for answer in answers] == [8] * 5 + [9] + [8] * 5
        assert np.allclose(vector(answers[9]), vector(alone), atol=1e-6)

    within(work, fake("a", dims=8, slow=0.5), fake("b", dims=9), memory="150B")


def test_a_model_that_is_never_idle_gives_its_place_up_between_its_requests() -> None:
    async def work(engine: LocalEngine) -> None:
        stop = False

        async def hammer() -> int:
            done = 0
            while not stop:
                await engine.run(ask("a", f"text {done}"))
                done += 1
            return done

        crowd = [asyncio.create_task(hammer()) for _ in range(3)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(20):
            for _ in range(2):
                assert len(vector(await engine.run(ask("b")))) == 9
        stop = True
        assert sum(await asyncio.gather(*crowd)) > 3

    within(work, fake("a", dims=8), fake("b", dims=9), memory="150B")


def test_random_requests_for_many_models_within_a_small_budget() -> None:
    """Twelve models, room for three: every answer is that model's own."""
    pick = random.Random(4)

    async def work(engine: LocalEngine) -> None:
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            model = pick.randrange(12)
            answer = await engine.run(ask(f"m{model}", f"text {number}"))
            assert len(vector(answer)) == 4 + model
            cards = (await engine.run(Describe())).cards
            most = max(most, sum(card.memory for card in cards if card.state == "loaded"))

        for _ in range(20):
            await asyncio.gather(*(one(number) for number in range(10)))
        assert 0 < most <= 320

    models = [fake(f"m{i}", dims=4 + i, load=0.005) for i in range(12)]
    within(work, *models, memory="320B", lazy=True)


def test_idle_models_are_unloaded_and_come_back() -> None:
    async def work(engine: LocalEngine) -> None:
        cards = engine._residents
        await until(lambda: cards["a"].card.state == "available")
        assert cards["b"].card.state == "loaded"
        assert vector(await engine.run(ask("a"))).shape == (8,)

    within(work, fake("a", dims=8), fake("b"), idle_unload=0.05, pin=("b",))


def test_a_request_waits_for_a_cold_model_so_long_and_the_load_goes_on() -> None:
    async def work(engine: LocalEngine) -> None:
        with pytest.raises(Loading) as refused:
            await engine.run(ask("a"))
        assert refused.value.retry_after
        assert not isinstance(refused.value, LoadFailed)
        await until(lambda: engine._residents["a"].card.state == "loaded")
        assert vector(await engine.run(ask("a"))).shape == (8,)

    within(work, fake("a", dims=8, load=0.3), lazy=True, load_wait=0.05)


def test_one_that_cannot_be_loaded_takes_nothing_else_down(tmp_path: Path) -> None:
    async def work(engine: LocalEngine) -> None:
        for attempts in (1, 1):  # it is not tried again by itself
            with pytest.raises(LoadFailed) as refused:
                await engine.run(ask("broken"))
            assert refused.value.attempts == attempts
            assert refused.value.retry_after is None
        assert vector(await engine.run(ask("a"))).shape == (8,)
        card = (await engine.run(Keep("broken", "retry"))).card
        assert (card.state, card.attempts) == ("failed", 2)
        (tmp_path / "config.json").write_text("{}")
        assert "no model_type" in (await engine.run(Keep("broken", "retry"))).card.reason

    within(work, f"broken={tmp_path}", fake("a", dims=8))


def test_what_may_be_better_later_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residents, "AGAIN", {"OOM": 1.0})

    async def work(engine: LocalEngine) -> None:
        for _ in range(2):
            with pytest.raises(LoadFailed):
                await engine.run(ask("large"))
            await asyncio.sleep(1.1)
        assert engine._residents["large"].card.attempts == 2

    within(work, fake("large", memory=300), memory="200B", lazy=True)


def test_what_the_network_kept_away_at_the_start_comes_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(residents, "AGAIN", {"NETWORK": 0.1})
    monkeypatch.setattr(rosters, "LOOK", 0.1)
    reachable = threading.Event()
    found = Resident._describe

    def describe(resident: Resident) -> Any:
        if not reachable.is_set():
            raise CheckpointError("the hub cannot be reached", "NETWORK")
        return found(resident)

    monkeypatch.setattr(Resident, "_describe", describe)

    async def work(engine: LocalEngine) -> None:
        card = engine._residents["a"].card
        assert (card.state, readiness(engine.cards, draining=False)) == ("failed", "failed")
        await until(lambda: engine._residents["a"].card.attempts > 2)
        reachable.set()
        await until(lambda: engine._residents["a"].card.state == "loaded")
        assert readiness(engine.cards, draining=False) == "ready"

    within(work, fake("a"))


def test_a_model_is_loaded_and_unloaded_by_request() -> None:
    async def work(engine: LocalEngine) -> None:
        assert (await engine.run(Keep("a", "unload"))).card.state == "available"
        assert (await engine.run(Keep("a", "unload"))).card.state == "available"
        assert (await engine.run(Keep("a", "load"))).card.state == "loaded"
        with pytest.raises(UnknownModel):
            await engine.run(Keep("x", "load"))

    within(work, fake("a"))


def test_a_closed_engine_loads_nothing_more() -> None:
    async def work(engine: LocalEngine) -> None:
        waiting = asyncio.create_task(engine.run(ask("slow")))
        await asyncio.sleep(0.05)
        await engine.close()
        with pytest.raises(Loading):
            await waiting
        with pytest.raises(Loading):
            await engine.run(ask("a"))

    within(work, fake("a"), fake("slow", load=2), lazy=True)


def test_batches_that_hang_hold_no_engine_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivec.engine.batcher.PATIENCE", 3600.0)

    async def work(engine: LocalEngine) -> None:
        hanging = [asyncio.create_task(engine.run(ask(name, "[[hang]]"))) for name in "abc"]
        await until(lambda: sum(one["running"] for one in engine.stats().values()) == 3)
        async with asyncio.timeout(60):
            await engine.close()
        for one in hanging:
            with pytest.raises((Loading, ModelFailed)):
                await one

    within(work, *(fake(name, faults="on") for name in "abc"))


def test_a_bug_in_a_load_fails_that_model_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    async def work(engine: LocalEngine) -> None:
        monkeypatch.setattr(engine._roster, "_make_room", broken)
        with pytest.raises(LoadFailed):
            await engine.run(ask("a"))
        assert "KeyError" in engine._residents["a"].card.reason

    within(work, fake("a"), lazy=True)


def test_a_request_that_comes_before_the_start_reaches_its_model_loads_it_once() -> None:
    async def work() -> None:
        engine = local_engine(Settings(models=(fake("a", load=0.3), fake("b", dims=8))))
        start = asyncio.create_task(engine.load())
        await asyncio.sleep(0.05)
        assert vector(await engine.run(ask("b"))).shape == (8,)
        first = engine._residents["b"].batcher
        await start
        assert engine._residents["b"].batcher is first
        assert await states(engine) == {"a": "loaded", "b": "loaded"}
        await engine.close()

    asyncio.run(work())


def test_an_unload_goes_on_when_whoever_asked_for_it_has_left() -> None:
    async def work(engine: LocalEngine) -> None:
        busy = asyncio.create_task(engine.run(ask("a")))
        await asyncio.sleep(0.1)
        asked = asyncio.create_task(engine.run(Keep("a", "unload")))
        await asyncio.sleep(0.05)
        asked.cancel()
        assert vector(await busy).shape == (8,)
        await until(lambda: engine._residents["a"].card.state == "available")
        assert vector(await engine.run(ask("a"))).shape == (8,)

    within(work, fake("a", dims=8, slow=0.4))


def test_an_unload_waits_for_the_load_under_way() -> None:
    async def work(engine: LocalEngine) -> None:
        load = asyncio.create_task(engine.run(Keep("a", "load")))
        await asyncio.sleep(0.05)
        assert (await engine.run(Keep("a", "unload"))).card.state == "available"
        await load

    within(work, fake("a", load=0.2), lazy=True)


def test_files_that_cannot_be_looked_at_keep_no_other_model_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> None:
        raise KeyError("hidden_size")

    async def work() -> None:
        engine = local_engine(Settings(models=(fake("a"), fake("b")), lazy=True))
        monkeypatch.setattr(engine._residents["a"], "_here", lambda: broken(None))
        await engine.load()
        assert engine._residents["b"].card.dims == 32
        await engine.close()

    asyncio.run(work())


def test_a_request_without_a_model_never_gets_one_that_nobody_named() -> None:
    async def work(engine: LocalEngine) -> None:
        task = Encode((Item((Text("a"),)),), kinds=("sparse",))
        with pytest.raises(UnknownModel):
            await engine.run(task)
        named = Encode((Item((Text("a"),)),), "omnivec/bm25", kinds=("sparse",))
        assert (await engine.run(named)).card.name == "omnivec/bm25"
        assert (await engine.run(task)).card.name == "omnivec/bm25"  # now that it is loaded

    within(work, fake("a"), on_demand=True)
