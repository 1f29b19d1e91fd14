"""What the catalogue knows of a model, and how it is read from TOML.

A file is a list of groups. What a group says holds for each of its models, what a model says
itself wins over that:

    [[group]]
    architecture = "bert"
    models = [{ id = "org/name", dims = 384, tokens = 512 }]

    [group.prompts]
    query = "query: "
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta

from omnivec.core.nouns import Card, Dtype, Kind, Wishes
from omnivec.core.settings import SettingsError

Count: TypeAlias = Annotated[int, Meta(ge=1)]
Modality: TypeAlias = Literal["text", "image", "video"]

KINDS: tuple[Kind, ...] = ("dense", "sparse", "multivector")
_TASKS = {"encode": ("encode", "score"), "score": ("score",), "extract": ("extract",)}
_SCORING: Mapping[Kind, str] = {"dense": "cosine", "sparse": "dot", "multivector": "maxsim"}
_INSTRUCT = re.compile(r"Instruct: ?.*\nQuery: ?|<instruct>.*\n<query>", re.DOTALL)
_WINS = ("prompts", "hypothesis_template", "judgement", "pooling", "max_tokens", "pickle")


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights that come as a Python package: `file` in `folder` of `module` has `sha256`."""

    name: str
    version: str
    module: str
    folder: str
    file: str
    sha256: str


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Wishes under a name, in SIE's words."""

    output_types: tuple[Kind, ...] | None = None
    instruction: str | None = None
    role: str | None = None
    is_query: bool | None = None
    normalize: bool | None = None
    dimensions: Count | None = None
    max_seq_length: Count | None = None
    output_dtype: Dtype | None = None

    def wishes(self) -> Wishes:
        asked = None if self.is_query is None else "query" if self.is_query else "document"
        return Wishes(
            kinds=tuple(kind for kind in KINDS if kind in (self.output_types or ())) or None,
            instruction=self.instruction,
            role=self.role or asked,
            normalize=self.normalize,
            dims=self.dimensions,
            max_tokens=self.max_seq_length,
            dtype=self.output_dtype,
        )


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """None means that nothing is said.

    Most are for lists, where a model is not loaded: what its own files say is asked when they
    are there. `prompts`, `hypothesis_template`, `judgement`, `pooling` and `max_tokens` win over
    the files. `judgement` is the prompt of a reranker that is a language model, by its name.
    `zero_shot` models classify by labels of the request. `architecture` is config.json's
    `model_type`, `tokens` how long an input may be, `extra` what must be installed for it, or
    for its inputs of the kinds in `extra_for` alone.
    `pickle`: the weights are only there as pytorch_model.bin. `folder` holds the model's files,
    seen from the TOML file. `converted`: the files under its id are another program's, which
    `omnivec convert` makes a folder of. `unserved` says why this release cannot load it.
    """

    task: Literal["encode", "score", "extract"] | None = None
    kinds: tuple[Kind, ...] | None = None
    zero_shot: bool | None = None
    modalities: tuple[Modality, ...] | None = None
    architecture: str | None = None
    dims: Count | None = None
    sparse_dims: Count | None = None
    token_dims: Count | None = None
    tokens: Count | None = None
    license: str | None = None
    extra: str | None = None
    extra_for: tuple[Modality, ...] | None = None
    unserved: str | None = None
    converted: bool | None = None
    prompts: dict[str, str] | None = None
    hypothesis_template: str | None = None
    judgement: Literal["qwen3-reranker", "mxbai-rerank-v2", "bge-reranker-v2-gemma"] | None = None
    pooling: str | None = None
    max_tokens: Count | None = None
    pickle: bool | None = None
    package: Package | None = None
    folder: str | None = None
    profiles: dict[str, Profile] | None = None


