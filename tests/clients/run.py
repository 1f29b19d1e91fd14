"""Real clients, unchanged, against a running server.

    make test-clients ARGS="NAME ..."      # all, or only some: openai litellm node/ai_sdk

Each Python client has a folder here with its pinned `requirements.txt` and its `calls.py`,
and an environment of its own under `.clients/`; the JavaScript ones share `node/`. They are
made once and made again when their pins change. Two servers run, one with a key and one without;
clients that ask again while a model loads get a third, which has just been started.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import checkpoints
import live
import multivectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HERE = Path(__file__).resolve().parent
MADE = HERE.parents[1] / ".clients"
NODE = HERE / "node"
PYTHON = sorted(path.parent.name for path in HERE.glob("*/requirements.txt"))
SCRIPTS = sorted(f"node/{path.stem}" for path in NODE.glob("*.mjs") if path.stem != "checks")

KEY = "sk-omnivec-client-checks"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
RERANKER = "tiny/cross-encoder"
CLASSIFIER = "tiny/nli"
THREEFOLD = "BAAI/bge-m3"  # of random weights here; it makes vectors of all three types
BM25 = "omnivec/bm25"
EMOTIONS = "tiny/emotions"
NLI = ("contradiction", "neutral", "entailment")
# cl100k_base under the name that tiktoken keeps it by; LiteLLM's wheel carries a copy.
TABLE = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "NO_PROXY": "127.0.0.1",
    "TIKTOKEN_CACHE_DIR": str(MADE / "tiktoken"),
}
AT_ONCE = 2
PATIENCE = 240  # seconds for one client's checks
# Clients that ask a third server as well, whose model takes longer to load than it waits.
ASK_AGAIN = {"sie", "sie_031"}
COLD = ("fake:load=2", "--lazy", "--load-wait", "0.2")


class Outcome(NamedTuple):
    name: str
    passed: int
    failed: int
    seconds: float


def main(asked: list[str]) -> int:
    names = asked or [*PYTHON, *SCRIPTS]
    if unknown := set(names) - {*PYTHON, *SCRIPTS}:
        sys.exit(f"no such client: {sorted(unknown)}; there are {[*PYTHON, *SCRIPTS]}")
    prepare(names)
    outcomes = check(names)
    for outcome in outcomes:
        print("{:20}{:4} passed {:3} failed {:6.1f} s".format(*outcome))
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"{sum(outcome.passed for outcome in outcomes)} passed, {failed} failed")
    return int(failed > 0)


# ── environments ─────────────────────────────────────────────────────────────────────────


def prepare(names: Iterable[str]) -> None:
    """Make what is missing or out of date."""
    MADE.mkdir(exist_ok=True)
    wanted = {"litellm", *(name for name in names if "/" not in name)}  # its wheel has TABLE
    jobs: list[Callable[[], None]] = [lambda name=name: make_python(name) for name in wanted]
    if any("/" in name for name in names):
        jobs.append(make_node)
    jobs.append(make_models)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    keep_table()


def make_python(name: str) -> None:
    folder, pins = MADE / name, HERE / name / "requirements.txt"
    stamp = digest(pins.read_bytes(), sys.version.encode())
    if is_fresh(folder, stamp):
        return
    print(f"Making the environment of {name} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    quiet(sys.executable, "-m", "venv", "--without-pip", folder)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    # The pins are complete, so there is nothing to resolve; sie-sdk runs on more than it says.
    flags = ("--no-deps", "--no-compile", "--disable-pip-version-check", "--ignore-requires-python")
    quiet(*pip, "install", *flags, "-r", pins)
    (folder / ".made").write_text(stamp)


def make_node() -> None:
    if not shutil.which("node") or not shutil.which("npm"):
        sys.exit("The JavaScript clients need node (18 or newer) and npm.")
    stamp = digest((NODE / "package-lock.json").read_bytes())
    if is_fresh(NODE / "node_modules", stamp):
        return
    print("Installing the JavaScript clients ...", flush=True)
    quiet("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", NODE)
    (NODE / "node_modules" / ".made").write_text(stamp)


def make_models() -> None:
    """With random weights: what they answer means nothing and is repeatable."""
    build = partial(checkpoints.build_encoder, "bert", positions=128)
    make_model("cross-encoder", partial(build, num_labels=1))
    make_model("nli", partial(build, num_labels=3, labels=NLI))
    make_model("emotions", partial(build, num_labels=3, labels=("joy", "anger", "fear")))
    make_model("bge-m3", build_threefold)


def build_threefold(folder: Path) -> None:
    """A bge-m3 whose vectors are all 32 long, and in whose texts words have weights."""
    with tempfile.TemporaryDirectory() as made:

        def encoder(kind: str, **told: Any) -> Path:
            return checkpoints.build_encoder(kind, Path(made), **told)

        multivectors.build_bge_m3(encoder, folder, dims=32, bias=1)


def make_model(name: str, build: Callable[[Path], object]) -> None:
    folder = MADE / name
    makers = (checkpoints.__file__, multivectors.__file__, __file__)
    stamp = digest(*(Path(maker).read_bytes() for maker in makers))
    if is_fresh(folder, stamp):
        return
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    shutil.rmtree(folder, ignore_errors=True)
    build(folder)
    (folder / ".made").write_text(stamp)


def keep_table() -> None:
    kept = MADE / "tiktoken" / TABLE
    if not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        (source,) = (MADE / "litellm").rglob(TABLE)
        shutil.copy(source, kept)


def is_fresh(folder: Path, stamp: str) -> bool:
    made = folder / ".made"
    return made.is_file() and made.read_text() == stamp


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def quiet(*command: str | Path) -> None:
    """Run a command; what it printed is shown when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


