"""`omnivec models` and `omnivec pull`: which models there are, and getting one."""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from omnivec.cli.options import settings, takes_settings
from omnivec.cli.serving import Json
from omnivec.core.checkpoint import CheckpointError
from omnivec.hosts.progress import Progress

if TYPE_CHECKING:
    from omnivec.core.nouns import Card


class Row(NamedTuple):
    """`state` "here": can be served without a network; "incomplete", "failed", "known"."""

    name: str
    task: str
    dims: int | None
    tokens: int | None
    state: str
    note: str = ""


def models(
    *,
    here: Annotated[bool, typer.Option("--here", help="Only those that need no download.")] = False,
    as_json: Json = False,
) -> None:
    """List the models on this machine, and those that are known.

    Any other Hugging Face id works, too, if its architecture is one that omnivec has.

    \b
    Examples:
      omnivec models
      omnivec models --here --json
    """
    rows = sorted(_rows(), key=lambda row: (row.state != "here", row.state == "known"))
    rows = [row for row in rows if row.state == "here" or not here]
    if as_json:
        import json

        print(json.dumps([row._asdict() for row in rows], indent=2))
        return
    lines = [("MODEL", "TASK", "DIMS", "TOKENS", "STATE", "")]
    lines += [(r.name, r.task, _n(r.dims), _n(r.tokens), r.state, r.note) for r in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _n(number: int | None) -> str:
    return "-" if number is None else str(number)


def _rows() -> Iterator[Row]:
    from omnivec.engine import hub
    from omnivec.engine.catalog import catalog

    known = catalog().entries
    cached = hub.cached_ids()
    for name in [*known, *(one for one in cached if one not in known)]:
        entry = known.get(name)
        task, dims, tokens = (entry.task, entry.dims, entry.tokens) if entry else ("", None, None)
        try:
            spec = catalog().spec(name)
            checkpoint = hub.locate_here(spec)
            if checkpoint is None:
                state = "incomplete" if name in cached else "known"
                note = f"omnivec pull {name}" if name in cached else ""
                yield Row(name, task, dims, tokens, state, note)
                continue
            card = describe(checkpoint)
            yield Row(name, " ".join(card.tasks), card.dims, card.max_tokens, "here")
        except CheckpointError as error:
            yield Row(name, task, dims, tokens, "failed", str(error))


def describe(checkpoint: object) -> "Card":
    """The card of the family that has this checkpoint. Raises CheckpointError."""
    from omnivec.core.plugins import discover

    for family in discover("families").values():
        if family.claims(checkpoint):
            card: Card = family.card(checkpoint)
            return card
    raise CheckpointError("no family of models here knows this architecture")


@takes_settings(("revision", "offline"))
def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A Hugging Face id.")],
    *,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Get a model's files, so that it can be served offline.

    They go to the Hugging Face cache (HF_HOME), where other programs find them as well.
    HF_TOKEN opens gated and private models, HF_ENDPOINT names a mirror.

    \b
    Examples:
      omnivec pull BAAI/bge-small-en-v1.5
      omnivec pull BAAI/bge-m3@main
    """
    from omnivec.engine.catalog import catalog
    from omnivec.engine.hub import locate

    loaded = settings(flags, config, [model]).settings
    spec = catalog().spec(model, revision=loaded.revision)
    with Progress(f"downloading {spec.source}", "bytes") as progress:
        checkpoint = locate(spec, offline=loaded.offline, progress=progress.update)
    print(f"{spec.source} is in {checkpoint.folder}", file=sys.stderr)
