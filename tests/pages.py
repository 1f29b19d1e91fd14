"""The project's pages: their examples, and a shell to paste them into."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    """The fenced examples of one language in a page, named from the root."""
    return re.findall(rf"```{language}\n(.*?)```", text(page), re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def curl(page: str, number: int, url: str, folder: Path) -> str:
    """What a shell example prints, asked of the server at `url`."""
    script = blocks(page, "bash")[number].replace("curl ", "curl -sS --fail-with-body ")
    return run(script.replace("http://127.0.0.1:8400", url), folder)


def run(script: str, folder: Path) -> str:
    """The output of a shell script after the README's own line that puts `omnivec` and
    `python` on the PATH, which has neither of this environment before."""
    activate = blocks("README.md", "console")[1].strip()
    own = str(Path(sys.executable).parent)
    others = [one for one in os.environ["PATH"].split(os.pathsep) if one != own]
    activated = f"{activate}\ncd {shlex.quote(str(folder))}\n{script}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", activated],
        cwd=ROOT,
        env=os.environ | {"PATH": os.pathsep.join(others)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
