"""What a run consists of: suites of servers, a model, and workloads; and how one is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import answers, models, servers, texts, workloads
from bench.places import MODELS
from bench.processes import Running, ServerLostError, free_port, run
from bench.servers import Server


class Suite(NamedTuple):
    """Alternates `servers` over `workloads` on `model`; the repeats and seconds are as the
    run is told, times `stretch`."""

    name: str
    title: str
    model: str
    servers: Sequence[str]
    workloads: Sequence[str]
    stretch: float = 1.0


BEST = ("omnivec", "infinity", "sentence-transformers", "onnxruntime")
F32 = ("omnivec-f32", "infinity-f32", "sentence-transformers-f32", "onnxruntime")
THIN = ("sentence-transformers", "sentence-transformers-f32")
BF16 = ("omnivec", "infinity", "sentence-transformers")

# Infinity computes pictures on a processor in float32 or in int8, whatever else it is told
CLIP = ("omnivec", "omnivec-f32", "infinity-f32", *THIN)
INT8 = ("omnivec-int8", "infinity-int8")

COMPARED = (
    Suite("default", "The default model", "default", BEST, workloads.SMALL),
    Suite("rerank", "Rerank: a cross-encoder", "reranker", BF16, ["rerank-4"]),
    Suite("f32", "The default model in f32", "default", F32, workloads.FEW),
    Suite("base", "BERT-base shape", "base", BEST, [*workloads.QUICK, "long-2"], 1.5),
    Suite("large", "XLM-R-large shape", "large", BF16, workloads.LARGE, 2.5),
    Suite("pictures", "Pictures: CLIP ViT-B/32 shape", "clip", CLIP, workloads.PICTURES),
    Suite("pictures-int8", "Pictures in int8", "clip", INT8, workloads.PICTURES),
    Suite("qwen3", "Qwen3-Embedding-0.6B shape", "qwen3", BF16, workloads.DECODER),
)
SMOKE = Suite("smoke", "Smoke", "default", ("omnivec", "here"), workloads.SMOKE)
SMOKE_RERANK = SMOKE._replace(model="reranker", workloads=["rerank-4"])
NAMED = {one.name: one for one in COMPARED}


class Told(NamedTuple):
    """How much: repeats of all, seconds of each workload, and to whom it is limited."""

    repeats: int
    seconds: float
    peers: Sequence[str] = ()
    workloads: Sequence[str] = ()


def chosen(suite: Suite, told: Told) -> list[Server]:
    """Ours always; of the peers those that were asked for and can serve the model."""
    every = [servers.NAMED[name] for name in suite.servers]
    return [
        one
        for one in every
        if suite.model not in one.refuses
        and (one.ours or not told.peers or any(one.name.startswith(p) for p in told.peers))
    ]


def compare(suite: Suite, told: Told) -> Iterator[dict[str, Any]]:
    """Samples. One server at a time; the order turns round in every other repeat, so that a
    machine that slows down or speeds up does so for all."""
    picked = chosen(suite, told)
    names = [one for one in suite.workloads if not told.workloads or one in told.workloads]
    files = {name: workloads.bodies(workloads.NAMED[name]) for name in names}
    for repeat in range(told.repeats):
        for server in picked if repeat % 2 == 0 else picked[::-1]:
            about = {"suite": suite.name, "server": server.name, "repeat": repeat}
            for sample in _block(suite, server, files, told.seconds):
                yield {**about, **sample}


def _block(
    suite: Suite, server: Server, files: dict[str, Path | None], seconds: float
) -> Iterator[dict[str, Any]]:
    """One server from its start to its end. One that is lost gives a sample that says so."""
    try:
        with started(server, suite.model) as running:
            yield {"workload": "start", "start_s": running.started}
            yield {"workload": "idle", **_memory(running, "idle_")}
            yield {"workload": "answers", **_judge(running, suite.model)}
            for name, file in files.items():
                if file is not None:
                    work = workloads.NAMED[name]
                    running.settle()
                    sample = workloads.measure(running, work, file, seconds * suite.stretch)
                    yield {"workload": name, **sample}
            yield {"workload": "loaded", **_memory(running, "loaded_")}
    except (ServerLostError, OSError, RuntimeError, ValueError) as error:
        yield {"workload": "lost", "why": _plain(str(error))}


def started(server: Server, model: str) -> Any:
    """A context manager: the server, having answered its first request."""
    port = free_port()
    log = MODELS / "logs" / f"{server.name}-{model.partition(':')[0]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    first = answers.texts_of(model)[:1] if model == "clip" else ["ready?"]
    ready = ("/v1/embeddings", texts.embed_body(first))
    if model == "reranker":
        ready = ("/v1/rerank", texts.rerank_body("ready?", ["yes"]))
    return run(server.command(model, port), port, log, ready, env={"XDG_CONFIG_HOME": str(MODELS)})


def _memory(running: Running, prefix: str) -> dict[str, float]:
    return {f"{prefix}{name}_mb": value for name, value in running.memory().items()}


def _judge(running: Running, model: str) -> dict[str, Any]:
    verdict = answers.check(running, model)
    return {**verdict._asdict(), "right": verdict.right}


def _plain(said: str) -> str:
    """Without the places of this machine."""
    return said.replace(str(Path.home()), "~").replace(str(MODELS.parent), ".")[-1500:]


def make_ready(suite: Suite, told: Told) -> None:
    """Environments, checkpoints, graphs and references, before anything is timed."""
    models.folder(suite.model)
    answers.reference(suite.model)
    for server in chosen(suite, told):
        server.command(suite.model, 0)
