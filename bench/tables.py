"""The samples of one run as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench import answers, figures, jobs, models, operations, own_tables, suites, workloads
from bench.figures import Spread
from bench.markdown import Result, head, line, noted, number, server_of, stamp


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
    if suite in own_tables.TABLES:
        return own_tables.TABLES[suite](result)
    return submitted(result) if suite == "jobs" else comparison(result, suite)


def submitted(result: Result) -> list[str]:
    samples = [one for one in result["samples"] if one["suite"] == "jobs"]
    names = [name for name in jobs.SERVERS if any(one["server"] == name for one in samples)]
    titles = [server_of(result, name)["title"] for name in names]
    lines = ["## Jobs of RunPod's API", "", stamp(result), ""]
    lines += head(["", "unit", *titles, "ours / best peer"])
    for work in jobs.WORKS:
        row = Row(work.title, work.name, "jobs_per_second", "jobs/s")
        lines += _compared(row, samples, names, jobs.OURS)
        if work.connections == 1:
            row = Row(f"p50 of {work.title}", work.name, "p50_ms", "ms", less_is_better=True)
            lines += _compared(row, samples, names, jobs.OURS)
    about = (
        "- The first of ours writes each job to its disk; the others forget them with the process. "
        f"/status is asked for at once, then every {jobs.PAUSE:g} ms."
    )
    return [*lines, _cosines(samples, names), "", about, *_notes(samples, result), ""]


def comparison(result: Result, suite: str) -> list[str]:
    title = suites.NAMED[suite].title if suite in suites.NAMED else "Smoke"
    samples = [one for one in result["samples"] if one["suite"] == suite]
    present = list(dict.fromkeys(one["server"] for one in samples))
    ours = [name for name in present if server_of(result, name)["ours"]]
    names = [*ours, *(name for name in present if name not in ours)]
    if not ours:
        return [f"## {title}", "", "No sample of ours.", ""]
    titles = [server_of(result, name)["title"] for name in names]
    columns = ["", "unit", *titles, "ours / best peer"]
    lines = [f"## {title}", "", stamp(result), "", *head(columns)]
    for row in rows_of(suite):
        lines += _compared(row, samples, names, ours)
    lines.append(_cosines(samples, names))
    return [*lines, "", *noted([*_notes(samples, result), *_efforts(result, suite, samples)])]


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
    return [line([row.title, row.unit, *cells, _ratio(row, sound, ours[0], best)])]


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
    return line(["lowest cosine (rerank: correlation) to f32", floor, *cells, ""])


def _notes(samples: Sequence[Any], result: Result) -> list[str]:
    """What servers failed at, and how much of the processor the generator took."""
    lines = []
    for one in samples:
        title = server_of(result, one["server"])["title"]
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
    ours = next(
        (one["server"] for one in samples if server_of(result, one["server"])["ours"]), None
    )
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


def model_of(suite: str) -> str:
    return models.title(suites.NAMED[suite].model)
