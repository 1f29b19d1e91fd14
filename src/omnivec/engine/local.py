"""The path of every task through the models of this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from omnivec.core.errors import BadRequest, Fault, UnknownModel, Unsupported
from omnivec.core.nouns import (
    Card,
    Describe,
    Encode,
    Features,
    Output,
    Result,
    Score,
    Task,
    Timing,
    Unit,
    Usage,
    Vectors,
)
from omnivec.core.settings import Settings
from omnivec.engine.batcher import Batcher
from omnivec.engine.catalog import resolve
from omnivec.engine.job import Job
from omnivec.engine.outputs import cosine, finish, relevance
from omnivec.engine.resident import Resident
from omnivec.engine.work import Splitter

CHUNK = 64
"""Items that are tokenised together: enough for a few batches, so that they can start."""


class LocalEngine:
    """Answers tasks with the models in `residents`, the first of them by default."""

    def __init__(
        self,
        residents: Sequence[Resident],
        splitter: Splitter,
        settings: Settings,
        *,
        threads: int = 2,
    ) -> None:
        self._residents = {resident.card.name: resident for resident in residents}
        self._splitter = splitter
        self._settings = settings
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")
        self._loads = ThreadPoolExecutor(1, thread_name_prefix="load")

    async def load(self) -> None:
        """Open the models one after the other; each reports its own failure in its card."""
        for resident in self._residents.values():
            await resident.load(self._loads)

    async def close(self) -> None:
        for resident in self._residents.values():
            await resident.close()
        self._pool.shutdown(wait=False)
        self._loads.shutdown(wait=False)

    @property
    def cards(self) -> tuple[Card, ...]:
        return tuple(resident.card for resident in self._residents.values())

    def stats(self) -> dict[str, dict[str, float]]:
        """For each loaded model, items "queued" and items "running"."""
        found = {}
        for name, resident in self._residents.items():
            if resident.batcher is not None:
                queued, running = resident.batcher.depth()
                found[name] = {"queued": float(queued), "running": float(running)}
        return found

    async def run(self, task: Task) -> Result:
        if isinstance(task, Describe):
            return self._describe(task)
        started = time.monotonic()
        resident = self._choose(task)
        batcher = await resident.ready()
        card = resident.card
        units = self._split(task, card)
        # for a bi-encoder the query is the first unit, and the caller's documents follow
        asked = len(units) - len(task.items)
        job, features, seconds = await self._compute(batcher, units, asked)
        result = self._join(task, card, await job.wait())
        return msgspec.structs.replace(
            result,
            usage=Usage(
                tokens=sum(feature.tokens for feature in features),
                items=len(task.items),
                truncated=sum(feature.cut for feature in features),
            ),
            timing=Timing(time.monotonic() - started, seconds, job.queue, job.inference),
            ignored=_ignored(units, card),
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
        # before its files are read a model's tasks are unknown: it may be the one
        can = [r for r in self._residents.values() if verb in r.card.tasks or not r.card.tasks]
        if verb == "score":
            can.sort(key=lambda resident: resident.card.scoring != "cross-encoder")
        if not can:
            raise UnknownModel(f"No model here can {_ABILITY[verb]}.", param="model")
        return can[0]

    def _describe(self, task: Describe) -> Result:
        if task.model is not None:
            card = self._find(task.model).card
            return Result(card=card, cards=(card,))
        return Result(card=self.cards[0] if self.cards else Card(name=""), cards=self.cards)

    # ── work ─────────────────────────────────────────────────────────────────────────────

    def _split(self, task: Encode | Score, card: Card) -> list[Unit]:
        if not task.items:
            raise BadRequest("At least one input is needed.", param="[0]")
        verb = "encode" if isinstance(task, Encode) else "score"
        if verb not in card.tasks:
            raise Unsupported(f"This model cannot {_ABILITY[verb]}.", param="model")
        if isinstance(task, Encode):
            return self._splitter.encode(task, card)
        return self._splitter.score(task, card)

    async def _compute(
        self, batcher: Batcher, units: Sequence[Unit], asked: int
    ) -> tuple[Job, list[Features], float]:
        """Prepare and queue the units, a chunk at a time. Also the seconds of preparing.

        A fault's `[3]` is counted from the request's first item, `asked` units after the first.
        """
        loop = asyncio.get_running_loop()
        batcher.admit(len(units))
        job, features, seconds = Job(len(units)), list[Features](), 0.0
        try:
            for first in range(0, len(units), CHUNK):
                if job.gone:
                    break
                began = time.monotonic()
                chunk = units[first : first + CHUNK]
                ready = await loop.run_in_executor(
                    self._pool, _prepare, batcher, chunk, first - asked
                )
                seconds += time.monotonic() - began
                features += ready
                batcher.submit(job, ready, first)
        except BaseException:
            job.gone = True
            raise
        finally:
            batcher.withdraw(len(units) - len(features))
        return job, features, seconds

    def _join(self, task: Encode | Score, card: Card, outputs: Sequence[Output]) -> Result:
        if isinstance(task, Score):
            if card.scoring == "cross-encoder":
                return Result(card=card, outputs=tuple(outputs))
            dense = [output.dense for output in outputs if isinstance(output, Vectors)]
            return Result(card=card, outputs=tuple(relevance(cosine(dense[0], dense[1:]))))
        dims = task.dims or self._default_dims(card)
        dense = [output.dense for output in outputs if isinstance(output, Vectors)]
        matrix = finish(dense, dims, normalize=task.normalize)
        rows = tuple(Vectors(dense=row) for row in matrix)
        return Result(card=card, outputs=rows, dims=matrix.shape[1])

    def _default_dims(self, card: Card) -> int | None:
        """The setting, as far as the model's vectors are that long."""
        wanted = self._settings.default_dims
        return wanted if wanted is None or card.dims is None else min(wanted, card.dims)


_ABILITY = {"encode": "make embeddings", "score": "rerank"}


def _prepare(batcher: Batcher, units: Sequence[Unit], offset: int) -> list[Features]:
    """Features of one chunk, of which the first unit is the request's item `offset`."""
    try:
        return batcher.model.prepare(units)
    except Fault as fault:
        if fault.param and fault.param.startswith("[") and offset:
            number, rest = fault.param[1:].split("]", 1)
            item = int(number) + offset
            fault.param = "query" if item < 0 else f"[{item}]{rest}"
        raise


def _ignored(units: Sequence[Unit], card: Card) -> tuple[str, ...]:
    if card.instructions or all(unit.instruction is None for unit in units):
        return ()
    return ("instruction",)
