"""What a model is called: by the person who starts the server, and by a client.

The two never share code. A person's argument may name a folder; a client's name is only ever
compared with the names that are served, and no file system is asked about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Card
from omnivec.core.settings import SettingsError
from omnivec.engine.entries import Entry, Package, files, over, read

MODELS = Path(__file__).parent.parent / "models"
DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"

WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
ID = re.compile(rf"{WORD}(/{WORD})?")
ALIAS = re.compile(rf"({WORD}(?:/{WORD})?)=(.+)")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}")
TEST = re.compile(r"(fake(?:-reranker)?)(?::(.*))?")
OPTION = re.compile(r"([a-z_]+)=([^,=]+)")


class Spec(msgspec.Struct, frozen=True):
    """One model that is to be served, before its files are looked for.

    `name` is what clients see, `aliases` what else they may say. `source` is a Hugging Face
    id ("hub") or a folder ("folder"). `overrides`, `options` and `adapters` go to the
    checkpoint. `entry` is what the catalogue has under its name.
    """

    name: str
    source: str
    kind: Literal["hub", "folder"]
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    options: Mapping[str, str] = {}
    overrides: Mapping[str, Any] = {}
    package: Package | None = None
    entry: Entry | None = None
    adapters: tuple[Adapter, ...] = ()

    def card(self) -> Card:
        """What is known before its files are looked at: a name alone, or what lists need."""
        known = self.entry.card() if self.entry else Card(name=self.name)
        adapters = tuple(adapter.name for adapter in self.adapters)
        return msgspec.structs.replace(
            known, name=self.name, aliases=self.aliases, adapters=adapters
        )


# ── a person's argument ──────────────────────────────────────────────────────────────────


class Catalog:
    """The known models, from TOML files and folders of them. What a later place says of a
    model wins over an earlier one's.

    Raises SettingsError for a file that is not as `entries.Facts` says, for an id that comes
    twice in one place, and for a name that two models have.
    """

    def __init__(self, *places: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self._ids: dict[str, str] = {}  # of every id and alias, in lower case
        for place in places or (MODELS,):
            found: set[str] = set()
            for file in files(place):
                for entry in read(file):
                    self._add(entry, file, found)

    @property
    def listed(self) -> tuple[Entry, ...]:
        """Those that this release can load."""
        return tuple(entry for entry in self.entries.values() if not entry.unserved)

    def _add(self, entry: Entry, file: Path, found: set[str]) -> None:
        if not ID.fullmatch(entry.id):
            raise SettingsError(f"catalogue {file}: {entry.id!r} is not an id; accepted: org/name")
        known = self._ids.get(entry.id.casefold())
        if known is not None:
            if known in found:
                raise SettingsError(f"catalogue {file}: {entry.id} is there twice")
            before = self.entries[known]
            aliases = tuple(dict.fromkeys((*before.aliases, *entry.aliases)))
            entry = over(msgspec.structs.replace(entry, id=known, aliases=aliases), before)
        found.add(entry.id)
        self.entries[entry.id] = entry
        for name in (entry.id, *entry.aliases):
            if self._ids.setdefault(name.casefold(), entry.id) != entry.id:
                raise SettingsError(
                    f"catalogue {file}: {entry.id} cannot be called {name}; "
                    f"{self._ids[name.casefold()]} is"
                )

    def specs(
        self,
        arguments: Sequence[str],
        *,
        revision: str | None = None,
        families: Sequence[str] = (),
    ) -> list[Spec]:
        """One for each argument, or the default model's when there is none. `revision` holds
        for each that names none itself. `families` are organisations of which all models are
        known here. Raises CheckpointError, too when two have one name."""
        for argument in arguments:
            self._check(argument.rpartition("=")[2].strip(), families)
        found = [self.spec(one, revision=revision) for one in arguments or (DEFAULT,)]
        names = [spec.name for spec in found]
        for name in names:
            if names.count(name) > 1:
                raise CheckpointError(
                    f"two models would be called {name!r}; name one of them yourself: "
                    "another-name=MODEL"
                )
        return found

    def _check(self, target: str, families: Sequence[str]) -> None:
        """Raises CheckpointError for a name in one of the families that no model has."""
        name = target.partition("@")[0]
        family = name.partition("/")[0].casefold() + "/"
        if family[:-1] not in map(str.casefold, families) or self.find(name) is not None:
            return
        if holds_model(Path(target)):
            return
        every = (one for entry in self.listed for one in (entry.id, *entry.aliases))
        there = ", ".join(one for one in every if one.casefold().startswith(family))
        raise CheckpointError(f"{name!r} is not a model of that family; accepted: {there}")

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
            spec = msgspec.structs.replace(_test(test[1], test[2]), entry=self.find(test[1]))
        elif looks_like_path(target) or holds_model(Path(target)):
            spec = self._folder(target, alias)
        else:
            spec = self._hub(target, revision)
        if alias is None:
            return spec
        return msgspec.structs.replace(spec, name=alias, aliases=(spec.name, *spec.aliases))

    def find(self, name: str) -> Entry | None:
        """The known model of that id or alias, whatever the case."""
        known = self._ids.get(name.casefold())
        return None if known is None else self.entries[known]

    def _folder(self, target: str, alias: str | None) -> Spec:
        """A folder is known by the name that a person gives it, or by its own; one that
        `omnivec convert` made, and that is called like a model, by all of that model's names."""
        try:
            folder = Path(target).expanduser()
        except RuntimeError as error:
            raise CheckpointError(f"{target!r}: there is no such user's home") from error
        name = folder.resolve().name or "model"
        entry = self.find(alias or name)
        overrides = entry.overrides if entry else {}
        aliases = (entry.id, *entry.aliases) if entry and entry.converted else ()
        others = tuple(one for one in aliases if one not in (name, alias))
        return Spec(name, str(folder), "folder", others, overrides=overrides, entry=entry)

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
        entry = self.find(name)
        if entry is None:
            return Spec(name, name, "hub", revision=revision)
        here = entry.folder is not None and not at
        return Spec(
            name=entry.id,
            source=entry.folder if here and entry.folder else entry.id,
            kind="folder" if here else "hub",
            aliases=entry.aliases,
            revision=None if here else revision,
            overrides=entry.overrides,
            package=entry.package if revision in (None, "main") else None,
            entry=entry,
        )


