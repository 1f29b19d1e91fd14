"""What is computed once, for whom, and what is found again after a restart."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Fault, ModelFailed, TooLong
from omnivec.core.nouns import (
    Card,
    Class,
    Encode,
    Features,
    Findings,
    Item,
    Relevance,
    Result,
    Score,
    Text,
    Unit,
    Vectors,
)
from omnivec.core.settings import Settings
from omnivec.engine import store
from omnivec.engine.job import Caller, Job
from omnivec.engine.local import LocalEngine
from omnivec.engine.memory import Answer, Memory, describe, pack, unpack
from omnivec.hosts.assemble import local_engine

T = TypeVar("T")
MODEL = "fake:dims=8"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test machine may be busy; what is found must not depend on it."""
    monkeypatch.setattr(store, "PATIENCE", 10.0)
    monkeypatch.setattr(store, "OPENING", 30.0)


class Rows:
    """How many rows went through a model; `ran` once a batch has."""

    def __init__(self) -> None:
        self.count = 0
        self.ran = threading.Event()

    def batch(self, model: str, rows: int, tokens: int, seconds: float) -> None:
        self.count += rows
        self.ran.set()


def within(
    work: Callable[[LocalEngine, Rows], Awaitable[T]], *models: str, **settings: Any
) -> tuple[T, int]:
    """What `work` gave with a loaded engine, and the rows that were computed for it."""

    async def scenario() -> tuple[T, int]:
        rows = Rows()
        engine = local_engine(Settings(models=models or (MODEL,), **settings), watch=rows)
        await engine.load()
        rows.count = 0
        try:
            return await work(engine, rows), rows.count
        finally:
            await engine.close()

    return asyncio.run(scenario())


def run(task: Encode | Score, *models: str, **settings: Any) -> tuple[Result, int]:
    return within(lambda engine, _rows: engine.run(task), *models, **settings)


def items(*texts: str) -> tuple[Item, ...]:
    return tuple(Item((Text(text),)) for text in texts)


def matrix(result: Result) -> np.ndarray[Any, Any]:
    return np.stack([out.dense for out in result.outputs if isinstance(out, Vectors)])


def memory(engine: LocalEngine) -> Memory:
    return next(iter(engine._residents.values())).memory


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - other threads bring it about
        await asyncio.sleep(0.005)


# ── in flight ────────────────────────────────────────────────────────────────────────────


def test_a_text_that_repeats_in_a_request_is_computed_once_and_charged_each_time() -> None:
    alone, _ = run(Encode(items("a few words")))
    result, rows = run(Encode(items("a few words", "others", "a few words", "a few words")))
    assert rows == 2
    vectors = matrix(result)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])
    others, _ = run(Encode(items("others")))
    assert result.usage.tokens == 3 * alone.usage.tokens + others.usage.tokens
    assert result.usage.items == 4


def test_truncation_is_charged_to_each_as_well() -> None:
    result, rows = run(Encode(items("word " * 500, "word " * 500), max_tokens=16))
    assert (rows, result.usage.truncated, result.usage.tokens) == (1, 2, 32)


def test_requests_at_the_same_time_share_their_work() -> None:
    async def scenario(engine: LocalEngine, rows: Rows) -> list[Result]:
        await engine.run(Encode(items("warm")))
        texts = items("one", "two")
        return await asyncio.gather(*(engine.run(Encode(texts)) for _ in range(20)))

    results, rows = within(scenario, "fake:dims=8,slow=0.5")
    assert rows == 3
    assert all(np.array_equal(matrix(results[0]), matrix(result)) for result in results)
    assert len({result.usage.tokens for result in results}) == 1


