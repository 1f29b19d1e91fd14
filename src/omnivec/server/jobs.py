"""RunPod's job API: /run, /runsync, /status and the others, each under /v2/ENDPOINT too.

A job is answered by a dialect, as a call would be: by the one that has the route which the
job's `openai_route` names, else as a RunPod job.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import orjson
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault, NotFound
from omnivec.core.nouns import Call, Reply
from omnivec.core.outline import MalformedError, Outline
from omnivec.jobs import table
from omnivec.jobs.job import (
    DAY,
    EXECUTION,
    KEPT,
    KEPT_SYNC,
    LIFETIME,
    SECOND,
    SYNC,
    Job,
    Order,
    Outcome,
    Status,
    told,
)
from omnivec.jobs.runner import Runner
from omnivec.jobs.webhook import parse
from omnivec.server.aside import LARGE_BODY
from omnivec.server.door import Door
from omnivec.server.operations import About
from omnivec.server.replies import OF_NOW, as_json

MOST_RUN, MOST_SYNC = 10 * 2**20, 20 * 2**20
"""Bytes of a body of /run and of /runsync."""
WAIT, LEAST_WAIT, MOST_WAIT = 90 * SECOND, SECOND, 300 * SECOND
"""Milliseconds for which /runsync and /status-sync wait for a job's end."""
BESIDE = frozenset({"webhook", "policy", "s3Config"})
"""Fields that are no part of a job. The worker uploads nothing, so `s3Config`, which holds
somebody's credentials, is neither read nor kept."""
DIALECT = "runpod"
EXAMPLE = {"input": {"input": ["The quick brown fox"]}}
_NAMES = "run|runsync|status|status-sync|stream|cancel|retry|purge-queue|health|ping|openai"
_MOUNTED = re.compile(rf"/v2/[^/]+(/(?:{_NAMES})(?:/.*)?)")
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")

Serve = Callable[[Call], Awaitable[Reply]]


class Policy(msgspec.Struct):
    """Milliseconds."""

    executionTimeout: Annotated[int, Meta(ge=5 * SECOND, le=7 * DAY)] | None = None  # noqa: N815 - RunPod's name
    ttl: Annotated[int, Meta(ge=10 * SECOND, le=7 * DAY)] | None = None
    lowPriority: bool | None = None  # noqa: N815 - RunPod's name


class Submission(msgspec.Struct):
    """What stands beside a job's input."""

    webhook: str | None = None
    policy: Policy | None = None


def inner(path: str) -> str:
    """Where a path below /v2/ENDPOINT is answered, whatever the endpoint is called."""
    found = _MOUNTED.fullmatch(path)
    if found is None:
        return path
    return "/v2/health" if found[1] == "/health" else found[1]


def add_jobs(door: Door, make: Callable[[Callable[[bytes], Awaitable[Outcome]]], Runner]) -> Runner:
    """The pages of the job API, over the runner that `make` builds of what answers a job."""
    runner = make(partial(answer, door))
    jobs = Jobs(door, runner)
    door.mounts = inner
    status = "Tell how a job is, and what it came to"
    waits = "The same, waiting for its end"
    pages: tuple[tuple[str, str, Serve, int, str], ...] = (
        ("POST", "/run", jobs.run, MOST_RUN, "Accept a job, and answer with its id"),
        ("POST", "/runsync", jobs.runsync, MOST_SYNC, "Accept a job, and wait for its end"),
        ("POST", "/cancel/{id}", jobs.cancel, 0, "Cancel a job"),
        ("POST", "/retry/{id}", jobs.retry, 0, "Put a job that failed or timed out back"),
        ("POST", "/purge-queue", jobs.purge, 0, "Cancel all jobs that wait"),
        ("GET", "/v2/health", jobs.health, 0, "Count the jobs by state"),
        *((verb, "/status/{id}", jobs.status, 0, status) for verb in ("GET", "POST")),
        *((verb, "/status-sync/{id}", jobs.status_sync, 0, waits) for verb in ("GET", "POST")),
        *((verb, "/stream/{id}", jobs.stream, 0, "A job's output") for verb in ("GET", "POST")),
    )
    for method, path, page, most, summary in pages:
        about = About(DIALECT, f"{summary} (RunPod)", EXAMPLE if most else None)
        door.add_page(path, jobs.told(page), method, body=most, about=about)
    return runner


