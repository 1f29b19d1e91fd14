"""How fast a model is here: throughput and latency by length of text and number of clients.

The clients are tasks of this process's event loop that ask the engine one text at a time, as a
server's connections do, without HTTP. Every text is another one, so nothing is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Card, Encode, Extract, Item, Result, Score, Text
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings
from omnivec.engine import catalog, hub
from omnivec.engine.local import LocalEngine
from omnivec.hosts.assemble import local_engine

LENGTHS = (8, 32, 128, 512)  # tokens; the model's window is added
CLIENTS = (1, 8, 64)
WARM = 0.2  # of a cell's time, before it is counted
DRAIN = 30.0  # seconds that what one cell left may take
WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were all her she there would their we him been has when who "
    "will no more if out so up said what its about than into them can only other time new some "
    "could these two may first then do any like my now over such our man me even most made after"
)

GATED = {
    *("modernbert", "nomic_bert", "qwen2", "qwen3", "llama", "mistral"),
    *("gemma", "gemma2", "gemma3_text"),
}
"""Architectures whose MLP has a third matrix, the gate."""
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "dim", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "inner": ("intermediate_size", "hidden_dim", "n_inner"),
}


class Cell(msgspec.Struct, frozen=True):
    """One measurement: `clients` of them asked for `seconds`, texts of `tokens` each. The
    latencies are in milliseconds, None where too few texts were answered for one."""

    tokens: int
    clients: int
    texts: int
    seconds: float
    texts_per_second: float
    tokens_per_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    gflops: float | None = None
    share: float | None = None  # of the ceiling


class Report(msgspec.Struct, frozen=True):
    """Memory is resident, in bytes. `left_out`: what could not be measured, in words."""

    model: str
    revision: str | None
    runtime: str
    device: str
    dtype: str
    dims: int | None
    max_tokens: int | None
    load_seconds: float
    memory_before: int
    memory_loaded: int
    memory_after: int
    ceiling_gflops: float | None
    cells: tuple[Cell, ...]
    left_out: tuple[str, ...] = ()


class Bench:
    """Measures the one model of `settings` for about `seconds`, and less when `stopped` says
    so. `told` hears how many cells are done, of how many."""

    def __init__(
        self,
        settings: Settings,
        seconds: float,
        *,
        stopped: Callable[[], bool] = lambda: False,
        told: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> None:
        self._settings = msgspec.structs.replace(settings, cache=None)
        self._seconds = seconds
        self._stopped = stopped
        self._told = told
        self._left_out: list[str] = []

    async def run(self) -> Report:
        """Raises CheckpointError when the model cannot be opened."""
        before = resident()
        engine = local_engine(self._settings)
        began = time.monotonic()
        try:
            await engine.load()
            seconds = time.monotonic() - began
            card = engine.cards[0]
            if card.state == "failed":
                raise CheckpointError(card.reason)
            loaded = resident()
            ceiling = await _ceiling(card)
            cells = await self._cells(engine, card)
            after = resident()
        finally:
            await engine.close()
        if ceiling is not None and not self._stopped():  # the better of two: others may be busy
            ceiling = max(ceiling, await _ceiling(card) or 0.0)
        return Report(
            model=card.name,
            revision=card.revision,
            runtime=card.runtime,
            device=card.device,
            dtype=card.dtype,
            dims=card.dims,
            max_tokens=card.max_tokens,
            load_seconds=seconds,
            memory_before=before,
            memory_loaded=loaded,
            memory_after=after,
            ceiling_gflops=None if ceiling is None else ceiling / 1e9,
            cells=tuple(self._valued(cells, ceiling)),
            left_out=tuple(self._left_out),
        )

    # ── cells ────────────────────────────────────────────────────────────────────────────

    async def _cells(self, engine: LocalEngine, card: Card) -> list[Cell]:
        plan = list(itertools.product(lengths(card), CLIENTS))
        each = self._seconds / len(plan)
        cells: list[Cell] = []
        rate = 0.0  # tokens a second of one client at the length before
        for number, (tokens, clients) in enumerate(plan):
            self._told(number, len(plan))
            if self._stopped():
                self._left_out.append("what was still to come when it was stopped")
                break
            if rate and tokens / rate > 2 * each:
                self._left_out.append(
                    f"{tokens} tokens with {clients} clients: one text takes about "
                    f"{tokens / rate:.0f} s; give it more --seconds"
                )
                continue
            cell = await self._cell(engine, card, tokens, clients, each)
            if cell.texts:
                cells.append(cell)
                rate = cell.tokens_per_second if clients == 1 else rate
            else:
                self._left_out.append(
                    f"{tokens} tokens with {clients} clients: none in {each:.1f} s"
                )
            await _drain(engine)
        self._told(len(plan), len(plan))
        return cells

    async def _cell(
        self, engine: LocalEngine, card: Card, tokens: int, clients: int, seconds: float
    ) -> Cell:
        asked = tasks(card, tokens)
        await self._drive(engine, asked, clients, WARM * seconds)
        began = time.perf_counter()
        done = await self._drive(engine, asked, clients, (1 - WARM) * seconds)
        took = time.perf_counter() - began
        waits = sorted(wait for wait, _ in done)
        enough = len(waits) >= clients
        return Cell(
            tokens=tokens,
            clients=clients,
            texts=len(done),
            seconds=took,
            texts_per_second=len(done) / took,
            tokens_per_second=sum(count for _, count in done) / took,
            p50_ms=1e3 * waits[len(waits) // 2] if enough else None,
            p99_ms=1e3 * waits[int(0.99 * len(waits))] if enough else None,
        )

    async def _drive(
        self,
        engine: LocalEngine,
        asked: Iterator[Encode | Score | Extract],
        clients: int,
        seconds: float,
    ) -> list[tuple[float, int]]:
        """(seconds, tokens) of each text that was answered in time."""
        done: list[tuple[float, int]] = []

        async def client() -> None:
            while time.perf_counter() < end and not self._stopped():
                began = time.perf_counter()
                result: Result = await engine.run(next(asked))
                done.append((time.perf_counter() - began, result.usage.tokens))

        end = time.perf_counter() + seconds
        working = [asyncio.ensure_future(client()) for _ in range(clients)]
        _, late = await asyncio.wait(working, timeout=seconds)
        for one in late:
            one.cancel()
        for one in working:
            with contextlib.suppress(asyncio.CancelledError):
                await one
        return done

    def _valued(self, cells: Sequence[Cell], ceiling: float | None) -> Iterator[Cell]:
        """With the model's FLOP/s, where its config tells what a token costs."""
        config = _config(self._settings)
        for cell in cells:
            cost = flops(config, cell.tokens)
            if cost is None:
                yield cell
                continue
            rate = cost * cell.tokens_per_second
            share = rate / ceiling if ceiling else None
            yield msgspec.structs.replace(cell, gflops=rate / 1e9, share=share)


