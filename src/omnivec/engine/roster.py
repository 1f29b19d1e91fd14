"""Which models are loaded: on first use, within a memory budget, the least used out first.

A request takes a model with `acquire` and gives it back with `release`. Nothing that is in use
is ever unloaded: the model to go is chosen among the idle ones, the least recently used first;
when all are busy, the one that was loaded for STAY already takes no new requests, finishes
those it has and goes, and requests that come meanwhile wait until it is back. One model is
opened at a time, because opening takes all cores; downloads run beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from omnivec.core import sizes
from omnivec.core.errors import LoadFailed, Loading
from omnivec.core.machine import give_back
from omnivec.engine.batcher import Batcher
from omnivec.engine.resident import Resident, unfit

log = logging.getLogger("omnivec.engine")

STAY = 2.0
"""Seconds for which a model that is in use is left alone, whoever else wants its place."""
PARTING = 1.0
"""Seconds that batches have which still run when all ends: nobody waits for them any more."""
DOWNLOADS = 3  # at once
LOOK = 1.0  # seconds between looks at who is idle, and at whom the network kept away


class Roster:
    """`budget` is in bytes; `wait` how long a request waits for a model, `idle` how long a
    model stays without one, both in seconds."""

    def __init__(
        self, residents: Sequence[Resident], budget: int, wait: float, idle: float | None = None
    ) -> None:
        self.residents = residents
        self._budget = budget
        self._wait = wait
        self._idle = idle
        self._gate = asyncio.Lock()
        self._eased = asyncio.Event()  # somewhere a request ended
        self._loads: dict[Resident, asyncio.Task[None]] = {}
        self._goings: set[asyncio.Task[None]] = set()
        self._watches: list[asyncio.Task[None]] = []
        self.closed = False
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._finding = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="find")

    # ── for a request ────────────────────────────────────────────────────────────────────

    async def acquire(self, resident: Resident) -> Batcher:
        """The running queue, after waiting a while for a load. Raises Loading, LoadFailed.
        Whoever acquired releases."""
        end = time.monotonic() + self._wait
        while (batcher := resident.batcher) is None or resident.card.state != "loaded":
            await self._await_load(resident, end)
        resident.users += 1
        resident.used = time.monotonic()
        return batcher

    def release(self, resident: Resident) -> None:
        resident.users -= 1
        if not resident.users:
            resident.eased.set()
            self._eased.set()

    async def _await_load(self, resident: Resident, end: float) -> None:
        if resident.card.state == "failed" and resident.again != 0:
            raise LoadFailed(
                "The model could not be loaded; see the server's log or /health.",
                retry_after=resident.again,
                cause=resident.card.cause,
                attempts=resident.card.attempts,
            )
        load = self._start(resident)
        resident.waiting += 1
        try:
            done, _ = await asyncio.wait({load}, timeout=max(0.0, end - time.monotonic()))
        finally:
            resident.waiting -= 1
        if not done:
            raise Loading("The model is still loading; try again.", retry_after=2)

    # ── for whoever runs the server ──────────────────────────────────────────────────────

    async def start(self, *, lazy: bool) -> None:
        """Load what is awaited, one after the other, as far as there is room; with `lazy` only
        what is pinned. Of the others the small files are read where they are here."""
        if self._idle is not None:
            self._watches.append(asyncio.create_task(self._sweep(self._idle)))
        wanted = [one for one in self.residents if one.card.awaited]
        for resident in sorted(wanted, key=lambda one: not one.pinned):
            if not lazy or resident.pinned:
                await asyncio.wait({self._start(resident, only_into_room=True)})
            resident.note(awaited=False)
        if any(map(_is_away, wanted)):
            self._watches.append(asyncio.create_task(self._fetch(wanted)))
        for resident in self.residents:
            if resident.card.state == "available":
                await resident.glance(self._finding)

    async def load(self, resident: Resident) -> None:
        """Returns when it is loaded or has failed, which its card tells."""
        if not resident.is_open:
            await asyncio.wait({self._start(resident)})

    async def unload(self, resident: Resident, *, unused_since: float | None = None) -> None:
        """Once it has answered whom it works for; a load under way is waited for. With
        `unused_since` (monotonic) only if no request came after that. It goes on when whoever
        asked for it has left."""
        load = self._loads.get(resident)
        if unused_since is None and load is not None and not load.done():
            await asyncio.wait({load})
        going = asyncio.create_task(self._unload(resident, unused_since))
        self._goings.add(going)
        going.add_done_callback(self._goings.discard)
        await asyncio.shield(going)

    async def _unload(self, resident: Resident, unused_since: float | None) -> None:
        async with self._gate:
            kept = unused_since is not None and not (
                resident.is_idle and resident.used < unused_since
            )
            if resident.is_open and not kept:
                await self._dismiss(resident)

    async def close(self) -> None:
        self.closed = True
        for task in (*self._watches, *self._loads.values(), *self._goings):
            task.cancel()
        await asyncio.gather(*(resident.close(PARTING) for resident in self.residents))
        self._opening.shutdown(wait=False)
        self._finding.shutdown(wait=False, cancel_futures=True)

    # ── coming ───────────────────────────────────────────────────────────────────────────

    def _start(self, resident: Resident, *, only_into_room: bool = False) -> asyncio.Task[None]:
        """The load under way, or a new one: it goes on when nobody waits for it any more.
        `only_into_room`: nobody is unloaded for it."""
        if self.closed:
            raise Loading("The server is shutting down.", retry_after=5)
        load = self._loads.get(resident)
        if load is None or load.done():
            load = asyncio.create_task(self._load(resident, only_into_room=only_into_room))
            self._loads[resident] = load
        return load

    async def _load(self, resident: Resident, *, only_into_room: bool) -> None:
        try:
            await self._come(resident, only_into_room=only_into_room)
        except Exception as error:  # noqa: BLE001 - `fail` logs it; else who waits would ask on
            resident.fail(error)

    async def _come(self, resident: Resident, *, only_into_room: bool) -> None:
        if resident.is_open:
            return
        if resident.card.state != "unloading":
            resident.note(state="loading")
        if not await resident.find(self._finding):
            return
        async with self._gate:
            resident.note(state="loading")
            if only_into_room and not resident.waiting and not self._has_room(resident):
                resident.note(state="available")
            elif await self._make_room(resident.card.memory):
                await resident.open(self._opening)
            else:
                resident.fail(unfit(resident, self._budget))

    async def _fetch(self, wanted: Sequence[Resident]) -> None:
        """Try again, until all came: who only waits for `/ready` sends no request that would."""
        while away := [one for one in wanted if _is_away(one)]:
            await asyncio.sleep(LOOK)
            for resident in away:
                if _is_away(resident) and resident.again == 0:
                    await asyncio.wait({self._start(resident, only_into_room=True)})
                    if resident.is_open:
                        log.info("%s: loaded, now that it could be had", resident.card.name)

    def _has_room(self, resident: Resident) -> bool:
        """Whether it can be loaded without sending another away."""
        if self._taken() + resident.card.memory <= self._budget:
            return True
        log.warning(
            "%s is loaded when it is asked for: the memory budget of %s is full",
            resident.card.name,
            sizes.say(self._budget),
        )
        return False

    def _taken(self) -> int:
        return sum(one.card.memory for one in self.residents if one.batcher is not None)

    # ── going ────────────────────────────────────────────────────────────────────────────

    async def _make_room(self, needed: int) -> bool:
        """Unload others until there is. Whether there is."""
        fixed = sum(one.card.memory for one in self._loaded() if one.pinned)
        if fixed + needed > self._budget:
            return False
        while self._taken() + needed > self._budget:
            await self._dismiss(await self._leaver())
        return True

    def _loaded(self) -> list[Resident]:
        return [one for one in self.residents if one.batcher is not None]

    async def _leaver(self) -> Resident:
        """The least recently used: of the idle ones, or of those that stayed long enough."""
        while True:
            self._eased.clear()
            free = [one for one in self._loaded() if not one.pinned]
            now = time.monotonic()
            idle = [one for one in free if one.is_idle]
            if going := idle or [one for one in free if now - one.since >= STAY]:
                return min(going, key=lambda one: one.used)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STAY - (now - min(one.since for one in free))):
                    await self._eased.wait()

    async def _dismiss(self, resident: Resident) -> None:
        """From now on it takes no request; those that it has are answered first."""
        resident.note(state="unloading")
        while resident.users:
            resident.eased.clear()
            await resident.eased.wait()
        await resident.close()
        resident.note(state="available")
        await asyncio.to_thread(give_back)

    async def _sweep(self, idle: float) -> None:
        """Unload, again and again, what had no request for that long."""
        while True:
            await asyncio.sleep(min(LOOK, idle))
            for resident in self._loaded():
                if not resident.pinned:
                    await self.unload(resident, unused_since=time.monotonic() - idle)


def _is_away(resident: Resident) -> bool:
    return resident.card.state == "failed" and resident.card.cause == "NETWORK"
