"""A real server in a process of its own, for the tests that talk HTTP.

    with live.serve("--api-key", "secret") as server:
        urllib.request.urlopen(server.url + "/v1/models")

Needs nothing but the standard library, so the runner of the real clients uses it as well.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMMAND = Path(sys.executable).with_name("omnivec")
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
}
# A developer's own settings must not reach a server under test.
SETTINGS = ("OMNIVEC_", "EMBEDDING_", "SIE_", "INFINITY_", "OTEL_")


class Server(NamedTuple):
    """A running server: `url` without a trailing slash, its process, and the file that
    holds everything it printed."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self, within: float = 40) -> int:
        """Ask it to finish and return its exit code; kill it after `within` seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own group: see `launch`
            self.process.wait()
            raise AssertionError(
                f"still running {within} s after SIGTERM\n{self.printed()}"
            ) from None

    def printed(self, last: int = 6000) -> str:
        return self.log.read_text(errors="replace")[-last:]


@contextmanager
def serve(
    *args: str, env: Mapping[str, str] | None = None, ready_within: float = 120
) -> Iterator[Server]:
    """`omnivec serve *args` on a free port of this machine, ready to answer.

    `env` is added to the environment, or, given a value of "", taken out of it. On leaving,
    the server is stopped and must exit with 0, unless the test had already ended it.
    """
    with launch(*args, env=env) as server:
        wait_ready(server, ready_within)
        yield server
        if server.process.poll() is None:
            code = server.stop()
            assert code == 0, f"exit code {code} after SIGTERM\n{server.printed()}"


@contextmanager
def launch(*args: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Like `serve`, without waiting for readiness and without judging the exit code."""
    with tempfile.TemporaryDirectory(prefix="omnivec-live-") as folder:
        port, log = free_port(), Path(folder, "server.log")
        with log.open("wb") as printed:
            process = subprocess.Popen(
                [COMMAND, "serve", *args, "--port", str(port)],
                env=environment({"XDG_CONFIG_HOME": folder, **(env or {})}),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            yield server
        finally:
            server.stop()


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    merged = {**kept, **OFFLINE, **extra}
    return {name: value for name, value in merged.items() if value != ""}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_ready(server: Server, within: float = 120) -> None:
    """Returns when `/ready/` says 200. Raises AssertionError with the log when the process
    ends first or the time is up."""
    deadline = time.monotonic() + within
    while not is_ready(server.url):
        code = server.process.poll()
        assert code is None, f"the server ended with {code}\n{server.printed()}"
        assert time.monotonic() < deadline, f"not ready in {within} s\n{server.printed()}"
        time.sleep(0.05)


def is_ready(url: str) -> bool:
    return _says_yes(url + "/ready/")


def answers(url: str) -> bool:
    """Whether it does at all, its models loaded or not."""
    return _says_yes(url + "/live")


def _says_yes(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
