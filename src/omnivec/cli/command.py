"""How a command shows its arguments: by the names and sentences that it gives them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

Number = TypeVar("Number", int, float)


class Command(TyperCommand):
    """Without typer's own marks, which are Python's words: `<str>`, `list[str]`, `{FILE}`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [self.options_metavar or "", *(_placed(one) for one in self._arguments(ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        told = (one.get_help_record(ctx) for one in self.get_params(ctx))
        arguments = [(one.metavar, one.help) for one in self._arguments(ctx)]
        options = [row for row in told if row is not None and row[0].startswith("-")]
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _arguments(self, ctx: Any) -> list[Any]:
        return [one for one in self.get_params(ctx) if one.param_type_name == "argument"]


def _placed(argument: Any) -> str:
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name if argument.nargs == 1 else f"{name}..."


def at_least(least: Number, what: str) -> Callable[[str], Number]:
    """Reads an option's number, which must be `least` or more; `what` it is, in words."""

    def read(text: str) -> Number:
        with suppress(ValueError):
            value = type(least)(text)
            if value >= least:
                return value
        raise typer.BadParameter(f"it is {text!r}; accepted: {what} from {least}")

    return read
