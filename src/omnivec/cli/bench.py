"""`omnivec bench`: how fast a model is on this machine, in a minute."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnivec import __version__
from omnivec.cli import machine
from omnivec.cli.batch import Stop
from omnivec.cli.command import at_least
from omnivec.cli.options import COMPUTE, settings, takes_settings
from omnivec.cli.serving import Json
from omnivec.core.machine import share
from omnivec.hosts.progress import Progress

if TYPE_CHECKING:
    from omnivec.hosts.measure import Report

MEGA = 1e6


@takes_settings([name for name in COMPUTE if name != "cache"])
def bench(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="As for `omnivec serve`; without one its default."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            parser=at_least(0.1, "a number of seconds"),
            help="How long to measure, all in all. [default: 60]",
            metavar="SECONDS",
            show_default=False,
        ),
    ] = 60.0,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="Where the table, the numbers and the plot go. [default: omnivec-bench]",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = "omnivec-bench",
    *,
    as_json: Json = False,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Measure throughput and latency of a model on this machine.

    By length of text (8, 32, 128, 512 tokens and the model's window) and number of clients (1,
    8, 64), inside this process: without HTTP. Where the runtime can measure it, also the share
    of what matrix products alone reach here. Writes bench.md, bench.json and bench.svg into
    the output folder. Ctrl-C keeps what is measured.

    \b
    Examples:
      omnivec bench
      omnivec bench BAAI/bge-small-en-v1.5 --dtype f32 --seconds 120
      omnivec bench fake --json | jq .cells
    """
    import asyncio

    from omnivec.hosts.measure import Bench

    loaded = settings(flags, config, [model] if model else []).settings
    with _made(Path(output)) as folder, Stop() as stop, Progress("measuring", "cells") as progress:
        work = Bench(loaded, seconds, stopped=lambda: stop.asked, told=progress.update)
        report = asyncio.run(work.run())
    _tell(report, folder, as_json=as_json)
    if stop.asked:
        raise typer.Exit(130)


def _tell(report: Report, folder: Path, *, as_json: bool) -> None:
    """Printed first: the disk may be full."""
    from omnivec.hosts import chart

    table, numbers = markdown(report), _as_json(report)
    print(numbers if as_json else table, flush=True)
    (folder / "bench.md").write_text(table, encoding="utf-8")
    (folder / "bench.json").write_text(numbers, encoding="utf-8")
    (folder / "bench.svg").write_text(chart.draw(report), encoding="utf-8")
    print(f"omnivec: bench.md, bench.json and bench.svg are in {folder}", file=sys.stderr)


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A folder that is there before a minute of work, and is not left behind empty."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # it has files in it
            folder.rmdir()
        raise


def _machine() -> dict[str, Any]:
    name, instructions = machine.processor()
    return {"processor": name, "instructions": instructions, "cores": share()}


def _as_json(report: Report) -> str:
    import msgspec

    whole = {"omnivec": __version__, "machine": _machine(), **msgspec.to_builtins(report)}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()


def markdown(report: Report) -> str:
    return "\n".join([*_facts(report), "", *_rows(report), *_notes(report), ""])


def _facts(report: Report) -> Iterator[str]:
    here = _machine()
    ceiling = report.ceiling_gflops
    yield f"# {report.model}"
    yield ""
    yield f"- omnivec {__version__}, {report.runtime} on {report.device} in {report.dtype}"
    yield f"- {here['processor']}, {here['cores']:g} cores, {', '.join(here['instructions'])}"
    yield f"- loaded in {report.load_seconds:.2f} s"
    yield (
        f"- resident memory: {report.memory_before / MEGA:,.0f} MB before, "
        f"{report.memory_loaded / MEGA:,.0f} MB loaded, {report.memory_after / MEGA:,.0f} MB after"
    )
    if ceiling is not None:
        yield f"- matrix products alone: {ceiling:,.0f} GFLOP/s"


def _rows(report: Report) -> Iterator[str]:
    yield "| tokens | clients | texts/s | tokens/s | p50 ms | p99 ms | GFLOP/s | of the ceiling |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for cell in report.cells:
        values = (
            f"{cell.tokens:,}",
            str(cell.clients),
            f"{cell.texts_per_second:,.1f}",
            f"{cell.tokens_per_second:,.0f}",
            _shown(cell.p50_ms, "{:,.2f}"),
            _shown(cell.p99_ms, "{:,.2f}"),
            _shown(cell.gflops, "{:,.0f}"),
            _shown(cell.share, "{:.0%}"),
        )
        yield f"| {' | '.join(values)} |"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _notes(report: Report) -> Iterator[str]:
    if report.left_out:
        yield ""
        yield from (f"Left out: {one}." for one in report.left_out)
