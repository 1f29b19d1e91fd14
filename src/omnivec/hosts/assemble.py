"""Settings to a running whole: the one place that sees every room."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from omnivec import __version__
from omnivec.core.checkpoint import CheckpointError
from omnivec.core.plugins import discover
from omnivec.core.profiles import PROFILES
from omnivec.core.seams import Runtime, Watch
from omnivec.core.settings import Settings, cache
from omnivec.engine import catalog, hub
from omnivec.engine.adapters import attach
from omnivec.engine.local import LocalEngine
from omnivec.engine.resident import Opener, Resident
from omnivec.engine.store import Store
from omnivec.engine.vocabulary import Vocabulary
from omnivec.engine.work import Splitter
from omnivec.hosts import banner, logs
from omnivec.hosts.progress import Progress

if TYPE_CHECKING:
    from omnivec.jobs.runner import Runner
    from omnivec.server.door import Door

log = logging.getLogger("omnivec")


class Unwatched:
    """For an engine whose batches nobody counts."""

    def batch(self, model: str, rows: int, tokens: int, seconds: float) -> None:
        pass


def local_engine(
    settings: Settings,
    *,
    watch: Watch | None = None,
    runtimes: Mapping[str, Runtime] | None = None,
    progress: hub.Progress | None = None,
) -> LocalEngine:
    """An engine with the models that the settings name; none of them is loaded yet.

    Raises CheckpointError for a model argument that is none, and for an adapter that cannot be
    used.
    """
    kept = cache(settings)
    store = Store(*kept, __version__) if kept else None
    opener = Opener(discover("families"), runtimes or discover("runtimes"), settings)
    found = _specs(settings)
    adapted = attach([spec for spec, _ in found], settings.lora)
    specs = [(spec, named) for spec, (_, named) in zip(adapted, found, strict=True)]
    pinned = _pinned(settings, [spec for spec, _ in specs])
    residents = [
        Resident(
            msgspec.structs.replace(spec.card(), awaited=named),
            functools.partial(hub.locate, spec, offline=settings.offline, progress=progress),
            functools.partial(hub.locate_here, spec),
            opener,
            settings,
            watch or Unwatched(),
            store,
            pinned=spec in pinned,
        )
        for spec, named in specs
    ]
    folders = [Path(settings.tiktoken_cache_dir)] if settings.tiktoken_cache_dir else []
    splitter = Splitter(settings.overflow, settings.token_ids, Vocabulary(folders))
    return LocalEngine(residents, splitter, settings, store=store)


def _specs(settings: Settings) -> list[tuple[catalog.Spec, bool]]:
    """Every model that can be asked for, and whether it was named: then it is loaded first."""
    known = catalog.catalog(settings.catalogue)
    families = PROFILES[settings.profile].families if settings.profile else ()
    named = known.specs(settings.models, revision=settings.revision, families=families)
    if not settings.on_demand:
        return [(spec, True) for spec in named]
    taken = {one for spec in named for one in (spec.name, spec.source)}
    others = [known.spec(entry.id) for entry in known.listed if entry.id not in taken]
    return [*((spec, True) for spec in named), *((spec, False) for spec in others)]


def _pinned(settings: Settings, specs: Sequence[catalog.Spec]) -> list[catalog.Spec]:
    """Raises CheckpointError for a pin that is no model here."""
    found = []
    for name in settings.pin:
        fits = [spec for spec in specs if name in (spec.name, spec.source, *spec.aliases)]
        if not fits:
            raise CheckpointError(f"pin names {name!r}, which is not among the models served")
        found += fits
    return found


def unspoken(settings: Settings, dialects: Container[str]) -> str | None:
    """What an operator must know who asked for a wire format that nobody here speaks."""
    if settings.dialect in dialects:
        return None
    return (
        f"the {settings.dialect} wire format is not built yet: only its port and variables are used"
    )


def serve(settings: Settings, *, exported: bool = False) -> int:
    """Serve until told to stop; the exit code. The port answers before a model is loaded.

    `exported`: the one key came from OMNIVEC_API_KEY, so whoever started this has it there.
    Raises CheckpointError for a model argument that is none, and hosts.uvicorn.PortError.
    """
    from omnivec.hosts import uvicorn
    from omnivec.server import tracing
    from omnivec.server.asgi import application
    from omnivec.server.door import Door
    from omnivec.server.metrics import Metrics

    began = time.monotonic()
    logs.configure(settings)
    runtimes, dialects = discover("runtimes"), discover("dialects")
    if warning := unspoken(settings, dialects):
        log.warning("%s", warning)
    metrics = Metrics(version=__version__, auth_disabled=not settings.api_keys)
    engine = local_engine(
        settings, watch=metrics, runtimes=runtimes, progress=Progress("downloading", "bytes").update
    )
    metrics.stats = engine.stats
    metrics.memory = lambda: sum(runtime.memory() for runtime in runtimes.values())
    metrics.accelerators = lambda: [
        one for runtime in runtimes.values() for one in runtime.accelerators()
    ]
    door = Door(dialects, engine, settings=settings, metrics=metrics)
    door.tracer = tracing.start(settings.otel_endpoint, __version__)
    runner = _runner(door, settings)
    life = _Life(engine, runner, settings, began, exported=exported)
    app = application(door, settings, metrics, startup=life.start, shutdown=life.end)
    return uvicorn.serve(app, settings, opened=life.opened)


def _runner(door: Door, settings: Settings) -> Runner:
    """What runs RunPod's jobs. Raises StoreError."""
    from omnivec.jobs.opening import open_store
    from omnivec.jobs.runner import MOST_KEPT, MOST_ON_DISK, Runner
    from omnivec.jobs.webhook import Webhooks
    from omnivec.server.jobs import add_jobs

    store = open_store(settings.jobs)
    if store.recovered:
        log.info("%d jobs that were running when the server ended wait again", store.recovered)
    hooks = Webhooks(settings.media_allow)
    most = MOST_KEPT if settings.jobs is None else MOST_ON_DISK
    return add_jobs(
        door,
        lambda answer: Runner(
            store, answer, hooks.post, settings.max_jobs, most, closed=hooks.close
        ),
    )


class _Life:
    """What happens around the serving: models load behind an open port, a person is told."""

    def __init__(
        self,
        engine: LocalEngine,
        runner: Runner,
        settings: Settings,
        began: float,
        *,
        exported: bool,
    ) -> None:
        self._engine = engine
        self._runner = runner
        self._settings = settings
        self._began = began
        self._exported = exported
        self._loading: asyncio.Task[None] | None = None

    def opened(self, host: str, port: int) -> None:
        self._settings = msgspec.structs.replace(self._settings, host=host, port=port)
        logs.say(banner.opening(self._settings))

    async def start(self) -> None:
        self._loading = asyncio.create_task(self._load())
        self._runner.start()

    async def end(self) -> None:
        """What still loads is left where it is: nobody can interrupt a download or a first
        inference, and the process ends without it."""
        await self._runner.close()
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            return
        await self._engine.close()

    async def _load(self) -> None:
        await self._engine.load()
        seconds = time.monotonic() - self._began
        cards = self._engine.cards
        logs.say(banner.ready(cards, self._settings, seconds, exported=self._exported))
