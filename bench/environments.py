"""An environment for each peer under .peers/, made once for each state of its requirements."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from bench.places import PEERS

REQUIREMENTS = Path(__file__).with_name("peers")


def requirements(peer: str) -> Path:
    return REQUIREMENTS / peer / "requirements.txt"


def prepare(peer: str) -> Path:
    """The peer's Python; its environment is made first where its mark is missing or old.
    Raises SystemExit when pip fails."""
    home, wanted = PEERS / peer, _digest(peer)
    mark = home / ".made"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"Installing {peer} into {home.relative_to(PEERS.parent)} ...", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        _call(sys.executable, "-m", "venv", str(home))
        _install(home / "bin" / "python", peer)
        mark.write_text(wanted)
    return home / "bin" / "python"


def _install(python: Path, peer: str) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = [line for line in _lines(peer) if line.startswith("torch==")]
    if torch:  # first and alone: so the build for processors is taken where the index has one
        _call(*pip, *torch)
    _call(*pip, "--requirement", str(requirements(peer)))


def _lines(peer: str) -> list[str]:
    return requirements(peer).read_text().splitlines()


def _digest(peer: str) -> str:
    return hashlib.sha256(requirements(peer).read_bytes() + sys.version.encode()).hexdigest()


def _call(*command: str) -> None:
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def versions(python: Path, packages: list[str]) -> dict[str, str]:
    """The installed versions of those packages that are there."""
    code = (
        "import sys, json, importlib.metadata as m\n"
        "have = {d.name.lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: have[n] for n in sys.argv[1:] if n in have}))"
    )
    done = subprocess.run(
        [str(python), "-c", code, *packages], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))