# ── one job ──────────────────────────────────────────────────────────────────────────────


async def answer(door: Door, work: bytes) -> Outcome:
    """What a job's input comes to. As from the worker, what the client asked wrongly is an
    output, an error object; what went wrong here is an error. Raises Overloaded, Loading."""
    speaker = door.dialect(DIALECT)
    try:
        method, path, body = await _asked(door, work)
    except BadRequest as fault:
        return Outcome(output=speaker.fault(fault).body)
    reply = await door.perform(method, path, body, speaker)
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome(error=reply.body.decode())
    listed = reply.status == HTTPStatus.OK and path.endswith("/embeddings")
    return Outcome(output=b"[%b]" % reply.body if listed else reply.body)


async def _asked(door: Door, work: bytes) -> tuple[str, str, bytes]:
    """A job's method, path and body. Raises BadRequest."""
    route, body = await _routed(door, work) if b'"openai_route"' in work else ("", work)
    if not route:
        return "POST", "/job", work
    try:
        method = door.method_of(route)
    except Fault:
        raise BadRequest(
            "`openai_route` must be a path that is served here, such as /v1/embeddings.",
            param="openai_route",
        ) from None
    if method != "POST":
        return method, route, b""
    if not body.startswith(b"{"):
        raise BadRequest(
            "`openai_input` must be an object, the body for `openai_route`.", param="openai_input"
        )
    return method, route, body


async def _routed(door: Door, work: bytes) -> tuple[str, bytes]:
    """A job's route and the body for it; ("", work) where it names none."""
    try:
        fields = await _fields(door, work)
    except BadRequest:
        return "", work
    try:
        route = msgspec.json.decode(bytes(fields.get("openai_route", b"null")), type=str | None)
    except msgspec.MsgspecError:
        return "?", b""
    return (route, bytes(fields.get("openai_input", b"")).strip()) if route else ("", work)


async def _fields(door: Door, body: bytes) -> Mapping[str, bytes | memoryview | msgspec.Raw]:
    """The top-level fields of an object, unread. Raises BadRequest."""
    try:
        if len(body) <= LARGE_BODY:
            return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        outline = await door.aside.run(Outline, body)
    except (msgspec.MsgspecError, MalformedError, RecursionError, UnicodeDecodeError):
        raise BadRequest("The body must be one valid JSON object in UTF-8.") from None
    return {name: outline.view(name) for name in outline.fields}


# ── the pages ────────────────────────────────────────────────────────────────────────────


