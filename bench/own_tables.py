"""The samples of what is measured of ours alone as Markdown; `TABLES` by the suite's name."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import figures, replies, videos
from bench.figures import Spread
from bench.growth import CURVES
from bench.markdown import Result, head, line, noted, number, stamp


def growth(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "growth"]
    lines = ["## Growth: ours alone", "", stamp(result), ""]
    for curve in CURVES:
        points = curve_points(samples, curve.name)
        if not points:
            continue
        lines += [
            f"{curve.title}:",
            "",
            *head([curve.x, "unit", "median", "share of the highest"]),
        ]
        highest = max(rate for _, rate in points)
        unit = "tokens/s" if curve.name == "tokens" else "texts/s"
        lines += [
            line([f"{x:g}", unit, number(rate), f"{100 * rate / highest:.0f} %"])
            for x, rate in points
        ]
        level = figures.plateau(points, curve.saturated)
        if level is not None:
            lines += [
                "",
                f"From {curve.saturated:g} on: at least {100 * level.low:.0f} % of the plateau.",
            ]
        lines.append("")
    return lines


def curve_points(samples: Sequence[Any], name: str) -> list[tuple[float, float]]:
    """(x, median rate) in the order of x."""
    figure = "tokens_per_second" if name == "tokens" else "texts_per_second"
    xs = sorted({one["x"] for one in samples if one["workload"] == name})
    found = [(x, figures.spread(samples, figure, workload=name, x=x)) for x in xs]
    return [(float(x), spread.median) for x, spread in found if spread is not None]


def cost(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "cost"]
    lines = ["## The server without its model", "", stamp(result), ""]
    for name, title in (
        ("cpu_us", "processor time for one request, us"),
        ("model_us", "of it the fake model itself, tokens and numbers, us"),
        ("texts_per_second", "requests/s"),
    ):
        spread = figures.spread(samples, name, workload="cost")
        if spread is not None:
            reach = f"{number(spread.low)} to {number(spread.high)}"
            lines.append(f"- {title}: {number(spread.median)} ({reach})")
    about = "12 words, 64 connections, the fake model with 384 dimensions"
    return [*lines, f"- {about}.", ""]


def written(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "replies"]
    lines = ["## Writing replies of many vectors: ours alone", "", stamp(result), ""]
    lines += head([replies.ABOUT, "unit", "processor time", "MB"])
    for form in dict.fromkeys(one["workload"] for one in samples):
        spent = figures.spread(samples, "cpu_ms", workload=form)
        size = figures.spread(samples, "mb", workload=form)
        if spent is not None and size is not None:
            reach = f"{number(spent.median)} ({number(spent.low)} to {number(spent.high)})"
            lines.append(line([form, "ms", reach, number(size.median)]))
    return [*lines, ""]


def decoded(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "videos"]
    lines = ["## Frames of a video: ours alone", "", stamp(result), ""]
    lines += head(["", "unit", "time", "frames", f"as long as {videos.SEEKING}"])
    for way in dict.fromkeys(one["workload"] for one in samples):
        few = f"{way.split(':')[0]}: {videos.SEEKING}"
        spent = figures.values(samples, "ms", workload=way)
        times = Spread.of(figures.ratios(spent, figures.values(samples, "ms", workload=few)))
        reach = Spread.of(spent.values())
        count = figures.spread(samples, "frames", workload=way)
        if reach and times and count:
            span = f"{number(reach.median)} ({number(reach.low)} to {number(reach.high)})"
            lines.append(line([way, "ms", span, f"{count.median:.0f}", f"{times.median:.2f}"]))
    return [*lines, ""]


def weighed(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "residents"]
    lines = ["## Memory of Qwen3-Embedding's shapes: ours alone", "", stamp(result), ""]
    names = ("weights_mb", "idle_mb", "loaded_mb", "peak_mb")
    lines += head(
        ["shape, in bf16", "file", "after the first answer", "after a mixed load", "peak"]
    )
    for shape in dict.fromkeys(one["workload"] for one in samples):
        found = [figures.spread(samples, name, workload=shape) for name in names]
        lines.append(line([shape, *[f"{one.median:.0f} MB" for one in found if one]]))
    return [*lines, ""]


def shared(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "shares"]
    lines = ["## Where the time of a picture goes: ours alone", "", stamp(result), ""]
    lines += head(["on the way from a data URI to a vector", "unit", "processor time", "share"])
    steps = dict.fromkeys(one["workload"] for one in samples)
    found = {step: figures.spread(samples, "cpu_ms", workload=step) for step in steps}
    whole = sum(spread.median for spread in found.values() if spread)
    for step, spread in found.items():
        if spread is not None:
            reach = f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"
            lines.append(line([step, "ms", reach, f"{100 * spread.median / whole:.0f} %"]))
    return [*lines, "", *noted(_beside_the_server(result, whole))]


def _beside_the_server(result: Result, whole: float) -> list[str]:
    """What a server takes besides, where the same run has measured one."""
    own = [one for one in result["samples"] if one["suite"] == "pictures"]
    spread = figures.spread(own, "cpu_us", workload="picture-32", server="omnivec")
    if spread is None:
        return []
    taken = spread.median / 1e3
    line = (
        f"- In one process, in batches. The server with 32 connections took {number(taken)} ms for "
        f"each: {number(taken - whole)} ms are HTTP, JSON, the queue, and smaller batches."
    )
    return [line]


def soak(result: Result) -> list[str]:
    samples = [s for s in result["samples"] if s["suite"] == "soak" and s["workload"] == "soak"]
    points = soak_points(result)
    stamp = f"One run, {result['date']}, commit {result['commit']}. `{result['command']}`"
    lines = ["## Mixed load for long: ours alone", "", stamp, ""]
    lines += head(["minutes", "unit", "resident"])
    for wanted in SOAKED:
        x, resident = min(points, key=lambda point: abs(point[0] - wanted))
        if abs(x - wanted) <= 1:
            lines.append(line([f"{x:.0f}", "MB", number(resident)]))
    asked, bad = (sum(one[name] for one in samples) for name in ("requests", "bad"))
    late = max(samples, key=lambda one: one["lag_ms"])
    median = statistics.median(one["lag_ms"] for one in samples)
    turns = ", ".join(dict.fromkeys(one["of"] for one in samples))
    highest = number(max(mb for _, mb in points))
    lines += ["", f"- {asked:,} requests of {turns} in turn, {bad} failed; at most {highest} MB."]
    lines.append(
        f"- The event loop was held up for {number(late['lag_ms'])} ms at most ({late['of']}; "
        f"median of the turns {number(median)} ms), waits for a core that the model uses included."
    )
    return [*lines, ""]


SOAKED = (1, 5, 10, 20, 30, 45, 60)


def soak_points(result: Result) -> list[tuple[float, float]]:
    """(minutes, resident MB)."""
    return [(one["x"], one["resident_mb"]) for one in result["samples"] if "resident_mb" in one]


TABLES: Mapping[str, Callable[[Result], list[str]]] = {
    "growth": growth,
    "cost": cost,
    "replies": written,
    "videos": decoded,
    "shares": shared,
    "residents": weighed,
    "soak": soak,
}
