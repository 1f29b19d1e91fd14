"""What the files of a ColBERT model say: how queries and documents are read, what is projected.

Three layouts. Stanford's has `artifact.metadata`, and the projection as `linear.weight` among the
model's own weights. PyLate's says it all at the top of config_sentence_transformers.json, and
sentence-transformers' MultiVectorEncoder in the files of its modules.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import activation
from omnivec.core.steps import Dense, Normalize, Step
from omnivec.families._files import Module, architecture, kind, modules, settings
from omnivec.families._text import SOURCE

METADATA = "artifact.metadata"
LENGTH = 32
"""Tokens of a query, where no file says (the ColBERT papers' own number)."""

_TOLD = {"query_prefix", "document_prefix", "query_length", "document_length", "skiplist_words"}
_OLD = ("query_prefix", "document_prefix", "do_query_expansion", "skiplist_words")


class Expansion(NamedTuple):
    """Queries are filled with `token` up to `length` tokens, and cut there when `fixed`;
    `attend` says whether the others see what was filled in."""

    length: int
    attend: bool = False
    token: str | None = None
    fixed: bool = True


class Plan(NamedTuple):
    """`markers` and `prompts` by role. `skipped` are words that a document's vectors leave
    out, and a query's too when `everywhere`. `dims` None: the projection's own."""

    steps: tuple[Step, ...]
    dims: int | None
    prompts: Mapping[str, str]
    markers: Mapping[str, str]
    expansion: Expansion | None
    query_length: int | None
    document_length: int | None
    skipped: Sequence[str]
    everywhere: bool = False


def is_colbert(checkpoint: Checkpoint) -> bool:
    if architecture(checkpoint) == "HF_ColBERT" or checkpoint.has(METADATA):
        return True
    if kind(checkpoint) in ("ColBERT", "MultiVectorEncoder"):
        return True
    return not kind(checkpoint) and bool(_TOLD & _source(checkpoint).keys())


def read_plan(checkpoint: Checkpoint) -> Plan:
    """Raises CheckpointError for what is not supported, naming it."""
    try:
        if listed := modules(checkpoint):
            return _from_modules(checkpoint, listed)
        return _from_metadata(checkpoint)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: the files that describe its queries and documents are not as "
            "ColBERT, PyLate or sentence-transformers write them; download the model again"
        ) from error


def _source(checkpoint: Checkpoint) -> Mapping[str, Any]:
    found = checkpoint.json(SOURCE)
    return found if isinstance(found, dict) else {}


# ── Stanford ─────────────────────────────────────────────────────────────────────────────


def _from_metadata(checkpoint: Checkpoint) -> Plan:
    told = msgspec.json.decode(checkpoint.read(METADATA)) if checkpoint.has(METADATA) else {}
    markers = {
        "query": f"{told.get('query_token_id') or '[unused0]'} ",
        "document": f"{told.get('doc_token_id') or '[unused1]'} ",
    }
    length = told.get("query_maxlen") or LENGTH
    return Plan(
        steps=(Dense(_linear(checkpoint), "Identity"), Normalize()),
        dims=int(told.get("dim") or 128),
        prompts=markers,
        markers=markers,
        expansion=Expansion(int(length), bool(told.get("attend_to_mask_tokens"))),
        query_length=int(length),
        document_length=_whole(told.get("doc_maxlen")),
        skipped=list(string.punctuation) if told.get("mask_punctuation", True) else [],
    )


def _linear(checkpoint: Checkpoint) -> str:
    """The file with `linear.weight`: the only one, or the one that the index names."""
    files = [str(file.relative_to(checkpoint.folder)) for file in checkpoint.weights()]
    if len(files) == 1:
        return files[0]
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        listed = checkpoint.json(index)
        if isinstance(listed, dict) and "linear.weight" in listed["weight_map"]:
            return str(listed["weight_map"]["linear.weight"])
    raise CheckpointError(f"{checkpoint.name}: none of its weight files lists linear.weight")


# ── PyLate and sentence-transformers ─────────────────────────────────────────────────────