class Jobs:
    """The operations of RunPod's job API."""

    def __init__(self, door: Door, runner: Runner) -> None:
        self._door = door
        self._runner = runner

    def told(self, page: Serve) -> Serve:
        """The page with its faults in RunPod's envelope."""

        async def serve(call: Call) -> Reply:
            try:
                return await page(call)
            except Fault as fault:
                return self._door.dialect(DIALECT).fault(fault)

        return serve

    async def run(self, call: Call) -> Reply:
        job = await self._runner.submit(await self._order(call, str(uuid4()), KEPT))
        return as_json({"id": job.id, "status": job.status})

    async def runsync(self, call: Call) -> Reply:
        wait = _wait(call)
        order = await self._order(call, f"{SYNC}{uuid4()}", KEPT_SYNC)
        return _status(await self._runner.perform(order, wait))

    async def status(self, call: Call) -> Reply:
        """Under `ttl` the result is kept for so many milliseconds from now, or from its end."""
        id_, ttl = _id(call), _milliseconds(call, "ttl", "the milliseconds to keep the result")
        reply = _status(await self._runner.get(id_))
        if ttl is not None:
            await self._runner.shorten(id_, ttl)
        return reply

    async def status_sync(self, call: Call) -> Reply:
        return _status(await self._runner.wait(_id(call), _wait(call)))

    async def stream(self, call: Call) -> Reply:
        """What was not yet given out: all of an ended job's output, once."""
        job = _found(await self._runner.get(_id(call)))
        chunks: list[Any] = []
        if job.output is not None and await self._runner.store.run(table.drain, job.id):
            chunks.append({"output": orjson.Fragment(job.output)})
        return as_json({"id": job.id, "status": job.status, "stream": chunks})

    async def cancel(self, call: Call) -> Reply:
        job = _found(await self._runner.cancel(_id(call)))
        return as_json({"id": job.id, "status": job.status})

    async def retry(self, call: Call) -> Reply:
        job = _found(await self._runner.get(_id(call)))
        if not await self._runner.retry(job.id):
            raise BadRequest("Only a job that is FAILED or TIMED_OUT can be tried again.")
        return as_json({"id": job.id, "status": "IN_QUEUE"})

    async def purge(self, _call: Call) -> Reply:
        return as_json({"removed": await self._runner.purge(), "status": "completed"})

    async def health(self, _call: Call) -> Reply:
        found = await self._runner.store.run(table.health)
        names: dict[str, tuple[Status, ...]] = {
            "completed": ("COMPLETED",),
            "failed": ("FAILED", "TIMED_OUT"),
            "inProgress": ("IN_PROGRESS",),
            "inQueue": ("IN_QUEUE",),
        }
        jobs = {name: found.count(*of) for name, of in names.items()}
        busy = int(self._runner.running > 0)
        workers = {"idle": 1 - busy, "initializing": 0, "ready": 1, "running": busy, "throttled": 0}
        return as_json({"jobs": {**jobs, "retried": found.retried}, "workers": workers})

    async def _order(self, call: Call, id_: str, keep: int) -> Order:
        """Raises BadRequest."""
        fields = await _fields(self._door, call.body)
        work = bytes(fields.get("input", b"")).strip()
        if work[:1] in (b'"', b"["):
            work = _unwrapped(fields)
        elif work[:1] != b"{":
            raise BadRequest("`input` must be an object.", param="input")
        asked = _submission(fields)
        policy = asked.policy or Policy()
        return Order(
            id=id_,
            input=work,
            webhook=asked.webhook,
            low=bool(policy.lowPriority),
            timeout=policy.executionTimeout or EXECUTION,
            ttl=policy.ttl or LIFETIME,
            keep=keep,
        )


def _unwrapped(fields: Mapping[str, bytes | memoryview | msgspec.Raw]) -> bytes:
    """The job of a body that is one, as the SDK's run_sync sends {"model", "input": "text"}."""
    own = [
        msgspec.json.encode(name) + b":" + bytes(value)
        for name, value in fields.items()
        if name not in BESIDE
    ]
    return b"{%b}" % b",".join(own)


def _submission(fields: Mapping[str, bytes | memoryview | msgspec.Raw]) -> Submission:
    """Raises BadRequest, which names the field."""
    found: dict[str, Any] = {}
    for name, kind, expected in (
        ("webhook", str | None, "a URL of http or https"),
        (
            "policy",
            Policy | None,
            "an object; its executionTimeout from 5000 and its ttl from 10000 ms to 7 days",
        ),
    ):
        try:
            found[name] = msgspec.json.decode(bytes(fields.get(name, b"null")), type=kind)
            if name == "webhook" and found[name]:
                parse(found[name])
        except (ValueError, RecursionError):
            raise BadRequest(f"`{name}` must be {expected}.", param=name) from None
    return Submission(found["webhook"] or None, found["policy"])


def _wait(call: Call) -> float:
    """Seconds."""
    given = _milliseconds(call, "wait", "milliseconds, 1000 to 300000")
    return (WAIT if given is None else min(max(given, LEAST_WAIT), MOST_WAIT)) / SECOND


def _milliseconds(call: Call, name: str, expected: str) -> int | None:
    """Of the query; None where it has none. Raises BadRequest."""
    given = call.query.get(name, "")
    if not given:
        return None
    if not given.isdecimal() or len(given) > 9:  # noqa: PLR2004 - digits, some days
        raise BadRequest(f"`{name}` must be {expected}.", param=name)
    return int(given)


def _id(call: Call) -> str:
    """Raises NotFound for what is no id of ours."""
    if not _ID.fullmatch(call.params["id"]):
        _found(None)
    return call.params["id"]


def _found(job: Job | None) -> Job:
    if job is None:
        raise NotFound("There is no such job here; results are kept for a while only.")
    return job


def _status(job: Job | None) -> Reply:
    return Reply(told(_found(job)), 200, OF_NOW)
