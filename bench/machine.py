"""The machine, the versions and the commit that a run's figures belong to."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import sys
from typing import Any

from bench.places import ROOT, environment

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe() -> dict[str, Any]:
    lines = dict(_fields("lscpu"))
    flags = set(lines.get("Flags", "").split())
    caches = {name: lines[f"{name} cache"] for name in ("L2", "L3") if f"{name} cache" in lines}
    return {
        "processor": lines.get("Model name", platform.processor()),
        "family": f"family {lines.get('CPU family', '?')} model {lines.get('Model', '?')}",
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in FLAGS if flag in flags],
        "caches": caches,
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "hypervisor": lines.get("Hypervisor vendor", "none seen"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _fields(*command: str) -> list[tuple[str, str]]:
    try:
        printed = _ask(*command)
    except (OSError, subprocess.CalledProcessError):
        return []
    pairs = (line.partition(":") for line in printed.splitlines())
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def commit() -> tuple[str, bool]:
    """The short commit, and whether tracked files differ from it."""
    try:
        changed = _ask("git", "status", "--porcelain", "--untracked-files=no")
        return _ask("git", "rev-parse", "--short", "HEAD").strip(), bool(changed.strip())
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")


def _ask(*command: str) -> str:
    told = {**environment(), "LC_ALL": "C"}
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, check=True)
    return done.stdout


CEILING = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
dtype = getattr(torch, sys.argv[2])
best = 0.0
for size in (1024, 1536, 2048):
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    for _ in range(12):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - began) / 1e9)
print(best)
"""
OPENVINO_CEILING = """
import sys, time, numpy as np, openvino as ov
from concurrent.futures import ThreadPoolExecutor
from openvino import opset13 as ops
cores, hint = int(sys.argv[1]), {"bfloat16": "bf16", "float32": "f32"}[sys.argv[2]]
wishes = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores}
best = 0.0
for rows, size in ((512, 1024), (1024, 1024), (1024, 1536)):
    layers = 8
    x = ops.parameter([rows, size], np.float32)
    y = x
    for seed in range(layers):
        w = np.random.default_rng(seed).standard_normal((size, size)).astype(np.float32) / size
        y = ops.matmul(y, ops.constant(w), False, True)
    model = ov.Model([ops.reduce_sum(y, ops.constant(np.int64(1)))], [x])
    made = ov.Core().compile_model(model, "CPU", wishes)
    one = np.ones((rows, size), np.float32)
    asks = [made.create_infer_request() for _ in range(cores)]
    def go(ask):
        for _ in range(10):
            ask.infer([one], share_inputs=True)
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(4):
            began = time.perf_counter()
            list(pool.map(go, asks))
            took = time.perf_counter() - began
            best = max(best, cores * 10 * layers * 2 * rows * size**2 / took / 1e9)
print(best)
"""


def ceiling(dtype: str) -> dict[str, float]:
    """GFLOP/s of plain matrix products in `dtype` ("bfloat16", "float32") on all cores: the
    best of several sizes, by two libraries. One that is not installed is left out."""
    cores = str(len(os.sched_getaffinity(0)))
    found = {}
    for name, code in (("torch", CEILING), ("openvino", OPENVINO_CEILING)):
        try:
            found[name] = float(_ask(sys.executable, "-c", code, cores, dtype).split()[-1])
        except subprocess.CalledProcessError:
            continue
    return found
