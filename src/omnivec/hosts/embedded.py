"""The engine inside your own program: the same path as the server's, without HTTP.

from omnivec import Engine

with Engine("BAAI/bge-small-en-v1.5") as engine:
    vectors = engine.embed(["one text", "another"])  # float32 [2, 384]
    scores = engine.rerank("a question", ["a document", "another"])
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Card, Encode, Floats, Item, Relevance, Score, Text, Vectors
from omnivec.core.settings import Settings
from omnivec.hosts.assemble import local_engine

T = TypeVar("T")

WINDOW = 1024
"""Texts in one task. Two tasks are under way at once, so the model never waits for the next."""


class AsyncEngine:
    """`models` as for `omnivec serve` (none: the built-in default); `settings` are the fields
    of `omnivec.core.settings.Settings`, such as `dtype="f32"` or `offline=True`."""

    def __init__(self, *models: str, **settings: Any) -> None:
        self._engine = local_engine(Settings(models=models, **settings))

    async def __aenter__(self) -> Self:
        """Loads the models. Raises CheckpointError when one of them cannot be opened."""
        await self._engine.load()
        for card in self._engine.cards:
            if card.state == "failed":
                await self._engine.close()
                raise CheckpointError(card.reason)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._engine.close()

    @property
    def cards(self) -> tuple[Card, ...]:
        """What is served: dimensions, maximum tokens, prompts, device, dtype."""
        return self._engine.cards

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        role: str | None = None,
        instruction: str | None = None,
        dims: int | None = None,
        normalize: bool = True,
    ) -> Floats:
        """float32 [len(texts), d]. `role`: "query", "document" or a prompt's name.

        Raises a `Fault` (`omnivec.core.errors`): BadRequest, Unsupported, ModelFailed.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a list of texts, not one text")
        gate = asyncio.Semaphore(2)

        async def window(part: Sequence[str]) -> Floats:
            task = Encode(_items(part, instruction), model, role, dims, normalize)
            async with gate:
                outputs = (await self._engine.run(task)).outputs
            return np.stack([out.dense for out in outputs if isinstance(out, Vectors)])

        parts = [texts[i : i + WINDOW] for i in range(0, len(texts), WINDOW)]
        return np.concatenate(await _together([window(part) for part in parts or [texts]]))

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        instruction: str | None = None,
        raw: bool = False,
    ) -> Floats:
        """float32 [len(documents)]: the relevance of each, 0..1, or with `raw` the logit."""
        if isinstance(documents, str):
            raise TypeError("rerank takes a list of documents, not one document")
        asked = _items([query], instruction)[0]
        result = await self._engine.run(Score(asked, _items(documents, None), model, raw))
        scores = [out for out in result.outputs if isinstance(out, Relevance)]
        return np.array([out.raw if raw else out.value for out in scores], dtype=np.float32)


class Engine:
    """`AsyncEngine` for programs without an event loop: it runs one in a thread."""

    def __init__(self, *models: str, **settings: Any) -> None:
        self._models = models
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="omnivec")

    def __enter__(self) -> Self:
        """Loads the models. Raises CheckpointError when one of them cannot be opened."""
        self._thread.start()
        try:
            self._engine = self._wait(self._enter())
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
        self._wait(self._engine.__aexit__(None, None, None))
        self._stop()

    @property
    def cards(self) -> tuple[Card, ...]:
        return self._engine.cards

    def embed(self, texts: Sequence[str], **options: Any) -> Floats:
        """float32 [len(texts), d]; options as `AsyncEngine.embed`."""
        return self._wait(self._engine.embed(texts, **options))

    def rerank(self, query: str, documents: Sequence[str], **options: Any) -> Floats:
        """float32 [len(documents)]; options as `AsyncEngine.rerank`."""
        return self._wait(self._engine.rerank(query, documents, **options))

    async def _enter(self) -> AsyncEngine:
        return await AsyncEngine(*self._models, **self._settings).__aenter__()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _items(texts: Iterable[str], instruction: str | None) -> tuple[Item, ...]:
    return tuple(Item((Text(text),), instruction) for text in texts)


async def _together(work: Sequence[Awaitable[Floats]]) -> list[Floats]:
    return list(await asyncio.gather(*work))
