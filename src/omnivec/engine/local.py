"""The path of every task through the models of this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

import msgspec

from omnivec.core.errors import (
    BadRequest,
    Fault,
    LoadFailed,
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
    Keep,
    Output,
    Result,
    Score,
    Task,
    Vectors,
)
from omnivec.core.outputs import dense
from omnivec.core.quantise import quantise
from omnivec.core.settings import Settings, budget
from omnivec.engine.batcher import Batcher
from omnivec.engine.catalog import resolve
from omnivec.engine.findings import check_labels, find, units_each
from omnivec.engine.flow import Flow
from omnivec.engine.intake import CHUNK, Feed, Intake
from omnivec.engine.job import Job, timing, usage
from omnivec.engine.memory import placed
from omnivec.engine.outputs import finish, scores
from omnivec.engine.pictures import check_media, names_of, takes, with_items
from omnivec.engine.resident import Resident
from omnivec.engine.roster import Roster
from omnivec.engine.store import Store
from omnivec.engine.wishes import chosen, settle
from omnivec.engine.work import (
    Splitter,
    Work,
    check_adapter,
    check_dims,
    check_kinds,
    check_weights,
    is_short,
    items_of,
    lack,
    letters,
)
from omnivec.media.load import Loader, has_media
from omnivec.media.pieces import Piece

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
        self._known = _by_name(residents)
        self._roster = Roster(
            residents, budget(settings.memory), settings.load_wait, settings.idle_unload
        )
        self._splitter = splitter
        self._settings = settings
        self._intake = Intake(threads)
        self._loader = Loader(settings)

    async def load(self) -> None:
        """Open the models that are served from the start, one after the other; each reports
        its own failure in its card."""
        await self._roster.start(lazy=self._settings.lazy)

    async def close(self) -> None:
        await self._roster.close()
        self._intake.close()
        self._loader.close()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)

    @property
    def closed(self) -> bool:
        return self._roster.closed

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
        if isinstance(task, Keep):
            return await self._keep(task)
        task = self._adapted(task)
        resident = self._choose(task)
        if (card := resident.card).state != "loaded":  # before others make room for it
            early = settle(task, card)
            if card.tasks:
                _check(early, card, self._settings.max_items)
        batcher = await self._acquire(resident, task)
        try:
            return await self._answer(task, resident, batcher)
        finally:
            self._roster.release(resident)

    async def _answer(self, task: Work, resident: Resident, batcher: Batcher) -> Result:
        task = settle(task, resident.card)
        _check(task, resident.card, self._settings.max_items)
        items = items_of(task)
        if isinstance(task, Encode) and task.each_frame:
            return await self._each_frame(task, resident, batcher)
        began = time.monotonic()
        if not has_media(items):
            return await self._compute(task, resident, batcher, began)
        async with self._loader.loaded(items, names_of(task)) as loaded:
            loading = time.monotonic() - began
            task = with_items(task, loaded)
            return await self._compute(task, resident, batcher, began, loading)

    async def _each_frame(self, task: Encode, resident: Resident, batcher: Batcher) -> Result:
        """Faults name the video, not the frame."""
        began = time.monotonic()
        jobs: list[Job] = []

        async def embed(piece: Piece) -> Output:
            alone = msgspec.structs.replace(task, items=(piece.item,))
            job = self._begin(alone, resident, batcher, jobs[-1] if jobs else None)
            jobs.append(job)
            try:
                return (await job.wait())[0]
            except Fault as fault:
                raise placed(fault, piece.origin) from None

        flow = Flow(embed)
        async with self._loader.flowing(task.items, names_of(task)) as pieces:
            found = await flow.through(pieces)
        jobs[0].prepare += flow.waited
        return await self._result(task, resident.card, found, jobs, began)

    async def _compute(
        self,
        task: Work,
        resident: Resident,
        batcher: Batcher,
        began: float,
        loading: float = 0.0,
    ) -> Result:
        """`loading`: the seconds that its pictures took."""
        job = self._begin(task, resident, batcher)
        found = await job.wait()
        job.prepare += loading
        return await self._result(task, resident.card, found, [job], began)

    def _begin(
        self, task: Work, resident: Resident, batcher: Batcher, before: Job | None = None
    ) -> Job:
        """On its way; `before` is the one before it of the same request."""
        card = resident.card
        # for a bi-encoder the query is a unit of its own before the documents
        asked = int(isinstance(task, Score) and card.scoring != "cross-encoder")
        each = units_each(task, card) if isinstance(task, Extract) else 1
        size = len(task.items) * each + asked
        batcher.admit(size, begun=before is not None)
        job = Job(size, asked, each, cost=before.cost if before else 0)
        split = partial(self._splitter.units, task, card)
        feed = Feed(batcher, resident.memory, job, split, letters(task.items[:CHUNK]))
        self._intake.put(feed, short=is_short(task) and not resident.memory.waits)
        return job

    async def _result(
        self, task: Work, card: Card, found: Sequence[Output], jobs: Sequence[Job], began: float
    ) -> Result:
        outputs = await self._joined(task, card, found)
        return Result(
            card=card,
            outputs=outputs,
            usage=usage(jobs),
            timing=timing(jobs, time.monotonic() - began),
            dims=self._length(task, card, found),
            dtype=_dtype(task),
            ignored=_ignored(task, card),
        )

    # ── choosing ─────────────────────────────────────────────────────────────────────────

    def _find(self, name: str) -> Resident:
        if (known := self._known.get(name)) is not None:
            return known
        found = resolve(name, self.cards)
        if found is None:
            raise UnknownModel(
                "No such model here; GET /v1/models lists what is served.", param="model"
            )
        return self._residents[found]

    def _choose(self, task: Work) -> Resident:
        if task.model is not None:
            return self._find(task.model)
        # what nobody named is downloaded for nobody who names no model
        served = [one for one in self._residents.values() if one.named or one.is_open]
        can = [one for one in served if _is_able(one.card, task)]
        if not can:
            raise UnknownModel(lack(task, [one.card for one in served]), param="model")
        return min(can, key=lambda resident: _reluctance(resident.card, task))

    def _adapted(self, task: Work) -> Work:
        """A task whose model is called as an adapter is one for that adapter's model."""
        if isinstance(task, Extract) or task.model is None or task.adapter is not None:
            return task
        base = next((card.name for card in self.cards if task.model in card.adapters), None)
        if base is None or resolve(task.model, self.cards) is not None:
            return task
        return msgspec.structs.replace(task, model=base, adapter=task.model)

    async def _acquire(self, resident: Resident, task: Work) -> Batcher:
        """Raises LoadFailed, Loading and, where an adapter was asked for, LoadingAdapter."""
        adapter = None if isinstance(task, Extract) else task.adapter
        check_adapter(adapter, resident.card)
        try:
            return await self._roster.acquire(resident)
        except Loading as fault:
            if adapter is None or isinstance(fault, LoadFailed):
                raise
            raise LoadingAdapter("The adapter is still loading.", retry_after=1) from None

    def _describe(self, task: Describe) -> Result:
        if task.model is not None:
            card = self._find(task.model).card
            chosen(task, card)
            return Result(card=card, cards=(card,))
        return Result(card=self.cards[0] if self.cards else Card(name=""), cards=self.cards)

    async def _keep(self, task: Keep) -> Result:
        """Raises UnknownModel."""
        resident = self._find(task.model)
        if task.wish == "unload":
            await self._roster.unload(resident)
        else:
            await self._roster.load(resident)
        return Result(card=resident.card, cards=(resident.card,))

    # ── joining ──────────────────────────────────────────────────────────────────────────

    async def _joined(
        self, task: Work, card: Card, outputs: Sequence[Output]
    ) -> tuple[Output, ...]:
        """`_join`, off the event loop where it takes longer than going there and back."""
        if len(outputs) <= MANY:
            return self._join(task, card, outputs)
        return await asyncio.to_thread(self._join, task, card, outputs)

    def _join(self, task: Work, card: Card, outputs: Sequence[Output]) -> tuple[Output, ...]:
        """The model's outputs as the answers to the task's items."""
        if isinstance(task, Score) and card.scoring == "cross-encoder":
            return tuple(outputs)
        if isinstance(task, Extract):
            return tuple(find(task, card, outputs))
        vectors = [output for output in outputs if isinstance(output, Vectors)]
        if isinstance(task, Score):
            return scores(task, card, vectors)
        rows: Sequence[Array | None] = [None] * len(vectors)
        if "dense" in task.kinds:
            dims = task.dims or self._default_dims(card)
            matrix = finish(dense(vectors), dims, normalize=task.normalize is not False)
            rows = list(quantise(matrix, _dtype(task)))
        return tuple(
            Vectors(row, one.sparse, _rounded(one.multivector, _dtype(task)))
            for row, one in zip(rows, vectors, strict=True)
        )

    def _length(self, task: Work, card: Card, found: Sequence[Output]) -> int | None:
        """Of the vectors that are answered, before eight signs became a byte."""
        first = found[0]
        if not isinstance(task, Encode) or not isinstance(first, Vectors) or first.dense is None:
            return None
        return len(first.dense[: task.dims or self._default_dims(card)])

    def _default_dims(self, card: Card) -> int | None:
        """The setting, as far as the model's vectors are that long."""
        wanted = self._settings.default_dims
        return wanted if wanted is None or card.dims is None else min(wanted, card.dims)


