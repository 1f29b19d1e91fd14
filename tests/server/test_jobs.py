"""RunPod's job API over HTTP, with the dialects as they are and an engine of a few lines."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving import CARD, Running, TinyEngine

from omnivec.core.errors import ModelFailed
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings
from omnivec.jobs.opening import open_store
from omnivec.jobs.runner import Runner
from omnivec.jobs.webhook import Webhooks
from omnivec.server.asgi import application
from omnivec.server.door import Door
from omnivec.server.jobs import MOST_RUN, MOST_SYNC, add_jobs, inner
from omnivec.server.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

EMBED = {"input": {"model": CARD.name, "input": "Hello world"}}
SLOW = {"input": {"input": "slow"}}


class Engine(TinyEngine):
    async def run(self, task: Any) -> Any:
        if getattr(task, "model", None) == "broken":
            raise ModelFailed("The model failed on this input.")
        return await super().run(task)


@contextlib.contextmanager
def server(place: str | None = None, **told: Any) -> Iterator[tuple[httpx.Client, TinyEngine]]:
    settings = Settings(host="127.0.0.1", port=0, profile="runpod", dialect="runpod", **told)
    metrics, engine = Metrics(), Engine()
    door = Door(discover("dialects"), engine, settings=settings, metrics=metrics)
    made = add_jobs(
        door, lambda answer: Runner(open_store(place), answer, Webhooks().post, settings.max_jobs)
    )

    async def start() -> None:
        made.start()

    app = application(door, settings, metrics, startup=start, shutdown=made.close)
    running = Running(app, settings, engine)
    running.thread.start()
    try:
        assert running.opened.wait(60)
        with running.client() as client:
            yield client, engine
    finally:
        running.server.should_exit = True
        running.thread.join(30)
        assert not running.thread.is_alive()


@pytest.fixture(name="client", scope="module")
def client_of_one_server() -> Iterator[httpx.Client]:
    with server() as (client, _):
        yield client


def ended(client: httpx.Client, id_: str) -> dict[str, Any]:
    told: dict[str, Any] = client.get(f"/status-sync/{id_}").json()
    return told


@pytest.mark.parametrize("root", ["", "/v2/abcdef123", "/v2/any-name"])
def test_a_job_is_run_and_told(client: httpx.Client, root: str) -> None:
    queued = client.post(f"{root}/run", json=EMBED).json()
    assert queued.keys() == {"id", "status"}
    assert queued["status"] == "IN_QUEUE"
    told = client.get(f"{root}/status-sync/{queued['id']}").json()
    assert told.keys() == {"delayTime", "executionTime", "id", "output", "status"}
    assert told["status"] == "COMPLETED"
    assert told["output"]["data"][0]["embedding"] == [11, 1, 0, 0]
    assert told["output"]["model"] == CARD.name
    for method in ("GET", "POST"):
        assert client.request(method, f"{root}/status/{queued['id']}").json() == told


@pytest.mark.parametrize("root", ["", "/v2/abcdef123"])
def test_a_job_is_answered_in_one_call(client: httpx.Client, root: str) -> None:
    told = client.post(f"{root}/runsync", json=EMBED).json()
    assert told["status"] == "COMPLETED"
    assert told["id"].startswith("sync-")
    assert told["output"]["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_an_input_that_the_sdk_does_not_wrap(client: httpx.Client) -> None:
    for body in ({"input": "Hello world"}, {"input": ["a", "b"], "model": CARD.name}):
        output = client.post("/runsync", json=body).json()["output"]
        assert output["object"] == "list"


def test_an_openai_route(client: httpx.Client) -> None:
    for path in ("/v1/embeddings", "/openai/v1/embeddings"):
        job = {"openai_route": path, "openai_input": {"input": "abc", "model": CARD.name}}
        [output] = client.post("/runsync", json={"input": job}).json()["output"]
        assert output["data"][0]["embedding"] == [3, 1, 0, 0]
    job = {"openai_route": "/v1/models", "openai_input": None}
    output = client.post("/runsync", json={"input": job}).json()["output"]
    assert [entry["id"] for entry in output["data"]] == [CARD.name]
    assert output["data"][0]["stats"] == {}
    job = {"openai_route": "/v1/rerank", "openai_input": {"query": "q", "documents": ["abc", "d"]}}
    output = client.post("/runsync", json={"input": job}).json()["output"]
    assert [entry["index"] for entry in output["results"]] == [1, 0]


@pytest.mark.parametrize(
    "job",
    [
        {"openai_route": "/v1/nothing", "openai_input": {}},
        {"openai_route": "/admin/models"},
        {"openai_route": 5},
        {"openai_route": "/v1/embeddings", "openai_input": {"input": []}},
        {"openai_route": "/v1/embeddings", "openai_input": None},
        {"openai_route": "/v1/embeddings"},
        {"openai_route": "/v1/embeddings", "openai_input": [{"input": "a"}]},
        {"input": ""},
        {"input": "a", "model": "nobody/knows"},
        {},
    ],
)
def test_what_is_asked_wrongly_is_an_output(client: httpx.Client, job: dict[str, Any]) -> None:
    told = client.post("/runsync", json={"input": job}).json()
    assert told["status"] == "COMPLETED"
    output = told["output"]
    assert output.keys() == {"object", "message", "type", "param", "code"}
    assert output["object"] == "error"


@pytest.mark.parametrize("given", [{}, {"openai_input": None}, {"openai_input": [{"input": "a"}]}])
def test_a_route_without_its_body_is_told_what_is_missing(
    client: httpx.Client, given: dict[str, Any]
) -> None:
    job = {"openai_route": "/v1/embeddings", **given}
    output = client.post("/runsync", json={"input": job}).json()["output"]
    assert (output["param"], output["code"]) == ("openai_input", 400)


def test_what_goes_wrong_here_is_a_failed_job(client: httpx.Client) -> None:
    for job in ({"input": "bug"}, {"input": "a", "model": "broken"}):
        told = client.post("/runsync", json={"input": job}).json()
        assert (told["status"], "output" in told) == ("FAILED", False)
        assert json.loads(told["error"])["type"] == "InternalServerError"
        assert "secret" not in told["error"]
        assert client.post(f"/retry/{told['id']}").json()["status"] == "IN_QUEUE"
        assert ended(client, told["id"])["status"] == "FAILED"


def test_a_stream_is_drained(client: httpx.Client) -> None:
    id_ = client.post("/runsync", json=EMBED).json()["id"]
    chunks = client.get(f"/v2/x/stream/{id_}").json()
    assert chunks["status"] == "COMPLETED"
    assert [chunk["output"]["object"] for chunk in chunks["stream"]] == ["list"]
    assert client.post(f"/v2/x/stream/{id_}").json()["stream"] == []


def test_cancel_purge_and_health() -> None:
    with server(max_jobs=1) as (client, engine):
        first = client.post("/run", json=SLOW).json()["id"]
        assert engine.began.wait(60)
        others = [client.post("/v2/x/run", json=EMBED).json()["id"] for _ in range(3)]
        health = client.get("/v2/x/health").json()
        assert health["jobs"] == {
            "completed": 0,
            "failed": 0,
            "inProgress": 1,
            "inQueue": 3,
            "retried": 0,
        }
        assert (health["workers"]["running"], health["workers"]["idle"]) == (1, 0)
        assert client.get(f"/stream/{first}").json()["stream"] == []
        began = client.get(f"/status/{first}").json()
        assert began.keys() == {"delayTime", "id", "status"}
        kind = {"content-type": "application/json"}
        gone = client.post(f"/v2/x/cancel/{others[0]}", headers=kind).json()
        assert gone == {"id": others[0], "status": "CANCELLED"}
        purged = client.post("/v2/x/purge-queue", headers=kind).json()
        assert purged == {"removed": 2, "status": "completed"}
        assert client.post(f"/cancel/{first}", json={}).json()["status"] == "CANCELLED"
        assert engine.cancelled.wait(60)
        assert client.post("/runsync", json=EMBED).json()["status"] == "COMPLETED"


def test_a_call_that_waits_is_answered_when_its_time_is_up() -> None:
    with server() as (client, _):
        began = time.monotonic()
        told = client.post("/runsync?wait=1", json=SLOW).json()
        assert told["status"] == "IN_PROGRESS"
        assert time.monotonic() - began >= 1  # the least that RunPod waits
        client.post(f"/cancel/{told['id']}")


def test_a_result_that_its_reader_wants_no_longer(client: httpx.Client) -> None:
    for root in ("", "/v2/x"):
        id_ = client.post(f"{root}/runsync", json=EMBED).json()["id"]
        assert client.get(f"{root}/status/{id_}?ttl=600000").json()["status"] == "COMPLETED"
        assert client.get(f"{root}/status/{id_}?ttl=x").json()["param"] == "ttl"
        assert client.get(f"{root}/status/{id_}?ttl=0").json()["status"] == "COMPLETED"
        assert client.get(f"{root}/status/{id_}").status_code == 404
    assert client.get("/status/nothing?ttl=5").status_code == 404


def test_credentials_beside_a_job_are_not_kept(tmp_path: Path) -> None:
    place = str(tmp_path / "jobs.sqlite")
    beside = {"s3Config": {"accessSecret": "of somebody"}, "policy": {"ttl": 10_000}}
    with server(place) as (client, _):
        for body in ({"input": {"input": "bug"}}, {"input": "bug", "prompt_type": "query"}):
            told = client.post("/runsync", json={**beside, **body}).json()
            assert told["status"] == "FAILED"  # such a one keeps its input, to be tried again
    with sqlite3.connect(place) as connection:
        kept = [json.loads(row[0]) for row in connection.execute("SELECT input FROM job")]
    connection.close()
    assert kept == [{"input": "bug"}, {"input": "bug", "prompt_type": "query"}]
    assert b"of somebody" not in Path(place).read_bytes()


def test_nesting_without_end_is_no_order(client: httpx.Client) -> None:
    deep = b"[" * 5000 + b"]" * 5000
    for field in (b"policy", b"webhook"):
        body = b'{"input":{"input":"a"},"%b":%b}' % (field, deep)
        assert client.post("/run", content=body).status_code == 400


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({**EMBED, "webhook": "file:///etc/passwd"}, "webhook"),
        ({**EMBED, "webhook": 5}, "webhook"),
        ({**EMBED, "policy": {"executionTimeout": 4999}}, "policy"),
        ({**EMBED, "policy": {"ttl": 9999}}, "policy"),
        ({**EMBED, "policy": {"ttl": 604_800_001}}, "policy"),
        ({**EMBED, "policy": []}, "policy"),
    ],
)
def test_an_order_that_makes_no_sense(client: httpx.Client, body: Any, param: str) -> None:
    for path in ("/run", "/runsync"):
        reply = client.post(path, json=body)
        assert reply.status_code == 400
        assert (reply.json()["object"], reply.json()["param"]) == ("error", param)
        assert "passwd" not in reply.text


def test_what_beside_the_input_may_stand(client: httpx.Client) -> None:
    policy = {"executionTimeout": 5000, "ttl": 10_000, "lowPriority": True, "new": 1}
    body = {**EMBED, "policy": policy, "webhook": None, "s3Config": {"accessId": "x"}}
    assert client.post("/runsync?wait=2000", json=body).json()["status"] == "COMPLETED"
    assert client.post("/runsync?wait=x", json=body).status_code == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"x", b'{"input":\xff}', b"[" * 99_999])
def test_a_body_that_is_no_object(client: httpx.Client, body: bytes) -> None:
    reply = client.post("/run", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert reply.json()["type"] == "BadRequestError"


@pytest.mark.parametrize(("path", "most"), [("/run", MOST_RUN), ("/runsync", MOST_SYNC)])
def test_a_body_has_a_limit(client: httpx.Client, path: str, most: int) -> None:
    around = len(json.dumps({"input": {"input": ""}}))
    fits = json.dumps({"input": {"input": "x" * (most - around)}})
    assert len(fits) == most
    assert client.post(path, content=fits).status_code == 200
    assert client.post(path, content=fits + " ").status_code == 413


@pytest.mark.parametrize("id_", ["nothing", "%00", "a" * 65, "ä", "a%2Fb"])
def test_a_job_that_is_not_here(client: httpx.Client, id_: str) -> None:
    for verb, page in (("GET", "status"), ("POST", "cancel"), ("POST", "retry"), ("GET", "stream")):
        reply = client.request(verb, f"/v2/x/{page}/{id_}")
        assert reply.status_code == 404
        assert "error" in reply.text


def test_a_key_is_asked_for_in_the_header_that_runpod_documents() -> None:
    with server(api_keys=("secret",)) as (client, _):
        assert client.post("/v2/x/runsync", json=EMBED).status_code == 401
        for header in ("Bearer secret", "secret"):
            told = client.post("/v2/x/runsync", json=EMBED, headers={"authorization": header})
            assert told.json()["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v2/x/run", "/run"),
        ("/v2/x/status/a-b", "/status/a-b"),
        ("/v2/x/health", "/v2/health"),
        ("/v2/x/openai/v1/embeddings", "/openai/v1/embeddings"),
        ("/v2/rerank", "/v2/rerank"),
        ("/v2/run/run", "/run"),
        ("/v2/models/a/infer", "/v2/models/a/infer"),
        ("/v2//run", "/v2//run"),
        ("/v1/run", "/v1/run"),
    ],
)
def test_every_endpoint_is_this_one(path: str, found: str) -> None:
    assert inner(path) == found


def test_the_openai_routes_below_an_endpoint(client: httpx.Client) -> None:
    body = {"input": "abc", "extra_body": {"prompt_type": "query"}}
    reply = client.post("/v2/x/openai/v1/embeddings", json=body).json()
    assert reply["data"][0]["embedding"] == [3, 1, 0, 0]
    assert client.get("/v2/x/openai/v1/models").json()["data"][0]["id"] == CARD.name
    model = client.get(f"/v2/x/openai/v1/models/{CARD.name}").json()
    assert model["id"] == CARD.name


def test_the_description_tells_of_every_route_and_its_lines_work() -> None:
    with server() as (client, _):
        paths = client.get("/openapi.json").json()["paths"]
        told = {path for path in paths if "runpod" in str(paths[path]) and path != "/job"}
        assert told == {
            *("/run", "/runsync", "/cancel/{id}", "/retry/{id}", "/purge-queue", "/v2/health"),
            *("/status/{id}", "/status-sync/{id}", "/stream/{id}"),
        }
        assert set(paths["/status/{id}"]) == {"get", "post"}
        body = paths["/runsync"]["post"]["requestBody"]["content"]["application/json"]
        (example,) = body["examples"].values()
        assert client.post("/runsync", json=example["value"]).json()["status"] == "COMPLETED"
        assert "-X POST" in paths["/purge-queue"]["post"]["description"]
