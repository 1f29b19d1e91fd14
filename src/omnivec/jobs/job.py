"""A job as its store keeps it, and as RunPod's clients are told of it. Times are milliseconds of
the Unix clock; the limits are those that RunPod documents."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Status: TypeAlias = Literal[
    "IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"
]
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
SECOND = 1000
DAY = 24 * 3600 * SECOND

EXECUTION = 600 * SECOND
"""How long a job may run where it does not say; at least 5 seconds, at most a week."""
LIFETIME = DAY
"""How long a job may take from its submission to its end; at least 10 seconds, at most a week."""
KEPT = 30 * 60 * SECOND
KEPT_SYNC = 60 * SECOND
"""How long the result of /run and of /runsync is there."""
SYNC = "sync-"
"""How the id of a job of /runsync begins, as RunPod's do."""


class Order(msgspec.Struct, frozen=True):
    """What is to be done: `input` is the JSON of a job's input, unread."""

    id: str
    input: bytes
    webhook: str | None = None
    low: bool = False  # only where nothing else waits
    timeout: int = EXECUTION
    ttl: int = LIFETIME
    keep: int = KEPT


class Job(msgspec.Struct, frozen=True):
    """`started` and `finished` are None until then. `output` is JSON, `error` a text."""

    id: str
    status: Status
    created: int
    started: int | None = None
    finished: int | None = None
    timeout: int = EXECUTION
    input: bytes = b""
    output: bytes | None = None
    error: str | None = None
    webhook: str | None = None
    attempts: int = 0

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended: with an output, an error object among them, or with an error."""

    output: bytes | None = None
    error: str | None = None


class Health(msgspec.Struct, frozen=True):
    """How many jobs are in each state, as far as they are still kept, and how often one was
    tried again."""

    counts: dict[str, int]
    retried: int = 0

    def count(self, *of: Status) -> int:
        return sum(self.counts.get(status, 0) for status in of)


def told(job: Job) -> bytes:
    """The JSON of /status."""
    found: dict[str, object] = {}
    if job.started is not None:
        found["delayTime"] = max(0, job.started - job.created)
    if job.started is not None and job.finished is not None:
        found["executionTime"] = max(0, job.finished - job.started)
    found["id"] = job.id
    if job.output is not None:
        found["output"] = msgspec.Raw(job.output)
    if job.error is not None:
        found["error"] = job.error
    found["status"] = job.status
    return msgspec.json.encode(found)
