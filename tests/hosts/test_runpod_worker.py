"""The worker without the SDK, which has an environment of its own (tests/clients/runpod), and
the files that RunPod's hub reads."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from omnivec.core.profiles import PROFILES
from omnivec.core.settings import Settings, SettingsError
from omnivec.hosts.runpod import Quiet, Worker, quiet, work

ROOT = Path(__file__).parents[2]
FILES = ROOT / ".runpod"


def run(worker: Worker, *jobs: Any) -> list[Any]:
    async def all_of() -> list[Any]:
        return await asyncio.gather(*(worker.handle({"id": "a", "input": job}) for job in jobs))

    return asyncio.run(all_of())


def started(*models: str, **told: Any) -> Worker:
    worker = Worker(Settings(models=models or ("fake:dims=8", "fake-reranker"), **told))
    worker.start()
    return worker


@pytest.fixture(name="worker", scope="module")
def one_worker() -> Worker:
    return started()


def test_jobs_of_every_kind_at_once(worker: Worker) -> None:
    one, two, routed, models, ranked, wrong = run(
        worker,
        {"input": "Hello world"},
        ["a", "b"],  # not wrapped
        {"openai_route": "/v1/embeddings", "openai_input": {"input": "Hello world"}},
        {"openai_route": "/v1/models"},
        {"query": "q", "docs": ["a", "b"]},
        None,
    )
    assert len(one["data"][0]["embedding"]) == 8
    assert len(two["data"]) == 2
    assert routed[0]["data"][0]["embedding"] == one["data"][0]["embedding"]
    assert [entry["id"] for entry in models["data"]] == ["fake", "fake-reranker"]
    assert len(ranked["scores"]) == 2
    assert wrong["object"] == "error"


@pytest.mark.parametrize("text", ['"half \\ud83d"', str(2**64), "[" * 400 + "]" * 400])
def test_what_only_the_sdk_reads_as_json_is_refused_in_the_output(
    worker: Worker, text: str
) -> None:
    [output] = run(worker, json.loads(f'{{"input": "a", "user": {text}}}'))
    assert (output["object"], output["code"]) == ("error", 400)


def test_an_output_is_short_in_a_log_and_whole_as_json(worker: Worker) -> None:
    [output] = run(worker, {"input": ["text"] * 100})
    assert len(f"{output}") < 200
    assert len(json.loads(json.dumps(output))["data"]) == 100
    assert repr(quiet([{"a": [1] * 999}])) == "[1 items]"
    assert quiet({"a": [1, 2]}) == {"a": [1, 2]}
    assert json.dumps(Quiet([1.5, None])) == "[1.5, null]"


def test_a_worker_is_fit_when_it_has_embedded_and_reranked(worker: Worker) -> None:
    asyncio.run(worker.check_fitness())


def test_and_unfit_when_a_model_is_not_there(tmp_path: Path) -> None:
    unfit = started("fake", str(tmp_path / "nothing"))
    with pytest.raises(RuntimeError, match="nothing could not be loaded"):
        asyncio.run(unfit.check_fitness())


def test_a_failure_is_told_where_the_sdk_looks() -> None:
    broken = started("fake:faults=on")
    [told] = run(broken, {"input": "[[nan]]"})
    assert told.keys() == {"error"}
    assert json.loads(told["error"])["type"] == "InternalServerError"


def test_a_job_that_is_stopped_leaves_the_engine() -> None:
    slow = started("fake:slow=0.2,batch_cost=16")

    async def stopped() -> Any:
        task = asyncio.create_task(slow.handle({"input": {"input": [f"{n}" for n in range(900)]}}))
        await asyncio.sleep(0.3)
        assert slow._engine.stats()["fake"]["queued"] > 0
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return await slow.handle({"input": {"input": "a"}})

    assert len(asyncio.run(stopped())["data"]) == 1
    assert slow._engine.stats()["fake"]["queued"] == 0


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runpod", None)
    with pytest.raises(SettingsError, match=r"pip install 'omnivec\[runpod\]'"):
        work(Settings(models=("fake",)))


# ── the hub ──────────────────────────────────────────────────────────────────────────────


def read(name: str) -> Any:
    return json.loads((FILES / name).read_text("utf-8"))


def test_the_hubs_variables_are_those_that_are_read() -> None:
    hub = read("hub.json")
    assert (hub["type"], hub["category"]) == ("serverless", "embedding")
    variables = {one["key"] for one in hub["config"]["env"]}
    variables |= {one["key"] for one in read("tests.json")["config"]["env"]}
    assert variables <= PROFILES["runpod"].variables.keys()
    defaults = {one["key"]: one["input"]["default"] for one in hub["config"]["env"]}
    assert defaults["RUNPOD_MAX_CONCURRENCY"] == Settings().max_jobs
    assert defaults["INFINITY_QUEUE_SIZE"] == PROFILES["runpod"].defaults["queue"]


def test_the_hubs_jobs_are_answered() -> None:
    worker = started("BAAI/bge-small-en-v1.5=fake")
    jobs = [read("test_input.json"), *read("tests.json")["tests"]]
    for job, output in zip(jobs, run(worker, *(job["input"] for job in jobs)), strict=True):
        assert isinstance(output, list) or "error" not in output.get("object", ""), job


# what the hub's publishing guide asks for, by field: what it may be
GENERAL = {
    "title": str,
    "description": str,
    "type": {"serverless"},
    "category": {"audio", "embedding", "language", "video", "image"},
    "config": dict,
}
MACHINE = {
    "runsOn": {"GPU"},
    "containerDiskInGb": int,
    "gpuCount": int,
    "gpuIds": str,
    "allowedCudaVersions": list,
    "env": list,
}
INPUTS = {"string": str, "number": int, "boolean": bool, "huggingface": str}


def check_fields(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, kind in expected.items():
        value = found[name]
        assert value in kind if isinstance(kind, set) else isinstance(value, kind), name


def test_the_hub_finds_what_it_asks_for() -> None:
    hub = read("hub.json")
    check_fields(hub, GENERAL)
    check_fields(hub["config"], MACHINE)
    for variable in hub["config"]["env"]:
        asked = variable["input"]
        assert variable.keys() == {"key", "input"}
        assert {"name", "type", "description", "default"} <= asked.keys()
        assert isinstance(asked["default"], INPUTS[asked["type"]])
    for name in ("handler.py", "Dockerfile"):
        assert (FILES / name).is_file()
    assert (ROOT / "README.md").is_file()


def test_the_hubs_tests_are_as_it_reads_them() -> None:
    told = read("tests.json")
    assert told.keys() == {"tests", "config"}
    for one in told["tests"]:
        check_fields(one, {"name": str, "input": dict, "timeout": int})
    assert len({one["name"] for one in told["tests"]}) == len(told["tests"])
    machine = {"gpuTypeId": str, "gpuCount": int, "allowedCudaVersions": list, "env": list}
    check_fields(told["config"], machine)
    for variable in told["config"]["env"]:
        check_fields(variable, {"key": str, "value": str})
    assert set(read("hub.json")["config"]["allowedCudaVersions"]) == set(
        told["config"]["allowedCudaVersions"]
    )
    check_fields(read("test_input.json"), {"input": dict})
