from __future__ import annotations

import re
import threading

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import CARD, running

from omnivec.core.nouns import Result, Timing, Usage
from omnivec.core.plugins import discover
from omnivec.core.seams import Watch
from omnivec.server.exposition import Exposition
from omnivec.server.histogram import Histogram
from omnivec.server.metrics import COARSE, Metrics


def samples(text: str) -> dict[tuple, float]:
    """{(name, label, value, ...): number}"""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [part for pair in sorted(sample.labels.items()) for part in pair]
            found[sample.name, *labels] = sample.value
    return found


def scrape(metrics: Metrics, *cards) -> dict[tuple, float]:
    text, kind = Exposition(metrics).render(cards, "")
    assert kind.startswith("text/plain")
    return samples(text.decode())


def test_a_histogram_counts_a_value_in_the_bucket_that_it_does_not_exceed():
    histogram = Histogram(COARSE)
    for value in (0.0, 0.1, 0.2, 0.5, 1.0, 7.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1, 1]
    assert histogram.total == pytest.approx(8.8)


def test_synesis_names_are_there_before_anything_happened():
    found = scrape(Metrics())
    assert found["embedding_model_loaded",] == 0
    assert found["reranker_model_loaded",] == 0
    assert found["embedding_gpu_memory_bytes",] == 0
    for endpoint in ("embeddings", "similarity", "rerank"):
        assert found["embedding_inference_requests_total", "endpoint", endpoint] == 0
        assert found["embedding_inference_duration_seconds_count", "endpoint", endpoint] == 0


def test_loaded_models_and_memory_are_those_of_the_moment():
    metrics = Metrics()
    metrics.memory = lambda: 12345
    embedder = msgspec.structs.replace(CARD, tasks=("encode",))
    reranker = msgspec.structs.replace(CARD, name="r", tasks=("score",), state="loading")
    found = scrape(metrics, embedder, reranker)
    assert found["embedding_model_loaded",] == 1
    assert found["reranker_model_loaded",] == 0
    assert found["embedding_gpu_memory_bytes",] == 12345


def test_requests_are_counted_as_the_instrumentator_counts_them():
    metrics = Metrics()
    traffic = metrics.route("/v1/embeddings", "POST")
    assert metrics.route("/v1/embeddings", "POST") is traffic
    metrics.answered(traffic, 200, 0.05, 10, 1000)
    metrics.answered(traffic, 200, 0.7, 20, 2000)
    metrics.answered(traffic, 404, 0.001, 1, 2)
    found = scrape(metrics)
    where = ("handler", "/v1/embeddings", "method", "POST")
    assert found["http_requests_total", *where, "status", "2xx"] == 2
    assert found["http_requests_total", *where, "status", "4xx"] == 1
    assert found["http_request_duration_seconds_count", *where] == 3
    low = ("handler", "/v1/embeddings", "le", "0.1", "method", "POST")
    assert found["http_request_duration_seconds_bucket", *low] == 2
    assert found["http_request_duration_highr_seconds_bucket", "le", "0.75"] == 3
    assert found["http_request_duration_highr_seconds_count",] == 3
    assert found["http_request_size_bytes_sum", *where[:2]] == 31
    assert found["http_response_size_bytes_sum", *where[:2]] == 3002
    assert found["http_response_size_bytes_count", *where[:2]] == 3


def test_work_is_labelled_by_model_and_endpoint():
    metrics = Metrics()
    result = Result(card=CARD, usage=Usage(30, 2, 1), timing=Timing(0.1, 0.01, 0.02, 0.03))
    metrics.worked("rerank", result, 0.1)
    found = scrape(metrics)
    where = ("endpoint", "rerank", "model", "tiny/model")
    assert found["omnivec_requests_total", *where] == 1
    assert found["omnivec_items_total", *where] == 2
    assert found["omnivec_tokens_total", *where] == 30
    assert found["omnivec_truncated_total", *where] == 1
    for phase, seconds in (("prepare", 0.01), ("queue", 0.02), ("inference", 0.03)):
        assert found[f"omnivec_{phase}_seconds_sum", *where] == pytest.approx(seconds)
    assert found["embedding_inference_requests_total", "endpoint", "rerank"] == 1


def test_an_error_carries_only_the_names_of_models_that_there_are():
    metrics = Metrics()
    metrics.learn((CARD,))
    metrics.failed("embeddings", "tiny/model", "too_large")
    for i in range(1000):
        metrics.failed("embeddings", f"made-up-{i}", "model_not_found")
    found = scrape(metrics)
    where = ("endpoint", "embeddings", "model")
    assert found["omnivec_errors_total", "code", "too_large", *where, "tiny/model"] == 1
    assert found["omnivec_errors_total", "code", "model_not_found", *where, ""] == 1000
    assert len(metrics.errors) == 2


