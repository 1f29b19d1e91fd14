"""The seeds' own calls against a running server: read from the seed files, with nothing
replaced but the host and the key."""

from __future__ import annotations

import json
import math
import re
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

import checkpoints
import live
from seeds import seed

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "mg-key-of-this-test"
DIMS = 2048  # as long as Synesis says its vectors are
CURL = re.compile(r"^curl (https://[^/\s]+)\S* \\\n.*?^  \}'$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r'"model": "([^"]+)"')


GARDEN, SYNESIS = seed("001"), seed("000")
CURLS = [found.group() for found in CURL.finditer(GARDEN)]


def bodies(text: str) -> list[dict[str, Any]]:
    """Every JSON object that starts on a line of its own, outermost ones only."""
    found, end, decoder = [], 0, json.JSONDecoder()
    for start in re.finditer(r"^\{$", text, re.MULTILINE):
        if start.start() >= end:
            value, end = decoder.raw_decode(text, start.start())
            found.append(value)
    return found


BODIES = bodies(SYNESIS)
TEXTS = [body for body in BODIES if '"image"' not in json.dumps(body)]
IMAGES = [body for body in BODIES if body not in TEXTS]


@pytest.fixture(scope="module", name="model")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Served under the name that the Garden's calls ask for, with vectors of Synesis' length."""
    folder = checkpoints.build_encoder(
        "bert",
        tmp_path_factory.mktemp("wide"),
        dense=((DIMS, checkpoints.IDENTITY),),
    )
    (name,) = {NAMED.search(curl).group(1) for curl in CURLS}
    return f"{name}={folder}"


@pytest.fixture(scope="module", name="garden")
def garden_server(model: str) -> Iterator[live.Server]:
    with live.serve(model, "--api-key", KEY) as server:
        yield server


@pytest.fixture(scope="module", name="synesis")
def synesis_server(model: str) -> Iterator[live.Server]:
    with live.serve(model) as server:
        yield server


# ── 001: Synapse Garden ──────────────────────────────────────────────────────────────────


def run_curl(text: str, server: live.Server, key: str = KEY) -> dict[str, Any]:
    done = subprocess.run(
        ["bash", "-c", text.replace(CURL.match(text).group(1), server.url)],
        env={**live.environment({}), "MG_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_garden_has_three_curl_calls():
    assert len(CURLS) == 3


@pytest.mark.parametrize("curl", CURLS, ids=["single", "batch", "dimensions"])
def test_a_garden_curl(garden: live.Server, curl: str):
    sent = json.loads(re.search(r"-d '(.*)'$", curl, re.DOTALL).group(1))
    inputs = [sent["input"]] if isinstance(sent["input"], str) else sent["input"]
    reply = run_curl(curl, garden)
    assert reply.keys() >= {"object", "data", "model", "usage"}
    assert (reply["object"], reply["model"]) == ("list", sent["model"])
    assert [entry["index"] for entry in reply["data"]] == list(range(len(inputs)))
    for entry in reply["data"]:
        assert entry["object"] == "embedding"
        assert len(entry["embedding"]) == sent.get("dimensions", DIMS)
        assert length(entry["embedding"]) == pytest.approx(1, abs=1e-5)
    assert reply["usage"]["prompt_tokens"] == reply["usage"]["total_tokens"] > 0


def test_the_garden_refuses_another_key(garden: live.Server):
    reply = run_curl(CURLS[0], garden, key="another")
    assert reply["error"].keys() == {"message", "type", "param", "code"}


# ── 000: Synesis ─────────────────────────────────────────────────────────────────────────


def call(url: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def path_of(body: dict[str, Any]) -> str:
    return "/v1/embeddings" if "inputs" in body else "/v1/rerank"


def fields_of(text: str, prefix: str) -> list[str]:
    """The fields below `prefix` that the seed's tables of answers name."""
    names = re.findall(rf"^{re.escape(prefix)}\.(\w+) \|$", text, re.MULTILINE)
    assert names, prefix
    return names


def test_synesis_has_five_bodies():
    assert (len(TEXTS), len(IMAGES)) == (2, 3)


def test_synesis_embeds_its_texts(synesis: live.Server):
    (body,) = (body for body in TEXTS if "inputs" in body)
    status, text = call(synesis.url + path_of(body), body)
    assert status == 200, text
    reply = json.loads(text)
    assert [entry["index"] for entry in reply["embeddings"]] == [0, 1]
    for entry in reply["embeddings"]:
        assert entry.keys() >= set(fields_of(SYNESIS, "embeddings[]"))
        assert len(entry["embedding"]) == DIMS
        assert length(entry["embedding"]) == pytest.approx(1, abs=1e-5)
    usage = reply["usage"]
    assert (usage["input_count"], usage["dimension"]) == (2, DIMS)
    assert usage["elapsed_ms"] > 0


def test_synesis_reranks_its_texts(synesis: live.Server):
    (body,) = (body for body in TEXTS if "query" in body)
    status, text = call(synesis.url + path_of(body), body)
    assert status == 200, text
    reply = json.loads(text)
    scores = [result["score"] for result in reply["results"]]
    assert len(scores) == body["top_n"]
    assert scores == sorted(scores, reverse=True)
    for result in reply["results"]:
        assert result.keys() >= set(fields_of(SYNESIS, "results[]"))
        assert result["document"] == body["documents"][result["index"]]
    usage = reply["usage"]
    assert (usage["query_count"], usage["document_count"], usage["returned_count"]) == (1, 4, 2)
    assert usage["elapsed_ms"] > 0


@pytest.mark.parametrize("at", range(len(IMAGES)))
def test_synesis_says_that_this_model_takes_text(synesis: live.Server, at: int):
    status, text = call(synesis.url + path_of(IMAGES[at]), IMAGES[at])
    assert status == 422, text
    assert "text" in json.dumps(json.loads(text)["detail"])
    assert "/data/" not in text


def python_example() -> str:
    """The page's Python, whose indentation was lost: what follows a `for` is its body."""
    start = SYNESIS.index("import requests")
    end = SYNESIS.rindex("\n", start, SYNESIS.index("store vectors in your vector database"))
    lines, indent = [], ""
    for line in SYNESIS[start:end].splitlines():
        lines.append(indent + line)
        if line.startswith("for ") and line.endswith(":"):
            indent = "    "
    return "\n".join(lines)


def test_the_synesis_python_example(synesis: live.Server, capsys: pytest.CaptureFixture[str]):
    code = python_example()
    host = re.search(r'"(http://[^"]+)"', code).group(1)
    names: dict[str, Any] = {}
    exec(compile(code.replace(host, synesis.url), "seed 000", "exec"), names)
    assert [len(vector) for vector in names["vectors"]] == [1024, 1024]
    for vector in names["vectors"]:
        assert length(vector) == pytest.approx(1, abs=1e-5)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 * len(names["ranked"]["results"]) == 4
    for result, first, second in zip(
        names["ranked"]["results"], printed[::2], printed[1::2], strict=True
    ):
        assert first == f" #{result['index']} score={result['score']:.4f}"
        assert second.strip() == result["document"]["text"][:80]


def test_the_synesis_paths_for_operators(synesis: live.Server):
    paths = re.findall(r"^(/\S*) \|\nGET \|", SYNESIS, re.MULTILINE)
    assert len(paths) == 5
    answers = {path: call(synesis.url + path) for path in paths}
    assert {path: status for path, (status, _) in answers.items() if status != 200} == {}
    metrics = answers["/metrics"][1]
    for name in re.findall(r"((?:embedding|reranker)_[a-z_]+)(?:\{\w+\})? — ", SYNESIS):
        assert re.search(rf"^{name}\b|^{name}_bucket\b", metrics, re.MULTILINE), name


def length(vector: list[float]) -> float:
    return math.sqrt(sum(number * number for number in vector))