def test_a_role_an_instruction_and_a_window_are_work_of_their_own() -> None:
    async def scenario(engine: LocalEngine, rows: Rows) -> list[Result]:
        tasks = [
            Encode(items("text")),
            Encode(items("text"), role="query"),
            Encode((Item((Text("text"),), "Find a needle"),)),
            Encode(items("text"), max_tokens=8),
            Encode(items("text"), dims=4),  # the same as the first
        ]
        return await asyncio.gather(*(engine.run(task) for task in tasks))

    assert within(scenario, "fake:dims=8,slow=0.3")[1] == 4


def test_a_client_that_leaves_takes_nothing_from_one_that_stays() -> None:
    async def scenario(engine: LocalEngine, rows: Rows) -> Result:
        first = asyncio.ensure_future(engine.run(Encode(items("shared", "mine alone"))))
        await until(lambda: len(memory(engine)._tickets) == 2)
        second = asyncio.ensure_future(engine.run(Encode(items("shared"))))
        await until(lambda: memory(engine).joined == 1)
        first.cancel()
        return await second

    result, rows = within(scenario, "fake:dims=8,slow=0.3")
    assert rows <= 2
    assert np.array_equal(matrix(result), matrix(run(Encode(items("shared")))[0]))


def test_what_nobody_waits_for_any_more_leaves_and_can_be_asked_for_again() -> None:
    async def scenario(engine: LocalEngine, rows: Rows) -> int:
        busy = [asyncio.ensure_future(engine.run(Encode(items(f"busy {i}")))) for i in range(3)]
        await until(lambda: engine.stats()["fake"]["running"] >= 1)
        left = [asyncio.ensure_future(engine.run(Encode(items("left")))) for _ in range(3)]
        await until(lambda: memory(engine).joined == 2)
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.gather(*busy)
        await engine.run(Encode(items("left")))
        return len(memory(engine)._tickets)

    open_tickets, _ = within(scenario, "fake:dims=8,slow=0.2")
    assert open_tickets == 0


def test_a_failure_goes_to_all_who_wait_and_is_not_remembered() -> None:
    async def scenario(engine: LocalEngine, rows: Rows) -> tuple[list[object], int]:
        tasks = [engine.run(Encode(items("good", "[[raise]]"))) for _ in range(4)]
        failed = await asyncio.gather(*tasks, return_exceptions=True)
        before = rows.count
        with pytest.raises(ModelFailed):
            await engine.run(Encode(items("[[raise]]")))
        return failed, rows.count - before

    (failed, again), _ = within(scenario, "fake:dims=8,faults=on,slow=0.2")
    assert all(isinstance(one, ModelFailed) for one in failed)
    assert len({id(one) for one in failed}) == 4  # a traceback of its own for each
    assert again == 1


def test_a_refused_text_of_one_request_does_not_stop_another_that_shares_its_chunk() -> None:
    async def scenario(engine: LocalEngine, rows: Rows) -> list[object]:
        long = "word " * 500
        tasks = [
            engine.run(Encode(items("shared", long), overflow="refuse", max_tokens=16)),
            engine.run(Encode(items("shared"), overflow="refuse", max_tokens=16)),
            engine.run(Encode(items("other", "shared", long), overflow="refuse", max_tokens=16)),
        ]
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    outcome, _ = within(scenario, "fake:dims=8,slow=0.1")
    assert isinstance(outcome[0], TooLong)
    assert outcome[0].param == "[1]"
    assert isinstance(outcome[1], Result)
    assert isinstance(outcome[2], TooLong)
    assert outcome[2].param == "[2]"


def due(job: Caller, cost: int) -> float:
    """As the batcher has it."""
    return job.arrived + (job.cost + cost) * 2e-4


def units(*texts: str) -> list[Unit]:
    return [Unit(parts=(Text(text),)) for text in texts]


def failure(job: Job) -> Fault:
    failed = job._done.exception()
    assert isinstance(failed, Fault)
    return failed