async def _drain(engine: LocalEngine) -> None:
    """Wait for batches whose clients have left: they would slow down the next cell."""
    until = time.monotonic() + DRAIN
    while time.monotonic() < until and any(  # noqa: ASYNC110 - other threads run them
        one["running"] for one in engine.stats().values()
    ):
        await asyncio.sleep(0.005)


# ── what is asked ────────────────────────────────────────────────────────────────────────


def lengths(card: Card) -> list[int]:
    """Tokens: those of LENGTHS that the model's window takes, and the window itself."""
    window = card.max_tokens or LENGTHS[-1]
    return [*(length for length in LENGTHS if length < window), window]


def tasks(card: Card, tokens: int) -> Iterator[Encode | Score | Extract]:
    """For ever: one text each, of as many words, which the model cuts to as many tokens."""
    chance = random.Random(tokens)  # noqa: S311 - the same texts in every run
    words = WORDS.split()
    bodies = [" ".join(chance.choices(words, k=tokens)) for _ in range(32)]
    for number in itertools.count():
        item = Item((Text(f"{number} {bodies[number % len(bodies)]}"),))
        if "encode" in card.tasks:
            yield Encode((item,), overflow="truncate", max_tokens=tokens)
        elif "extract" in card.tasks:
            labels = ("question",) if card.zero_shot else ()
            yield Extract((item,), labels=labels, overflow="truncate", max_tokens=tokens)
        else:
            query = Item((Text("what is it"),))
            yield Score(query, (item,), overflow="truncate", max_tokens=tokens)


# ── what it amounts to ───────────────────────────────────────────────────────────────────


def flops(config: Mapping[str, Any], tokens: int) -> float | None:
    """Floating point operations for one token of a row of `tokens`, in a transformer encoder.

    Two for each weight of the layers' matrices, and 4 T N D in each layer for the scores and
    the weighted sum of attention over T tokens in N heads of size D: for BERT,
    L (24 H^2 + 4 T H). Embeddings, norms, softmax and the head are left out, as is usual
    (Kaplan et al. 2020, table 1). None when the config does not tell.
    """
    told = {
        name: next((config[key] for key in keys if config.get(key)), None)
        for name, keys in _FIELDS.items()
    }
    hidden, layers, heads = told["hidden"], told["layers"], told["heads"]
    if not (hidden and layers and heads):
        return None
    inner = told["inner"] or 4 * hidden
    size = config.get("head_dim") or hidden // heads
    shared = config.get("num_key_value_heads") or heads
    activation = str(config.get("hidden_act") or config.get("activation_function") or "")
    gated = config.get("model_type") in GATED or activation in ("silu", "swiglu")
    attention = 2 * hidden * size * (2 * heads + 2 * shared)
    mlp = (6 if gated else 4) * hidden * inner
    return float(layers * (attention + mlp + 4 * tokens * heads * size))


def _config(settings: Settings) -> Mapping[str, Any]:
    spec = catalog.catalog(settings.catalogue).specs(settings.models, revision=settings.revision)[0]
    return hub.locate(spec, offline=True).config


async def _ceiling(card: Card) -> float | None:
    """FLOP/s that matrix products alone reach in the runtime that runs the model."""
    measure = getattr(discover("runtimes").get(card.runtime), "ceiling", None)
    return None if measure is None else await asyncio.to_thread(measure, card.dtype)


def resident() -> int:
    """Bytes of memory that this process has; its highest so far, where /proc is absent."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):
        from resource import RUSAGE_SELF, getrusage

        return getrusage(RUSAGE_SELF).ru_maxrss  # bytes on macOS
    from resource import getpagesize

    return pages * getpagesize()