def _from_modules(checkpoint: Checkpoint, listed: Sequence[Module]) -> Plan:
    if listed[0].kind != "Transformer" or listed[0].folder:
        raise CheckpointError(
            f"{checkpoint.name}: modules.json must begin with a Transformer in the root folder"
        )
    source, own = _source(checkpoint), settings(checkpoint)
    old = kind(checkpoint) == "ColBERT" or any(name in source for name in _OLD)
    expansion = _expansion(source, own, old=old)
    length = expansion.length if expansion and expansion.fixed else None
    dense = [_dense(checkpoint, module) for module in listed if module.kind == "Dense"]
    words, everywhere = _skipped(checkpoint, listed, source, old=old)
    return Plan(
        steps=(*(step for step, _ in dense), Normalize()),
        dims=dense[-1][1] if dense else None,
        prompts=_prompts(source),
        markers={role: source.get(f"{role}_prefix") or "" for role in ("query", "document")},
        expansion=expansion,
        query_length=length or _told(source, own, "query_length"),
        document_length=_told(source, own, "document_length"),
        skipped=words,
        everywhere=everywhere,
    )


def _prompts(source: Mapping[str, Any]) -> Mapping[str, str]:
    """PyLate's prefix comes before the prompt of its role, which may begin with it already."""
    prompts = {
        str(name): text
        for name, text in (source.get("prompts") or {}).items()
        if isinstance(text, str)
    }
    for role in ("query", "document"):
        prefix = source.get(f"{role}_prefix") or ""
        prompts[role] = prefix + prompts.get(role, "").removeprefix(prefix)
    return prompts


def _expansion(source: Mapping[str, Any], own: Mapping[str, Any], *, old: bool) -> Expansion | None:
    """PyLate fills queries unless it says that it does not; sentence-transformers says how."""
    for told in (own, source):
        if "query_expansion" in told:
            asked = told["query_expansion"]
            if asked is None:
                return None
            fixed = asked["strategy"] == "fixed"
            return Expansion(
                int(asked["length"]), asked.get("attend", False), asked.get("token"), fixed
            )
    if not old or source.get("do_query_expansion") is False:
        return None
    attend = source.get("attend_to_expansion_tokens", source.get("attend_to_mask_tokens"))
    return Expansion(int(source.get("query_length") or LENGTH), bool(attend))


def _skipped(
    checkpoint: Checkpoint, listed: Sequence[Module], source: Mapping[str, Any], *, old: bool
) -> tuple[list[str], bool]:
    """The words, and whether queries leave them out as well."""
    mask = next((module for module in listed if module.kind == "MultiVectorMask"), None)
    if mask is None:
        words = source.get("skiplist_words")
        return (list(string.punctuation) if old else []) if words is None else list(words), False
    told = checkpoint.json(mask.file("config.json")) or {}
    if told.get("keep_only_token_ids"):
        raise CheckpointError(f"{checkpoint.name}: keep_only_token_ids is not supported")
    tasks = told.get("skiplist_tasks") or ["document"]
    return list(told.get("skiplist_words") or []), "query" in tasks


def _told(source: Mapping[str, Any], own: Mapping[str, Any], name: str) -> int | None:
    return _whole(own.get(name)) or _whole(source.get(name))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _dense(checkpoint: Checkpoint, module: Module) -> tuple[Dense, int]:
    config = checkpoint.json(module.file("config.json")) or {}
    if config.get("use_residual"):
        raise CheckpointError(
            f"{checkpoint.name}: {module.folder} is a Dense with a residual connection, which is "
            "not supported"
        )
    file = module.file("model.safetensors")
    if not checkpoint.has(file) and checkpoint.overrides.get("pickle"):
        file = module.file("pytorch_model.bin")
    if not checkpoint.has(file):
        raise CheckpointError(
            f"{checkpoint.name}: {file} is missing; use a revision that has it, or convert it"
        )
    function = str(config.get("activation_function", "Tanh"))  # sentence-transformers' default
    return Dense(file, activation(function)), int(config["out_features"])