def test_each_who_waits_is_told_the_place_in_its_own_request() -> None:
    async def scenario() -> None:
        table = Memory()
        first, second, query = Job(3), Job(2), Job(2, asked=1)
        order = table.claim(first, units("a", "long", "b"), 0, due)
        assert not table.claim(second, units("long"), 1, due).tickets
        assert not table.claim(query, units("long", "b"), 0, due).tickets
        order.refuse(TooLong("too long", param="[1].text"))
        await asyncio.sleep(0)
        params = [failure(job).param for job in (first, second, query)]
        assert params == ["[1].text", "[1].text", "query"]
        assert not order.tickets  # nobody is left who waits for the others

    asyncio.run(scenario())


def test_a_fault_of_the_whole_order_ends_all_of_it() -> None:
    async def scenario() -> None:
        table = Memory()
        first, second = Job(2), Job(1)
        order = table.claim(first, units("a", "b"), 0, due)
        table.claim(second, units("b"), 0, due)
        order.refuse(ModelFailed("no", param="query"))
        await asyncio.sleep(0)
        assert [failure(job).param for job in (first, second)] == ["query", "query"]
        assert table.claim(Job(1), units("a"), 0, due).tickets

    asyncio.run(scenario())


def test_a_query_does_not_wait_for_its_text_at_the_end_of_a_bulk_request() -> None:
    async def scenario() -> None:
        table = Memory()
        bulk = table.claim(Job(64), units(*(f"{i:03} " + "word " * 500 for i in range(64))), 0, due)
        same = [bulk.units[0], bulk.units[63]]
        assert table.claim(Job(2), same[:1], 0, due).tickets == []
        own = table.claim(Job(1), same[1:], 0, due)
        assert own.units == same[1:]
        # who comes now waits at the ticket that is served sooner, and the later one still ends
        assert table.claim(Job(1), same[1:], 0, due).tickets == []
        answer = Answer(Vectors(dense=np.ones(2, np.float32)), 3, cut=False)
        table.settle(bulk.tickets[63], answer)
        table.settle(own.tickets[0], answer)
        assert len(table._tickets) == 63

    asyncio.run(scenario())


def test_an_order_that_is_gone_cannot_be_joined() -> None:
    async def scenario() -> None:
        table = Memory()
        left = Job(1)
        order = table.claim(left, units("a"), 0, due)
        assert not order.gone
        left.gone = True
        assert order.gone
        later = Job(1)
        fresh = table.claim(later, units("a"), 0, due)
        assert fresh.units == units("a")
        fresh.count([Features(arrays={}, cost=1, tokens=1)], 0.0)
        fresh.settle(0, Vectors(dense=np.ones(2, np.float32)), 0.0, 0.0)
        assert len(await later.wait()) == 1

    asyncio.run(scenario())


# ── remembered ───────────────────────────────────────────────────────────────────────────


def cache(folder: Path) -> dict[str, str]:
    return {"cache": f"16MB,{folder}"}


def test_vectors_survive_a_restart_with_their_usage(tmp_path: Path) -> None:
    texts = items(*(f"text {i} " + "word " * (i % 40) for i in range(150)))
    task = Encode(texts, max_tokens=24)
    first, computed = run(task, **cache(tmp_path))
    again, recomputed = run(task, **cache(tmp_path))
    assert (computed, recomputed) == (150, 0)
    assert first.outputs[0] is not again.outputs[0]
    assert np.array_equal(matrix(first), matrix(again))
    assert first.usage == again.usage
    assert first.usage.truncated > 0
    assert (first.dims, first.card.name) == (again.dims, again.card.name)


def test_all_lengths_share_what_is_kept(tmp_path: Path) -> None:
    whole, _ = run(Encode(items("text"), normalize=False), **cache(tmp_path))
    short, rows = run(Encode(items("text"), dims=3, normalize=False), **cache(tmp_path))
    assert rows == 0
    assert np.array_equal(matrix(short)[0], matrix(whole)[0][:3])


