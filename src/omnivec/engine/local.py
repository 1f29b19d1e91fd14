"""The path of every task through the models of this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from omnivec.core.errors import (
    BadRequest,
    Loading,
    LoadingAdapter,
    UnknownModel,
    Unsupported,
)
from omnivec.core.nouns import (
    Array,
    Card,
    Describe,
    Dtype,
    Encode,
    Extract,
    Output,
    Result,
    Score,
    Task,
    Timing,
    Usage,
    Vectors,
)
from omnivec.core.outputs import dense
from omnivec.core.quantise import quantise
from omnivec.core.settings import Settings
from omnivec.engine.batcher import Batcher
from omnivec.engine.catalog import resolve
from omnivec.engine.intake import CHUNK, Feed, Intake
from omnivec.engine.job import Job
from omnivec.engine.outputs import cosine, dot, finish, maxsim, relevance, unbounded
from omnivec.engine.resident import Resident
from omnivec.engine.store import Store
from omnivec.engine.work import Splitter, check_adapter, check_dims, check_kinds, is_short, letters

MANY = 128
"""Outputs that are cut and normalised on the event loop at most."""


class LocalEngine:
    """Answers tasks with the models in `residents`, the first of them by default."""

    def __init__(
        self,
        residents: Sequence[Resident],
        splitter: Splitter,
        settings: Settings,
        *,
        store: Store | None = None,
        threads: int = 2,
    ) -> None:
        self._store = store
        self._residents = {resident.card.name: resident for resident in residents}
        self._splitter = splitter
        self._settings = settings
        self._intake = Intake(threads)
        self._loads = ThreadPoolExecutor(1, thread_name_prefix="load")

    async def load(self) -> None:
        """Open the models one after the other; each reports its own failure in its card."""
        for resident in self._residents.values():
            await resident.load(self._loads)

    async def close(self) -> None:
        for resident in self._residents.values():
            await resident.close()
        self._intake.close()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        self._loads.shutdown(wait=False)

    @property
    def cards(self) -> tuple[Card, ...]:
        return tuple(resident.card for resident in self._residents.values())

    def stats(self) -> dict[str, dict[str, float]]:
        """For each loaded model, items "queued" and "running", and how many so far were
        "joined" to others under way or "recalled" from the cache."""
        found = {}
        for name, resident in self._residents.items():
            if resident.batcher is not None:
                queued, running = resident.batcher.depth()
                found[name] = {
                    "queued": float(queued),
                    "running": float(running),
                    "joined": float(resident.memory.joined),
                    "recalled": float(resident.memory.recalled),
                }
        return found

    async def run(self, task: Task) -> Result:
        if isinstance(task, Describe):
            return self._describe(task)
        if isinstance(task, Extract):
            return self._refuse(task)
        task = self._adapted(task)
        resident = self._choose(task)
        batcher = await _ready(resident, task)
        card = resident.card
        _check(task, card)
        # for a bi-encoder the query is a unit of its own before the documents
        asked = int(isinstance(task, Score) and card.scoring != "cross-encoder")
        batcher.admit(len(task.items) + asked)
        job = Job(len(task.items) + asked, asked)
        split = partial(self._splitter.units, task, card)
        feed = Feed(batcher, resident.memory, job, split, letters(task.items[:CHUNK]))
        self._intake.put(feed, short=is_short(task) and not resident.memory.waits)
        found = await job.wait()
        outputs = await self._joined(task, card, found)
        seconds = time.monotonic() - job.arrived
        return Result(
            card=card,
            outputs=outputs,
            usage=Usage(job.tokens, len(task.items), job.cut),
            timing=Timing(seconds, job.prepare, job.queue, job.inference),
            dims=self._length(task, card, found),
            ignored=_ignored(task, card),
        )

    # ── choosing ─────────────────────────────────────────────────────────────────────────

    def _find(self, name: str) -> Resident:
        found = resolve(name, self.cards)
        if found is None:
            raise UnknownModel(
                "No such model here; GET /v1/models lists what is served.", param="model"
            )
        return self._residents[found]

    def _choose(self, task: Encode | Score) -> Resident:
        verb = "encode" if isinstance(task, Encode) else "score"
        if task.model is not None:
            return self._find(task.model)
        can = [r for r in self._residents.values() if _is_able(r.card, task)]
        if not can:
            raise UnknownModel(f"No model here can {_ABILITY[verb]}.", param="model")
        return min(can, key=lambda resident: _reluctance(resident.card, verb))

    def _adapted(self, task: Encode | Score) -> Encode | Score:
        """A task whose model is called as an adapter is one for that adapter's model."""
        if task.model is None or task.adapter is not None:
            return task
        base = next((card.name for card in self.cards if task.model in card.adapters), None)
        if base is None or resolve(task.model, self.cards) is not None:
            return task
        return msgspec.structs.replace(task, model=base, adapter=task.model)

    def _refuse(self, task: Extract) -> Result:
        """No family here extracts yet. Raises UnknownModel, Unsupported."""
        if task.model is not None:
            self._find(task.model)
        raise Unsupported("This model cannot extract anything from a text.", param="model")

    def _describe(self, task: Describe) -> Result:
        if task.model is not None:
            card = self._find(task.model).card
            return Result(card=card, cards=(card,))
        return Result(card=self.cards[0] if self.cards else Card(name=""), cards=self.cards)

    # ── joining ──────────────────────────────────────────────────────────────────────────

    async def _joined(
        self, task: Encode | Score, card: Card, outputs: Sequence[Output]
    ) -> tuple[Output, ...]:
        """`_join`, off the event loop where it takes longer than going there and back."""
        if len(outputs) <= MANY:
            return self._join(task, card, outputs)
        return await asyncio.to_thread(self._join, task, card, outputs)

    def _join(
        self, task: Encode | Score, card: Card, outputs: Sequence[Output]
    ) -> tuple[Output, ...]:
        """The model's outputs as the answers to the task's items."""
        if isinstance(task, Score) and card.scoring == "cross-encoder":
            return tuple(outputs)
        vectors = [output for output in outputs if isinstance(output, Vectors)]
        if isinstance(task, Score):
            return _compared(card, vectors)
        rows: Sequence[Array | None] = [None] * len(vectors)
        if "dense" in task.kinds:
            dims = task.dims or self._default_dims(card)
            matrix = finish(dense(vectors), dims, normalize=task.normalize)
            rows = list(quantise(matrix, task.dtype))
        return tuple(
            Vectors(row, one.sparse, _rounded(one.multivector, task.dtype))
            for row, one in zip(rows, vectors, strict=True)
        )

    def _length(self, task: Encode | Score, card: Card, found: Sequence[Output]) -> int | None:
        """Of the vectors that are answered, before eight signs became a byte."""
        first = found[0]
        if not isinstance(task, Encode) or not isinstance(first, Vectors) or first.dense is None:
            return None
        return len(first.dense[: task.dims or self._default_dims(card)])

    def _default_dims(self, card: Card) -> int | None:
        """The setting, as far as the model's vectors are that long."""
        wanted = self._settings.default_dims
        return wanted if wanted is None or card.dims is None else min(wanted, card.dims)


