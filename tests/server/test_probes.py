from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from serving import CARD, TinyEngine, build, running

from omnivec.core.nouns import Call, Reply

RERANKER = msgspec.structs.replace(
    CARD, name="tiny/reranker", tasks=("score",), scoring="cross-encoder", device="cuda:0 (H200)"
)


def ask(path: str, *states: str, draining: bool = False, cards=(CARD,)) -> Reply:
    """`*` behind a state: the server is not ready before that model was tried; `!`: it failed
    before."""
    engine = TinyEngine()
    engine.cards = tuple(
        msgspec.structs.replace(
            c, state=s.rstrip("*!"), awaited=s.endswith("*"), attempts=s.count("!")
        )
        for c, s in zip(cards, states, strict=False)
    )
    app, _, _ = build(engine=engine)
    app.door.draining = draining
    return asyncio.run(app.door.answer(Call("GET", path, headers={"host": "localhost"})))


@pytest.mark.parametrize("path", ["/live", "/live/", "/livez", "/healthz", "/healthz/"])
def test_alive_whatever_the_models_do(path):
    for state in ("loading", "loaded", "failed"):
        assert ask(path, state).status == 200
    assert ask(path, "loaded", draining=True).status == 200


@pytest.mark.parametrize("path", ["/ready", "/ready/", "/readyz", "/readyz/", "/health"])
@pytest.mark.parametrize(
    ("states", "status", "retry"),
    [
        (["loaded"], 200, False),
        (["loading*"], 503, True),
        (["available*"], 503, True),
        (["available"], 200, False),
        (["failed"], 503, False),
        (["loading!"], 503, True),
        (["failed!", "loading!"], 503, True),
        (["loaded", "loading!"], 200, False),
        (["loading"], 200, False),
        (["loaded", "loading*"], 503, True),
        (["loaded", "loading"], 200, False),
        (["loaded", "unloading"], 200, False),
        (["failed", "loaded"], 200, False),
        (["failed", "loading*"], 503, True),
        (["failed", "available"], 200, False),
    ],
)
def test_ready_when_one_can_be_had_and_none_is_awaited(path, states, status, retry):
    reply = ask(path, *states, cards=(CARD, RERANKER))
    assert reply.status == status
    assert ("retry-after" in reply.headers) is retry


def test_sies_probes_are_one_word():
    words = {
        (path, state): ask(path, state).body.decode()
        for path in ("/healthz", "/readyz")
        for state in ("loaded", "loading*")
    }
    assert words == {
        ("/healthz", "loaded"): "ok",
        ("/healthz", "loading*"): "ok",
        ("/readyz", "loaded"): "ok",
        ("/readyz", "loading*"): "not ready",
    }
    assert ask("/readyz", "loaded").headers["content-type"].startswith("text/plain")


def test_not_ready_when_the_server_is_stopping():
    reply = ask("/ready", "loaded", draining=True)
    assert (reply.status, json.loads(reply.body)) == (503, {"status": "stopping"})


def test_health_has_what_synesis_names():
    facts = json.loads(ask("/health", "loaded", "loaded", cards=(CARD, RERANKER)).body)
    assert facts["embedding_model"] == {"path": "tiny/model", "loaded": True, "device": "cpu"}
    assert facts["reranker_model"]["path"] == "tiny/reranker"
    assert facts["reranker_model"]["loaded"] is True
    assert facts["gpu"]["available"] is False
    assert facts["gpu"]["memory_allocated_bytes"] == 0
    assert [model["name"] for model in facts["models"]] == ["tiny/model", "tiny/reranker"]
    assert facts["models"][0]["state"] == "loaded"
    on_gpu = json.loads(ask("/health", "loaded", cards=(RERANKER,)).body)
    assert on_gpu["gpu"]["available"] is True
    assert on_gpu["gpu"]["device_name"] == "cuda:0 (H200)"
    assert on_gpu["embedding_model"] == {"path": None, "loaded": False, "device": None}


@pytest.mark.parametrize(
    ("keys", "told"), [((), "failed; see the server's log"), (("k",), "/srv/model has no weights")]
)
def test_why_a_model_failed_is_told_to_those_with_a_key(keys, told):
    engine = TinyEngine()
    engine.cards = (
        msgspec.structs.replace(CARD, state="failed", reason="/srv/model has no weights"),
    )
    app, _, _ = build(engine=engine, api_keys=keys)
    headers = {"host": "localhost", "x-api-key": "k"}
    facts = json.loads(asyncio.run(app.door.answer(Call("GET", "/health", headers=headers))).body)
    assert facts["models"][0]["reason"] == told
    assert facts["api_key_needed"] is bool(keys)


def test_the_probes_are_open_and_the_rest_is_not():
    """Every path there is, with and without the key: fails when one is added that is open."""
    with running(api_keys=("k",)) as server, server.client() as client:
        document = client.get("/openapi.json", headers={"x-api-key": "k"}).json()
        paths = {path.replace("{id}", "x") for path in document["paths"]}
        paths |= {
            template for template, _ in server.app.door.metrics.traffic if "{" not in template
        }
        is_open = {path for path in paths if client.get(path).status_code != 401}
        assert is_open == {"/live", "/livez", "/healthz", "/ping", "/ready", "/readyz"}
        assert len(paths) > 15


@pytest.mark.parametrize(
    ("states", "status"),
    [(["loaded"], 200), (["loading*"], 204), (["available"], 200), (["failed"], 503)],
)
def test_a_ping_is_204_while_a_model_is_loading(states, status):
    reply = ask("/ping", *states)
    assert reply.status == status
    assert bool(reply.body) == (status != 204)
    assert ask("/ping", "loaded", draining=True).status == 503
