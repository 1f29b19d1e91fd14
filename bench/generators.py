"""The load generators as processes of their own: wrk, `bench.closed_loop`, and for jobs
`bench.job_loop`.

wrk drives the short requests, of which there are thousands a second. It leaves out what is
unanswered when the time is up, so requests that take a good part of a second, of which a peer
may finish a handful, are driven by the closed loop: that one waits for the last answer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bench.places import ROOT, environment

LUA = Path(__file__).with_name("wrk.lua")


class Load(NamedTuple):
    """What to send: the lines of `bodies` in turn to `path`, over `connections`, for
    `seconds`; `pause` ms (mean) between an answer and the connection's next request."""

    path: str
    bodies: Path
    connections: int
    seconds: float
    pause: float = 0


class Counted(NamedTuple):
    """`bad`: answers other than 2xx, and connections lost. `processor`: seconds of processor
    time that the generator itself used. Latencies in ms."""

    requests: int
    seconds: float
    bad: int
    p50: float
    p90: float
    p99: float
    worst: float
    processor: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


def find_wrk() -> str:
    """Raises SystemExit with the package's name where there is none."""
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("the benchmark needs wrk: apt-get install wrk")
    return found


def drive_wrk(port: int, load: Load) -> Counted:
    seconds = max(1, round(load.seconds))
    command = [find_wrk(), "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "120s"]
    command += ["--script", str(LUA), f"http://127.0.0.1:{port}"]
    env = environment({"BODIES": str(load.bodies), "PATH_": load.path})
    printed, processor = _spend(command, env)
    return read_wrk(printed, processor)


def read_wrk(printed: str, processor: float) -> Counted:
    """The line of JSON that wrk.lua prints. Raises ValueError where there is none."""
    line = next((one for one in printed.splitlines() if one.startswith("{")), None)
    if line is None:
        raise ValueError(f"wrk reported nothing: {printed[-500:]!r}")
    said = json.loads(line)
    latencies = (said[f"{name}_us"] / 1000 for name in ("p50", "p90", "p99", "max"))
    bad = said["bad"] + said["lost"]
    return Counted(said["requests"], said["duration_us"] / 1e6, bad, *latencies, processor)


def start_loop(port: int, load: Load, module: str = "bench.closed_loop") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, str(port), load.path, str(load.bodies)]
    command += [str(load.connections), str(load.seconds), str(load.pause)]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)


def finish_loop(process: subprocess.Popen[str]) -> Counted:
    printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    return Counted(**json.loads(printed))


def drive_loop(port: int, load: Load) -> Counted:
    return finish_loop(start_loop(port, load))


def drive_jobs(port: int, load: Load) -> Counted:
    """Jobs of RunPod's API: a request is one job, however often its status was asked for."""
    return finish_loop(start_loop(port, load, "bench.job_loop"))


def _spend(command: list[str], env: dict[str, str]) -> tuple[str, float]:
    """What the command printed, and the processor time that it alone used."""
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {printed[-500:]}")
    return printed, used.ru_utime + used.ru_stime
