"""Ours and the peers: how each is started, at its best documented settings, and which
libraries to name beside its figures."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import environments, models, onnx_graphs
from bench.places import MODELS, ROOT, environment
from bench.texts import NAME

THIN = ROOT / "bench" / "peers"


class Server(NamedTuple):
    """`command(model, port)` is what starts it on a checkpoint by its name in bench.models.
    `python` is where its packages are. `settings` says in words what was chosen, and why.
    `suites` limits it to those; `refuses` names checkpoints that it cannot serve."""

    name: str
    title: str
    command: Callable[[str, int], list[str]]
    python: Callable[[], Path]
    packages: tuple[str, ...]
    settings: str
    ours: bool = False
    refuses: tuple[str, ...] = ()


def _here() -> Path:
    return Path(sys.executable)


def _omnivec(dtype: str) -> Callable[[str, int], list[str]]:
    def command(model: str, port: int) -> list[str]:
        named = models.DEFAULT_ID if model == "default" else str(models.folder(model))
        own = str(_here().with_name("omnivec"))
        return [own, "serve", f"{NAME}={named}", "--dtype", dtype, "--port", str(port), "--offline"]

    return command


def _infinity(dtype: str) -> Callable[[str, int], list[str]]:
    def command(model: str, port: int) -> list[str]:
        own = environments.prepare("infinity").with_name("infinity_emb")
        told = {
            "model-id": str(models.folder(model)),
            "served-model-name": NAME,
            "engine": "torch",
            "device": "cpu",
            "dtype": dtype,
            "batch-size": "32",
            "url-prefix": "/v1",
            "host": "127.0.0.1",
            "port": str(port),
            "log-level": "warning",
        }
        flags = [part for name, value in told.items() for part in (f"--{name}", value)]
        return [str(own), "v2", *flags, *INFINITY_SWITCHES]

    return command


# torch.compile recompiles for each shape of mixed lengths; BetterTransformer is gone from the
# transformers release that this version of infinity needs.
INFINITY_SWITCHES = ("--no-compile", "--no-bettertransformer", "--no-model-warmup")


def _thin_torch(dtype: str, python: Callable[[], Path]) -> Callable[[str, int], list[str]]:
    def command(model: str, port: int) -> list[str]:
        script = str(THIN / "sentence-transformers" / "serve.py")
        flags = ["--dtype", dtype, "--threads", "2"]
        flags += ["--rerank"] if model == "reranker" else []
        return [str(python()), script, str(models.folder(model)), str(port), *flags]

    return command


def _onnxruntime(model: str, port: int) -> list[str]:
    longest = models.SHAPES[model].longest if model in models.SHAPES else 256
    files = [str(onnx_graphs.graph(model)), str(models.folder(model) / "tokenizer.json")]
    script = str(THIN / "onnxruntime" / "serve.py")
    return [str(_env("onnxruntime")()), script, *files, str(longest), str(port), "--threads", "2"]


def _env(peer: str) -> Callable[[], Path]:
    return lambda: environments.prepare(peer)


def _jobs(model: str, port: int) -> list[str]:
    """With a new store each time, on the disk that the repository is on."""
    folder = MODELS / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    store = tempfile.mktemp(".sqlite", dir=folder)
    command = _omnivec("auto")(model, port)
    return [*command, "--profile", "runpod", "--host", "127.0.0.1", "--jobs", store]


def _sdk(model: str, port: int) -> list[str]:
    """The SDK's packages from an environment of their own, all others from ours."""
    packages = next(environments.prepare("runpod").parents[1].glob("lib/*/site-packages"))
    inherited = environment().get("PYTHONPATH", "")
    told = {
        "PYTHONPATH": os.pathsep.join(filter(None, [inherited, str(packages)])),
        "RUNPOD_LOG_LEVEL": "INFO",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "UVICORN_LOG_LEVEL": "warning",
    }
    named = models.DEFAULT_ID if model == "default" else str(models.folder(model))
    return [
        *("env", *(f"{name}={value}" for name, value in told.items())),
        *(str(_here().with_name("omnivec")), "runpod", f"{NAME}={named}", "--offline"),
        *("--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)),
    ]


OURS = ("omnivec", "openvino", "tokenizers", "starlette", "uvicorn", "uvloop", "orjson")
INFINITY = ("infinity-emb", "torch", "transformers", "sentence-transformers")
THIN_TORCH = ("sentence-transformers", "torch", "transformers", "uvicorn", "starlette")
ONNX = ("onnxruntime", "tokenizers", "uvicorn", "starlette")
THIN_WORDS = "one encode at a time on 2 threads, batch_size=32, uvloop, orjson"

ALL = (
    Server("omnivec", "omnivec", _omnivec("auto"), _here, OURS, "defaults", ours=True),
    Server("omnivec-f32", "omnivec f32", _omnivec("f32"), _here, OURS, "--dtype f32", ours=True),
    Server(
        "omnivec-int8", "omnivec int8", _omnivec("int8"), _here, OURS, "--dtype int8", ours=True
    ),
    Server(
        "infinity",
        "Infinity",
        _infinity("bfloat16"),
        _env("infinity"),
        INFINITY,
        "torch engine, bfloat16, batch size 32",
    ),
    Server(
        "infinity-f32",
        "Infinity f32",
        _infinity("float32"),
        _env("infinity"),
        INFINITY,
        "torch engine, float32, batch size 32",
    ),
    Server(
        "infinity-int8",
        "Infinity int8",
        _infinity("int8"),
        _env("infinity"),
        INFINITY,
        "torch engine, int8 (torch's dynamic quantisation), batch size 32",
    ),
    Server(
        "sentence-transformers",
        "sentence-transformers",
        _thin_torch("bf16", _env("sentence-transformers")),
        _env("sentence-transformers"),
        THIN_TORCH,
        f"thin server, bfloat16, {THIN_WORDS}",
    ),
    Server(
        "sentence-transformers-f32",
        "sentence-transformers f32",
        _thin_torch("f32", _env("sentence-transformers")),
        _env("sentence-transformers"),
        THIN_TORCH,
        f"thin server, float32, {THIN_WORDS}",
    ),
    Server(
        "onnxruntime",
        "ONNX Runtime f32",
        _onnxruntime,
        _env("onnxruntime"),
        ONNX,
        "thin server, exported graph with pooling inside, all graph optimisations, "
        "intra_op 2, batches of 32 sorted by length",
        refuses=("large", "reranker", "modernbert"),
    ),
    Server(
        "omnivec-jobs",
        "omnivec",
        _jobs,
        _here,
        OURS,
        "--profile runpod, jobs in SQLite on disk",
        ours=True,
    ),
    Server(
        "omnivec-jobs-memory",
        "omnivec, in memory",
        _omnivec("auto"),
        _here,
        OURS,
        "defaults: jobs in memory, as the SDK's server has them",
        ours=True,
    ),
    Server(
        "runpod-sdk",
        "runpod --rp_serve_api",
        _sdk,
        _env("runpod"),
        ("runpod", "fastapi", "pydantic", "uvicorn"),
        "our engine and worker behind the SDK's own test server, which keeps jobs in memory; "
        "RUNPOD_LOG_LEVEL=INFO, at DEBUG it would write every output out",
    ),
    Server(
        "here",
        "sentence-transformers (.venv)",
        _thin_torch("bf16", _here),
        _here,
        THIN_TORCH,
        f"thin server in our own environment, for the smoke test, bfloat16, {THIN_WORDS}",
    ),
)
NAMED = {one.name: one for one in ALL}

LEFT_OUT = {
    "sie-server 0.10.1": (
        "not measured here: it pins torch below 2.10 on Python 3.12, for which this machine's "
        "index has only the CUDA build with its libraries, and it declares torchvision and "
        "docling too; the environment is 8 GB, beyond the 2.5 GB that this harness allows a "
        "peer. bench/README.md has the details and decision 9's figures for it."
    ),
}
