"""The engine inside your own program: the same path as the server's, without HTTP.

from omnivec import Engine

with Engine("BAAI/bge-small-en-v1.5") as engine:
    vectors = engine.embed(["one text", "another"])  # float32 [2, 384]
    scores = engine.rerank("a question", ["a document", "another"])

with Engine("omnivec/bm25") as engine:
    (found,) = engine.encode(["one text"], kinds=["sparse"])
    found.sparse.indices, found.sparse.values  # int32 and float32 [k]
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.errors import Fault, Overloaded
from omnivec.core.nouns import (
    Card,
    Encode,
    Floats,
    Item,
    Kind,
    Output,
    Relevance,
    Result,
    Score,
    Text,
    Vectors,
)
from omnivec.core.outputs import dense
from omnivec.core.settings import Settings
from omnivec.engine.local import LocalEngine
from omnivec.hosts.assemble import local_engine

T = TypeVar("T")

WINDOW = 1024
"""Texts in one task. Two tasks are under way at once, so the model never waits for the next."""

PAUSE = 0.02  # seconds before a full queue is asked again, at first
LONGEST = 1.0

NOT_OPEN = "the engine is not open; use `with Engine(...) as engine:`"
NOT_OPEN_ASYNC = "the engine is not open; use `async with AsyncEngine(...) as engine:`"


class AsyncEngine:
    """`models` as for `omnivec serve` (none: the built-in default); `settings` are the fields
    of `omnivec.core.settings.Settings`, such as `dtype="f32"` or `offline=True`."""

    def __init__(self, *models: str, **settings: Any) -> None:
        self._settings = Settings(models=models, **settings)
        self._engine: LocalEngine | None = None

    async def __aenter__(self) -> Self:
        """Loads the models. Raises CheckpointError when one of them cannot be opened."""
        engine = local_engine(self._settings)
        await engine.load()
        for card in engine.cards:
            if card.state == "failed":
                await engine.close()
                raise CheckpointError(card.reason)
        self._gate = asyncio.Semaphore(2)
        self._engine = engine
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        engine, self._engine = self._opened, None
        await engine.close()

    @property
    def cards(self) -> tuple[Card, ...]:
        """What is served: dimensions, maximum tokens, prompts, device, dtype."""
        return self._opened.cards

    async def embed(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        role: str | None = None,
        instruction: str | None = None,
        dims: int | None = None,
        normalize: bool = True,
    ) -> Floats:
        """float32 [n, d] for n texts, [0, d] for none. `role`: "query", "document" or a
        prompt's name. Waits while the queue is full.

        Raises a `Fault` (`omnivec.core.errors`): BadRequest, Unsupported, ModelFailed; TypeError
        for what is not texts; RuntimeError when the engine is not open.
        """
        items = _items(_listed(texts, "embed"), instruction)

        def task(part: tuple[Item, ...]) -> Encode:
            return Encode(part, model, role, dims, normalize)

        outputs = await self._outputs(items or _items([""], None), task)
        return np.stack(dense(outputs))[: len(items)]  # none at all: one was made for its length

    async def encode(
        self,
        texts: Iterable[str],
        *,
        kinds: Iterable[Kind] = ("dense",),
        model: str | None = None,
        role: str | None = None,
        instruction: str | None = None,
        dims: int | None = None,
        normalize: bool = True,
    ) -> list[Vectors]:
        """Those of `kinds` for each text, from one pass: `dense` float32 [d], `sparse` with
        `indices` int32 [k] and `values` float32 [k], `multivector` float32 [tokens, d]. The
        other wishes, waiting and failures are as in `embed`."""
        items, wanted = _items(_listed(texts, "encode"), instruction), tuple(kinds)

        def task(part: tuple[Item, ...]) -> Encode:
            return Encode(part, model, role, dims, normalize, kinds=wanted)

        return [out for out in await self._outputs(items, task) if isinstance(out, Vectors)]

    async def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        model: str | None = None,
        instruction: str | None = None,
        raw: bool = False,
    ) -> Floats:
        """float32 [n] for n documents: the relevance of each, 0..1, or with `raw` the logit.
        Waits and raises as `embed`."""
        asked = _items(_listed([query], "rerank"), instruction)[0]
        items = _items(_listed(documents, "rerank"), None)

        def task(part: tuple[Item, ...]) -> Score:
            return Score(asked, part, model, raw)

        outputs = await self._outputs(items or _items([""], None), task)
        found = [out for out in outputs if isinstance(out, Relevance)]
        scores = np.array([out.raw if raw else out.value for out in found], dtype=np.float32)
        return scores[: len(items)]

    @property
    def _opened(self) -> LocalEngine:
        if self._engine is None:
            raise RuntimeError(NOT_OPEN_ASYNC)
        return self._engine

    async def _outputs(self, items: tuple[Item, ...], task: Any) -> list[Output]:
        """Those of all items, in order; `task` makes one of a window of them."""
        engine = self._opened
        size = min(WINDOW, self._settings.queue)

        async def window(start: int) -> Sequence[Output]:
            async with self._gate:
                try:
                    return (await _run(engine, task(items[start : start + size]))).outputs
                except Fault as fault:
                    fault.param = _from(start, fault.param)
                    raise

        found = await _together([window(start) for start in range(0, len(items), size)])
        return [output for outputs in found for output in outputs]


class Engine:
    """`AsyncEngine` for programs without an event loop: it runs one in a thread."""

    def __init__(self, *models: str, **settings: Any) -> None:
        self._inner = AsyncEngine(*models, **settings)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        """Loads the models. Raises CheckpointError when one of them cannot be opened."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="omnivec")
        self._thread.start()
        try:
            self._wait(self._inner.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._wait(self._inner.__aexit__(None, None, None))
        finally:
            self._stop()

    @property
    def cards(self) -> tuple[Card, ...]:
        """What is served: dimensions, maximum tokens, prompts, device, dtype."""
        self._running()
        return self._inner.cards

    def embed(self, texts: Iterable[str], **options: Any) -> Floats:
        """float32 [n, d]; options and failures as `AsyncEngine.embed`."""
        self._running()
        return self._wait(self._inner.embed(texts, **options))

    def encode(self, texts: Iterable[str], **options: Any) -> list[Vectors]:
        """Vectors of several kinds; options and failures as `AsyncEngine.encode`."""
        self._running()
        return self._wait(self._inner.encode(texts, **options))

    def rerank(self, query: str, documents: Iterable[str], **options: Any) -> Floats:
        """float32 [n]; options and failures as `AsyncEngine.rerank`."""
        self._running()
        return self._wait(self._inner.rerank(query, documents, **options))

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError(NOT_OPEN)
        return self._loop

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C: nobody waits for it any more
            raise

    def _stop(self) -> None:
        loop, self._loop = self._running(), None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()


def _listed(texts: Iterable[str], verb: str) -> list[str]:
    """Raises TypeError, saying what is accepted, for anything but texts."""
    if isinstance(texts, str | bytes):
        raise TypeError(f"{verb} takes a list of texts, not one text")
    try:
        listed = list(texts)
    except TypeError:
        if isinstance(texts, Iterable):
            raise  # its own generator's
        raise TypeError(f"{verb} takes texts in a list, not {type(texts).__name__}") from None
    for number, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(f"{verb} takes texts (str); number {number} is {type(text).__name__}")
    return listed


def _items(texts: Iterable[str], instruction: str | None) -> tuple[Item, ...]:
    return tuple(Item((Text(text),), instruction) for text in texts)


async def _run(engine: LocalEngine, task: Encode | Score) -> Result:
    """Where a client would get a Retry-After, a caller in this process just waits."""
    pause = PAUSE
    while True:
        try:
            return await engine.run(task)
        except Overloaded:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST)


def _from(start: int, param: str | None) -> str | None:
    """A fault's `[3]`, counted from the caller's first text and not the window's."""
    if not start or not param or not param.startswith("["):
        return param
    number, bracket, rest = param[1:].partition("]")
    return f"[{int(number) + start}{bracket}{rest}" if number.isdigit() else param


async def _together(work: Iterable[Awaitable[T]]) -> list[T]:
    """The results in order. When one fails, the others are not waited for and are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
