"""Jobs of RunPod's API: our endpoint, which has them on disk, or in memory, beside the SDK's own
test server with the same engine in it, which has them in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import answers, servers, texts
from bench.generators import Load, drive_jobs
from bench.places import MODELS
from bench.processes import Running, ServerLostError, free_port, run
from bench.suites import _memory, _plain
from bench.workloads import figures

MODEL = "default"
OURS = ("omnivec-jobs", "omnivec-jobs-memory")
SERVERS = (*OURS, "runpod-sdk")
PAUSE = 2.0
"""Milliseconds before the status of a job is asked for again."""


class Work(NamedTuple):
    """Jobs of `items` texts of `words` words each, submitted to `path`."""

    name: str
    title: str
    path: str
    connections: int
    items: int
    words: int


def _works() -> Iterator[Work]:
    payloads = ((1, 12, "1 text of 12 words"), (32, 100, "32 texts of 100 words"))
    for items, words, what in payloads:
        for path, how in (("/runsync", "/runsync"), ("/run", "/run, then /status")):
            for connections in (1, 32):
                name = f"{path[1:]}-{items}-{connections}"
                count = f"{connections} connection{'s' * (connections > 1)}"
                yield Work(name, f"{how}: {what}, {count}", path, connections, items, words)


WORKS = tuple(_works())


def measure(repeats: int, seconds: float, only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Samples of all works, or `only` of those. The order of the servers turns round in every
    other repeat."""
    chosen = [work for work in WORKS if not only or work.name in only]
    answers.reference(MODEL)
    files = {work.name: _bodies(work) for work in chosen}
    for repeat in range(repeats):
        for name in SERVERS if repeat % 2 == 0 else SERVERS[::-1]:
            about = {"suite": "jobs", "server": name, "repeat": repeat}
            for sample in _block(servers.NAMED[name], chosen, files, seconds):
                yield {**about, **sample}


def _bodies(work: Work) -> Path:
    count = 2048 if work.items == 1 else 64
    every = texts.windows(work.words, work.items * count)
    bodies = [_body(every[at : at + work.items]) for at in range(0, len(every), work.items)]
    return texts.write(f"jobs-{work.items}", bodies)


def _body(of: list[str]) -> bytes:
    return b'{"input":%b}' % texts.embed_body(of)


def _block(
    server: servers.Server, chosen: list[Work], files: dict[str, Path], seconds: float
) -> Iterator[dict[str, Any]]:
    port = free_port()
    log = MODELS / "logs" / f"{server.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = server.command(MODEL, port)
    env = {"XDG_CONFIG_HOME": str(MODELS)}
    try:
        with run(command, port, log, ("/runsync", _body(["ready?"])), env=env) as running:
            yield {"workload": "start", "start_s": running.started}
            yield {"workload": "answers", **_judge(running)}
            for work in chosen:
                yield {"workload": work.name, **_timed(running, work, files[work.name], seconds)}
            yield {"workload": "loaded", **_memory(running, "loaded_")}
    except (ServerLostError, OSError, RuntimeError, ValueError) as error:
        yield {"workload": "lost", "why": _plain(str(error))}


def _judge(running: Running) -> dict[str, Any]:
    of = answers.texts_of(MODEL)
    told = json.loads(running.post("/runsync", _body(of)))
    got = np.array([row["embedding"] for row in told["output"]["data"]], np.float64)
    verdict = answers.compare(got, answers.reference(MODEL))
    return {**verdict._asdict(), "right": verdict.right}


def _timed(running: Running, work: Work, file: Path, seconds: float) -> dict[str, float]:
    load = Load(work.path, file, work.connections, seconds, PAUSE)
    drive_jobs(running.port, load._replace(seconds=min(1.0, seconds)))
    running.settle()
    spent = running.processor()
    counted = drive_jobs(running.port, load)
    found = figures(counted, running.processor() - spent, work.items)
    return {**found, "jobs_per_second": counted.rate}
