"""What a model is called: by the person who starts the server, and by a client.

The two never share code. A person's argument may name a folder; a client's name is only ever
compared with the names that are served, and no file system is asked about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Card

MODELS = Path(__file__).parent.parent / "models"
DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"

WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
ID = re.compile(rf"{WORD}(/{WORD})?")
ALIAS = re.compile(rf"({WORD}(?:/{WORD})?)=(.+)")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}")
TEST = re.compile(r"(fake(?:-reranker)?)(?::(.*))?")
BUILT_IN = {"omnivec/bm25": ("bm25", ("bm25", "Qdrant/bm25"))}
"""Models without weights that come with the program: their folder and what else they are called."""
OPTION = re.compile(r"([a-z_]+)=([^,=]+)")


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights that come as a Python package: `file` in `folder` of `module` has `sha256`."""

    name: str
    version: str
    module: str
    folder: str
    file: str
    sha256: str


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that the catalogue knows. `dims` and `tokens` are for lists only: what a
    checkpoint says of itself is asked when it is there."""

    id: str
    aliases: tuple[str, ...] = ()
    dims: int | None = None
    tokens: int | None = None
    task: Literal["encode", "score"] = "encode"
    overrides: Mapping[str, Any] = {}
    package: Package | None = None


class Spec(msgspec.Struct, frozen=True):
    """One model that is to be served, before its files are looked for.

    `name` is what clients see, `aliases` what else they may say. `source` is a Hugging Face
    id ("hub") or a folder ("folder"). `overrides`, `options` and `adapters` go to the
    checkpoint.
    """

    name: str
    source: str
    kind: Literal["hub", "folder"]
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    options: Mapping[str, str] = {}
    overrides: Mapping[str, Any] = {}
    package: Package | None = None
    adapters: tuple[Adapter, ...] = ()


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    aliases: tuple[str, ...] = ()
    dims: int | None = None
    tokens: int | None = None


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Models that share what their repositories do not say."""

    models: tuple[_Line, ...]
    task: Literal["encode", "score"] = "encode"
    prompts: dict[str, str] | None = None
    pooling: str | None = None
    max_tokens: int | None = None
    package: Package | None = None

    def entries(self) -> Iterator[Entry]:
        said = {"prompts": self.prompts, "pooling": self.pooling, "max_tokens": self.max_tokens}
        overrides = {key: value for key, value in said.items() if value is not None}
        for line in self.models:
            yield Entry(
                id=line.id,
                aliases=line.aliases,
                dims=line.dims,
                tokens=line.tokens,
                task=self.task,
                overrides=overrides,
                package=self.package,
            )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    group: tuple[_Group, ...]


# ── a person's argument ──────────────────────────────────────────────────────────────────


class Catalog:
    """The known models, from the TOML files of one folder.

    Raises RuntimeError for a file that is not as `_Group` says or an id that comes twice.
    """

    def __init__(self, folder: Path = MODELS) -> None:
        self.entries: dict[str, Entry] = {}
        for path in sorted(folder.glob("*.toml")):
            for entry in _read(path):
                if entry.id in self.entries:
                    raise RuntimeError(f"{path.name}: {entry.id} is in the catalogue already")
                self.entries[entry.id] = entry

    def specs(self, arguments: Sequence[str], *, revision: str | None = None) -> list[Spec]:
        """One for each argument, or the default model's when there is none. `revision` holds
        for each that names none itself. Raises CheckpointError, too when two have one name."""
        found = [self.spec(one, revision=revision) for one in arguments or (DEFAULT,)]
        names = [spec.name for spec in found]
        for name in names:
            if names.count(name) > 1:
                raise CheckpointError(
                    f"two models would be called {name!r}; name one of them yourself: "
                    "another-name=MODEL"
                )
        return found

    def spec(self, argument: str, *, revision: str | None = None) -> Spec:
        """`[alias=]id-or-folder[@revision]`, `omnivec/bm25`, or `fake[:key=value,...]`.

        A folder is what looks like a path (/, ./, ../, ~), or a folder with a model in it.
        Raises CheckpointError for anything else that is not a Hugging Face id.
        """
        text = argument.strip()
        named = ALIAS.fullmatch(text)
        alias, target = (named[1], named[2]) if named else (None, text)
        test = TEST.fullmatch(target)
        if test is not None:
            spec = _test(test[1], test[2])
        elif target in BUILT_IN:
            folder, aliases = BUILT_IN[target]
            spec = Spec(target, str(MODELS / folder), "folder", aliases)
        elif looks_like_path(target) or holds_model(Path(target)):
            spec = _folder(target)
        else:
            spec = self._hub(target, revision)
        if alias is None:
            return spec
        return msgspec.structs.replace(spec, name=alias, aliases=(spec.name, *spec.aliases))

    def find(self, name: str) -> Entry | None:
        """The known model of that id or alias, whatever the case."""
        wanted = name.casefold()
        for entry in self.entries.values():
            if wanted in (one.casefold() for one in (entry.id, *entry.aliases)):
                return entry
        return None

    def _hub(self, target: str, revision: str | None) -> Spec:
        name, at, own = target.partition("@")
        revision = own if at else revision
        if not ID.fullmatch(name) or ".." in name or "--" in name or name.endswith(".git"):
            raise CheckpointError(
                f"{target!r} is not a model; accepted: a Hugging Face id (org/name), a folder "
                "(./name or /path/name), each also as alias=…, and a revision after @"
            )
        if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
            raise CheckpointError(
                f"{target!r}: the revision is not one; accepted: a branch, a tag or a commit"
            )
        entry = self.find(name) or Entry(id=name)
        return Spec(
            name=entry.id,
            source=entry.id,
            kind="hub",
            aliases=entry.aliases,
            revision=revision,
            overrides=entry.overrides,
            package=entry.package if revision in (None, "main") else None,
        )


