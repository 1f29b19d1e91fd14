"""What need not be computed: units that are being computed already, and remembered ones.

Each unit on its way through a model has a ticket. A second request for the same unit, or the
same text twice in one request, waits at that ticket instead of going through the model. With a
store, what comes out is also kept on disk and found again, in this process or a later one.

A ticket belongs to nobody: the request that took it out may leave, and the model still
computes as long as anyone waits. An outcome goes to everyone who waits, a fault too; faults
are not remembered.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Fault
from omnivec.core.nouns import (
    Card,
    Features,
    Findings,
    Output,
    Relevance,
    Text,
    Tokens,
    Unit,
    Vectors,
)
from omnivec.engine.job import Job
from omnivec.engine.store import Store
from omnivec.engine.work import LETTERS_PER_TOKEN, size

SOON = 0.01
"""Seconds: about a batch. So much later than its own turn is better than computing it again."""
HEAD = struct.Struct("<BBxxI")
"""Before the numbers of a remembered answer: kind, cut, tokens."""
VECTORS, RELEVANCE, FINDINGS = 1, 2, 3


class Answer(NamedTuple):
    """What a unit comes to, whoever asks; `tokens` and `cut` as in Features."""

    output: Output
    tokens: int
    cut: bool


class Ticket:
    """A unit on its way, and the places in jobs that wait for it. `due` is about when the
    batcher takes it up, `name` what tells it from others, `key` its name in the store (b""
    without one)."""

    __slots__ = ("due", "key", "name", "unit", "waiting")

    def __init__(self, unit: Unit, name: Hashable, due: float, job: Job, index: int) -> None:
        self.unit = unit
        self.name = name
        self.due = due
        self.key = b""
        self.waiting = [(job, index)]

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more."""
        return all(job.gone for job, _ in self.waiting)


