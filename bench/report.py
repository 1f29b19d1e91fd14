"""Stores a run's result, and writes BENCHMARKS.md and the plots from the newest results.

python -m bench.report
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import figures, own_tables, plots, suites, tables
from bench.growth import CURVES
from bench.places import PLOTS, REPORT, RESULTS

Result = Mapping[str, Any]
ORDER = (
    *suites.NAMED,
    "jobs",
    "growth",
    "cost",
    "replies",
    "videos",
    "shares",
    "residents",
    "soak",
)


def store(result: Result) -> Path:
    """Writes bench/results/DATE-COMMIT.json (with a number behind it where there is one), and
    the report anew."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    name, at = f"{result['date']}-{result['commit']}", 1
    path = RESULTS / f"{name}.json"
    while path.exists():
        at += 1
        path = RESULTS / f"{name}.{at}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    write()
    return path


def write() -> None:
    """BENCHMARKS.md: each suite from the newest result that has it."""
    newest = newest_by_suite(load())
    lines = [INTRODUCTION]
    for suite, result in newest.items():
        lines += tables.section(result, suite)
        drawn = _draw(suite, result)
        lines += [f"![{alt}]({path})\n" for path, alt in drawn]
    for result in _distinct(newest.values()):
        lines += _conditions(result)
    REPORT.write_text("\n".join([*lines, HONESTY]).rstrip() + "\n")


def load() -> list[Result]:
    """The stored results, oldest first."""
    paths = sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    found = [json.loads(path.read_text()) for path in paths]
    return sorted(found, key=lambda result: result["date"])


def newest_by_suite(results: Sequence[Result]) -> dict[str, Result]:
    found: dict[str, Result] = {}
    for suite in ORDER:
        having = [r for r in results if any(one["suite"] == suite for one in r["samples"])]
        if having:
            found[suite] = having[-1]
    return found


def _distinct(results: Any) -> list[Result]:
    return list({id(one): one for one in results}.values())


def _draw(suite: str, result: Result) -> list[tuple[str, str]]:
    PLOTS.mkdir(parents=True, exist_ok=True)
    if suite == "growth":
        return [drawn for curve in CURVES if (drawn := _draw_curve(curve, result))]
    if suite == "soak":
        return [_draw_soak(result)]
    rows = _ratios(suite, result) if suite in suites.NAMED else []
    if not rows:
        return []
    title = f"{tables.model_of(suite)}: how many times better than each peer"
    svg = plots.bars(title, "ours / theirs, median of the repeats", rows)
    return [_save(f"{suite}-ratios", title, svg)]


def _draw_curve(curve: Any, result: Result) -> tuple[str, str] | None:
    samples = [one for one in result["samples"] if one["suite"] == "growth"]
    points = own_tables.curve_points(samples, curve.name)
    if not points:
        return None
    unit = "tokens/s" if curve.name == "tokens" else "texts/s"
    svg = plots.lines(curve.title, curve.x, unit, {"omnivec": points})
    return _save(f"growth-{curve.name}", curve.title, svg)


def _draw_soak(result: Result) -> tuple[str, str]:
    title = "Resident memory under mixed load, default model"
    points = own_tables.soak_points(result)
    return _save("soak", title, plots.lines(title, "minutes", "MB", {"omnivec": points}))


def _save(name: str, alt: str, svg: str) -> tuple[str, str]:
    path = PLOTS / f"{name}.svg"
    path.write_text(svg)
    return str(path.relative_to(REPORT.parent)), alt


