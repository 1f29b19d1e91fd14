"""Loading and unloading over HTTP, with a key of its own."""

from __future__ import annotations

import json

import httpx
import pytest

import live

MODELS = ("a=fake:dims=4,memory=100", "b=fake:dims=5,memory=100")
ADMIN = {"authorization": "Bearer the-admin"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    broken = tmp_path_factory.mktemp("broken")
    arguments = (*MODELS, f"c={broken}", "--lazy", "--admin-key", "the-admin", "--api-key", "k")
    with live.serve(*arguments) as server:
        yield server.url


def embed(url: str, model: str) -> httpx.Response:
    body = {"model": model, "input": "a"}
    return httpx.post(f"{url}/v1/embeddings", json=body, headers={"x-api-key": "k"})


def test_models_come_and_go(url):
    path = f"{url}/admin/models"
    shown = httpx.get(path, headers=ADMIN).json()["models"]
    assert {one["name"]: one["state"] for one in shown}.keys() == {"a", "b", "c"}
    assert httpx.post(f"{path}/a/load", headers=ADMIN).json()["state"] == "loaded"
    gone = httpx.post(f"{path}/a/unload", headers=ADMIN)
    assert (gone.status_code, gone.json()["state"]) == (200, "available")
    assert embed(url, "a").status_code == 200


def test_why_it_failed_is_said_and_a_retry_counts(url):
    first = httpx.post(f"{url}/admin/models/c/load", headers=ADMIN)
    again = httpx.post(f"{url}/admin/models/c/retry", headers=ADMIN)
    assert (first.status_code, again.status_code) == (502, 502)
    assert "config.json" in again.json()["reason"]
    assert again.json()["attempts"] == first.json()["attempts"] + 1


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "k"}, {"authorization": "Bearer x"}])
def test_a_clients_key_is_not_enough(url, headers):
    assert httpx.post(f"{url}/admin/models/a/unload", headers=headers).status_code == 401
    assert httpx.get(f"{url}/admin/models", headers=headers).status_code == 401


def test_the_admins_key_is_for_admin_alone(url):
    assert httpx.get(f"{url}/v1/models", headers=ADMIN).status_code == 401


def test_unknown_models_and_methods(url):
    assert httpx.post(f"{url}/admin/models/x/load", headers=ADMIN).status_code == 404
    client = {"x-api-key": "k"}
    assert httpx.get(f"{url}/admin/models/a/load", headers=client).status_code == 405


def test_without_an_admin_key_nobody_may():
    with live.serve("fake") as server:
        reply = httpx.post(f"{server.url}/admin/models/fake/unload")
        assert reply.status_code == 403
        assert "OMNIVEC_ADMIN_KEY" in json.dumps(reply.json())
