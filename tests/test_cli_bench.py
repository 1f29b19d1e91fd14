"""`omnivec bench` as a person runs it: in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "omnivec", "bench", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False
    )


def test_a_table_the_numbers_and_a_plot(elsewhere: Path) -> None:
    done = run("fake:dims=8", "--seconds", "3")
    assert done.returncode == 0, done.stderr
    folder = elsewhere / "omnivec-bench"
    assert done.stdout.strip() == (folder / "bench.md").read_text().strip()
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 13
    assert "resident memory" in done.stdout
    numbers = json.loads((folder / "bench.json").read_text())
    assert len(numbers["cells"]) == 12
    assert numbers["machine"]["cores"] >= 1
    plot = ET.fromstring((folder / "bench.svg").read_text())
    lines = plot.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 6  # three numbers of clients in two panels
    inside = [float(v) for line in lines for v in line.attrib["points"].replace(",", " ").split()]
    assert 0 <= min(inside) < max(inside) <= float(plot.attrib["width"])


def test_what_cannot_be_written_is_still_printed(elsewhere: Path) -> None:
    (elsewhere / "omnivec-bench" / "bench.md").mkdir(parents=True)
    done = run("fake:dims=8", "--seconds", "1")
    assert done.returncode == 1
    assert "resident memory" in done.stdout
    assert "bench.md: Is a directory" in done.stderr


def test_json_for_machines(elsewhere: Path) -> None:
    done = run("fake-reranker", "--seconds", "3", "--json", "--output", "deep/er")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers == json.loads((elsewhere / "deep" / "er" / "bench.json").read_text())
    assert numbers["model"] == "fake-reranker"
    assert all(cell["texts"] > 0 for cell in numbers["cells"])


def test_ctrl_c_keeps_what_is_measured(elsewhere: Path) -> None:
    child = subprocess.Popen(
        command("fake:dims=8", "--seconds", "24", "--output", "out"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    assert "measuring" in child.stderr.readline()  # comes after five seconds
    child.send_signal(signal.SIGINT)
    out, told = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "what is done will be kept" in told
    assert out.count("\n| ") >= 2
    assert "Left out: what was still to come" in out
    assert json.loads((elsewhere / "out" / "bench.json").read_text())["cells"]


def test_a_model_that_is_not_there_is_one_line_and_leaves_no_folder(elsewhere: Path) -> None:
    done = run("no/such-model", "--offline", "--seconds", "1")
    assert done.returncode == 1
    assert not (elsewhere / "omnivec-bench").exists()
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_too_few_seconds_are_refused() -> None:
    assert run("fake", "--seconds", "0").returncode == 2
