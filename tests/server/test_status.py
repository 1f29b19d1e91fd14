"""What a frame says: every field of the seed's schema and of SIE's own code, with real values."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path

import msgspec
import pytest
from listening import listen
from serving import CARD, TinyEngine, post, running

from omnivec.core.machine import Accelerator

KEYS = {
    *("timestamp", "ready", "name", "machine_profile", "pool_name", "gpu", "gpu_count", "gpus"),
    *("bundle", "bundle_config_hash", "loaded_models", "max_batch_requests", "server", "models"),
    *("counters", "histograms"),
}
MODEL = {
    *("name", "state", "device", "memory_bytes", "queue_depth", "queue_pending_items", "config"),
}
CONFIG = {"hf_id", "adapter", "inputs", "outputs", "dims", "max_sequence_length"}
GPU = {
    *("index", "device", "name", "gpu_type", "utilization_pct", "utilization_percent"),
    *("memory_used_bytes", "memory_total_bytes", "memory_threshold_pct", "temperature_c"),
}


def frame(server, **options):
    with listen(server, **options) as client:
        return json.loads(client.recv(30))


def test_every_field_is_there():
    with running() as server:
        told = frame(server)
    assert set(told) == KEYS
    assert set(told["server"]) == {"version", "uptime_seconds", "user", "working_dir", "pid"}
    assert told["server"]["pid"] == os.getpid()
    assert told["server"]["version"] == "1.2.3"
    assert told["ready"] is True
    assert told["loaded_models"] == [CARD.name]
    assert (told["gpu"], told["gpu_count"], told["gpus"]) == ("cpu", 0, [])
    (model,) = told["models"]
    assert set(model) == MODEL
    assert set(model["config"]) == CONFIG


def test_models_are_told_as_they_are():
    engine = TinyEngine()
    kinds = ("dense", "sparse", "multivector")
    full = msgspec.structs.replace(
        CARD, family="encoder", kinds=kinds, sparse_dims=None, token_dims=8, max_tokens=512
    )
    engine.cards = (
        full,
        msgspec.structs.replace(CARD, name="later", state="loading", awaited=True),
    )
    with running(engine=engine) as server:
        server.app.door.metrics.stats = lambda: {CARD.name: {"queued": 7.0, "running": 2.0}}
        told = frame(server)
    one, other = told["models"]
    assert one["config"] == {
        "hf_id": CARD.name,
        "adapter": "encoder",
        "inputs": ["text"],
        "outputs": ["dense", "sparse", "multivector", "score"],
        "dims": {"dense": 4, "multivector": 8},
        "max_sequence_length": 512,
    }
    assert (one["queue_depth"], one["queue_pending_items"]) == (7, 7)
    assert (other["state"], other["device"]) == ("loading", None)
    assert told["loaded_models"] == [CARD.name]
    assert told["ready"] is False


def test_numbers_are_those_of_the_metrics():
    with running() as server, server.client() as client:
        for text in ("one", "two"):
            body = json.dumps({"input": [text, text]}).encode()
            assert server.exchange(post(body, "/v1/embeddings", "Connection: close"))
        assert client.post("/v1/embeddings", json={"input": "bug"}).status_code == 500
        server.app.door.metrics.batch(CARD.name, 3, 12, 0.01)
        told = frame(server)
        text = client.get("/metrics").text
    counters, histograms = told["counters"], told["histograms"]
    assert counters["sie_requests"] == {CARD.name: 2}
    assert counters["sie_tokens_processed"] == {CARD.name: 12}
    assert f'sie_tokens_processed_total{{model="{CARD.name}"}} 12.0' in text
    times = histograms["sie_request_duration_seconds"][CARD.name]
    assert times["buckets"] == sorted(times["buckets"])
    assert len(times["buckets"]) == len(times["counts"])
    assert times["counts"][-1] == 2  # the two requests, and not each of their phases
    assert "Infinity" not in json.dumps(times)
    sizes = histograms["sie_batch_size"][CARD.name]
    assert dict(zip(sizes["buckets"], sizes["counts"], strict=True))[4.0] == 1


def test_gpus_have_the_names_of_both_and_their_models_come_first():
    engine = TinyEngine()
    distant = msgspec.structs.replace(CARD, name="distant", device="cuda")
    engine.cards = (CARD, distant)
    with running(engine=engine) as server:
        metrics = server.app.door.metrics
        metrics.memory = lambda: 1000
        found = Accelerator("cuda:0", "NVIDIA H100 80GB HBM3", 5, 80, 12.5, None)
        metrics.accelerators = lambda: [found]
        told = frame(server)
    (gpu,) = told["gpus"]
    assert set(gpu) == GPU
    assert gpu["utilization_pct"] == gpu["utilization_percent"] == 12.5
    assert (gpu["memory_used_bytes"], gpu["memory_total_bytes"]) == (5, 80)
    assert gpu["temperature_c"] is None
    assert told["gpu"] == told["machine_profile"] == gpu["gpu_type"] == "h100"
    assert [model["name"] for model in told["models"]] == ["distant", CARD.name]
    assert [model["memory_bytes"] for model in told["models"]] == [1000, 0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA L4", "l4"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA H100 NVL", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("", ""),
    ],
)
def test_a_gpu_has_the_name_by_which_clients_choose_it(name, kind):
    with running() as server:
        server.app.door.metrics.memory = lambda: 0
        server.app.door.metrics.accelerators = lambda: [Accelerator("cuda:0", name, 0, 0, 0, None)]
        server.engine.cards = (msgspec.structs.replace(CARD, device="cuda"),)
        assert frame(server)["gpu"] == kind


def test_a_model_on_the_cpu_takes_memory_while_it_is_loaded():
    engine = TinyEngine()
    loaded = msgspec.structs.replace(CARD, memory=48)
    gone = msgspec.structs.replace(CARD, name="gone", memory=99, state="available")
    engine.cards = (gone, loaded)
    with running(engine=engine) as server, server.client() as client:
        told = frame(server)["models"]
        text = client.get("/metrics").text
    assert [(one["name"], one["memory_bytes"]) for one in told] == [(CARD.name, 48), ("gone", 0)]
    assert f'sie_model_memory_bytes{{device="cpu",model="{CARD.name}"}} 48.0' in text
    assert 'sie_model_memory_bytes{device="cpu",model="gone"} 0.0' in text


def test_a_classifiers_output_has_the_name_that_the_list_of_models_gives_it():
    engine = TinyEngine()
    engine.cards = (msgspec.structs.replace(CARD, kinds=(), tasks=("extract",)),)
    with running(engine=engine) as server:
        assert frame(server)["models"][0]["config"]["outputs"] == ["json"]


@pytest.mark.parametrize("keys", [(), ("key",)])
def test_strangers_are_not_told_who_runs_the_server_and_where(keys):
    with running(api_keys=keys) as server:
        headers = {"Authorization": "Bearer key"}
        told = frame(server, additional_headers=headers)["server"]
    if keys:
        assert told["user"] == getpass.getuser()
        assert told["working_dir"] == str(Path.cwd())
    else:
        assert (told["user"], told["working_dir"]) == ("", "")
