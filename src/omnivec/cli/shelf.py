"""`omnivec models` and `omnivec pull`: which models there are, and getting one."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from omnivec.cli.options import settings, takes_settings
from omnivec.cli.serving import Json
from omnivec.core.checkpoint import CheckpointError
from omnivec.hosts.progress import Progress

if TYPE_CHECKING:
    from omnivec.core.nouns import Card
    from omnivec.engine.catalog import Spec
    from omnivec.engine.entries import Entry


class Row(NamedTuple):
    """`state` "here": can be served without a network; "incomplete", "failed", "known", and
    "later" for what this release cannot load."""

    name: str
    card: "Card"
    state: str
    license: str = ""
    note: str = ""
    extra: str | None = None

    def facts(self) -> dict[str, object]:
        card = self.card
        return {
            "name": self.name,
            "tasks": list(card.tasks),
            "reads": list(card.modalities),
            "kinds": list(card.kinds),
            "dims": card.dims,
            "sparse_dims": card.sparse_dims,
            "token_dims": card.token_dims,
            "tokens": card.max_tokens,
            "architecture": card.architecture,
            "profiles": sorted({"default", *card.profiles}),
            "license": self.license,
            "extra": self.extra,
            "state": self.state,
            "note": self.note,
        }


WIDTH = 38  # of a name; a longer one has a line to itself
WORDS = {"incomplete": "partly"}  # so that a line has at most 80 characters
RANKS = {"here": 0, "failed": 1, "incomplete": 1, "known": 2, "later": 3}
MADE = ("dense", "sparse", "multi", "scores", "classes")


@takes_settings(("catalogue",))
def models(
    *,
    here: Annotated[bool, typer.Option("--here", help="Only those that need no download.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also those that this release cannot load, and why.")
    ] = False,
    as_json: Json = False,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """List the models on this machine, and those that are known.

    Any other Hugging Face id works, too, if its architecture is one that omnivec has. READS is
    text, image for models that see pictures as well, video for those that see both. STATE is
    here, known (`omnivec pull` gets it), partly or failed. Under a model stands what it needs.

    \b
    Examples:
      omnivec models
      omnivec models --here --json
    """
    own = settings(flags, config, ()).settings.catalogue
    rows = sorted(_rows(own), key=lambda row: (RANKS[row.state], _order(row.card)))
    rows = [row for row in rows if row.state == "here" or not here]
    rows = [row for row in rows if row.state != "later" or every]
    if as_json:
        import json

        print(json.dumps([row.facts() for row in rows], indent=2))
        return
    print(f"{'MODEL':{WIDTH}}  {'MAKES':18} {'READS':5} {'TOKENS':>6}  STATE")
    for row in rows:
        reads, tokens = row.card.modalities[-1], row.card.max_tokens or "-"
        state = WORDS.get(row.state, row.state)
        facts = f"{_made(row.card):18} {reads:5} {tokens:>6}  {state}"
        wraps = len(row.name) > WIDTH
        print(f"{row.name}\n{'':{WIDTH}}  {facts}" if wraps else f"{row.name:{WIDTH}}  {facts}")
        if row.note:
            print(f"    {row.note}")


def _made(card: "Card") -> str:
    """What comes out, in a word or two: `dense 384`, `dense sparse multi`, `scores`."""
    widths = {"dense": card.dims, "sparse": card.sparse_dims, "multivector": card.token_dims}
    words = ["multi" if kind == "multivector" else kind for kind in card.kinds]
    if len(words) == 1:
        return f"{words[0]} {widths[card.kinds[0]] or ''}".strip()
    if words or not card.tasks:
        return " ".join(words)
    return "scores" if "score" in card.tasks else "classes"


def _order(card: "Card") -> int:
    word = _made(card).partition(" ")[0]
    return MADE.index(word) if word in MADE else len(MADE)


def _rows(own: str | None) -> Iterator[Row]:
    from omnivec.engine import hub
    from omnivec.engine.catalog import catalog

    known = catalog(own)
    cached = hub.cached_ids()
    for name in [*known.entries, *(one for one in cached if one not in known.entries)]:
        entry = known.entries.get(name)
        spec = known.spec(entry.id if entry else name)
        license_ = (entry.license if entry else None) or ""
        if entry is not None and entry.unserved:
            yield Row(name, spec.card(), "later", license_, entry.unserved)
        else:
            row = _row(spec, license_, cached)
            extra = entry.extra if entry else None
            yield row._replace(note=row.note or _needs(entry), extra=extra)


def _needs(entry: "Entry | None") -> str:
    if entry is not None and entry.converted:
        return f"omnivec convert {entry.id} FOLDER"
    if entry is None or not entry.extra:
        return ""
    needed = f"needs omnivec[{entry.extra}]"
    return f"{needed} for {' and '.join(entry.extra_for)}" if entry.extra_for else needed


def _row(spec: "Spec", license_: str, cached: Sequence[str]) -> Row:
    import msgspec

    from omnivec.engine import hub

    try:
        checkpoint = hub.locate_here(spec)
        if checkpoint is not None:
            found = describe(checkpoint)
            card = msgspec.structs.replace(found, profiles=spec.card().profiles)
            return Row(spec.name, card, "here", license_)
    except CheckpointError as error:
        return Row(spec.name, spec.card(), "failed", license_, str(error))
    if spec.name in cached and not (spec.entry and spec.entry.converted):
        note = f"omnivec pull {spec.name}"
        return Row(spec.name, spec.card(), "incomplete", license_, note)
    return Row(spec.name, spec.card(), "known", license_)


def describe(checkpoint: object) -> "Card":
    """The card of the family that has this checkpoint. Raises CheckpointError."""
    from omnivec.core.plugins import discover

    for family in discover("families").values():
        if family.claims(checkpoint):
            card: Card = family.card(checkpoint)
            return card
    raise CheckpointError("no family of models here knows this architecture")


@takes_settings(("revision", "catalogue", "offline"))
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
    spec = catalog(loaded.catalogue).spec(model, revision=loaded.revision)
    with Progress(f"downloading {spec.source}", "bytes") as progress:
        checkpoint = locate(spec, offline=loaded.offline, progress=progress.update)
    print(f"{spec.source} is in {checkpoint.folder}", file=sys.stderr)
