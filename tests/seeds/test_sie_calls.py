"""Seed 004, the HTTP reference of SIE: its curl lines, its tables of fields, codes, headers and
series, against a running server. Nothing is replaced in a call but the host; the models are of
random weights under the names that it asks for."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import checkpoints
import live
import multivectors
import wire
from msgpacked import unpack_array
from seeds import seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SEED = seed("004")
HOST = "http://localhost:8080"
CURL = re.compile(
    r"curl (?:-X POST |-H \"[^\"]*\" )?" + HOST + r"[\w./-]+?"
    r"(?=Response|# | \\|$)(?: \\ -H \"[^\"]*\")*(?: \\ -d '[^']*')?",
    re.MULTILINE,
)
CURLS = CURL.findall(SEED)
DENSE, TYPES, SCORE, EXTRACT, MODELS, EMBEDDINGS, HEALTHZ, READYZ = CURLS
WIDTH = 32  # of the vectors of the tiny models
M3, RERANKER, GLINER = "BAAI/bge-m3", "BAAI/bge-reranker-v2-m3", "urchade/gliner_multi-v2.1"
NLI = "tiny/nli"  # a classifier; models that find entities are not read yet


@pytest.fixture(scope="module", name="server")
def sie_server(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Server]:
    made = tmp_path_factory.mktemp("sie")
    multivectors.build_bge_m3(tiny, made / "m3", bias=1)
    checkpoints.build_encoder("xlm_roberta", made / "reranker", num_labels=1)
    checkpoints.build_encoder(
        "bert", made / "nli", num_labels=3, labels=("contradiction", "neutral", "entailment")
    )
    folders = {M3: "m3", RERANKER: "reranker", NLI: "nli"}
    with live.serve(*(f"{name}={made / folder}" for name, folder in folders.items())) as running:
        yield running


@pytest.fixture(scope="module", name="faulty")
def faulty_server() -> Iterator[live.Server]:
    with live.serve("fake:faults=on,slow=0.3,batch_cost=1", "--queue", "1") as running:
        yield running


def curl(line: str, server: live.Server, *more: str) -> str:
    """What it prints. The page lost the line ends after its backslashes."""
    command = line.replace(HOST, server.url).replace(" \\ -", " \\\n  -")
    done = subprocess.run(
        ["bash", "-c", f"{command} --silent --show-error {' '.join(more)}"],
        env=live.environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def body_of(line: str) -> Any:
    return json.loads(re.search(r"-d '(.*)'$", line, re.DOTALL)[1])  # type: ignore[index]


def table(heading: str) -> list[list[str]]:
    """The rows of the one whose first line this is."""
    lines = SEED[SEED.index(heading) :].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.endswith("|"), lines)
    return [row.strip("| ").split(" | ") for row in rows]


def test_the_page_has_eight_calls() -> None:
    assert len(CURLS) == 8
    assert [len(body_of(line)) for line in CURLS if "-d '" in line] == [1, 2, 2, 2, 2]


def test_encode(server: live.Server) -> None:
    reply = json.loads(curl(DENSE, server))
    assert reply.keys() >= {"model", "items", "timing"}
    assert reply["model"] == M3
    (item,) = reply["items"]
    assert item.keys() == {"dense"}
    dense = item["dense"]
    assert dense.keys() == {"dims", "dtype", "values"}
    assert (dense["dims"], dense["dtype"]) == (WIDTH, "float32")
    assert length(dense["values"]) == pytest.approx(1, abs=1e-5)


def test_encode_several_types(server: live.Server) -> None:
    (item,) = json.loads(curl(TYPES, server))["items"]
    assert item.keys() == {"dense", "sparse"}
    sparse = item["sparse"]
    assert sparse.keys() == {"dims", "dtype", "indices", "values"}
    assert len(sparse["indices"]) == len(sparse["values"]) > 0
    assert max(sparse["indices"]) < sparse["dims"]
    assert length(item["dense"]["values"]) == pytest.approx(1, abs=1e-5)


def test_score(server: live.Server) -> None:
    reply = json.loads(curl(SCORE, server))
    assert reply["model"] == RERANKER
    assert [entry["rank"] for entry in reply["scores"]] == [0, 1]
    assert {entry["item_id"] for entry in reply["scores"]} == {"doc-1", "doc-2"}
    first, second = (entry["score"] for entry in reply["scores"])
    assert 0 < second <= first < 1


def test_the_instruction_stands_before_the_text(server: live.Server) -> None:
    said = "Represent this query for retrieval:"
    assert said in TYPES
    asked = wire.request(
        server.url,
        f"/v1/encode/{M3}",
        {"items": [{"text": f"{said} Search query"}], "params": {"output_types": ["dense"]}},
        headers={"accept": "application/json"},
    )
    told = json.loads(curl(TYPES, server))["items"][0]["dense"]
    assert told == asked.json["items"][0]["dense"]


def test_extract_is_refused_while_no_model_here_finds_entities(server: live.Server) -> None:
    reply = json.loads(curl(EXTRACT, server))
    assert reply["detail"]["code"] == "MODEL_NOT_FOUND"
    other = json.loads(curl(EXTRACT.replace(GLINER, M3), server))
    assert other["detail"]["code"] == "INVALID_INPUT"


def test_extract_with_a_classifier_in_its_place(server: live.Server) -> None:
    reply = json.loads(curl(EXTRACT.replace(GLINER, NLI), server))
    assert reply["model"] == NLI
    (item,) = reply["items"]
    assert item["id"] == "item-0"
    lists = ("entities", "relations", "classifications", "objects")
    assert item.keys() >= {*lists, "data"}
    assert [item[name] for name in lists if name != "classifications"] == [[], [], []]
    found = {one["label"]: one["score"] for one in item["classifications"]}
    assert found.keys() == set(body_of(EXTRACT)["params"]["labels"])
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_models(server: live.Server) -> None:
    models = {one["name"]: one for one in json.loads(curl(MODELS, server))["models"]}
    named = {"name", "inputs", "outputs", "dims", "loaded", "max_sequence_length", "profiles"}
    for one in models.values():
        assert one.keys() >= named
        for profile in one["profiles"].values():
            assert profile.keys() >= {"is_default", "output_types", "output_similarity"}
    assert set(models[M3]["outputs"]) >= {"dense", "sparse", "multivector"}
    assert models[M3]["dims"].keys() == {"dense", "sparse", "multivector"}
    assert models[M3]["loaded"] is True
    assert (models[RERANKER]["outputs"], models[RERANKER]["dims"]) == (["score"], {})
    for path in (M3, M3.replace("/", "%2F")):
        assert wire.request(server.url, f"/v1/models/{path}").json == models[M3]


def test_embeddings(server: live.Server) -> None:
    reply = json.loads(curl(EMBEDDINGS, server))
    assert reply.keys() >= {"object", "model", "data", "usage"}
    assert (reply["object"], reply["model"]) == ("list", M3)
    (entry,) = reply["data"]
    assert (entry["object"], entry["index"]) == ("embedding", 0)
    (same,) = json.loads(curl(DENSE, server))["items"]
    assert entry["embedding"] == pytest.approx(same["dense"]["values"], abs=1e-5)
    assert reply["usage"]["prompt_tokens"] == reply["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("line", [HEALTHZ, READYZ])
def test_the_probes_say_ok(server: live.Server, line: str) -> None:
    assert f'{line}# "ok"' in SEED
    assert curl(line, server) == "ok"


def test_msgpack_is_the_default_and_smaller(server: live.Server) -> None:
    asked = {"content-type": "application/json", "accept": "*/*"}
    packed = wire.request(server.url, f"/v1/encode/{M3}", body_of(DENSE), headers=asked)
    assert packed.headers["content-type"] == "application/msgpack"
    (item,) = msgspec.msgpack.decode(packed.body)["items"]
    (plain,) = json.loads(curl(DENSE, server))["items"]
    values = unpack_array(item["dense"]["values"])
    assert values.tolist() == pytest.approx(plain["dense"]["values"], abs=1e-5)
    assert len(packed.body) < len(curl(DENSE, server))


@pytest.mark.parametrize("name", [M3.replace("/", "%2F"), f"{M3}:default", f"{M3}%3Adefault"])
def test_other_spellings_of_a_model(server: live.Server, name: str) -> None:
    accepted = {"accept": "application/json"}
    reply = wire.request(server.url, f"/v1/encode/{name}", body_of(DENSE), headers=accepted)
    assert reply.json["items"] == json.loads(curl(DENSE, server))["items"]


# ── headers, series, codes ───────────────────────────────────────────────────────────────


def test_the_headers_of_an_answer(server: live.Server) -> None:
    reply = wire.request(server.url, f"/v1/encode/{M3}", body_of(DENSE))
    named = [row[0] for row in table("Header | Description")]
    always = {name.lower() for name in named} - {"x-postprocessing-time", "x-trace-id"}
    assert len(always) == 4
    for name in always:
        assert re.fullmatch(r"\d+\.\d\d", reply.headers[name]), name


def samples(server: live.Server) -> dict[tuple[str, str], dict[str, float]]:
    """By name and model: the values, by their other labels."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    text = wire.request(server.url, "/metrics").body.decode()
    for name, labels, value in re.findall(r"^(sie_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        (model,) = re.findall(r'model="([^"]*)"', labels)
        found.setdefault((name, model), {})[labels] = float(value)
    return found


def test_all_seven_series_are_there_and_move(server: live.Server) -> None:
    rows = table("Metric | Type")
    assert len(rows) == 7
    before = samples(server)
    curl(DENSE, server)
    after = samples(server)
    for name, kind, labels, _ in rows:
        key = (f"{name}_count" if kind == "Histogram" else name, M3)
        assert key in after, name
        for label in labels.split(", "):
            assert all(f'{label}="' in one for one in after[key]), (name, label)
        if kind != "Gauge":
            assert sum(after[key].values()) > sum(before.get(key, {}).values()), name
    assert set(after["sie_model_loaded", M3].values()) == {1.0}


def refusal(server: live.Server, model: str, body: Any) -> tuple[int, str, dict[str, str]]:
    reply = wire.request(server.url, f"/v1/encode/{model}", body)
    assert reply.json.keys() >= {"detail"}
    assert reply.json["detail"].keys() >= {"code", "message"}
    return reply.status, reply.json["detail"]["code"], reply.headers


def test_the_codes_of_refusals(server: live.Server, faulty: live.Server) -> None:
    """Those that a request can bring about; each with the status that the table gives it."""
    statuses = {code: int(status) for code, status, _ in table("Code | HTTP Status")}
    asked = [
        (server, "unknown-model", {"items": [{"text": "a"}]}, "MODEL_NOT_FOUND"),
        (server, M3, {"items": "a"}, "INVALID_INPUT"),
        (server, M3, {"items": []}, "INVALID_INPUT"),
        (faulty, "fake", {"items": [{"text": "[[raise]]"}]}, "INFERENCE_ERROR"),
    ]
    for where, model, body, expected in asked:
        status, code, _ = refusal(where, model, body)
        assert (status, code) == (statuses[expected], expected)


def test_a_model_that_loads_says_when_to_come_back() -> None:
    """The page has MODEL_NOT_LOADED for it; MODEL_LOADING is what its clients ask again after."""
    with live.launch("fake:load=3", "--lazy", "--load-wait", "0.1") as cold:
        until = time.monotonic() + 60
        while not live.answers(cold.url):
            assert time.monotonic() < until, cold.printed()
            time.sleep(0.05)
        status, code, headers = refusal(cold, "fake", {"items": [{"text": "a"}]})
    (documented,) = (row for row in table("Code | HTTP Status") if row[0] == "MODEL_NOT_LOADED")
    assert (status, code) == (int(documented[1]), "MODEL_LOADING")
    assert int(headers["retry-after"]) >= 1


def test_a_full_queue_says_when_to_come_back(faulty: live.Server) -> None:
    body = {"items": [{"text": "a"}]}

    def ask(number: int) -> wire.Answer:
        text = {"items": [{"text": f"text {number}"}]}
        return wire.request(faulty.url, "/v1/encode/fake", text)

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, range(8)))
    turned_away = [reply for reply in replies if reply.status != 200]
    assert 0 < len(turned_away) < 8
    for reply in turned_away:
        assert (reply.status, reply.json["detail"]["code"]) == (503, "QUEUE_FULL")
        assert int(reply.headers["retry-after"]) >= 1
    assert wire.request(faulty.url, "/v1/encode/fake", body).status == 200


def length(vector: list[float]) -> float:
    return math.sqrt(sum(number * number for number in vector))
