"""A served model: its files found, its graphs opened, its queue running, its state known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import msgspec

from omnivec.core import machine, sizes
from omnivec.core.checkpoint import Cause, Checkpoint, CheckpointError
from omnivec.core.errors import Fault
from omnivec.core.nouns import Card, Text, Unit
from omnivec.core.seams import Family, Model, Runtime, Session, Watch
from omnivec.core.settings import Settings, budget
from omnivec.core.steps import Head
from omnivec.engine.batcher import Batcher
from omnivec.engine.job import Job
from omnivec.engine.memory import Memory, describe
from omnivec.engine.store import Store

log = logging.getLogger("omnivec.engine")

AGAIN: Mapping[Cause, float] = {"OOM": 60.0, "NETWORK": 30.0}
"""Seconds after which what failed so may be tried again; what failed otherwise stays failed
until somebody asks for a retry."""

PLACES = 2
"""Models of a size that the memory budget must have room for, before each has a spare graph where
another does its work, too: services of texts have one that embeds and one that ranks."""


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
        kind = checkpoint.architecture
        what = f"the architecture {kind!r} is not known here" if kind else "it has no model_type"
        raise CheckpointError(
            f"{checkpoint.name}: config.json: {what}; `omnivec models` lists models that are"
            " known, and a model of their architectures can be served as well"
        )

    def runtime(self, checkpoint: Checkpoint, heads: Mapping[str, Head]) -> Runtime:
        """The preferred runtime that can open every graph. Raises CheckpointError."""
        wanted = self._settings.runtime
        if wanted not in ("auto", *self._runtimes):
            raise CheckpointError(f"no runtime {wanted!r}; there are {', '.join(self._runtimes)}")
        reasons = {}
        for runtime in self._runtimes.values():
            if wanted not in ("auto", runtime.name):
                continue
            reason = self._obstacle(runtime, checkpoint, heads)
            if reason is None:
                return runtime
            reasons[runtime.name] = reason
        if wanted == "auto":
            reasons.pop("fake", None)  # it opens nobody's files
        raise CheckpointError(
            f"{checkpoint.name} cannot be opened. "
            + refusal(reasons, self._settings.device, has_cuda=machine.has_cuda()),
            "DEPENDENCY",
        )

    def plan(self, checkpoint: Checkpoint, heads: Mapping[str, Head]) -> dict[str, Runtime]:
        """The graphs that are to be opened, and by which runtime. Of those that are spare see
        `Head`. Raises CheckpointError."""
        spare = {graph: head for graph, head in heads.items() if head.spare}
        if not spare:
            return dict.fromkeys(heads, self.runtime(checkpoint, heads))
        needed = {graph: head for graph, head in heads.items() if not head.spare}
        try:
            runtime = self.runtime(checkpoint, needed)
        except CheckpointError as error:
            with contextlib.suppress(CheckpointError):
                return dict.fromkeys(spare, self.runtime(checkpoint, spare))
            raise error from None
        return dict.fromkeys(needed, runtime) | self._beside(runtime, checkpoint, needed, spare)

    def _beside(
        self,
        runtime: Runtime,
        checkpoint: Checkpoint,
        needed: Mapping[str, Head],
        spare: Mapping[str, Head],
    ) -> dict[str, Runtime]:
        """The spare graphs, where a runtime can open them that is preferred to that of the
        needed ones, and where memory is plenty."""
        try:
            better = self.runtime(checkpoint, spare)
        except CheckpointError:
            return {}
        found = dict.fromkeys(spare, better)
        held = self._weigh(checkpoint, dict.fromkeys(needed, runtime) | found)
        roomy = PLACES * held <= budget(self._settings.memory)
        return found if better.rank < runtime.rank and roomy else {}

    def _weigh(self, checkpoint: Checkpoint, plan: Mapping[str, Runtime]) -> int:
        """Bytes that these graphs take together."""
        dtype = self._settings.dtype
        return sum(runtime.weigh(checkpoint, graph, dtype) for graph, runtime in plan.items())

    def _obstacle(
        self, runtime: Runtime, checkpoint: Checkpoint, heads: Mapping[str, Head]
    ) -> str | None:
        for graph, head in heads.items():
            reason = runtime.can(checkpoint, graph, head, self._settings.device)
            if reason is not None:
                return reason
        return None

    def describe(self, checkpoint: Checkpoint) -> Card:
        """From the small files: also about how many bytes it will take. Raises
        CheckpointError."""
        family = self.family(checkpoint)
        card, heads = family.card(checkpoint), family.graphs(checkpoint)
        if not heads:
            return card
        return self._told(card, checkpoint, heads, self.plan(checkpoint, heads))

    def _told(
        self,
        card: Card,
        checkpoint: Checkpoint,
        heads: Mapping[str, Head],
        opened: Mapping[str, Runtime],
    ) -> Card:
        """With what the `opened` graphs take and can read."""
        held = self._weigh(checkpoint, opened)
        if not all(heads[graph].spare for graph in opened):
            return msgspec.structs.replace(card, memory=held, extra="")
        extra = card.extra if self._settings.runtime == "auto" else ""
        return msgspec.structs.replace(card, memory=held, modalities=("text",), extra=extra)

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
        device, dtype = self._settings.device, self._settings.dtype
        plan = self.plan(checkpoint, heads)
        sessions: dict[str, Session] = {}
        where: list[tuple[str, str, str]] = []
        for graph, runtime in plan.items():
            if heads[graph].spare and any(place != "cpu" for _, place, _ in where):
                continue  # a graph on the CPU is no help to one on a GPU
            sessions[graph] = runtime.open(checkpoint, graph, heads[graph], device, dtype)
            where.append((runtime.name, *runtime.describe(sessions[graph])))
        card = self._told(card, checkpoint, heads, {graph: plan[graph] for graph in sessions})
        if card.extra:
            log.warning(
                "%s: reads texts only, without the extra %s: pip install 'omnivec[%s]'",
                card.name,
                card.extra,
                card.extra,
            )
        card = _on(card, *map(_several, zip(*where, strict=True)))
        return family.ready(checkpoint, sessions), card


class Resident:
    """One model from name to answers; the roster says when it comes and goes.

    `locate` finds its files (and may download them), `here` only if they are on this disk; both
    block. `users` are requests that the model works for, `waiting` those that wait until it is
    loaded. `_describe` and `_open` run on a thread, all else on the event loop.
    """

    def __init__(
        self,
        card: Card,
        locate: Callable[[], Checkpoint],
        here: Callable[[], Checkpoint | None],
        opener: Opener,
        settings: Settings,
        watch: Watch,
        store: Store | None = None,
        *,
        pinned: bool = False,
    ) -> None:
        self.card = msgspec.structs.replace(card, created=int(time.time()))
        self.batcher: Batcher | None = None
        self.memory = Memory()
        self.pinned = pinned
        self.named = card.awaited  # by whoever runs the server
        self.users = 0
        self.waiting = 0
        self.used = 0.0  # when a request last came, monotonic
        self.since = 0.0  # when it was last loaded or failed, monotonic
        self.eased = asyncio.Event()  # nobody uses it
        self._checkpoint: Checkpoint | None = None
        self._locate = locate
        self._here = here
        self._opener = opener
        self._settings = settings
        self._watch = watch
        self._store = store

    @property
    def is_idle(self) -> bool:
        return not self.users and not self.waiting

    @property
    def is_open(self) -> bool:
        """Whether it is loaded, and not on its way out."""
        return self.batcher is not None and self.card.state == "loaded"

    @property
    def again(self) -> float | None:
        """Seconds until a load that failed may be tried once more; None when it may not."""
        pause = next((s for cause, s in AGAIN.items() if cause == self.card.cause), None)
        return None if pause is None else max(0.0, self.since + pause - time.monotonic())

    def note(self, **changes: object) -> None:
        self.card = msgspec.structs.replace(self.card, **changes)

    async def find(self, pool: Executor) -> bool:
        """Have its files, which may be a download, and read the small ones. Whether there is
        something to open; if not, the card says why. Never raises."""
        if self._checkpoint is not None:
            return True
        try:
            loop = asyncio.get_running_loop()
            checkpoint, card = await loop.run_in_executor(pool, self._describe)
        except Exception as error:  # noqa: BLE001 - `fail` logs it
            self.fail(error)
            return False
        self._checkpoint = checkpoint
        self._become(card)
        return True

    async def glance(self, pool: Executor) -> None:
        """Read its small files if they are on this disk, so that the card tells dimensions and
        limits before it is ever loaded. What is wrong with it is told when it is asked for."""

        def look() -> Card | None:
            checkpoint = self._here()
            return None if checkpoint is None else self._opener.describe(checkpoint)

        try:
            card = await asyncio.get_running_loop().run_in_executor(pool, look)
        except Exception as error:  # noqa: BLE001 - nobody asked for this model yet
            log.debug("%s: not looked at: %s", self.card.name, error)
            return
        if card is not None and self.card.state == "available":
            self._become(card)

    async def open(self, pool: Executor) -> None:
        """Open and prove the model that was found; on failure the card says why. Never
        raises."""
        began = time.monotonic()
        try:
            await self.close()  # there is none, but for a bug: then two would be held
            self.batcher = await asyncio.get_running_loop().run_in_executor(pool, self._open)
            await self._prove(self.batcher)
        except Exception as error:  # noqa: BLE001 - `fail` logs it
            await self.close()
            self.fail(error)
            return
        self.used = self.since = time.monotonic()
        self.note(state="loaded", reason="", cause="", attempts=0, awaited=False)
        log.debug("%s: loaded in %.2f s", self.card.name, self.since - began)

    def fail(self, error: Exception) -> None:
        """Say in the card and in the log why it is not loaded."""
        self.since = time.monotonic()
        self._checkpoint = None  # the files may be others the next time
        known = isinstance(error, CheckpointError)
        cause = error.cause if isinstance(error, CheckpointError) else _cause(error)
        text = str(error) if known else f"{type(error).__name__}; see the log"
        attempts = self.card.attempts + 1
        self.note(state="failed", reason=text, cause=cause, attempts=attempts, awaited=False)
        if known:
            log.error("%s", error)  # the text is for the operator, no trace
        else:
            log.error("%s: could not be opened", self.card.name, exc_info=error)

    async def close(self, patience: float | None = None) -> None:
        """`patience` as in Batcher.close."""
        batcher, self.batcher = self.batcher, None
        if batcher is not None:
            await asyncio.to_thread(batcher.close, patience)

    async def _prove(self, batcher: Batcher) -> None:
        """One real inference. Raises CheckpointError when the model does not answer it."""
        text = (Text("Is this model ready?"),)
        pair = text if "encode" not in self.card.tasks else None
        unit = Unit(parts=text, other=pair, kinds=self.card.kinds or ("dense",))
        job = Job(1)
        batcher.admit(1)
        batcher.submit(job, batcher.model.prepare([unit]), 0)
        try:
            await job.wait()
        except Fault as fault:
            raise CheckpointError(
                f"{self.card.name}: the first inference failed: {fault}"
            ) from fault

    # ── on a thread ──────────────────────────────────────────────────────────────────────

    def _describe(self) -> tuple[Checkpoint, Card]:
        checkpoint = self._locate()
        return checkpoint, self._opener.describe(checkpoint)

    def _open(self) -> Batcher:
        checkpoint = self._checkpoint
        if checkpoint is None:
            raise RuntimeError("a model is found before it is opened")
        model, card = self._opener.open(checkpoint)
        self._become(card)
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

    def _become(self, card: Card) -> None:
        """What the files say, under the name and in the state that it has here."""
        mine = self.card
        kept = {name: getattr(mine, name) for name in _KEPT}
        self.card = msgspec.structs.replace(card, **kept)


_KEPT = (
    "name",
    "aliases",
    "created",
    "state",
    "reason",
    "cause",
    "attempts",
    "awaited",
    "profiles",
)


def _cause(error: Exception) -> Cause:
    """torch's own OutOfMemoryError is not a MemoryError."""
    short = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return "OOM" if short else "UNKNOWN"


def _several(facts: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(facts))


def _on(card: Card, runtime: str, device: str, dtype: str) -> Card:
    return msgspec.structs.replace(card, runtime=runtime, device=device, dtype=dtype)


def refusal(reasons: Mapping[str, str], device: str, *, has_cuda: bool) -> str:
    """Each runtime's reason, those first that an installation ends; where the GPU is missing,
    that, and no reason of a runtime that knows none."""
    curable = [f"{name}: {why}" for name, why in reasons.items() if "install" in why]
    if device == "cuda" and not has_cuda:
        lack = "This machine shows no CUDA device; use --device cpu"
        return f"{lack}. With one: {'; '.join(curable)}" if curable else lack
    others = [f"{name}: {why}" for name, why in reasons.items() if "install" not in why]
    return "; ".join(curable + others)


def unfit(resident: Resident, budget: int) -> CheckpointError:
    """That a model is larger than all models may be together."""
    needed = sizes.say(resident.card.memory)
    return CheckpointError(
        f"{resident.card.name} takes about {needed}, and there is no room for that within the "
        f"memory budget of {sizes.say(budget)}; raise --memory, or pin fewer models",
        "OOM",
    )
