"""The examples, run as a reader runs them."""

from __future__ import annotations

import csv
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import live
import wire

HYBRID = Path(__file__).parents[2] / "examples" / "hybrid_search.py"

if not wire.DATA.is_dir():
    pytest.skip("the real data is not beside this checkout", allow_module_level=True)


@pytest.fixture(scope="module", name="xquad")
def xquad_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The passages and questions in the form in which XQuAD's authors give them."""
    folder = wire.DATA / "xquad/beir-en"
    with (folder / "qrels.tsv").open() as lines:
        passage_of = {row[0]: row[1] for row in csv.reader(lines, delimiter="\t")}
    asked: dict[str, list[dict[str, str]]] = {}
    for query in wire.jsonl("xquad/beir-en/queries.jsonl"):
        found = {"id": query["_id"], "question": query["text"]}
        asked.setdefault(passage_of[query["_id"]], []).append(found)
    paragraphs = [
        {"context": row["text"], "qas": asked.get(row["_id"], [])}
        for row in wire.jsonl("xquad/beir-en/corpus.jsonl")
    ]
    made = tmp_path_factory.mktemp("xquad") / "xquad.en.json"
    made.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return made


def test_hybrid_search_finds_more_than_either(xquad: Path) -> None:
    done = subprocess.run(
        [sys.executable, HYBRID, "--data", xquad, "--questions", "120"],
        env=live.environment({}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "120 questions about 240 passages" in done.stderr
    found = dict(re.findall(r"^(\w.*?) +(\d\.\d{4})$", done.stdout, re.MULTILINE))
    assert list(found) == ["dense", "sparse", "both, by rank", "both, by score"]
    numbers = {name: float(value) for name, value in found.items()}
    assert 0.85 < numbers["dense"] < 1
    assert 0.9 < numbers["sparse"] < 1
    best = max(numbers["dense"], numbers["sparse"])
    assert numbers["both, by rank"] > best - 0.02
    assert numbers["both, by score"] > best - 0.005


def test_the_data_is_fetched_once(
    xquad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fetch = runpy.run_path(str(HYBRID))["fetch"]
    monkeypatch.setitem(fetch.__globals__, "URL", xquad.as_uri())
    kept = fetch()
    assert kept.read_bytes() == xquad.read_bytes()
    monkeypatch.setitem(fetch.__globals__, "URL", (tmp_path / "nowhere").as_uri())
    assert fetch() == kept
    passages, questions, right = fetch.__globals__["read"](kept, None)
    assert (len(passages), len(questions)) == (240, 1190)
    assert (right[0], right[-1]) == (0, 239)
