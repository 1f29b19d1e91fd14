"""How far long work is: a bar on a terminal, a line now and then elsewhere. On stderr."""

from __future__ import annotations

import sys
import time
from typing import Any, Self, TextIO

SHORT = 1.0  # seconds: work that is done by then shows nothing
EVERY = 5.0  # seconds between two lines


class Progress:
    """`what` is being done to how many of `unit` ("texts", "bytes")."""

    def __init__(self, what: str, unit: str, stream: TextIO | None = None) -> None:
        self.what, self.unit = what, unit
        self.stream = stream or sys.stderr
        self.started = self.told = time.monotonic()
        self.done = 0
        self.total: int | None = None
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, total: int | None = None) -> None:
        """`total` None or 0: not known."""
        self.done, self.total = done, total or None
        now = time.monotonic()
        if self.stream.isatty():
            if self.bar is None and now - self.started > SHORT:
                self._open()
            if self.bar is not None:
                self.bar.update(self.task, completed=done, total=self.total)
        elif now - self.told >= EVERY:
            self.told = now
            print(self.line(now - self.started), file=self.stream, flush=True)

    def line(self, seconds: float) -> str:
        """`embedding: 1,200 of 5,000 texts (24 %), 240/s, 16 s left`."""
        rate = self.done / max(seconds, 1e-9)
        if self.total is None:
            return f"{self.what}: {self._amount(self.done)}, {self._rate(rate)}"
        left = (self.total - self.done) / max(rate, 1e-9)
        return (
            f"{self.what}: {self._amount(self.done, bare=True)} of {self._amount(self.total)} "
            f"({100 * self.done // max(self.total, 1)} %), {self._rate(rate)}, {left:.0f} s left"
        )

    def _amount(self, number: int, *, bare: bool = False) -> str:
        if self.unit == "bytes":
            return f"{number / 1e6:,.1f} MB"
        return f"{number:,}" if bare else f"{number:,} {self.unit}"

    def _rate(self, rate: float) -> str:
        return f"{rate / 1e6:,.1f} MB/s" if self.unit == "bytes" else f"{rate:,.0f}/s"

    def _open(self) -> None:
        from rich import progress as rich
        from rich.console import Console

        counts: list[Any] = (
            [rich.DownloadColumn(), rich.TransferSpeedColumn()]
            if self.unit == "bytes"
            else [rich.MofNCompleteColumn(), rich.TextColumn(self.unit)]
        )
        self.bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            *counts,
            rich.TimeRemainingColumn(),
            console=Console(file=self.stream),
            transient=True,
        )
        self.bar.start()
        self.task = self.bar.add_task(self.what, total=self.total)
