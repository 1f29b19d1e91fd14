"""The README's examples, run as they stand (but for the port)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import live
from omnivec.core.settings import Settings

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


ACTIVATE = blocks("console")[1].strip()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live.serve() as server:
        yield server.url


def run(script: str, folder: Path) -> str:
    """The output of a shell script after the README's own line that puts `omnivec` and
    `python` on the PATH, which has neither of this environment before."""
    own = str(Path(sys.executable).parent)
    others = [one for one in os.environ["PATH"].split(os.pathsep) if one != own]
    activated = f"{ACTIVATE}\ncd {shlex.quote(str(folder))}\n{script}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", activated],
        cwd=README.parent,
        env=os.environ | {"PATH": os.pathsep.join(others)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(blocks("bash"))))
def test_a_shell_example_works_when_pasted(number: int, url: str, tmp_path: Path) -> None:
    script = blocks("bash")[number].replace("curl ", "curl -sS --fail-with-body ")
    assert "127.0.0.1:8400" in script or "omnivec" in script
    printed = run(script.replace("http://127.0.0.1:8400", url), tmp_path)
    assert re.search(r"-?\d\.\d{3}", printed)
    assert "error" not in printed


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_a_python_example_works_when_pasted(number: int, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(blocks("python")[number])
    assert run("python example.py", tmp_path).strip() == "(2, 384) 0"


def test_every_kind_of_example_is_there() -> None:
    assert len(blocks("bash")) >= 4
    assert len(blocks("python")) >= 1
    assert "make serve" in blocks("console")[0]
    assert TEXT.index(ACTIVATE) > TEXT.index("make serve")


@pytest.mark.parametrize("field", Settings.__struct_fields__)
def test_every_setting_is_in_the_table(field: str) -> None:
    elsewhere = {
        "models": "MODEL ...",
        "api_keys": "--api-key`",
        "dialect": "--profile`",  # follows from it
        "tiktoken_cache_dir": "--token-ids",
    }
    flag = elsewhere.get(field, "--" + field.replace("_", "-") + "`")
    assert flag in TEXT


def test_the_file_map_names_every_room() -> None:
    rooms = {path.name for path in (README.parent / "src/omnivec").iterdir() if path.is_dir()}
    for room in rooms - {"__pycache__"}:
        assert re.search(rf"^  {room}/ ", TEXT, re.MULTILINE), room
