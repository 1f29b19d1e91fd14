"""The engine inside your own program: the same path as the server's, without HTTP.

from omnivec import Engine

with Engine("BAAI/bge-small-en-v1.5") as engine:
    vectors = engine.embed(["one text", "another"])  # float32 [2, 384]
    scores = engine.rerank("a question", ["a document", "another"])

with Engine("omnivec/bm25") as engine:
    (found,) = engine.encode(["one text"], kinds=["sparse"])
    found.sparse.indices, found.sparse.values  # int32 and float32 [k]

with Engine("openai/clip-vit-base-patch32") as engine:
    vectors = engine.embed(["a cat", Path("cat.jpg")])  # a Path is a picture
    film = engine.film(Path("cats.mp4"), Clip(frames=8))
    vectors = engine.embed(film.frames)  # float32 [8, 512], shown at film.times
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.errors import Fault, LoadFailed, Loading, Overloaded
from omnivec.core.nouns import (
    Card,
    Clip,
    Encode,
    Film,
    Floats,
    Item,
    Kind,
    Output,
    Relevance,
    Result,
    Score,
    Vectors,
)
from omnivec.core.outputs import dense
from omnivec.core.settings import Settings
from omnivec.engine.local import LocalEngine
from omnivec.hosts.assemble import local_engine
from omnivec.hosts.inputs import Input, items, listed, window
from omnivec.media.video import Decoders

T = TypeVar("T")

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
        self._decoders = Decoders()
        self._engine = engine
        return self

    async def __aexit__(self, *exception: object) -> None:
        engine, self._engine = self._opened, None
        self._decoders.close()
        await engine.close()

    @property
    def cards(self) -> tuple[Card, ...]:
        """What is served: dimensions, maximum tokens, prompts, device, dtype."""
        return self._opened.cards

    async def embed(
        self,
        inputs: Iterable[Input],
        *,
        model: str | None = None,
        role: str | None = None,
        instruction: str | None = None,
        dims: int | None = None,
        normalize: bool = True,
    ) -> Floats:
        """float32 [n, d] for n inputs, [0, d] for none. An input is a text (`str`), a picture's
        file (a `Path`), `Pixels`, a `Film` or an `Item` of several parts. `role`: "query",
        "document" or a prompt's name. Waits while the queue is full.

        Raises a `Fault` (`omnivec.core.errors`): BadRequest, Unsupported, ModelFailed, TooLarge;
        OSError for a file that cannot be read; TypeError for what is no input; RuntimeError when
        the engine is not open.
        """
        given = listed(inputs, "embed")

        def task(part: tuple[Item, ...]) -> Encode:
            return Encode(part, model, role, dims, normalize)

        outputs = await self._outputs(given or [""], instruction, task)
        return np.stack(dense(outputs))[: len(given)]  # none at all: one was made for its length

    async def encode(
        self,
        inputs: Iterable[Input],
        *,
        kinds: Iterable[Kind] = ("dense",),
        model: str | None = None,
        role: str | None = None,
        instruction: str | None = None,
        dims: int | None = None,
        normalize: bool = True,
    ) -> list[Vectors]:
        """Those of `kinds` for each input, from one pass: `dense` float32 [d], `sparse` with
        `indices` int32 [k] and `values` float32 [k], `multivector` float32 [tokens, d]. The
        other wishes, waiting and failures are as in `embed`."""
        given, wanted = listed(inputs, "encode"), tuple(kinds)

        def task(part: tuple[Item, ...]) -> Encode:
            return Encode(part, model, role, dims, normalize, kinds=wanted)

        outputs = await self._outputs(given, instruction, task)
        return [out for out in outputs if isinstance(out, Vectors)]

    async def rerank(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        model: str | None = None,
        instruction: str | None = None,
        raw: bool = False,
    ) -> Floats:
        """float32 [n] for n documents: the relevance of each, 0..1, or with `raw` the logit.
        Waits and raises as `embed`."""
        (asked,) = await items(listed([query], "rerank"), instruction)
        given = listed(documents, "rerank")

        def task(part: tuple[Item, ...]) -> Score:
            return Score(asked, part, model, raw)

        outputs = await self._outputs(given or [""], None, task)
        found = [out for out in outputs if isinstance(out, Relevance)]
        scores = np.array([out.raw if raw else out.value for out in found], dtype=np.float32)
        return scores[: len(given)]

    async def film(self, path: os.PathLike[str], clip: Clip = Clip()) -> Film:  # noqa: B008 - frozen
        """The frames that `clip` means of a video's file, with their times. They are decoded in
        a process that ends with the engine. Needs the extra `video`.

        Raises OSError for a file that cannot be opened; BadRequest, TooLarge, ModelFailed and
        Unsupported as `media.video.Decoders`; RuntimeError when the engine is not open.
        """
        self._opened  # noqa: B018 - raises
        file = await asyncio.to_thread(Path(path).open, "rb")
        with file:
            return await self._decoders.decode(file.fileno(), clip)

    @property
    def _opened(self) -> LocalEngine:
        if self._engine is None:
            raise RuntimeError(NOT_OPEN_ASYNC)
        return self._engine

    async def _outputs(
        self, inputs: Sequence[Input], instruction: str | None, task: Callable[..., Encode | Score]
    ) -> list[Output]:
        """Those of all inputs, in order; `task` makes one of a window of items."""
        engine = self._opened
        size = min(window(inputs), self._settings.queue)

        async def part(start: int) -> Sequence[Output]:
            async with self._gate:
                made = await items(inputs[start : start + size], instruction)
                try:
                    return (await _run(engine, task(made))).outputs
                except Fault as fault:
                    fault.param = _from(start, fault.param)
                    raise

        found = await _together([part(start) for start in range(0, len(inputs), size)])
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

    def __exit__(self, *exception: object) -> None:
        try:
            self._wait(self._inner.__aexit__())
        finally:
            self._stop()

    @property
    def cards(self) -> tuple[Card, ...]:
        """What is served: dimensions, maximum tokens, prompts, device, dtype."""
        self._running()
        return self._inner.cards

    def embed(self, inputs: Iterable[Input], **options: Any) -> Floats:
        """float32 [n, d]; options and failures as `AsyncEngine.embed`."""
        self._running()
        return self._wait(self._inner.embed(inputs, **options))

    def encode(self, inputs: Iterable[Input], **options: Any) -> list[Vectors]:
        """Vectors of several kinds; options and failures as `AsyncEngine.encode`."""
        self._running()
        return self._wait(self._inner.encode(inputs, **options))

    def rerank(self, query: Input, documents: Iterable[Input], **options: Any) -> Floats:
        """float32 [n]; options and failures as `AsyncEngine.rerank`."""
        self._running()
        return self._wait(self._inner.rerank(query, documents, **options))

    def film(self, path: os.PathLike[str], clip: Clip = Clip()) -> Film:  # noqa: B008 - frozen
        """A video's frames and their times; failures as `AsyncEngine.film`."""
        self._running()
        return self._wait(self._inner.film(path, clip))

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


async def _run(engine: LocalEngine, task: Encode | Score) -> Result:
    """Where a client would get a Retry-After, a caller in this process just waits."""
    pause = PAUSE
    while True:
        try:
            return await engine.run(task)
        except (Overloaded, Loading) as fault:
            if isinstance(fault, LoadFailed) or engine.closed:
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST)


def _from(start: int, param: str | None) -> str | None:
    """A fault's `[3]`, counted from the caller's first input and not the window's."""
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
