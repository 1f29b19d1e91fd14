"""One server's process tree: started, asked, weighed and stopped."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from bench.places import environment

OK = 200
TICK = os.sysconf("SC_CLK_TCK")


class ServerLostError(Exception):
    """The server ended, or did not answer in time. The text ends with what it printed."""


class Running(NamedTuple):
    """A server that has answered. `started` is the seconds from its exec to that answer."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    started: float

    def post(self, path: str, body: bytes, within: float = 300) -> bytes:
        """Raises ServerLostError for anything but a 200."""
        status, answer = post(self.port, path, body, within)
        if status != OK:
            raise ServerLostError(f"{path} answered {status}: {answer[:300]!r}\n{tail(self.log)}")
        return answer

    def processor(self) -> float:
        """Seconds of processor time that the tree has used so far."""
        return sum(map(processor, tree(self.process.pid)))

    def memory(self) -> dict[str, float]:
        """MB: `resident` now and `peak` so far, added up over the tree."""
        pids = tree(self.process.pid)
        resident = sum(_status(pid, "VmRSS") for pid in pids)
        return {"resident": resident / 1024, "peak": sum(_status(p, "VmHWM") for p in pids) / 1024}

    def settle(self, within: float = 20) -> None:
        """Waits until the tree is idle: a server may still work for clients that left."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            before = self.processor()
            time.sleep(0.2)
            if self.processor() - before <= 2 / TICK:
                return


@contextmanager
def run(
    command: Sequence[str],
    port: int,
    log: Path,
    ready: tuple[str, bytes],
    env: Mapping[str, str] | None = None,
    within: float = 300,
) -> Iterator[Running]:
    """Starts `command` and yields when the POST `ready` (path, body) has been answered with
    200. Its group is stopped on leaving. Raises ServerLostError."""
    with log.open("wb") as printed:
        began = time.monotonic()
        process = _start(command, printed, env)
        try:
            yield Running(
                process, port, log, _first_answer(process, port, log, ready, within, began)
            )
        finally:
            stop(process)


def _start(
    command: Sequence[str], printed: IO[bytes], env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command),
        env=environment(dict(env or {})),
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _first_answer(
    process: subprocess.Popen[bytes],
    port: int,
    log: Path,
    ready: tuple[str, bytes],
    within: float,
    began: float,
) -> float:
    while time.monotonic() - began < within:
        if process.poll() is not None:
            raise ServerLostError(f"ended with {process.returncode}\n{tail(log)}")
        try:
            if post(port, *ready, within)[0] == OK:
                return time.monotonic() - began
        except OSError:
            pass
        time.sleep(0.005)
    raise ServerLostError(f"no answer in {within:.0f} s\n{tail(log)}")


def stop(process: subprocess.Popen[bytes], within: float = 15) -> None:
    """Ends the group that `_start` made: politely, then not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(within)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def post(port: int, path: str, body: bytes, within: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path, size: int = 3000) -> str:
    return log.read_text(errors="replace")[-size:]


def tree(root: int) -> list[int]:
    """The process and its descendants, as /proc has them now."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                todo += map(int, task.read_text().split())
            except OSError:  # it ended meanwhile
                continue
    return found


def processor(pid: int) -> float:
    """User and system time, of children that were waited for too. 0 for one that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK


def _status(pid: int, name: str) -> int:
    """A kB line of /proc/PID/status."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name + ":")), 0)