# ── checks ───────────────────────────────────────────────────────────────────────────────


def check(names: list[str]) -> list[Outcome]:
    # f32, because bf16 rounds a text differently in different batches
    made = {
        RERANKER: "cross-encoder",
        CLASSIFIER: "nli",
        EMOTIONS: "emotions",
        THREEFOLD: "bge-m3",
    }
    named = [f"{name}={MADE / folder}" for name, folder in made.items()]
    served = (MODEL, *named, BM25, "--dtype", "f32")
    with (
        live.serve(*served, "--api-key", KEY, env=OFFLINE) as guarded,
        live.serve(*served, env=OFFLINE) as open_to_all,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        urls = (guarded.url, open_to_all.url)
        outcomes = list(pool.map(lambda name: run(name, urls), names))
        return [*outcomes, judge_log(guarded), judge_log(open_to_all)]


def run(name: str, urls: tuple[str, str]) -> Outcome:
    began = time.monotonic()
    with live.launch(*COLD, env=OFFLINE) if name in ASK_AGAIN else nullcontext() as cold:
        printed = output_of([*command_of(name), *urls, *([cold.url] if cold else [])])
    print(f"── {name}\n{printed.rstrip()}\n", flush=True)
    summary = re.search(r"^(\d+) passed, (\d+) failed$", printed, re.MULTILINE)
    passed, failed = map(int, summary.groups()) if summary else (0, 1)
    return Outcome(name, passed, failed, time.monotonic() - began)


def command_of(name: str) -> list[str | Path]:
    if "/" in name:
        return ["node", HERE / f"{name}.mjs"]
    return [MADE / name / "bin" / "python", HERE / name / "calls.py"]


def output_of(command: list[str | Path]) -> str:
    own = {"SERVER_PYTHON": sys.executable, "SERVER_PATH": os.environ.get("PYTHONPATH", "")}
    env = live.environment({**OFFLINE, **own, "PYTHONPATH": str(HERE / "shared")})
    try:
        done = subprocess.run(
            command,
            env=env,
            text=True,
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        return f"still running after {PATIENCE} s"
    return done.stdout


def judge_log(server: live.Server) -> Outcome:
    """Whatever the clients sent, the server must not have printed a traceback."""
    printed = server.printed(10**7)
    clean = "Traceback" not in printed
    if not clean:
        print(printed[-6000:])
    return Outcome(f"log of :{server.port}", int(clean), int(not clean), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
