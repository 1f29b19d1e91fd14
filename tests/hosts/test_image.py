"""The image of .runpod/, as far as it can be followed without a builder of images: what it copies
is there, and what it runs, runs."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import live
import wire

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / ".runpod" / "Dockerfile"


class Stage(NamedTuple):
    """Its instructions in order, as (word, rest)."""

    name: str
    base: str
    instructions: list[tuple[str, str]]

    def rests(self, word: str) -> list[str]:
        return [rest for one, rest in self.instructions if one == word]

    def words(self, word: str) -> list[str]:
        """The last one's arguments, which are given as JSON."""
        found: list[str] = json.loads(self.rests(word)[-1].removeprefix("CMD "))
        return found


def read_stages() -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    name = ""
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, name = rest.split(" AS ")
            stages[name] = Stage(name, base, [])
        elif word == "HEALTHCHECK":
            rest = re.sub(r"--\S+ ", "", rest)
            stages[name].instructions.append((word, rest))
        elif word:
            stages[name].instructions.append((word, rest))
    return stages


STAGES = read_stages()


def is_sent(path: Path) -> bool:
    """Whether the builder is given that file: of .dockerignore's lines the last one counts that
    fits it or a folder around it."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    names = [str(one) for one in (path, *path.parents)]
    sent = True
    for line in lines:
        pattern = line.removeprefix("!").removeprefix("**/")
        if line and not line.startswith("#"):
            tails = [Path(name).name for name in names] if "**/" in line else names
            if any(fnmatch.fnmatchcase(one, pattern) for one in tails):
                sent = line.startswith("!")
    return sent


def copied(stage: Stage) -> list[str]:
    """What it takes from the repository."""
    lines = [rest for rest in stage.rests("COPY") if not rest.startswith("--from=")]
    return [source for line in lines for source in line.split()[:-1]]


def test_what_is_copied_is_there_and_is_sent() -> None:
    sources = [source for stage in STAGES.values() for source in copied(stage)]
    assert {"src", "pyproject.toml", ".runpod/handler.py"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert is_sent(Path(source)), source
    tracked = subprocess.run(
        ["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert all(is_sent(Path(name)) for name in tracked)
    for other in (".git/config", "tests/live.py", ".venv/bin/python", "src/x/__pycache__/a.pyc"):
        assert not is_sent(Path(other)), other


def test_one_stage_builds_on_another() -> None:
    assert list(STAGES) == ["build", "server", "worker"]
    assert STAGES["worker"].base == "server"
    for stage in STAGES.values():
        for source in re.findall(r"--from=(\S+)", " ".join(stage.rests("COPY"))):
            assert source in STAGES
    python = re.fullmatch(r"python:(3\.\d+)-slim", STAGES["server"].base)
    assert python is not None
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'requires-python = ">={python[1]}"' in project


def test_what_is_installed_is_an_extra_of_ours() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    [argument] = STAGES["build"].rests("ARG")
    name, _, extras = argument.partition("=")
    assert name == "EXTRAS"
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    install = STAGES["build"].rests("RUN")[-1]
    assert '".[${EXTRAS}]"' in install
    assert "--constraint constraints.txt" in install


def test_strangers_are_served_without_rights_of_root() -> None:
    assert STAGES["server"].rests("USER") == ["omnivec"]
    assert "useradd --create-home omnivec" in STAGES["server"].rests("RUN")[0]


def replayed(stage: Stage) -> list[str]:
    """Its CMD with the programs of this environment."""
    first, *rest = stage.words("CMD")
    return [str(live.COMMAND) if first == "omnivec" else sys.executable, *rest]


def variables(stage: Stage) -> dict[str, str]:
    pairs = [pair for rest in stage.rests("ENV") for pair in rest.split()]
    told = dict(pair.split("=", 1) for pair in pairs)
    return {name: value for name, value in told.items() if name not in {"PATH", "HF_HOME"}}


def is_healthy(env: dict[str, str]) -> bool:
    command = [sys.executable, *STAGES["server"].words("HEALTHCHECK")[1:]]
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("of_its_own", [True, False])
def test_a_load_balancing_endpoint_answers_its_pings(tmp_path: Path, of_its_own: bool) -> None:
    """As RunPod starts it, which tells it its ports and asks /ping at PORT_HEALTH, or at PORT."""
    port, health = live.free_port(), live.free_port()
    told = {"MODEL_NAMES": "fake:dims=8", "PORT": str(port), "HOME": str(tmp_path)}
    told |= {"PORT_HEALTH": str(health)} if of_its_own else {}
    env = live.environment({**variables(STAGES["server"]), **told})
    assert not is_healthy(env)
    log = tmp_path / "log"
    with log.open("wb") as printed:
        process = subprocess.Popen(
            replayed(STAGES["server"]), env=env, stdout=printed, stderr=subprocess.STDOUT
        )
    try:
        server = live.Server(f"http://127.0.0.1:{port}", process, log)
        live.wait_ready(server)
        assert is_healthy(env)
        asked = f"http://127.0.0.1:{health if of_its_own else port}"
        assert wire.request(asked, "/ping").status == 200
        body = {"input": {"input": "Hello, world!"}}
        told = wire.request(server.url, "/v2/any/runsync", body).json
        assert len(told["output"]["data"][0]["embedding"]) == 8
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_the_worker_begins(tmp_path: Path) -> None:
    """As far as it comes without the SDK; tests/clients/runpod has it, and goes on."""
    stage = STAGES["worker"]
    assert stage.words("CMD") == ["python", "-u", "/worker/handler.py"]
    assert [Path(name).name for name in copied(stage)] == ["handler.py", "test_input.json"]
    blocked = tmp_path / "runpod.py"
    blocked.write_text("raise ImportError\n")
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    env = live.environment(
        {**variables(stage), "MODEL_NAMES": "fake", "HOME": str(tmp_path), "PYTHONPATH": paths}
    )
    done = subprocess.run(
        [sys.executable, "-u", str(ROOT / ".runpod" / "handler.py")],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "pip install 'omnivec[runpod]'" in done.stderr