def _compared(card: Card, vectors: Sequence[Vectors]) -> tuple[Output, ...]:
    """The documents' scores, the first of the vectors being the query's."""
    query, documents = vectors[0], vectors[1:]
    if card.scoring == "dot":
        return tuple(unbounded(dot(query, documents)))
    if card.scoring == "maxsim":
        return tuple(unbounded(maxsim(query, documents)))
    rows = dense(vectors)
    return tuple(relevance(cosine(rows[0], rows[1:])))


def _rounded(rows: Array | None, dtype: Dtype) -> Array | None:
    return None if rows is None else quantise(rows, dtype)


def _is_able(card: Card, task: Encode | Score) -> bool:
    """Before its files are read a model's tasks are unknown: it may be the one."""
    if isinstance(task, Score) or not card.tasks:
        return "score" in card.tasks or not card.tasks
    return "encode" in card.tasks and set(task.kinds) <= set(card.kinds)


async def _ready(resident: Resident, task: Encode | Score) -> Batcher:
    """Raises Unsupported, Loading and, where an adapter was asked for, LoadingAdapter."""
    check_adapter(task.adapter, resident.card)
    try:
        return await resident.ready()
    except Loading as fault:
        if task.adapter is None or fault.retry_after is None:
            raise
        raise LoadingAdapter("The adapter is still loading.", retry_after=1) from None


_ABILITY = {"encode": "make embeddings", "score": "rerank"}


def _reluctance(card: Card, verb: str) -> tuple[bool, bool]:
    """The default for a task is the first model with the least: one that failed is the last
    choice, and a cross-encoder scores better than a bi-encoder."""
    return card.state == "failed", verb == "score" and card.scoring != "cross-encoder"


def _check(task: Encode | Score, card: Card) -> None:
    """Whether the model can do it at all, before any work."""
    if not task.items:
        raise BadRequest("At least one input is needed.", param="[0]")
    verb = "encode" if isinstance(task, Encode) else "score"
    if verb not in card.tasks:
        raise Unsupported(f"This model cannot {_ABILITY[verb]}.", param="model")
    if isinstance(task, Encode):
        check_dims(task.dims, card)
        check_kinds(task.kinds, card)


def _ignored(task: Encode | Score, card: Card) -> tuple[str, ...]:
    items = (*task.items, task.query) if isinstance(task, Score) else task.items
    if card.instructions or all(item.instruction is None for item in items):
        return ()
    return ("instruction",)