def _ratios(suite: str, result: Result) -> list[tuple[str, dict[str, float]]]:
    samples = [one for one in result["samples"] if one["suite"] == suite]
    names = list(dict.fromkeys(one["server"] for one in samples))
    own = [name for name in names if result["servers"][name]["ours"]]
    ours = own[0] if own else None
    found = []
    for row in tables.rows_of(suite):
        by = {
            name: figures.values(samples, row.figure, workload=row.workload, server=name)
            for name in names
        }
        if ours is None or not by[ours]:
            continue
        group = {}
        for name in names:
            pairs = figures.ratios(by[ours], by[name], less_is_better=row.less_is_better)
            if name not in own and pairs:
                group[result["servers"][name]["title"]] = figures.Spread.of(pairs)
        found.append((row.title[:52], {n: spread.median for n, spread in group.items() if spread}))
    return found


def _conditions(result: Result) -> list[str]:
    about = result["machine"]
    ceilings = "; ".join(
        f"{dtype} " + ", ".join(f"{value:.0f} ({name})" for name, value in by.items())
        for dtype, by in result["ceiling_gflops"].items()
    )
    caches = ", ".join(f"{name} {size}" for name, size in about["caches"].items())
    machine = (
        f"- {about['processor']}, {about['family']}, {about['cores']} cores, "
        f"{', '.join(about['flags'])}; {caches}; {about['memory_gb']} GB; {about['hypervisor']}; "
        f"{about['system']}; Python {about['python']}. Load before the run: "
        f"{about['load_before']:.2f}. The run took {result.get('took_s', 0) / 60:.0f} minutes."
    )
    lines = [
        f"## Conditions of {result['date']}, commit {result['commit']}",
        "",
        machine,
    ]
    if ceilings:
        lines.append(f"- Matrix products, GFLOP/s on all cores: {ceilings}.")
    for one in result["servers"].values():
        versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        lines.append(f"- **{one['title']}**: {one['settings']}. {versions}.")
        lines += [f"  `{command}`" for command in dict.fromkeys(one["commands"].values())]
    lines += [f"- **{name}**: {why}" for name, why in result["left_out"].items()]
    return [*lines, ""]


INTRODUCTION = """\
# Benchmarks

Written by `make bench` from `bench/results/`; `bench/README.md` says how it measures. One server
runs at a time, on all cores of one machine, with the same weights and the same bodies; ours and
theirs alternate within a run. A ratio is taken within each repeat, against the peer with the best
median (bold), and shown as median (lowest to highest); above 1 we are better, in times and memory
too. Absolute figures of a shared machine do not repeat; ratios do.
"""
HONESTY = """\
## Why not more
docs/experiments.md sets these figures beside what was aimed at, with the profile that shows where
the time goes. In short: peers in bf16 are at 40 to 45 % of what this processor multiplies and
omnivec at 74 to 77 %, so two and a half times is the most that there is for passages; a single
query is bound by the number of small operations on both cores.

## On a GPU
Not measured: no GPU was at hand. `make bench-gpu` is ready for the Qwen3-Embedding-0.6B and bge-m3
shapes against sentence-transformers on one; the code that it runs is tested on a processor only.

## What is not measured

- The generator runs on the server's cores: its share is given, and the figures of fast servers
  suffer more from it than those of slow ones. All loads are closed loops, so an overloaded server
  slows its clients down; the tail of an open stream of arrivals would be longer for everybody.
  Loopback only: no network, no TLS, no proxy.
- A few seconds a figure and a few repeats on a virtual machine that others share: differences
  under about 10 % mean nothing here. Nothing says how a server does after days.
- Only the default model has trained weights. Other shapes have random ones of the real size:
  their cost is right, their vectors mean nothing, and agreement with the reference shows equal
  arithmetic, not quality; int8 lost more on the default model's. They share the default model's
  tokenizer, so the time that XLM-R's and Qwen3's own take is not in their figures.
- Peers were set up as their documentation advises and as a short trial of dtype, threads and
  compilation found best on this machine; their authors may know better. One processor was at hand:
  no AMX, no ARM, more than 2 cores untried, and no GPU.
- Vectors are JSON numbers for everybody; base64, which some support, would spare them and us some
  time.
"""

if __name__ == "__main__":
    write()
