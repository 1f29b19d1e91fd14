"""The RunPod SDK against a running omnivec: its clients, and its worker over omnivec's engine
with a control plane of a few lines. See ../shared/checks.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from urllib.parse import urlsplit

import checks
import requests
import runpod
from checks import (
    DIMS,
    DOCUMENTS,
    KEY,
    MODEL,
    QUERY,
    RERANKER,
    TEXTS,
    plain_scores,
    plain_vectors,
    same_vectors,
)
from runpod import AsyncioEndpoint
from runpod.http_client import AsyncClientSession

runpod.api_key = KEY
runpod.endpoint_url_base = f"{checks.GUARDED}/v2"
ENDPOINT = "abcdef0123456789"
JOB = {"model": MODEL, "input": TEXTS}
PATIENCE = 120


def endpoint():
    return runpod.Endpoint(ENDPOINT)


def vectors(output):
    assert output["object"] == "list"
    assert output["model"] == MODEL
    return [entry["embedding"] for entry in output["data"]]


# ── the clients ──────────────────────────────────────────────────────────────────────────


def check_run_and_its_output():
    job = endpoint().run({"input": JOB})
    same_vectors(vectors(job.output(timeout=30)), plain_vectors(TEXTS))
    assert job.status() == "COMPLETED"


def check_run_sync():
    same_vectors(vectors(endpoint().run_sync({"input": JOB})), plain_vectors(TEXTS))


def check_run_sync_sends_an_embedding_unwrapped():
    """The SDK takes the job's own `input` for the wrapper."""
    same_vectors(vectors(endpoint().run_sync(JOB)), plain_vectors(TEXTS))


def check_rerank():
    job = {"model": MODEL, "query": QUERY, "docs": DOCUMENTS}
    output = endpoint().run_sync(job)
    scores = plain_scores(MODEL)
    assert all(abs(output["scores"][at] - scores[at]) < 1e-5 for at in scores)
    echoed = endpoint().run_sync({**job, "return_docs": True})
    assert echoed["docs"] == [DOCUMENTS[one["index"]] for one in output["results"]]


def check_an_openai_route():
    routed = {"openai_route": "/v1/embeddings", "openai_input": {"model": MODEL, "input": TEXTS}}
    [output] = endpoint().run_sync(routed)
    same_vectors(vectors(output), plain_vectors(TEXTS))
    listed = endpoint().run_sync({"openai_route": "/v1/models"})
    assert MODEL in [entry["id"] for entry in listed["data"]]


def check_a_stream_ends():
    chunks = list(endpoint().run({"input": JOB}).stream())
    assert len(chunks) == 1
    same_vectors(vectors(chunks[0]), plain_vectors(TEXTS))


def check_what_is_wrong_is_an_output():
    output = endpoint().run_sync({"input": {"model": "nobody/knows", "input": "a"}})
    assert output["object"] == "error"
    assert output["code"] == 404


def check_cancel():
    job = endpoint().run({"input": {"model": MODEL, "input": ["word " * 200] * 2000}})
    told = job.cancel()
    assert told["id"] == job.job_id
    assert told["status"] in {"CANCELLED", "COMPLETED"}
    assert job.status() == told["status"]


def check_purge_and_health():
    purged = endpoint().purge_queue()
    assert purged["status"] == "completed"
    health = endpoint().health()
    assert health["jobs"].keys() >= {"completed", "failed", "inProgress", "inQueue", "retried"}
    assert health["workers"].keys() >= {"idle", "running"}
    assert health["jobs"]["completed"] > 0


def check_a_wrong_key():
    stranger = runpod.Endpoint(ENDPOINT, api_key="another")
    error = checks.raised(RuntimeError, lambda: stranger.run_sync({"input": JOB}))
    assert "401" in str(error)


