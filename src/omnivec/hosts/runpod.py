"""Jobs instead of HTTP: a RunPod serverless worker over the same door and engine.

The SDK has its own event loops, one after the other, and writes every output into its log on
them; the engine has one in a thread of its own, so that neither stands in the other's way.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Mapping
from typing import Any

import orjson

from omnivec import __version__
from omnivec.core.errors import BadRequest
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings, SettingsError
from omnivec.hosts import logs
from omnivec.hosts.assemble import local_engine
from omnivec.jobs.job import Outcome
from omnivec.jobs.runner import patiently
from omnivec.server.door import Door
from omnivec.server.jobs import DIALECT, answer
from omnivec.server.metrics import Metrics

EXTRA = "a RunPod worker needs the extra: pip install 'omnivec[runpod]'"
UNREADABLE = BadRequest(
    "A job must be JSON of whole Unicode characters, integers of 64 bits and little nesting.",
    param="input",
)
# what a worker that is fit can do, where a model of it can at all
_TRIALS = {
    "encode": {"input": "Is this worker fit?"},
    "score": {"query": "Is this worker fit?", "docs": ["It is.", "It is not."]},
}


def work(settings: Settings) -> None:
    """Take jobs until RunPod says stop. Raises SettingsError without the SDK, SystemExit as the
    SDK does."""
    try:
        import runpod
    except ImportError:
        raise SettingsError(EXTRA) from None
    logs.configure(settings)
    worker = Worker(settings)
    worker.start()
    runpod.serverless.register_fitness_check(worker.check_fitness)
    try:
        runpod.serverless.start(
            {"handler": worker.handle, "concurrency_modifier": lambda _now: settings.max_jobs}
        )
    finally:
        for heartbeat in multiprocessing.active_children():  # nobody waits for the SDK's own exit
            heartbeat.terminate()
            heartbeat.join()


class Worker:
    """An engine on a loop of its own, and what the SDK calls."""

    def __init__(self, settings: Settings) -> None:
        metrics = Metrics(version=__version__)
        self._engine = local_engine(settings, watch=metrics)
        self._door = Door(discover("dialects"), self._engine, settings=settings, metrics=metrics)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="engine")

    def start(self) -> None:
        """Load the models. One that cannot be loaded is found by `check_fitness`."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._engine.load(), self._loop).result()

    async def check_fitness(self) -> None:
        """One real embedding and one real rerank. Raises RuntimeError, at which the SDK gives
        the worker up."""
        failed = [card.name for card in self._engine.cards if card.state == "failed"]
        if failed:
            raise RuntimeError(f"{', '.join(failed)} could not be loaded")
        can = {task for card in self._engine.cards for task in card.tasks}
        for task in can & _TRIALS.keys():
            output = await self.handle({"input": _TRIALS[task]})
            if "data" not in output and "results" not in output:
                raise RuntimeError(f"a trial to {task} failed: {output}")

    async def handle(self, job: Mapping[str, Any]) -> Any:
        """A job's output; or its error, under `error`, where the SDK looks. Cancelled by the
        SDK, it takes its work out of the engine's queue."""
        given = job.get("input")
        if isinstance(given, str | list):
            given = {"input": given}
        try:
            written = orjson.dumps(given)
        except TypeError:  # the SDK's own JSON lets half a surrogate pair through, and any integer
            return orjson.loads(self._door.dialect(DIALECT).fault(UNREADABLE).body)
        asked = asyncio.run_coroutine_threadsafe(self._answer(written), self._loop)
        outcome = await asyncio.wrap_future(asked)
        if outcome.output is None:
            return {"error": outcome.error}
        return quiet(orjson.loads(outcome.output))

    async def _answer(self, given: bytes) -> Outcome:
        return await patiently(lambda asked: answer(self._door, asked), given)


class Quiet(list[Any]):
    """A list that the SDK does not write out: it formats each output twice for its log, which
    takes longer than the inference."""

    def __repr__(self) -> str:
        return f"[{len(self)} items]"


def quiet(value: Any) -> Any:
    """A JSON value whose outermost lists are quiet."""
    if isinstance(value, dict):
        return {name: quiet(one) for name, one in value.items()}
    return Quiet(value) if isinstance(value, list) else value