class Memory:
    """The tickets of one model. `about` is what its vectors depend on besides the unit."""

    def __init__(self, store: Store | None = None, about: bytes = b"") -> None:
        self.joined = 0  # units that waited at a ticket instead of being computed
        self.recalled = 0  # units that came from the store
        self._store = store
        self._about = about
        self._tickets: dict[Hashable, Ticket] = {}
        self._lock = threading.Lock()  # may be taken under the batcher's, never around it

    @property
    def waits(self) -> bool:
        """Whether a claim may wait for the disk."""
        return self._store is not None

    def claim(
        self, job: Job, units: Sequence[Unit], first: int, due: Callable[[Job, int], float]
    ) -> Order:
        """Make `job` wait for each of the units, its items from number `first` on. The order
        has those that are neither under way nor remembered: they must be computed. `due` is
        the batcher's."""
        letters = 0
        fresh: list[Ticket] = []
        names = [_name(unit) for unit in units]
        with self._lock:
            for index, (unit, name) in enumerate(zip(units, names, strict=True), first):
                letters += size(unit.parts)
                turn = due(job, letters // LETTERS_PER_TOKEN)
                ticket = self._tickets.get(name)
                # a query must not wait for the same text at the end of a bulk request
                if ticket is not None and ticket.due <= turn + SOON and not ticket.gone:
                    ticket.waiting.append((job, index))
                    self.joined += 1
                else:
                    self._tickets[name] = ticket = Ticket(unit, name, turn, job, index)
                    fresh.append(ticket)
        return Order(self, job, self._recall(fresh, self._store) if self._store else fresh)

    def settle(
        self, ticket: Ticket, outcome: Answer | Fault, started: float = 0.0, seconds: float = 0.0
    ) -> None:
        """Tell everyone who waits; from any thread. `started`, `seconds` as in Job.settle."""
        with self._lock:
            self._close(ticket)
            for job, index in ticket.waiting:
                if isinstance(outcome, Fault):
                    job.fail(placed(outcome, (index - job.asked) // job.each))
                else:
                    job.charge(outcome.tokens, cut=outcome.cut)
                    job.settle(index, outcome.output, started, seconds)
            ticket.waiting = []

    def keep(self, ticket: Ticket, answer: Answer) -> None:
        """Remember what was computed, where there is a store; it has no form for vectors that
        are not dense."""
        if self._store is not None and (packed := pack(answer)):
            self._store.put(ticket.key, packed)

    def abandon(self, tickets: Sequence[Ticket]) -> bool:
        """Close the tickets, so that nobody joins them any more, unless somebody waits at one
        of them. Whether they were closed."""
        with self._lock:
            if not all(ticket.gone for ticket in tickets):
                return False
            for ticket in tickets:
                self._close(ticket)
            return True

    def _close(self, ticket: Ticket) -> None:
        if self._tickets.get(ticket.name) is ticket:
            del self._tickets[ticket.name]

    def _recall(self, tickets: Sequence[Ticket], store: Store) -> list[Ticket]:
        """Settle what the store has; the tickets that are left."""
        for ticket in tickets:
            ticket.key = self._key(ticket)
        found = store.get([ticket.key for ticket in tickets])
        left = []
        for ticket in tickets:
            answer = unpack(found.get(ticket.key, b""))
            if answer is None:
                left.append(ticket)
            else:
                self.settle(ticket, answer)
        with self._lock:
            self.recalled += len(tickets) - len(left)
        return left

    def _key(self, ticket: Ticket) -> bytes:
        name = ticket.name
        said = name if isinstance(name, bytes) else msgspec.msgpack.encode(name)
        return hashlib.blake2b(said, digest_size=20, key=self._about[:64]).digest()


class Order:
    """Some tickets that one request took out, as the batcher knows a job: it settles each
    by its number. What it gives up as gone cannot be joined any more."""

    def __init__(self, memory: Memory, job: Job, tickets: Sequence[Ticket]) -> None:
        self.arrived = job.arrived
        self.cost = job.cost
        self.tickets = list(tickets)
        self._memory = memory
        self._job = job
        self._features: Sequence[Features] = ()

    @property
    def units(self) -> list[Unit]:
        return [ticket.unit for ticket in self.tickets]

    @property
    def gone(self) -> bool:
        """Whether nobody waits for any of it any more."""
        return self._job.gone and self._memory.abandon(self.tickets)

    def count(self, features: Sequence[Features], seconds: float) -> None:
        """What preparing gave, one for each ticket, and how long it took."""
        self._features = features
        self._job.prepare += seconds

    def settle(self, index: int, outcome: Output | Fault, started: float, seconds: float) -> None:
        ticket, features = self.tickets[index], self._features[index]
        if isinstance(outcome, Fault):
            self._memory.settle(ticket, outcome, started, seconds)
            return
        answer = Answer(outcome, features.tokens, features.cut)
        self._memory.keep(ticket, answer)  # first: whoever is answered may close the store
        self._memory.settle(ticket, answer, started, seconds)

    def refuse(self, fault: Fault) -> None:
        """Preparing raised this. A fault of one unit (`[3]`) ends that ticket alone, and those
        that nobody else waits for; any other one all of them."""
        number = number_of(fault)
        if number is None or number >= len(self.tickets):
            self.fail(fault)
            return
        self._memory.settle(self.tickets.pop(number), fault)
        self.tickets = [one for one in self.tickets if not self._memory.abandon([one])]

    def fail(self, fault: Fault) -> None:
        """End all tickets that are still open."""
        tickets, self.tickets = self.tickets, []
        for ticket in tickets:
            self._memory.settle(ticket, fault)


def _name(unit: Unit) -> Hashable:
    """What is the same for the same unit and for no other: itself, or, where it has pictures,
    a digest of it. A picture's shape is in it, not its numbers alone."""
    parts = unit.parts if unit.other is None else (*unit.parts, *unit.other)
    if all(isinstance(part, Text | Tokens) for part in parts):
        return unit
    said = msgspec.msgpack.encode(unit, enc_hook=_array)
    return hashlib.blake2b(said, digest_size=32).digest()


def _array(array: object) -> object:
    if not isinstance(array, np.ndarray):
        raise NotImplementedError  # msgspec's word for "not mine": it says which type it was
    digest = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=32).digest()
    return (array.dtype.str, array.shape, digest)


def number_of(fault: Fault) -> int | None:
    """3 of a fault whose `param` begins with `[3]`."""
    number, bracket, _ = (fault.param or "").removeprefix("[").partition("]")
    return int(number) if bracket and number.isdecimal() else None


def placed(fault: Fault, item: int) -> Fault:
    """A copy for one of those who wait: where it says which unit, it says which of theirs.
    What comes before the first item is the query."""
    param = fault.param
    if param is not None and number_of(fault) is not None:
        param = "query" if item < 0 else f"[{item}]{param.partition(']')[2]}"
    return type(fault)(fault.message, param=param, retry_after=fault.retry_after)


# ── what is kept ─────────────────────────────────────────────────────────────────────────


def pack(answer: Answer) -> bytes:
    """Vectors as pooled, before any cut: one entry serves all lengths. Empty for other kinds."""
    output = answer.output
    if isinstance(output, Vectors):
        if output.dense is None or output.sparse is not None or output.multivector is not None:
            return b""
        head, numbers = VECTORS, np.ascontiguousarray(output.dense, "<f4").tobytes()
    elif isinstance(output, Findings):
        head, numbers = FINDINGS, msgspec.msgpack.encode(output)
    else:
        head, numbers = RELEVANCE, struct.pack("<dd", output.value, output.raw)
    return HEAD.pack(head, answer.cut, answer.tokens) + numbers


def unpack(value: bytes) -> Answer | None:
    """None for what `pack` did not make."""
    if len(value) <= HEAD.size:
        return None
    kind, cut, tokens = HEAD.unpack_from(value)
    output: Output
    if kind == VECTORS and not (len(value) - HEAD.size) % 4:
        output = Vectors(dense=np.frombuffer(value, "<f4", offset=HEAD.size))
    elif kind == RELEVANCE and len(value) == HEAD.size + 16:
        output = Relevance(*struct.unpack_from("<dd", value, HEAD.size))
    elif kind == FINDINGS and (found := _read_findings(value[HEAD.size :])) is not None:
        output = found
    else:
        return None
    return Answer(output, tokens, bool(cut))


def _read_findings(encoded: bytes) -> Findings | None:
    try:
        return msgspec.msgpack.decode(encoded, type=Findings)
    except msgspec.DecodeError:
        return None


def describe(checkpoint: Checkpoint, card: Card, version: str) -> bytes:
    """A digest of all that a vector depends on besides the unit: the files, what the catalogue
    adds to them, what runs them, and this program's version.

    A commit stands for its files; without one, their names, sizes and times do.
    """
    files = _files(checkpoint.folder) if checkpoint.revision is None else []
    said = (
        version,
        checkpoint.name,
        checkpoint.revision,
        files,
        sorted(checkpoint.options.items()),
        repr(sorted(checkpoint.overrides.items())),
        (card.architecture, card.family, card.runtime, card.device, card.dtype),
        [(adapter.name, _files(adapter.folder)) for adapter in checkpoint.adapters],
    )
    return hashlib.blake2b(msgspec.msgpack.encode(said), digest_size=32).digest()


def _files(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = path.stat()
        found.append((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return found