@cache
def catalog() -> Catalog:
    """The one that is shipped, read once."""
    return Catalog()


def _read(path: Path) -> Iterator[Entry]:
    try:
        groups = msgspec.toml.decode(path.read_bytes(), type=_File).group
    except msgspec.DecodeError as error:
        raise RuntimeError(f"{path.name}: {error}") from error
    for group in groups:
        yield from group.entries()


def looks_like_path(text: str) -> bool:
    return text in (".", "..") or text.startswith(("/", "./", "../", "~"))


def holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "modules.json"))


def _folder(target: str) -> Spec:
    try:
        folder = Path(target).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{target!r}: there is no such user's home") from error
    return Spec(name=folder.resolve().name or "model", source=str(folder), kind="folder")


def _test(name: str, text: str | None) -> Spec:
    options: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        pair = OPTION.fullmatch(part.strip())
        if pair is None:
            raise CheckpointError(f"{name}:{text} is not understood; accepted: {name}:key=value,…")
        options[pair[1]] = pair[2]
    return Spec(name=name, source=str(MODELS / name), kind="folder", options=options)


# ── a client's name ──────────────────────────────────────────────────────────────────────

NAME = re.compile(r"/?(?:[A-Za-z0-9_.-]+/){0,2}[A-Za-z0-9_.-]+(?::latest)?")


def resolve(requested: str | None, served: Sequence[Card]) -> str | None:
    """The name of the served model that a request means, or None.

    In this order, the first that fits: the name or an alias as it is; without regard to case,
    to `:latest`, `openai/` or a leading `/models/`; a name without its organisation on one of
    the two sides, when it fits one model only.
    """
    if requested is None or not 0 < len(requested) <= 256:  # noqa: PLR2004 - longer than any id
        return None
    for card in served:
        if requested == card.name or requested in card.aliases:
            return card.name
    if not NAME.fullmatch(requested):
        return None
    return _loosely(requested.casefold(), served)


def _loosely(requested: str, served: Sequence[Card]) -> str | None:
    plain = requested.removesuffix(":latest").removeprefix("/").removeprefix("models/")
    forms = {requested, plain, plain.removeprefix("openai/")}
    for card in served:
        names = {one.casefold() for one in (card.name, *card.aliases)}
        if forms & (names | {one.removeprefix("openai/") for one in names}):
            return card.name
    fits = {card.name for card in served if _same_without_organisation(forms, card)}
    return fits.pop() if len(fits) == 1 else None


def _same_without_organisation(forms: set[str], card: Card) -> bool:
    """`bge-m3` for BAAI/bge-m3, and BAAI/bge-m3 for a folder that is called bge-m3."""
    name = card.name.casefold()
    if "/" in name:
        return name.rpartition("/")[2] in forms
    return name in {form.rpartition("/")[2] for form in forms if form.count("/") == 1}
