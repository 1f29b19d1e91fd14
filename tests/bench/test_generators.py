"""What the load generators report, and a run of the closed loop against a real socket."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest
from bench.closed_loop import percentile
from bench.generators import Load, drive_jobs, drive_loop, read_wrk

PRINTED = """Running 1s test @ http://127.0.0.1:8400
  1 threads and 64 connections
Requests/sec:   1234.50
{"requests":1235,"duration_us":1000405,"bad":2,"lost":1,"p50_us":51200,"p90_us":60000,"p99_us":75500,"max_us":90001}
"""


def test_wrk_reports_in_json() -> None:
    counted = read_wrk(PRINTED, 0.25)
    assert (counted.requests, counted.bad, counted.processor) == (1235, 3, 0.25)
    assert counted.rate == pytest.approx(1235 / 1.000405)
    assert (counted.p50, counted.p99, counted.worst) == (51.2, 75.5, 90.001)


def test_wrk_without_a_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        read_wrk("unable to connect to 127.0.0.1:1 Connection refused", 0)


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100), (0.001, 1)]
)
def test_a_percentile_is_one_of_the_values(share: float, wanted: int) -> None:
    assert percentile([float(one) for one in range(100, 0, -1)], share) == wanted


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        refused = body == b"refuse"
        self.send_response(503 if refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = body == b"leave"

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_the_closed_loop_counts_answers_and_failures(tmp_path: Path) -> None:
    bodies = tmp_path / "bodies"
    bodies.write_bytes(b"one\nrefuse\ntwo\nleave\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        counted = drive_loop(server.server_port, Load("/v1/x", bodies, 2, 0.3, pause=2))
        server.shutdown()
    assert counted.requests >= 4
    assert 0 < counted.bad < counted.requests
    assert counted.p50 <= counted.p99 <= counted.worst
    assert counted.seconds >= 0.2


class Queue(http.server.BaseHTTPRequestHandler):
    """Jobs that have ended when their status was asked for twice; the body "fail" fails."""

    protocol_version = "HTTP/1.1"
    asked: dict[str, int]
    failing: set[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        id_ = self.path.removeprefix("/status/")
        if id_ == self.path:
            id_ = str(len(self.asked))
            self.asked[id_] = 0
            self.failing |= {id_} if body == b"fail" else set()
        status = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")[self.asked[id_]]
        self.asked[id_] += 1
        status = "FAILED" if id_ in self.failing else status
        told = b'{"id":"%b","output":[%b],"status":"%b"}'
        answer = told % (id_.encode(), b"0," * 999 + b"0", status.encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_job_is_counted_when_it_has_ended(tmp_path: Path) -> None:
    bodies = tmp_path / "bodies"
    bodies.write_bytes(b"one\nfail\n")
    told: dict[str, object] = {"asked": {}, "failing": set()}
    handler = type("Of", (Queue,), told)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        counted = drive_jobs(server.server_port, Load("/run", bodies, 1, 0.3, pause=2))
        server.shutdown()
    asked: dict[str, int] = told["asked"]  # type: ignore[assignment]
    assert counted.requests == len(asked) > 2
    assert counted.bad == counted.requests // 2  # every second one
    assert [asked[str(at)] for at in (0, 1)] == [3, 1]