async def check_the_async_client():
    async with AsyncClientSession() as session:
        remote = AsyncioEndpoint(ENDPOINT, session)
        jobs = [await remote.run(JOB) for _ in range(3)]
        for job in jobs:
            same_vectors(vectors(await job.output(timeout=30)), plain_vectors(TEXTS))
            assert await job.status() == "COMPLETED"
        chunks = [chunk async for chunk in jobs[0].stream()]
        assert len(chunks) == 1
        assert (await jobs[1].cancel())["status"] == "COMPLETED"
        assert (await remote.health())["jobs"]["completed"] >= 3


# ── the worker ───────────────────────────────────────────────────────────────────────────


class Plane(ThreadingHTTPServer):
    """What RunPod is to a worker: hands out jobs, takes results, says what to stop."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Talk)
        self.jobs, self.stops = Queue(), Queue()
        self.results, self.lengths = {}, {}
        self.taken = threading.Event()
        self.changed = threading.Condition()

    def result(self, id_):
        with self.changed:
            assert self.changed.wait_for(lambda: id_ in self.results, PATIENCE), id_
        return self.results[id_]


class Talk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind = urlsplit(self.path).path.split("/")[3]
        if kind in {"job-take-batch", "job-take"}:
            return self._say(self._jobs(), single=kind == "job-take")
        if kind == "job-stop":
            return self._say({"jobsToStop": some(self.server.stops)})
        return self._say(None)  # the ping

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        kind, _pod, id_ = urlsplit(self.path).path.split("/")[3:6]
        assert kind == "job-done", kind
        with self.server.changed:
            self.server.results[id_] = json.loads(body)
            self.server.lengths[id_] = len(body)
            self.server.changed.notify_all()
        self._say({})

    def _jobs(self):
        found = some(self.server.jobs)
        if found:
            self.server.taken.set()
        return found

    def _say(self, value, *, single=False):
        if single and value:
            for job in value[1:]:
                self.server.jobs.put(job)
            value = value[0]
        body = b"" if not value else json.dumps(value).encode()
        self.send_response(200 if body else 204)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def some(queue):
    """What is there, or comes within a second."""
    found = []
    try:
        found.append(queue.get(timeout=1))
        while True:
            found.append(queue.get_nowait())
    except Empty:
        return found


def environment(**more):
    paths = [path for path in sys.path if path.endswith("site-packages")]
    inherited = os.environ.get("SERVER_PATH", "")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*filter(None, [inherited]), *paths]),
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "RUNPOD_LOG_LEVEL": "DEBUG",
        **more,
    }


def command(*arguments):
    return [os.environ["SERVER_PYTHON"], "-m", "omnivec", "runpod", "--dtype", "f32", *arguments]


def alive(group):
    """Whether a process of that group is there, the SDK's heartbeat among them."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def worker(*models, **more):
    plane = Plane()
    thread = threading.Thread(target=plane.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{plane.server_port}/v2/{ENDPOINT}"
    env = environment(
        RUNPOD_WEBHOOK_GET_JOB=f"{base}/job-take/$ID?gpu=none",
        RUNPOD_WEBHOOK_POST_OUTPUT=f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
        RUNPOD_WEBHOOK_PING=f"{base}/ping/$RUNPOD_POD_ID",
        RUNPOD_POD_ID="pod",
        RUNPOD_AI_API_KEY="worker-key",
        **more,
    )
    log = Path(sys.prefix, "worker.log")
    with log.open("wb") as printed:
        process = subprocess.Popen(
            command(*models),
            env=env,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield plane
        process.terminate()
        code = process.wait(30)
        assert code == 0, f"{code}\n{log.read_text()[-3000:]}"
        assert not alive(process.pid), "its heartbeat outlived it"
    except BaseException:
        print(log.read_text()[-3000:])
        raise
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        plane.shutdown()
        thread.join()
        plane.server_close()


def check_the_worker():
    reranker = str(Path(sys.prefix).parent / "cross-encoder")
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 20)]
    kinds = {
        "plain": {"model": MODEL, "input": TEXTS},
        "one": {"model": MODEL, "input": TEXTS[0]},
        "routed": {
            "openai_route": "/v1/embeddings",
            "openai_input": {"model": MODEL, "input": TEXTS},
        },
        "models": {"openai_route": "/v1/models"},
        "rerank": {"model": MODEL, "query": QUERY, "docs": DOCUMENTS, "return_docs": True},
        "pairs": {"model": RERANKER, "query": QUERY, "docs": DOCUMENTS},
        "wrong": {"input": []},
        "unknown": {"model": "nobody/knows", "input": "a"},
        "nowhere": {"openai_route": "/v1/nothing"},
        "large": {"model": MODEL, "input": texts},
    }
    names = f"{MODEL}; {RERANKER}={reranker};"
    with worker(MODEL_NAMES=names, DTYPES="fp32", BATCH_SIZES="") as plane:
        for name, job in kinds.items():
            plane.jobs.put({"id": name, "input": job})
        found = {name: plane.result(name) for name in kinds}
        again = [f"again-{number}" for number in range(100)]
        for name in again:
            plane.jobs.put({"id": name, "input": kinds["plain"]})
        for name in again:
            assert plane.result(name)["output"] == found["plain"]["output"]
    right = plain_vectors(TEXTS)
    same_vectors(vectors(found["plain"]["output"]), right)
    same_vectors(vectors(found["one"]["output"]), right[:1])
    same_vectors(vectors(found["routed"]["output"][0]), right)
    same_vectors(vectors(found["large"]["output"]), plain_vectors(texts))
    ids = [entry["id"] for entry in found["models"]["output"]["data"]]
    assert ids == [MODEL, RERANKER]
    ranked = sorted(plain_scores(MODEL).items(), key=lambda pair: -pair[1])
    assert found["rerank"]["output"]["docs"] == [DOCUMENTS[at] for at, _ in ranked]
    scores = plain_scores(RERANKER)
    for at, score in enumerate(found["pairs"]["output"]["scores"]):
        assert abs(score - scores[at]) < 1e-5
    for name in ("wrong", "unknown", "nowhere"):
        assert found[name]["output"]["object"] == "error"
    log = Path(sys.prefix, "worker.log").read_text()
    assert max(map(len, log.splitlines())) < 4000  # no vector was written out
    assert "fitness check" in log


