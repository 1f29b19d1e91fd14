"""A served model: its files found, its graphs opened, its queue running, its state known."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import Fault, Loading
from omnivec.core.nouns import Card, Head, Text, Unit
from omnivec.core.seams import Family, Model, Runtime, Session, Watch
from omnivec.core.settings import Settings
from omnivec.engine.batcher import Batcher
from omnivec.engine.job import Job
from omnivec.engine.memory import Memory, describe
from omnivec.engine.store import Store

log = logging.getLogger("omnivec.engine")


class Opener:
    """Chooses family and runtime for a checkpoint and opens it."""

    def __init__(
        self, families: Mapping[str, Family], runtimes: Mapping[str, Runtime], settings: Settings
    ) -> None:
        self._families = families
        self._runtimes = runtimes
        self._settings = settings

    def family(self, checkpoint: Checkpoint) -> Family:
        """Raises CheckpointError when no family claims it."""
        for family in self._families.values():
            if family.claims(checkpoint):
                return family
        what = checkpoint.architecture or "no model_type"
        raise CheckpointError(
            f"{checkpoint.name}: no family of models here claims it (config.json: {what}); "
            f"there are {', '.join(self._families)}"
        )

    def runtime(self, checkpoint: Checkpoint, heads: Mapping[str, Head]) -> Runtime:
        """The preferred runtime that can open every graph. Raises CheckpointError."""
        wanted = self._settings.runtime
        if wanted not in ("auto", *self._runtimes):
            raise CheckpointError(f"no runtime {wanted!r}; there are {', '.join(self._runtimes)}")
        reasons = []
        for runtime in self._runtimes.values():
            if wanted not in ("auto", runtime.name):
                continue
            reason = self._obstacle(runtime, checkpoint, heads)
            if reason is None:
                return runtime
            reasons.append(f"{runtime.name}: {reason}")
        raise CheckpointError(f"{checkpoint.name} cannot be opened. " + "; ".join(reasons))

    def _obstacle(
        self, runtime: Runtime, checkpoint: Checkpoint, heads: Mapping[str, Head]
    ) -> str | None:
        for graph, head in heads.items():
            reason = runtime.can(checkpoint, graph, head, self._settings.device)
            if reason is not None:
                return reason
        return None

    def open(self, checkpoint: Checkpoint) -> tuple[Model, Card]:
        """Open the graphs. The card then also says runtime, device and dtype."""
        family = self.family(checkpoint)
        card = family.card(checkpoint)
        if checkpoint.adapters and not card.adapters:
            raise CheckpointError(
                f"{checkpoint.name}: LoRA adapters are not applied to models of the family "
                f"{family.name}; serve it without --lora"
            )
        heads = family.graphs(checkpoint)
        if not heads:
            return family.ready(checkpoint, {}), _on(card, "numpy", "cpu", "f32")
        runtime = self.runtime(checkpoint, heads)
        device, dtype = self._settings.device, self._settings.dtype
        sessions: dict[str, Session] = {}
        for graph, head in heads.items():
            sessions[graph] = runtime.open(checkpoint, graph, head, device, dtype)
        where = runtime.describe(next(iter(sessions.values())))
        return family.ready(checkpoint, sessions), _on(card, runtime.name, *where)


class Resident:
    """One model from name to answers. `locate` finds its files (and may download them)."""

    def __init__(
        self,
        name: str,
        aliases: Sequence[str],
        locate: Callable[[], Checkpoint],
        opener: Opener,
        settings: Settings,
        watch: Watch,
        store: Store | None = None,
        adapters: Sequence[str] = (),
    ) -> None:
        self.card = Card(
            name=name,
            aliases=tuple(aliases),
            adapters=tuple(adapters),
            created=int(time.time()),
        )
        self.batcher: Batcher | None = None
        self.memory = Memory()
        self._store = store
        self._locate = locate
        self._opener = opener
        self._settings = settings
        self._watch = watch
        self._settled = asyncio.Event()

    async def load(self, pool: ThreadPoolExecutor) -> None:
        """Open and prove the model; on failure the card says why. Never raises."""
        self._note(state="loading")
        try:
            self.batcher = await asyncio.get_running_loop().run_in_executor(pool, self._open)
            await self._prove(self.batcher)
            self._note(state="loaded")
        except CheckpointError as error:
            await self.close()
            self._note(state="failed", reason=str(error))
            log.error("%s", error)  # noqa: TRY400 - the text is for the operator, no trace
        except Exception as error:
            await self.close()
            self._note(state="failed", reason=f"{type(error).__name__}; see the log")
            log.exception("%s: could not be opened", self.card.name)
        finally:
            self._settled.set()

    async def ready(self) -> Batcher:
        """The running queue, after waiting a while for a load. Raises Loading, ModelFailed."""
        if self.card.state == "loaded" and self.batcher is not None:
            return self.batcher
        try:
            await asyncio.wait_for(self._settled.wait(), self._settings.load_wait)
        except TimeoutError:
            raise Loading("The model is still loading.", retry_after=5) from None
        if self.batcher is None or self.card.state != "loaded":
            raise Loading("The model could not be loaded; see the server's log or /health.")
        return self.batcher

    async def close(self) -> None:
        batcher, self.batcher = self.batcher, None
        if batcher is not None:
            await asyncio.to_thread(batcher.close)

    def _open(self) -> Batcher:
        checkpoint = self._locate()
        model, card = self._opener.open(checkpoint)
        kept = {"name": self.card.name, "aliases": self.card.aliases, "created": self.card.created}
        self.card = msgspec.structs.replace(
            card, **kept, revision=checkpoint.revision, state="loading"
        )
        if self._store is not None:
            self.memory = Memory(self._store, describe(checkpoint, self.card, self._store.version))
        settings = self._settings
        return Batcher(
            self.card.name,
            model,
            reopen=lambda: self._opener.open(checkpoint)[0],
            watch=self._watch,
            budget=settings.max_batch_tokens,
            queue=settings.queue,
            max_age=settings.max_age,
            batch_timeout=settings.batch_timeout,
        )

    async def _prove(self, batcher: Batcher) -> None:
        """One real inference. Raises CheckpointError when the model does not answer it."""
        text = (Text("Is this model ready?"),)
        pair = text if "encode" not in self.card.tasks else None
        job = Job(1)
        batcher.admit(1)
        batcher.submit(job, batcher.model.prepare([Unit(parts=text, other=pair)]), 0)
        try:
            await job.wait()
        except Fault as fault:
            raise CheckpointError(
                f"{self.card.name}: the first inference failed: {fault}"
            ) from fault

    def _note(self, **changes: object) -> None:
        self.card = msgspec.structs.replace(self.card, **changes)


def _on(card: Card, runtime: str, device: str, dtype: str) -> Card:
    return msgspec.structs.replace(card, runtime=runtime, device=device, dtype=dtype)
