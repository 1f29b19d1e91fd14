"""The samples of one run as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench import answers, figures, jobs, models, operations, replies, suites, videos, workloads
from bench.figures import Spread
from bench.growth import CURVES

Result = Mapping[str, Any]


class Row(NamedTuple):
    """One line of the comparison: where its figure comes from, and how it is written."""

    title: str
    workload: str
    figure: str
    unit: str
    less_is_better: bool = False


def rows_of(suite: str) -> list[Row]:
    """What is compared in that suite."""
    of = suites.SMOKE if suite == "smoke" else suites.NAMED[suite]
    rows = []
    for name in (*of.workloads, *(["rerank-4"] if suite == "smoke" else [])):
        work = workloads.NAMED[name]
        if name == "mix":
            rows += _mix_rows(work.title)
            continue
        rows.append(Row(work.title, name, "texts_per_second", work.unit))
        if name == "query-1":
            rows.append(Row(f"p50 of {work.title}", name, "p50_ms", "ms", less_is_better=True))
        if work.unit == workloads.PICTURE:
            rows += _picture_rows(work)
    return [*rows, *_standing_rows()]


def _mix_rows(title: str) -> list[Row]:
    return [
        Row(f"bulk in the mix: {title}", "mix", "bulk_texts_per_second", "texts/s"),
        Row("p99 of the queries alone", "mix", "idle_p99_ms", "ms", less_is_better=True),
        Row("p99 of the queries beside bulk", "mix", "p99_ms", "ms", less_is_better=True),
    ]


def _picture_rows(work: workloads.Workload) -> list[Row]:
    shown = (("p50 of", "p50_ms", "ms"), ("p99 of", "p99_ms", "ms"))
    spent = ("processor time for each, with", "cpu_us", "us")
    return [
        Row(f"{words} {work.title}", work.name, figure, unit, less_is_better=True)
        for words, figure, unit in (*(shown if work.items == 1 else ()), spent)
    ]


def _standing_rows() -> list[Row]:
    return [
        Row("process start to first answer", "start", "start_s", "s", less_is_better=True),
        Row("resident, after the first answer", "idle", "idle_resident_mb", "MB", True),
        Row("resident, after all of the above", "loaded", "loaded_resident_mb", "MB", True),
    ]


def everything(result: Result) -> list[str]:
    """All sections of a run, without the document around them."""
    present = list(dict.fromkeys(one["suite"] for one in result["samples"]))
    lines: list[str] = []
    for suite in present:
        lines += section(result, suite)
    return lines


def section(result: Result, suite: str) -> list[str]:
    if suite == "growth":
        return growth(result)
    if suite == "jobs":
        return submitted(result)
    if suite == "cost":
        return cost(result)
    if suite == "replies":
        return written(result)
    if suite == "videos":
        return decoded(result)
    if suite == "shares":
        return shared(result)
    if suite == "soak":
        return soak(result)
    return comparison(result, suite)


def comparison(result: Result, suite: str) -> list[str]:
    title = suites.NAMED[suite].title if suite in suites.NAMED else "Smoke"
    samples = [one for one in result["samples"] if one["suite"] == suite]
    present = list(dict.fromkeys(one["server"] for one in samples))
    ours = [name for name in present if _server(result, name)["ours"]]
    names = [*ours, *(name for name in present if name not in ours)]
    if not ours:
        return [f"## {title}", "", "No sample of ours.", ""]
    titles = [_server(result, name)["title"] for name in names]
    head = ["", "unit", *titles, "ours / best peer"]
    lines = [f"## {title}", "", _stamp(result), "", *_head(head)]
    for row in rows_of(suite):
        lines += _compared(row, samples, names, ours)
    lines.append(_cosines(samples, names))
    return [*lines, "", *_noted([*_notes(samples, result), *_efforts(result, suite, samples)])]


def _noted(notes: list[str]) -> list[str]:
    return [*notes, ""] if notes else []


def _server(result: Result, name: str) -> Mapping[str, Any]:
    return dict(result["servers"][name])


def _stamp(result: Result) -> str:
    changed = ", with changes not committed" if result["changed"] else ""
    return (
        f"Median of {result['repeats']} repeats (lowest to highest), "
        f"{result['date']}, commit {result['commit']}{changed}. `{result['command']}`"
    )


def _head(cells: Sequence[str]) -> list[str]:
    rule = ["---", "---", *["---:"] * (len(cells) - 2)]
    return [_cells(cells), _cells(rule)]


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _compared(
    row: Row, samples: Sequence[Any], names: Sequence[str], ours: Sequence[str]
) -> list[str]:
    """One line, or none when nobody has the figure. The first of `ours` is what the best peer
    is set against. A server whose answers were wrong, or of which a request failed, is void
    here and no candidate for the best peer."""
    found = {
        name: figures.values(samples, row.figure, workload=row.workload, server=name)
        for name in names
    }
    if not any(found.values()):
        return []
    void = {name for name in names if _void(samples, name, row.workload)}
    sound = {name: by for name, by in found.items() if name not in void}
    peers = {name: by for name, by in sound.items() if name not in ours}
    best = figures.best_peer(peers, less_is_better=row.less_is_better)
    cells = [_cell(found[name], void=name in void, best=name == best) for name in names]
    return [_cells([row.title, row.unit, *cells, _ratio(row, sound, ours[0], best)])]


def _void(samples: Sequence[Any], server: str, workload: str) -> bool:
    own = [one for one in samples if one["server"] == server]
    wrong = any(one.get("right") is False for one in own)
    return wrong or any(one.get("bad") for one in own if one["workload"] == workload)


def _cell(by: Mapping[int, float], *, void: bool, best: bool) -> str:
    spread = Spread.of(by.values())
    if spread is None:
        return "-"
    text = f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"
    if void:
        return f"void: {text}"
    return f"**{text}**" if best else text


def _ratio(row: Row, sound: Mapping[str, Mapping[int, float]], ours: str, best: str | None) -> str:
    if best is None or ours not in sound:
        return "-"
    pairs = figures.ratios(sound[ours], sound[best], less_is_better=row.less_is_better)
    spread = Spread.of(pairs)
    if spread is None:
        return "-"
    return f"**{spread.median:.2f} x** ({spread.low:.2f} to {spread.high:.2f})"


def _cosines(samples: Sequence[Any], names: Sequence[str]) -> str:
    cells = []
    for name in names:
        spread = figures.spread(samples, "cosine", workload="answers", server=name)
        wrong = _void(samples, name, "answers")
        said = "-" if spread is None else f"{spread.low:.6f}"
        cells.append(f"{said}, void" if wrong else said)
    floors = {one["floor"] for one in samples if "floor" in one} or {answers.FLOOR}
    floor = " or ".join(f"at least {one}" for one in sorted(floors))
    return _cells(["lowest cosine (rerank: correlation) to f32", floor, *cells, ""])


def _notes(samples: Sequence[Any], result: Result) -> list[str]:
    """What servers failed at, and how much of the processor the generator took."""
    lines = []
    for one in samples:
        title = _server(result, one["server"])["title"]
        if one["workload"] == "lost":
            last = one["why"].strip().splitlines()[:1]
            lines.append(f"- {title} was lost in repeat {one['repeat'] + 1}: `{' '.join(last)}`")
        if one.get("bad"):
            lines.append(f"- {title}, {one['workload']}: {one['bad']} requests failed.")
    shares = [
        (one["generator_cores"], one["workload"], one["server"])
        for one in samples
        if "generator_cores" in one
    ]
    if shares:
        most, workload, server = max(shares)
        cores = result["machine"]["cores"]
        lines.append(
            f"- The load generator used at most {100 * most / cores:.1f} % of the processor "
            f"({workload} on {server})."
        )
    return lines


def _efforts(result: Result, suite: str, samples: Sequence[Any]) -> list[str]:
    """Our share of the matrix ceiling under load: 2 operations for each weight and token."""
    model = suites.NAMED[suite].model if suite in suites.NAMED else "default"
    kind = "float32" if suite == "f32" else "bfloat16"
    if suite.endswith("int8"):  # no ceiling of that is measured
        return []
    ceiling = max(result["ceiling_gflops"].get(kind, {}).values(), default=0.0)
    ours = next((one["server"] for one in samples if _server(result, one["server"])["ours"]), None)
    if model not in operations.SHAPES or not ceiling or ours is None:
        return []
    lines = []
    for name, tokens in result["tokens"].items():
        rate = figures.spread(samples, "texts_per_second", workload=name, server=ours)
        if rate is not None:
            reached = rate.median * operations.flop(model, tokens) / 1e9
            lines.append(
                f"- {workloads.NAMED[name].title}: our model ran at {reached:.0f} GFLOP/s, "
                f"{100 * reached / ceiling:.0f} % of the {ceiling:.0f} GFLOP/s ({kind}) that "
                "plain matrix products reached before or after this run."
            )
    return lines


def growth(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "growth"]
    lines = ["## Growth: ours alone", "", _stamp(result), ""]
    for curve in CURVES:
        points = curve_points(samples, curve.name)
        if not points:
            continue
        lines += [
            f"{curve.title}:",
            "",
            *_head([curve.x, "unit", "median", "share of the highest"]),
        ]
        highest = max(rate for _, rate in points)
        unit = "tokens/s" if curve.name == "tokens" else "texts/s"
        lines += [
            _cells([f"{x:g}", unit, number(rate), f"{100 * rate / highest:.0f} %"])
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
    lines = ["## The server without its model", "", _stamp(result), ""]
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


def submitted(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "jobs"]
    titles = [_server(result, name)["title"] for name in jobs.SERVERS]
    lines = ["## Jobs of RunPod's API", "", _stamp(result), ""]
    lines += _head(["", "unit", *titles, "ours / best peer"])
    for work in jobs.WORKS:
        row = Row(work.title, work.name, "jobs_per_second", "jobs/s")
        lines += _compared(row, samples, jobs.SERVERS, jobs.SERVERS[0])
        if work.connections == 1:
            row = Row(f"p50 of {work.title}", work.name, "p50_ms", "ms", less_is_better=True)
            lines += _compared(row, samples, jobs.SERVERS, jobs.SERVERS[0])
    about = (
        f"- Ours writes each job to its disk; the SDK's server forgets them with its process. "
        f"/status is asked for at once, then every {jobs.PAUSE:g} ms."
    )
    return [*lines, _cosines(samples, jobs.SERVERS), "", about, *_notes(samples, result), ""]


def written(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "replies"]
    lines = ["## Writing replies of many vectors: ours alone", "", _stamp(result), ""]
    lines += _head([replies.ABOUT, "unit", "processor time", "MB"])
    for form in dict.fromkeys(one["workload"] for one in samples):
        spent = figures.spread(samples, "cpu_ms", workload=form)
        size = figures.spread(samples, "mb", workload=form)
        if spent is not None and size is not None:
            reach = f"{number(spent.median)} ({number(spent.low)} to {number(spent.high)})"
            lines.append(_cells([form, "ms", reach, number(size.median)]))
    return [*lines, ""]


def decoded(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "videos"]
    lines = ["## Frames of a video: ours alone", "", _stamp(result), ""]
    lines += _head(["", "unit", "time", "frames", f"as long as {videos.SEEKING}"])
    for way in dict.fromkeys(one["workload"] for one in samples):
        few = f"{way.split(':')[0]}: {videos.SEEKING}"
        spent = figures.values(samples, "ms", workload=way)
        times = Spread.of(figures.ratios(spent, figures.values(samples, "ms", workload=few)))
        reach = Spread.of(spent.values())
        count = figures.spread(samples, "frames", workload=way)
        if reach and times and count:
            span = f"{number(reach.median)} ({number(reach.low)} to {number(reach.high)})"
            lines.append(_cells([way, "ms", span, f"{count.median:.0f}", f"{times.median:.2f}"]))
    return [*lines, ""]


def shared(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "shares"]
    lines = ["## Where the time of a picture goes: ours alone", "", _stamp(result), ""]
    lines += _head(["on the way from a data URI to a vector", "unit", "processor time", "share"])
    steps = dict.fromkeys(one["workload"] for one in samples)
    found = {step: figures.spread(samples, "cpu_ms", workload=step) for step in steps}
    whole = sum(spread.median for spread in found.values() if spread)
    for step, spread in found.items():
        if spread is not None:
            reach = f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"
            lines.append(_cells([step, "ms", reach, f"{100 * spread.median / whole:.0f} %"]))
    return [*lines, "", *_noted(_beside_the_server(result, whole))]


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
    lines += _head(["minutes", "unit", "resident"])
    for wanted in SOAKED:
        x, resident = min(points, key=lambda point: abs(point[0] - wanted))
        if abs(x - wanted) <= 1:
            lines.append(_cells([f"{x:.0f}", "MB", number(resident)]))
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


def number(value: float) -> str:
    """Three figures, or all before the point."""
    places = next((places for floor, places in ((100, 0), (10, 1)) if value >= floor), 2)
    return f"{value:,.{places}f}"


def model_of(suite: str) -> str:
    return models.title(suites.NAMED[suite].model)
