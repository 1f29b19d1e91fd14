"""One queue for each model, from which device threads take batches.

The queue holds items and not requests, so one request's items may ride in different batches
and two dialects' requests in the same one. What the batcher knows of an item is its cost, its
group and whether its request is light. Three rules decide who goes next:

* Each item gets a due time: its arrival plus a fixed time for each token of the request up to
  and including it, at most `max_age`. The earliest due goes first.
* Light requests, for which somebody probably waits, go before heavy ones, but for one batch
  in TURNS. So a query does not wait for bulk work, however much of it is queued or late, and
  bulk work goes on, however many queries there are.
* A batch is filled with items of like length, earliest due first, up to the budget. While
  light requests keep coming, heavy ones get short batches, so that a stream is soon free.

A batch is formed at the last moment, when a stream is free for it: what came meanwhile may be
due earlier, and a later batch is a fuller one.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from omnivec.core.errors import Fault, Loading, ModelFailed, Overloaded
from omnivec.core.nouns import Features, Output
from omnivec.core.seams import Model, SessionLost, Watch
from omnivec.engine.job import Caller, Entry
from omnivec.engine.lanes import Lanes, Limits
from omnivec.engine.outputs import is_finite

log = logging.getLogger("omnivec.engine")

SECONDS_PER_TOKEN = 2e-4
"""How long a token defers its item: about what a small model needs for it on one core."""
LEAST = 64
"""Tokens below which a batch is bound by reading the weights, so that dividing it is no gain."""
LIGHT = 64
"""Tokens up to which a request is a light one, for which somebody probably waits."""
BRISK = 0.03
"""Seconds that a batch of heavier requests may take while light ones keep coming."""
TURNS = 4
"""One batch in so many goes to whoever is due first, light or heavy."""
LASTING = 1.0
"""Seconds after a light request for which others are expected."""
PURGE = 0.25
"""Seconds between two purges of departed items: one costs milliseconds on the event loop."""
PATIENCE = 5.0
"""Seconds that closing gives to the batches that run."""


class Batcher:
    """Runs `model` for many callers. `reopen` gives a fresh model after a session was lost."""

    def __init__(
        self,
        name: str,
        model: Model,
        *,
        reopen: Callable[[], Model],
        watch: Watch,
        budget: int | None = None,
        queue: int = 8192,
        max_age: float = 2.0,
        batch_timeout: float = 120.0,
    ) -> None:
        self.name = name
        self.model = model
        self._reopen = reopen
        self._watch = watch
        self._budget = budget or model.batch_cost
        self._limit = queue
        self._max_age = max_age
        self._timeout = batch_timeout
        self._change = threading.Condition()
        self._lanes = Lanes(padding=model.padding)
        self._sequence = itertools.count()
        self._promised = 0  # places for items that are still being prepared
        self._held: dict[threading.Thread, tuple[float, list[Entry]]] = {}
        self._alone: list[Entry] | None = None  # the batch beside which there was no other
        self._purged = 0.0
        self._lighted = -LASTING  # when the last light request came
        self._turns = itertools.count(1)
        self._rate = 0.0  # tokens a second of one stream, smoothed
        self._closing = False
        self._closed = threading.Event()
        self._reopening = threading.Lock()
        self._settling = threading.Lock()
        for _ in range(model.streams + 1):  # one settles while the others run
            self._hire()
        self._watchdog = threading.Thread(target=self._guard, daemon=True, name=f"guard:{name}")
        self._watchdog.start()

    # ── from the event loop ──────────────────────────────────────────────────────────────

    def admit(self, items: int, *, begun: bool = False) -> None:
        """Promise places to a whole request, or raise Overloaded. An empty queue takes any. One
        that has `begun` is not refused half-way."""
        with self._change:
            if self._closing:
                raise Loading("The model is being closed.", retry_after=5)
            if begun:
                self._promised += items
                return
            if self._is_full(items) and time.monotonic() - self._purged > PURGE:
                self._lanes.purge()
                self._purged = time.monotonic()
            if self._is_full(items):
                raise Overloaded(
                    "The queue for this model is full; try again later.",
                    retry_after=self._seconds_to_drain(),
                )
            self._promised += items

    def withdraw(self, items: int) -> None:
        """Give back places that `admit` promised and that no entry will take."""
        with self._change:
            self._promised -= items

    def submit(self, job: Caller, features: Sequence[Features], first: int) -> None:
        """Queue `features` as the job's items from number `first` on."""
        with self._change:
            self._promised -= len(features)
            if self._closing:
                job.fail(Loading("The model is being closed.", retry_after=5))
                return
            heavy = job.cost + sum(feature.cost for feature in features) > LIGHT
            if not heavy:
                self._lighted = time.monotonic()
            for offset, feature in enumerate(features):
                self._lanes.push(self._entry(job, first + offset, feature, heavy=heavy))
            if len(self._held) < self.model.streams:  # else a stream that ends will look
                self._change.notify(len(features))

    def due(self, job: Caller, cost: int) -> float:
        """When work of `cost` that follows what the job has queued is due, monotonic."""
        return job.arrived + min((job.cost + cost) * SECONDS_PER_TOKEN, self._max_age)

    def depth(self) -> tuple[int, int]:
        """(items waiting, items in batches that run or are formed)."""
        with self._change:
            held = sum(len(entries) for _, entries in self._held.values())
            return self._promised + self._lanes.count, held

    def close(self, patience: float | None = None) -> None:
        """Fail what still waits, let running batches end (within PATIENCE, or as told), close
        the model."""
        self._closed.set()
        with self._change:
            self._closing = True
            left = list(self._lanes)
            self._lanes.clear()
            self._change.notify_all()
        for entry in left:
            entry.job.fail(Loading("The model is being closed.", retry_after=5))
        end = time.monotonic() + (PATIENCE if patience is None else patience)
        for thread in list(self._held):
            thread.join(max(0.0, end - time.monotonic()))
        _close(self.model, max(1.0, end - time.monotonic()))
        with self._change:  # what hangs still is nobody's any more
            for _, batch in self._held.values():
                for entry in batch:
                    entry.job.fail(Loading("The model is being closed.", retry_after=5))
            self._held.clear()

    # ── under the lock ───────────────────────────────────────────────────────────────────

    def _entry(self, job: Caller, index: int, features: Features, *, heavy: bool) -> Entry:
        due = self.due(job, features.cost)
        job.cost += features.cost
        return Entry(due, next(self._sequence), job, index, features, heavy)

    def _form(self) -> list[Entry]:
        """A batch for a free stream. With little to do, the free streams divide it."""
        free = self.model.streams - len(self._held)
        most = min(self._budget, max(LEAST, -(-self._lanes.cost // free)))
        heavy = most
        if time.monotonic() - self._lighted < LASTING:
            heavy = min(most, max(LEAST, int(self._rate * BRISK)))
        turn = next(self._turns) % TURNS
        return self._lanes.form(Limits(most, heavy), light_first=turn > 0)

    def _is_full(self, items: int) -> bool:
        waiting = self._promised + self._lanes.count
        return waiting > 0 and waiting + items > self._limit

    def _seconds_to_drain(self) -> float:
        return max(1.0, round(self._lanes.cost / self._rate)) if self._rate else 1.0

    # ── device threads ───────────────────────────────────────────────────────────────────

    def _hire(self) -> None:
        threading.Thread(target=self._work, daemon=True, name=f"batch:{self.name}").start()

    def _work(self) -> None:
        """Take and run batches until closed, or until the watchdog gave this thread up."""
        me = threading.current_thread()
        while batch := self._take(me):
            if not self._run(me, batch):
                return  # given up meanwhile: the watchdog hired another
            del batch  # its pictures would stay for as long as this thread waits

    def _take(self, me: threading.Thread) -> list[Entry] | None:
        """Wait for a batch; None when closing."""
        with self._change:
            while not self._closing:
                if self._lanes.count and len(self._held) < self.model.streams:
                    batch = self._form()
                    if batch:
                        self._alone = None if self._held or self._lanes.count else batch
                        self._held[me] = (time.monotonic(), batch)
                        return batch
                self._change.wait()
            return None

    def _run(self, me: threading.Thread, batch: list[Entry]) -> bool:
        """Whether the batch stayed this thread's to the end."""
        started = time.monotonic()
        try:
            outcome = self._attempt(batch)
        except Exception:
            log.exception("%s: a batch failed", self.name)
            outcome = [_failed() for _ in batch]
        seconds = time.monotonic() - started
        tokens = sum(entry.features.tokens for entry in batch)
        rate = tokens / max(seconds, 1e-6)
        self._rate = rate if not self._rate else 0.9 * self._rate + 0.1 * rate
        with self._change:
            if self._alone is batch:
                self._alone = None
            if self._held.pop(me, None) is None:
                return False
            self._change.notify()
        self._watch.batch(self.name, len(batch), tokens, seconds)
        with self._settling:
            for entry, output in zip(batch, outcome, strict=True):
                entry.job.settle(entry.index, output, started, seconds)
        return True

    def _attempt(self, batch: list[Entry], *, reopened: bool = False) -> list[Output | Fault]:
        """One outcome for each entry. A batch that fails is split until the guilty is alone."""
        model = self.model
        if threading.current_thread() not in self._held:
            return [_failed() for _ in batch]  # given up: nobody waits for these
        try:
            features = [entry.features for entry in batch]
            outputs = model.forward(features, alone=batch is self._alone)
        except SessionLost:
            if reopened and len(batch) == 1:
                return [_failed()]
            if not self._replace(model):
                return [_failed() for _ in batch]
            if reopened:
                return [self._attempt([entry])[0] for entry in batch]
            return self._attempt(batch, reopened=True)
        except Exception:
            if len(batch) == 1:
                log.exception("%s: an item failed in the model", self.name)
                return [_failed()]
            half = len(batch) // 2
            return self._attempt(batch[:half]) + self._attempt(batch[half:])
        if len(outputs) != len(batch):
            log.error("%s: %d outputs for %d inputs", self.name, len(outputs), len(batch))
            return [_failed() for _ in batch]
        return [self._checked(e, o, len(batch)) for e, o in zip(batch, outputs, strict=True)]

    def _checked(self, entry: Entry, output: Output, rows: int) -> Output | Fault:
        """A not-finite output is tried alone once: a neighbour's numbers may have spread."""
        if is_finite(output):
            return output
        if rows > 1:
            return self._attempt([entry])[0]
        log.error("%s: not-finite numbers for one item", self.name)
        return ModelFailed("The model gave numbers that are not finite for this input.")

    def _replace(self, lost: Model) -> bool:
        """Open the model anew, once for however many threads lost it. On failure the old one
        stays and every batch fails until a later attempt succeeds."""
        with self._reopening:
            if self.model is not lost:
                return True
            if self._closing:
                return False
            log.warning("%s: session lost; opening it again", self.name)
            try:
                opened = self._reopen()
            except Exception:
                log.exception("%s: could not be opened again", self.name)
                return False
            adopted = self._adopt(opened)
        _close(lost if adopted else opened, 1.0)
        return adopted

    def _adopt(self, opened: Model) -> bool:
        """False when closing, which has the old one to close and knows of no other."""
        with self._change:
            if self._closing:
                return False
            self.model = opened
            return True

    # ── the watchdog ─────────────────────────────────────────────────────────────────────

    def _guard(self) -> None:
        """Give up batches that run too long: their threads are replaced, their items are
        tried once more alone, and an item that hangs alone fails."""
        pause = min(1.0, self._timeout / 4)
        while not self._closed.wait(pause):
            overdue = self._give_up(time.monotonic() - self._timeout)
            if not overdue:
                continue
            log.error("%s: a batch ran longer than %.0f s", self.name, self._timeout)
            self._replace(self.model)
            with self._change:
                for _ in overdue:
                    self._hire()
                self._change.notify_all()

    def _give_up(self, before: float) -> list[threading.Thread]:
        with self._change:
            overdue = [t for t, (since, _) in self._held.items() if since < before]
            for thread in overdue:
                _, batch = self._held.pop(thread)
                for entry in batch:
                    self._retry_alone(entry, hung=len(batch) == 1)
        return overdue

    def _retry_alone(self, entry: Entry, *, hung: bool) -> None:
        if hung or entry.alone or self._closing:
            entry.job.settle(entry.index, ModelFailed("The model took too long."), 0.0, 0.0)
            return
        entry.alone = True
        self._lanes.push(entry)


def _failed() -> ModelFailed:
    return ModelFailed("The model failed on this input.")


def _close(model: Model, wait: float) -> None:
    """On a thread of its own: a session may wait for a batch that never ends."""

    def close() -> None:
        try:
            model.close()
        except Exception:
            log.exception("a lost session could not be closed")

    thread = threading.Thread(target=close, daemon=True, name="close")
    thread.start()
    thread.join(wait)
