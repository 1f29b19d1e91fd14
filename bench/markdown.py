"""What every table of the report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]


def server_of(result: Result, name: str) -> Mapping[str, Any]:
    return dict(result["servers"][name])


def stamp(result: Result) -> str:
    changed = ", with changes not committed" if result["changed"] else ""
    return (
        f"Median of {result['repeats']} repeats (lowest to highest), "
        f"{result['date']}, commit {result['commit']}{changed}. `{result['command']}`"
    )


def head(titles: Sequence[str]) -> list[str]:
    rule = ["---", "---", *["---:"] * (len(titles) - 2)]
    return [line(titles), line(rule)]


def line(parts: Sequence[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def number(value: float) -> str:
    """Three figures, or all before the point."""
    places = next((places for floor, places in ((100, 0), (10, 1)) if value >= floor), 2)
    return f"{value:,.{places}f}"


def noted(notes: list[str]) -> list[str]:
    return [*notes, ""] if notes else []