def test_an_error_under_an_alias_is_its_models():
    metrics = Metrics()
    first = msgspec.structs.replace(CARD, aliases=("tiny", "small"))
    second = msgspec.structs.replace(CARD, name="other", aliases=("small",))
    metrics.learn((first, second))
    for name in ("tiny", "small", "other"):
        metrics.failed("encode", name, "too_large")
    assert metrics.errors == {
        (CARD.name, "encode", "too_large"): 2,
        ("other", "encode", "too_large"): 1,
    }


def test_a_body_that_cannot_be_read_is_an_error_of_the_model_in_its_path():
    with running(discover("dialects")) as server, server.client() as client:
        assert client.get("/metrics").status_code == 200
        for name in (CARD.name, "made-up"):
            assert client.post(f"/v1/encode/{name}", json={"items": 5}).status_code == 400
        text = client.get("/metrics").text
    for name in (CARD.name, ""):
        where = f'endpoint="encode",model="{name}",status="error"'
        assert f"sie_requests_total{{{where}}} 1.0" in text


def test_batches_may_be_told_of_from_many_threads():
    metrics = Metrics()
    watch: Watch = metrics

    def tell() -> None:
        for _ in range(500):
            watch.batch("m", 4, 100, 0.01)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = scrape(metrics)
    assert found["omnivec_batch_rows_sum", "model", "m"] == 8000
    assert found["omnivec_batch_tokens_count", "model", "m"] == 2000
    assert found["omnivec_batch_seconds_count", "model", "m"] == 2000


def test_no_lock_is_held_between_two_families():
    metrics = Metrics()
    metrics.batch("m", 4, 100, 0.01)
    for _ in Exposition(metrics).collect():
        assert metrics.lock.acquire(timeout=1)
        metrics.lock.release()


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize(
    "rest",
    ["", "version=", "version=x", "version=1.x", "version=\xb2", "version=9", "escaping=x", "q=x"],
)
def test_an_odd_accept_header_gets_numbers(kind, rest):
    text, told = Exposition(Metrics()).render((), f"{kind};{rest};version=1.0.0;escaping")
    assert b"omnivec_connections" in text
    assert told
    text, told = Exposition(Metrics()).render((), f"{kind};{rest}")
    assert b"omnivec_connections" in text


def test_what_the_engine_knows_is_asked_at_the_scrape():
    metrics = Metrics(version="9.9", auth_disabled=True)
    metrics.stats = lambda: {"m": {"queued": 7.0, "running": 3.0, "joined": 2.0}}
    metrics.connections = lambda: 5
    metrics.refused(431)
    found = scrape(metrics)
    assert found["omnivec_items_queued", "model", "m"] == 7
    assert found["omnivec_items_joined_total", "model", "m"] == 2
    assert found["omnivec_items_running", "model", "m"] == 3
    assert found["omnivec_connections",] == 5
    assert found["omnivec_auth_disabled",] == 1
    assert found["omnivec_http_refused_total", "status", "431"] == 1
    assert found["omnivec_build_info", "version", "9.9"] == 1
    assert found["process_resident_memory_bytes",] > 0


def test_the_loops_lag_is_told():
    metrics = Metrics()
    metrics.lag.note(1.0, 0.007)
    metrics.lag.note(1.1, 0.0)
    found = scrape(metrics)
    assert found["omnivec_event_loop_lag_seconds",] == 0.007
    assert found["omnivec_event_loop_delay_seconds_bucket", "le", "0.005"] == 1
    assert found["omnivec_event_loop_delay_seconds_bucket", "le", "0.01"] == 2


def test_all_of_it_moves_over_http_and_no_label_is_a_clients_word():
    with running() as server, server.client() as client:
        for body in ({"input": ["a", "b"]}, {"input": "a", "model": "nobody/knows"}):
            client.post("/v1/embeddings", json=body)
        client.get("/v1/models/some/client's/word")
        client.get("/client-made-path")
        reply = client.get("/metrics")
        assert reply.headers["content-type"].startswith("text/plain")
        found = samples(reply.text)
        openmetrics = client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    where = ("handler", "/v1/embeddings", "method", "POST", "status")
    assert found["http_requests_total", *where, "2xx"] == 1
    assert found["http_requests_total", *where, "4xx"] == 1
    assert found["http_requests_total", "handler", "none", "method", "none", "status", "4xx"] == 1
    assert found["embedding_inference_requests_total", "endpoint", "embeddings"] == 1
    assert found["omnivec_connections",] >= 1
    for word in ("client's", "word", "client-made", "nobody"):
        assert not re.search(word, reply.text)
    assert openmetrics.text.endswith("# EOF\n")