class Entry(Facts, frozen=True, kw_only=True):
    """A model that the catalogue knows."""

    id: str
    aliases: tuple[str, ...] = ()

    @property
    def overrides(self) -> dict[str, Any]:
        """What wins over the checkpoint's own files."""
        said = {name: getattr(self, name) for name in _WINS}
        return {name: value for name, value in said.items() if value is not None}

    def card(self) -> Card:
        """What can be told of the model before it is loaded."""
        known = self.task or ("encode" if self.kinds or self.dims else None)
        kinds = self.kinds or (("dense",) if known == "encode" else ())
        windows = [one for one in (self.tokens, self.max_tokens) if one is not None]
        prompts = self.prompts or {}
        scoring = _SCORING[kinds[0]] if kinds else "cross-encoder" if known == "score" else ""
        return Card(
            name=self.id,
            aliases=self.aliases,
            architecture=self.architecture or "",
            tasks=_TASKS[known] if known else (),
            modalities=self.modalities or ("text",),
            dims=self.dims,
            kinds=kinds,
            sparse_dims=self.sparse_dims,
            token_dims=self.token_dims,
            max_tokens=min(windows, default=None),
            prompts=prompts,
            instructions=any(_INSTRUCT.fullmatch(text) for text in prompts.values()),
            pooling=self.pooling or "",
            scoring=scoring,
            zero_shot=self.zero_shot or False,
            template=self.hypothesis_template or "",
            profiles=self.wishes(),
        )

    def wishes(self) -> dict[str, Wishes]:
        return {name: profile.wishes() for name, profile in (self.profiles or {}).items()}


class _Group(Facts, frozen=True, kw_only=True):
    models: tuple[Entry, ...]


def over(entry: Entry, base: Facts) -> Entry:
    """The entry with what it leaves open taken from `base`; profiles of both."""
    said: dict[str, Any] = {}
    for name in Facts.__struct_fields__:
        own, under = getattr(entry, name), getattr(base, name)
        both = name == "profiles" and own is not None and under is not None
        said[name] = {**under, **own} if both else under if own is None else own
    return msgspec.structs.replace(entry, **said)


# ── reading ──────────────────────────────────────────────────────────────────────────────


def files(place: Path) -> list[Path]:
    """A TOML file itself, or those of a folder, by name. Raises SettingsError for a folder
    without one."""
    if not place.is_dir():
        return [place]
    found = sorted(place.glob("*.toml"))
    if not found:
        raise SettingsError(f"catalogue {place} is a folder without a .toml file")
    return found


def read(path: Path) -> Iterator[Entry]:
    """The entries of a TOML file. Raises SettingsError, which names the file, the group, the
    model and the key."""
    try:
        content = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"catalogue {path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"catalogue {path} is not valid TOML: {error}") from error
    groups = content.get("group")
    if set(content) != {"group"} or not isinstance(groups, list):
        others = _list(map(repr, set(content) - {"group"}))
        found = f"outside of every group there is {others}" if others else "there is no [[group]]"
        raise SettingsError(
            f'catalogue {path}: {found}; accepted: [[group]] with models = [{{ id = "org/name" }}]'
        )
    for number, raw in enumerate(groups, 1):
        group = _group(raw, f"catalogue {path}, group {number}")
        for entry in group.models:
            whole = over(entry, group)
            here = whole.folder and str(path.parent / Path(whole.folder).expanduser())
            yield msgspec.structs.replace(whole, folder=here)


def _group(raw: Any, where: str) -> _Group:
    """The models first, one by one, so that an error can name its model."""
    models = raw.get("models") if isinstance(raw, dict) else None
    for number, model in enumerate(models if isinstance(models, list) else (), 1):
        named = model.get("id", number) if isinstance(model, dict) else number
        _convert(model, Entry, f"{where}, model {named}")
    return cast("_Group", _convert(raw, _Group, where))


def _convert(raw: Any, shape: type[Facts], where: str) -> Any:
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError as error:
        keys = (name for name in shape.__struct_fields__ if shape is Entry or name != "id")
        raise SettingsError(f"{where}: {error}; accepted: {_list(keys)}") from None


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
