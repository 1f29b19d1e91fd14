"""What the server says: to a person on a terminal, or line by line to a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any

import orjson

from omnivec.core.settings import Settings

log = logging.getLogger("omnivec")

EVERY = 5.0
"""Seconds between two lines of progress in a log."""


class JsonLines(logging.Formatter):
    """One JSON object for each record: time (unix seconds), level, logger, message, trace."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(settings: Settings) -> None:
    """Everything to stderr: as text on a terminal, else as `log_format` says (auto: text)."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("omnivec").setLevel(logging.INFO)


def say(text: str) -> None:
    """To a person as it is; to a log as one record for each line."""
    if _to_a_person():
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - it is for a person
        return
    for line in text.splitlines():
        if line.strip():
            log.info("%s", line)


class Download:
    """Progress of a download: one line that is rewritten, or in a log one every 5 s.

    Called with bytes done and bytes in all (0: not known yet), from other threads.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._told = 0.0
        self._lock = threading.Lock()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        person = _to_a_person()
        with self._lock:
            if now - self._told < (0.1 if person else EVERY) and done < total:
                return
            self._told = now
        text = self._text(done, total, now - self._began)
        if person:
            end = "\n" if total and done >= total else ""
            print(f"\r{text:<70}", end=end, file=sys.stderr, flush=True)  # noqa: T201 - as above
        else:
            log.info("%s", text)

    def _text(self, done: int, total: int, seconds: float) -> str:
        rate = done / max(seconds, 1e-3)
        parts = [f"downloading: {_megabytes(done)}"]
        if total:
            left = (total - done) / max(rate, 1.0)
            parts = [
                f"downloading: {_megabytes(done)} of {_megabytes(total)}",
                f"{left:.0f} s left",
            ]
        return ", ".join([*parts, f"{_megabytes(rate)}/s"])


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _to_a_person() -> bool:
    """A terminal, unless the log is set to JSON: then a program reads along."""
    handlers = logging.getLogger().handlers
    return sys.stderr.isatty() and not any(isinstance(h.formatter, JsonLines) for h in handlers)
