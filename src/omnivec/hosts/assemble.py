"""Settings to a running whole: the one place that sees every room."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from omnivec import __version__
from omnivec.core.plugins import discover
from omnivec.core.seams import Runtime, Watch
from omnivec.core.settings import Settings
from omnivec.engine import catalog, hub
from omnivec.engine.local import LocalEngine
from omnivec.engine.resident import Opener, Resident
from omnivec.engine.vocabulary import Vocabulary
from omnivec.engine.work import Splitter
from omnivec.hosts import banner

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

    Raises CheckpointError for a model argument that is none.
    """
    opener = Opener(discover("families"), runtimes or discover("runtimes"), settings)
    residents = [
        Resident(
            spec.name,
            spec.aliases,
            functools.partial(hub.locate, spec, offline=settings.offline, progress=progress),
            opener,
            settings,
            watch or Unwatched(),
        )
        for spec in catalog.catalog().specs(settings.models, revision=settings.revision)
    ]
    folders = [Path(settings.tiktoken_cache_dir)] if settings.tiktoken_cache_dir else []
    splitter = Splitter(settings.overflow, settings.token_ids, Vocabulary(folders))
    return LocalEngine(residents, splitter, catalog.resolve, settings)


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code. The port answers before a model is loaded."""
    from omnivec.hosts import uvicorn
    from omnivec.server.asgi import application
    from omnivec.server.door import Door
    from omnivec.server.metrics import Metrics

    began = time.monotonic()
    runtimes = discover("runtimes")
    metrics = Metrics(version=__version__, auth_disabled=not settings.api_keys)
    engine = local_engine(settings, watch=metrics, runtimes=runtimes, progress=None)
    metrics.stats = engine.stats
    metrics.memory = lambda: sum(runtime.memory() for runtime in runtimes.values())
    door = Door(discover("dialects"), engine, settings=settings, metrics=metrics)
    loading: set[asyncio.Task[None]] = set()

    async def load() -> None:
        await engine.load()
        _say(banner.ready(engine.cards, settings, time.monotonic() - began))

    async def startup() -> None:
        loading.add(asyncio.create_task(load()))

    async def shutdown() -> None:
        for task in loading:
            task.cancel()
        await engine.close()

    _say(banner.opening(settings))
    app = application(door, settings, metrics, startup=startup, shutdown=shutdown)
    return uvicorn.serve(app, settings)


def _say(text: str) -> None:
    """To a person on a terminal as it is; to a log line by line."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - it is for a person
        return
    for line in text.splitlines():
        if line.strip():
            log.info("%s", line)