def _by_name(residents: Sequence[Resident]) -> dict[str, Resident]:
    """Every name and alias as it is written; the first that has it keeps it."""
    found: dict[str, Resident] = {}
    for resident in residents:
        for name in (resident.card.name, *resident.card.aliases):
            found.setdefault(name, resident)
    return found


def _dtype(task: Work) -> Dtype:
    return (task.dtype if isinstance(task, Encode) else None) or "float32"


def _rounded(rows: Array | None, dtype: Dtype) -> Array | None:
    return None if rows is None else quantise(rows, dtype)


def _is_able(card: Card, task: Work) -> bool:
    """Before its files are read a model's tasks are unknown: it may be the one."""
    if not card.tasks:
        return True
    kinds = set(task.kinds) if isinstance(task, Encode) else set()
    return _verb(task) in card.tasks and kinds <= set(card.kinds)


_ABILITY = {
    "encode": "make embeddings",
    "score": "rerank",
    "extract": "classify",
}


def _verb(task: Work) -> str:
    if isinstance(task, Extract):
        return "extract"
    return "encode" if isinstance(task, Encode) else "score"


def _reluctance(card: Card, task: Work) -> tuple[bool, bool, bool]:
    """The default for a task is the first model with the least: one that cannot take its
    pictures or that failed is the last choice, and a cross-encoder scores better than a
    bi-encoder."""
    blind = bool(card.tasks) and not takes(task, card)
    plain = isinstance(task, Score) and card.scoring != "cross-encoder"
    return blind, card.state == "failed", plain


def _check(task: Work, card: Card, most: int) -> None:
    """Whether the model can do it at all, before any work."""
    if not task.items:
        raise BadRequest("At least one input is needed.", param="[0]")
    verb = _verb(task)
    if verb not in card.tasks:
        raise Unsupported(f"This model cannot {_ABILITY[verb]}.", param="model")
    check_media(task, card)
    if isinstance(task, Encode):
        check_dims(task.dims, card)
        check_kinds(task.kinds, card)
    elif isinstance(task, Extract):
        check_labels(task, card, most)
    else:
        check_weights(task, card)


def _ignored(task: Work, card: Card) -> tuple[str, ...]:
    instructed = any(item.instruction is not None for item in items_of(task))
    ignored = ["instruction"] if instructed and not card.instructions else []
    if isinstance(task, Extract) and not card.template:  # its own labels, scored its own way
        wishes = {"multi_label": task.multi_label, "hypothesis_template": task.template}
        ignored += [name for name, wish in wishes.items() if wish is not None]
    if isinstance(task, Encode) and "dense" not in task.kinds:  # others are as long as they are
        told = {"dimensions": task.dims is not None, "normalize": task.normalize is False}
        ignored += [name for name, is_told in told.items() if is_told]
    return tuple(ignored)
