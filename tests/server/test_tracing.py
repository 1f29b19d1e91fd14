"""Spans, as a collector gets them, and that no request notices when it does not."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from collector import Collector, attributes, collector
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from serving import CARD, Running, running

import live
from omnivec.server.tracing import INSTALL, Exporter, Tracing, parent, start

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@contextlib.contextmanager
def traced(endpoint: str, **settings) -> Iterator[Running]:
    with running(**settings) as server:
        server.app.door.tracer = start(endpoint, "1.2.3")
        yield server


def embed(server: Running, text: str = "a text", **headers: str):
    with server.client() as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post("/v1/embeddings", json={"input": [text, "b"]}, headers=named)


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[Collector, dict]]:
    """What a collector got of a few requests, and their responses by name."""
    with collector() as found:
        with traced(found.url) as server:
            responses = {
                "plain": embed(server, x_request_id="mine"),
                "continued": embed(server, traceparent=f"00-{TRACE}-{SPAN}-01"),
                "unsampled": embed(server, traceparent=f"00-{TRACE[::-1]}-{SPAN}-00"),
                "malformed": embed(server, traceparent=f"00-{TRACE.upper()}-{SPAN}-01"),
                "bug": embed(server, "bug"),
            }
            with server.client() as client:
                responses["live"] = client.get("/live")
                responses["model"] = client.get(f"/v1/models/{CARD.name}")
                responses["nowhere"] = client.get("/nowhere/secret")
        yield found, responses


def of(told, name: str):
    """The collector's span of that request's trace which has no parent here."""
    found, responses = told
    trace = responses[name].headers["x-trace-id"]
    (span,) = [one for one in found.spans if one.trace_id.hex() == trace and one.kind == 2]
    return span


def test_a_request_is_a_span_with_what_it_was(told) -> None:
    span = of(told, "plain")
    assert span.name == "POST /v1/embeddings"
    assert not span.parent_span_id
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "http.response.status_code": 200,
        "omnivec.dialect": "openai",
        "omnivec.request_id": "mine",
        "omnivec.model": CARD.name,
        "omnivec.items": 2,
        "omnivec.tokens": 6,
    }
    found, _ = told
    assert found.paths == {"/v1/traces"}
    assert found.resources[0]["service.name"] == "omnivec"
    assert found.resources[0]["service.version"] == "1.2.3"


def test_its_phases_are_its_children(told) -> None:
    found, _ = told
    span = of(told, "plain")
    children = [one for one in found.spans if one.parent_span_id == span.span_id]
    assert [one.name for one in children] == ["prepare", "queue", "inference"]
    assert {one.trace_id for one in children} == {span.trace_id}
    at = span.start_time_unix_nano
    for child in children:
        assert at <= child.start_time_unix_nano <= child.end_time_unix_nano
        at = child.end_time_unix_nano
    assert at <= span.end_time_unix_nano


def test_the_callers_trace_goes_on(told) -> None:
    _, responses = told
    span = of(told, "continued")
    assert responses["continued"].headers["x-trace-id"] == TRACE
    assert span.parent_span_id.hex() == SPAN


def test_a_trace_that_the_caller_does_not_keep_is_not_sent(told) -> None:
    found, responses = told
    assert responses["unsampled"].status_code == 200
    assert all(one.trace_id.hex() != TRACE[::-1] for one in found.spans)


def test_a_malformed_parent_is_none(told) -> None:
    assert not of(told, "malformed").parent_span_id


def test_a_failure_is_one_in_its_span(told) -> None:
    _, responses = told
    span = of(told, "bug")
    assert responses["bug"].status_code == 500
    assert span.status.code == 2
    assert attributes(span)["http.response.status_code"] == 500
    assert "secret" not in str(span)


def test_templates_name_spans_and_probes_have_none(told) -> None:
    found, responses = told
    assert of(told, "model").name == "GET /v1/models/{id:path}"
    for name in ("live", "nowhere"):
        assert "x-trace-id" not in responses[name].headers
    names = {one.name for one in found.spans}
    phases = {"prepare", "queue", "inference"}
    assert names == {"POST /v1/embeddings", "GET /v1/models/{id:path}", *phases}


def test_without_a_collector_nothing_is_said(caplog) -> None:
    with running() as server:
        assert server.app.door.tracer is None
        assert "x-trace-id" not in embed(server, traceparent=f"00-{TRACE}-{SPAN}-01").headers
    assert start(None, "1") is None
    assert not caplog.records


# ── a collector that is not there ────────────────────────────────────────────────────────


def test_a_collector_that_is_away_fails_no_request(caplog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with traced(f"http://127.0.0.1:{port}") as server:
        for _ in range(20):
            response = embed(server)
            assert response.status_code == 200
            assert len(response.headers["x-trace-id"]) == 32
    assert not [one for one in caplog.records if one.name.startswith("opentelemetry")]


def test_a_collector_that_never_answers_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with traced(url) as server:
            assert embed(server).status_code == 200
        assert not server.thread.is_alive()


def test_a_refusal_is_told_once_and_its_end_too(caplog) -> None:
    with collector() as found, caplog.at_level(logging.INFO, "omnivec.tracing"):
        exporter = Exporter(OTLPSpanExporter(found.url + "/v1/traces"))
        for found.status in (200, 400, 400, 200, 200):
            exporter.export([])
        exporter.shutdown()
    said = [one.getMessage() for one in caplog.records if one.name == "omnivec.tracing"]
    assert [text.partition(";")[0] for text in said] == [
        "the collector takes no spans",
        "the collector takes spans again",
    ]


def test_the_variable_of_the_standard_turns_it_on() -> None:
    with collector() as found:
        with live.serve("fake", env={"OTEL_EXPORTER_OTLP_ENDPOINT": found.url}) as server:
            url = f"{server.url}/v1/embeddings"
            response = httpx.post(url, json={"input": "a text"}, trust_env=False)
            assert response.status_code == 200
        (span,) = found.named("POST /v1/embeddings")
    assert span.trace_id.hex() == response.headers["x-trace-id"]
    assert attributes(span)["omnivec.model"] == "fake"


def test_the_missing_extra_is_named_once(monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert start("http://localhost:4318", "1") is None
    (record,) = caplog.records
    assert INSTALL in record.getMessage()


def test_an_address_that_is_none_is_told(caplog) -> None:
    assert start("localhost:4317", "1") is None
    (record,) = caplog.records
    assert "http://HOST:4318" in record.getMessage()


@pytest.mark.parametrize("tail", ["", "/", "/v1/traces", "/v1/traces/"])
def test_an_address_may_have_its_path(tail: str) -> None:
    with collector() as found:
        with traced(found.url + tail) as server:
            assert isinstance(server.app.door.tracer, Tracing)
            assert embed(server).status_code == 200
        assert found.paths == {"/v1/traces"}


def test_nothing_of_it_is_imported_when_it_is_off() -> None:
    script = (
        "import sys, omnivec.server.asgi, omnivec.hosts.assemble\n"
        "from omnivec.server import tracing\n"
        "assert tracing.start(None, '1') is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# ── traceparent ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 255),
        (f"cc-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-comes", 1),
    ],
)
def test_a_parent_is_read(header: str, flags: int) -> None:
    found = parent(header)
    assert found is not None
    assert (f"{found.trace:032x}", f"{found.span:016x}", found.flags) == (TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"0x-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01x",
        f"00_{TRACE}_{SPAN}_01",
    ],
)
def test_what_breaks_a_rule_is_none(header: str) -> None:
    assert parent(header) is None


def test_two_parents_are_none() -> None:
    with collector() as found:
        with traced(found.url) as server:
            two = [("traceparent", f"00-{TRACE}-{SPAN}-01")] * 2
            with server.client() as client:
                response = client.post("/v1/embeddings", json={"input": "a"}, headers=two)
        assert response.headers["x-trace-id"] != TRACE
        (span,) = found.named("POST /v1/embeddings")
        assert not span.parent_span_id