@cache
def catalog(own: str | None = None) -> Catalog:
    """The shipped one with a person's `own` entries, from a file or a folder, on top. Read
    once. Raises SettingsError."""
    if own is None:
        return Catalog(MODELS)
    return Catalog(MODELS, Path(own).expanduser())


def looks_like_path(text: str) -> bool:
    return text in (".", "..") or text.startswith(("/", "./", "../", "~"))


def holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "modules.json"))


def _test(name: str, text: str | None) -> Spec:
    options: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        pair = OPTION.fullmatch(part.strip())
        if pair is None:
            raise CheckpointError(f"{name}:{text} is not understood; accepted: {name}:key=value,…")
        options[pair[1]] = pair[2]
    return Spec(name=name, source=str(MODELS / name), kind="folder", options=options)


# ── a client's name ──────────────────────────────────────────────────────────────────────

NAME = re.compile(
    r"(?:/(?:[A-Za-z0-9_.-]+/)*|(?:[A-Za-z0-9_.-]+/){0,2})[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)?"
)
LATEST = "latest"


def resolve(requested: str | None, served: Sequence[Card]) -> str | None:
    """The name of the served model that a request means, or None.

    In this order, the first that fits: the name or an alias as it is; without regard to case,
    to a `:profile`, `openai/` or a leading `/models/`; a name without its organisation on one
    of the two sides, when it fits one model only.
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
    plain = requested.partition(":")[0].removeprefix("/").removeprefix("models/")
    forms = {requested, plain, plain.removeprefix("openai/")}
    for card in served:
        names = {one.casefold() for one in (card.name, *card.aliases)}
        if forms & (names | {one.removeprefix("openai/") for one in names}):
            return card.name
    fits = {card.name for card in served if _same_without_organisation(forms, card)}
    return fits.pop() if len(fits) == 1 else None


def _same_without_organisation(forms: set[str], card: Card) -> bool:
    """`bge-m3` for BAAI/bge-m3, and BAAI/bge-m3 for a folder that is called bge-m3; so does the
    whole path of that folder, as it was given to the server."""
    name = card.name.casefold()
    if "/" in name:
        return name.rpartition("/")[2] in forms
    known = [form for form in forms if form.startswith("/") or form.count("/") == 1]
    return name in {form.rpartition("/")[2] for form in known}


def profile_of(requested: str, card: Card) -> str | None:
    """The profile in `model:profile`, where the request means that card's model. `latest` is
    none: clients of other servers put it behind any name."""
    _, colon, profile = requested.rpartition(":")
    if not colon or requested == card.name or requested in card.aliases:
        return None
    return None if profile.casefold() == LATEST else profile
