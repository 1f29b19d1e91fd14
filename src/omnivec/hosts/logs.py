"""What the server says: to a person on a terminal, or line by line to a log."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson

from omnivec.core.settings import Settings

log = logging.getLogger("omnivec")


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
    """Everything to stderr, as `log_format` says."""
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
    """To a person as it is; to a log in text line by line, to one in JSON as one record."""
    if _is_json():
        log.info("%s", text)
        return
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - it is for a person
        return
    for line in text.splitlines():
        if line.strip():
            log.info("%s", line)


def _is_json() -> bool:
    return any(isinstance(one.formatter, JsonLines) for one in logging.getLogger().handlers)