def test_a_request_of_known_and_new_texts_is_in_order(tmp_path: Path) -> None:
    run(Encode(items("b", "d")), **cache(tmp_path))
    mixed, rows = run(Encode(items("a", "b", "c", "d", "b")), **cache(tmp_path))
    assert rows == 2
    assert np.array_equal(matrix(mixed), matrix(run(Encode(items("a", "b", "c", "d", "b")))[0]))


def test_what_changes_a_vector_is_not_mixed_up(tmp_path: Path) -> None:
    run(Encode(items("text")), **cache(tmp_path))
    for task in (
        Encode(items("text"), role="query"),
        Encode(items("text"), max_tokens=9),
        Encode((Item((Text("text"),), "Find a needle"),)),
    ):
        assert run(task, **cache(tmp_path))[1] == 1
    assert run(Encode(items("text")), "fake:dims=4", **cache(tmp_path))[1] == 1
    assert run(Encode(items("text")), **cache(tmp_path))[1] == 0


def test_scores_of_a_cross_encoder_are_remembered(tmp_path: Path) -> None:
    task = Score(items("query")[0], items("one", "two"))
    first, computed = run(task, "fake-reranker", **cache(tmp_path))
    again, recomputed = run(task, "fake-reranker", **cache(tmp_path))
    assert (computed, recomputed) == (2, 0)
    assert first.outputs == again.outputs


def test_failures_are_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ModelFailed):
            run(Encode(items("[[nan]]")), "fake:dims=8,faults=on", **cache(tmp_path))


def test_a_folder_that_cannot_be_used_costs_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")

    async def scenario(engine: LocalEngine, rows: Rows) -> list[Result]:
        return [await engine.run(Encode(items(f"text {i}"))) for i in range(5)]

    with caplog.at_level(logging.WARNING, "omnivec.engine"):
        results, rows = within(scenario, **cache(tmp_path / "file" / "below"))
    assert (len(results), rows) == (5, 5)
    assert len([record for record in caplog.records if "the cache" in record.message]) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(Vectors(dense=np.arange(5, dtype=np.float32)), 7, cut=True),
        Answer(Relevance(value=0.25, raw=-1.5), 2**32 - 1, cut=False),
        Answer(Findings((Class("a", 0.1), Class("ü", 0.9))), 3, cut=False),
        Answer(Findings(), 3, cut=False),
    ],
)
def test_an_answer_is_unpacked_as_it_was_packed(answer: Answer) -> None:
    found = unpack(pack(answer))
    assert found is not None
    assert msgspec.json.encode(_plain(found)) == msgspec.json.encode(_plain(answer))


def _plain(answer: Answer) -> object:
    output = answer.output
    said = output.dense.tolist() if isinstance(output, Vectors) else output
    return type(output).__name__, said, answer.tokens, answer.cut


@pytest.mark.parametrize(
    "value",
    [b"", b"\1\0\0\0", b"\1\0\0\0\1\0\0\0abc", b"\2" + bytes(11), b"\7" * 24, b"\3" + bytes(11)],
)
def test_bytes_that_are_no_answer_are_none(value: bytes) -> None:
    assert unpack(value) is None


def test_the_key_follows_from_the_files_the_runtime_and_the_version(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    card = Card(name="m", runtime="openvino", device="cpu", dtype="bf16")

    def key(version: str = "1", made: Card = card, **options: Any) -> bytes:
        return describe(Checkpoint("m", tmp_path / "m", **options), made, version)

    seen = {
        key(),
        key("2"),
        key(made=msgspec.structs.replace(card, dtype="f32")),
        key(made=msgspec.structs.replace(card, runtime="torch")),
        key(revision="abc"),
        key(revision="abd"),
        key(overrides={"pooling": "cls"}),
        key(options={"dims": "8"}),
    }
    assert len(seen) == 8
    assert key() in seen
    shutil.copy(tmp_path / "m" / "config.json", tmp_path / "m" / "other.json")
    assert key() not in seen
    assert key(revision="abc") in seen  # a commit stands for its files
