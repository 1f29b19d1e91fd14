"""Seed 002, the RunPod worker: every curl and JSON of its page against a running server, with
nothing replaced but the host, the endpoint's id and the key."""

from __future__ import annotations

import json
import math
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import checkpoints
import live
import wire
from seeds import seed

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = seed("002")
KEY, ENDPOINT = "rp-key-of-this-test", "vllm0a1b2c3d4e"
BASE = "https://api.runpod.ai"
EMBEDDER, RERANKER = "/models/Qwen3-Embedding-0.6B", "/models/Qwen3-Reranker-0.6B"
DIMS = 1024
CURL = re.compile(r"^curl .*?^ +https://\S+$", re.MULTILINE | re.DOTALL)
CURLS = CURL.findall(WORKER)
BODIES = [
    json.loads(found[1]) for curl in CURLS if (found := re.search(r"-d '(.*?)'", curl, re.DOTALL))
]


@pytest.fixture(scope="module", name="names")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Both models in a folder called `models`, as in the image; MODEL_NAMES of it."""
    root = tmp_path_factory.mktemp("image")
    embedder, reranker = (root / name.removeprefix("/") for name in (EMBEDDER, RERANKER))
    embedder.mkdir(parents=True)
    reranker.mkdir()
    checkpoints.build_encoder("bert", embedder, dense=((DIMS, checkpoints.IDENTITY),))
    checkpoints.build_encoder("bert", reranker, num_labels=1, positions=128)
    return f"{embedder}; {reranker}"


def served(names: str, home: str, *arguments: str) -> Any:
    """With the page's environment variables, the single values broadcast."""
    env = {
        "MODEL_NAMES": names,
        "BATCH_SIZES": "32",
        "DTYPES": "auto",
        "INFINITY_QUEUE_SIZE": "48000",
        "RUNPOD_MAX_CONCURRENCY": "300",
        "HOME": home,
    }
    local = ("--profile", "runpod", "--host", "127.0.0.1")
    return live.serve(*local, *arguments, env=env)