def check_the_worker_drops_a_job_that_is_stopped():
    """The second job is answered long before the first one could be."""
    with worker("fake:slow=1") as plane:
        plane.jobs.put({"id": "long", "input": {"input": [f"text {n}" * 400 for n in range(500)]}})
        assert plane.taken.wait(PATIENCE)
        time.sleep(0.5)
        plane.stops.put("long")
        plane.jobs.put({"id": "short", "input": {"input": "a"}})
        assert plane.result("short")["output"]["object"] == "list"
        assert "output" not in plane.results.get("long", {})


def check_an_unfit_worker_ends():
    env = environment(
        RUNPOD_WEBHOOK_GET_JOB="http://127.0.0.1:9/v2/x/job-take/$ID?gpu=none", RUNPOD_POD_ID="pod"
    )
    done = subprocess.run(
        command("./nothing-here"), env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr


def check_one_job_from_the_command_line():
    for given, code in (({"input": {"input": "Hello world"}}, 0), ({"other": 1}, 1)):
        arguments = command("--test_input", json.dumps(given))
        done = subprocess.run(
            arguments, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr


def check_the_sdks_own_server():
    port = free_port()
    arguments = command("--rp_serve_api", "--rp_api_port", str(port), "--rp_api_host", "127.0.0.1")
    process = subprocess.Popen(
        arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        reply = await_reply(f"http://127.0.0.1:{port}/runsync", {"input": JOB})
        assert reply["status"] == "COMPLETED"
        same_vectors(vectors(reply["output"]), plain_vectors(TEXTS))
        assert len(reply["output"]["data"][0]["embedding"]) == DIMS
    finally:
        process.terminate()
        process.wait(30)


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_reply(url, body):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return requests.post(url, json=body, timeout=60).json()
        except requests.ConnectionError:
            assert time.monotonic() < end
            time.sleep(0.2)


if __name__ == "__main__":
    checks.main(globals())