@pytest.fixture(scope="module", name="server")
def open_server(names: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    """Its queue is in the file that the profile names."""
    home = tmp_path_factory.mktemp("home")
    with served(names, str(home)) as server:
        yield server
    assert (home / ".local/state/omnivec/jobs.sqlite").stat().st_size > 0


def run(curl: str, server: live.Server) -> Any:
    told = curl.replace(BASE, server.url)
    told = told.replace("<ENDPOINT_ID>", ENDPOINT).replace("<API_KEY>", KEY)
    done = subprocess.run(
        ["bash", "-c", told.replace("curl ", "curl -sS --fail-with-body ", 1)],
        env=live.environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def check_vectors(output: dict[str, Any], model: str) -> None:
    assert output.keys() == {"object", "model", "data", "usage"}
    assert (output["object"], output["model"]) == ("list", model)
    [entry] = output["data"]
    assert entry.keys() == {"object", "embedding", "index"}
    assert (entry["object"], entry["index"]) == ("embedding", 0)
    assert len(entry["embedding"]) == DIMS
    assert math.sqrt(sum(x * x for x in entry["embedding"])) == pytest.approx(1, abs=1e-5)
    assert output["usage"]["prompt_tokens"] == output["usage"]["total_tokens"] > 0


def check_models(output: dict[str, Any]) -> None:
    assert len(output["data"]) == 2
    for entry, name in zip(output["data"], (EMBEDDER, RERANKER), strict=True):
        assert entry["id"] == name.rpartition("/")[2]
        assert entry["stats"] == {}


def check_ranking(output: dict[str, Any], docs: list[str]) -> None:
    scores = [one["relevance_score"] for one in output["results"]]
    assert scores == sorted(scores, reverse=True)
    assert output["docs"] == [docs[one["index"]] for one in output["results"]]
    assert sorted(output["docs"]) == sorted(docs)


def test_the_page_has_six_curls() -> None:
    assert [re.search(r"\S+$", curl)[0].rpartition(">")[2] for curl in CURLS] == [
        "/openai/v1/models",
        "/openai/v1/embeddings",
        "/openai/v1/embeddings",
        "/runsync",
        "/runsync",
        "/runsync",
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_curl_of_the_page(server: live.Server, number: int) -> None:
    reply = run(CURLS[number], server)
    if number > 2:
        assert reply.keys() == {"delayTime", "executionTime", "id", "output", "status"}
        assert reply["status"] == "COMPLETED"
        reply = reply["output"]
    if number == 0:
        check_models(reply)
    elif number < 5:
        check_vectors(reply, EMBEDDER)
    else:
        check_ranking(reply, BODIES[-1]["input"]["docs"])
        assert reply["model"] == RERANKER


def test_the_models_by_a_job(server: live.Server) -> None:
    body = json.loads(re.search(r"`(\{ \"input\": \{ \"openai_route\".*?\})` ", WORKER)[1])
    told = wire.request(server.url, f"/v2/{ENDPOINT}/runsync", body).json
    check_models(told["output"])


def test_the_rerank_in_http(server: live.Server) -> None:
    """The page's model is one of another worker: it is told that this one has none."""
    text = re.search(r"^POST /runsync\n.*?\n\n(\{.*?^\})", WORKER, re.MULTILINE | re.DOTALL)[1]
    body = json.loads(text)
    told = wire.request(server.url, "/runsync", body).json
    assert told["output"]["code"] == 404
    body["input"]["model"] = RERANKER
    check_ranking(wire.request(server.url, "/runsync", body).json["output"], body["input"]["docs"])
    body["input"]["return_docs"] = False
    output = wire.request(server.url, "/runsync", body).json["output"]
    by_index = {one["index"]: one["relevance_score"] for one in output["results"]}
    assert output["scores"] == [by_index[at] for at in range(3)]
    assert "docs" not in output


def test_the_search_queries_fields(server: live.Server) -> None:
    """The page's pair of instruction and prompt_type, in every place where it may stand."""
    pair = json.loads(re.search(r"### For Search Queries\n```json\n(.*?)```", WORKER, re.DOTALL)[1])
    assert pair.keys() == {"instruction", "prompt_type"}
    job = {"model": EMBEDDER, "input": "What is machine learning?"}
    replies = [
        wire.request(server.url, "/runsync", {"input": {**job, **pair}}).json["output"],
        wire.request(server.url, "/runsync", {"input": {**job, "extra_body": pair}}).json["output"],
        wire.request(server.url, "/openai/v1/embeddings", {**job, **pair}).json,
        wire.request(server.url, "/openai/v1/embeddings", {**job, "extra_body": pair}).json,
    ]
    for reply in replies:
        check_vectors(reply, EMBEDDER)
        assert reply["data"] == replies[0]["data"]


@pytest.mark.parametrize("model", [EMBEDDER, EMBEDDER[1:], EMBEDDER[8:], f"Qwen{EMBEDDER[7:]}"])
def test_all_names_of_a_model(server: live.Server, model: str) -> None:
    body = {"input": {"model": model, "input": "Hello world"}}
    check_vectors(wire.request(server.url, "/runsync", body).json["output"], model)


def test_the_same_payload_by_run_and_by_openai(server: live.Server) -> None:
    job = BODIES[0]
    queued = wire.request(server.url, f"/v2/{ENDPOINT}/run", {"input": job}).json
    told = wire.request(server.url, f"/v2/{ENDPOINT}/status-sync/{queued['id']}").json
    routed = {"openai_route": "/v1/embeddings", "openai_input": job}
    [other] = wire.request(server.url, "/runsync", {"input": routed}).json["output"]
    plain = wire.request(server.url, "/openai/v1/embeddings", job).json
    for output in (told["output"], other, plain):
        check_vectors(output, EMBEDDER)
        assert output["data"][0]["embedding"] == plain["data"][0]["embedding"]


def test_where_a_key_is_set(names: str, tmp_path: Any) -> None:
    """The page's OpenAI calls bring one, its /runsync calls none."""
    with served(names, str(tmp_path), "--api-key", KEY) as guarded:
        check_models(run(CURLS[0], guarded))
        check_vectors(run(CURLS[1], guarded), EMBEDDER)
        assert wire.request(guarded.url, "/runsync", {"input": BODIES[0]}).status == 401
        assert wire.request(guarded.url, "/ping").status == 200


def test_every_variable_of_the_page_is_known() -> None:
    from omnivec.core.profiles import PROFILES

    profile = PROFILES["runpod"]
    page = WORKER[WORKER.index("## Endpoint Configuration") : WORKER.index("## API Spec")]
    variables = re.findall(r"^\| `([A-Z_]+)`", page, re.MULTILINE)
    assert len(variables) == 6
    assert set(variables) <= {*profile.variables, *profile.unused}
