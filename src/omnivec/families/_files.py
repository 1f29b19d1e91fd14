"""What a checkpoint's small files say of how its text model is used.

`modules.json` and the files beside it are sentence-transformers', in the spelling of its old
releases (`sentence_transformers.models.Pooling`) and of its new ones, which moved the classes:
only the last part of a module's type is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from omnivec.core.checkpoint import Checkpoint, CheckpointError

UNTOLD = 512
"""The window of a checkpoint that names none."""

_NO_LIMIT = 10**8  # tokenizers without a limit of their own say 1e30, some 2**31 - 1

# position embeddings that begin after the padding index
_OFFSET = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}

# tokenizers that number the two texts of a pair, where tokenizer_config.json does not say
_NUMBERED = ("Bert", "DebertaV2", "Deberta", "Electra", "MobileBert", "ConvBert", "RoFormer")

_SETTINGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


class Module(NamedTuple):
    """One entry of modules.json: the last part of its type, and its folder ("" for the root)."""

    kind: str
    folder: str

    def file(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


def modules(checkpoint: Checkpoint) -> list[Module]:
    """modules.json in its order; empty where there is none. Raises CheckpointError."""
    listed = checkpoint.json("modules.json")
    if listed is None:
        return []
    try:
        entries = sorted(listed, key=lambda entry: int(entry.get("idx", 0)))
        return [
            Module(str(entry["type"]).rpartition(".")[2], str(entry.get("path", "")).strip("./"))
            for entry in entries
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: modules.json is not a list of modules with idx, path and type"
        ) from error


def settings(checkpoint: Checkpoint, folder: str = "") -> Mapping[str, Any]:
    """sentence_bert_config.json, under whichever of its names; empty where there is none."""
    for name in _SETTINGS:
        found = checkpoint.json(Module("", folder).file(name))
        if isinstance(found, dict):
            return found
    return {}


def tokenizer_settings(checkpoint: Checkpoint, folder: str = "") -> Mapping[str, Any]:
    """tokenizer_config.json, or an empty mapping."""
    found = checkpoint.json(Module("", folder).file("tokenizer_config.json"))
    return found if isinstance(found, dict) else {}


def window(checkpoint: Checkpoint, folder: str = "", usual: int | None = None) -> int:
    """How many tokens an input may have, special tokens included.

    As sentence-transformers: its own `max_seq_length` (which its new releases store in the
    tokenizer's files) replaces what the tokenizer says, and so does `usual`, where a family knows
    better than that. Never more than there are positions.
    """
    told = _text_length(settings(checkpoint, folder)) or usual
    if told is None:
        told = _limit(tokenizer_settings(checkpoint, folder).get("model_max_length"))
    bounds = [told, positions(checkpoint), _limit(checkpoint.overrides.get("max_tokens"))]
    return min((bound for bound in bounds if bound is not None), default=UNTOLD)


def positions(checkpoint: Checkpoint) -> int | None:
    """The longest input that the architecture has positions for; None where it has no limit."""
    config = checkpoint.config
    within = part(config, "text_config")  # of a model with several towers
    count = _limit(
        config.get(
            "max_position_embeddings",
            config.get("n_positions", within.get("max_position_embeddings")),
        )
    )
    if count is not None and checkpoint.architecture in _OFFSET:
        padding = config.get("pad_token_id")
        return count - 1 - (padding if isinstance(padding, int) else 1)
    return count


def part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The config of one of a model's towers, or an empty mapping."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def vocabulary(checkpoint: Checkpoint) -> int | None:
    """How many rows the token embeddings have."""
    size = checkpoint.config.get("vocab_size")
    return size if isinstance(size, int) else None


def labels(checkpoint: Checkpoint) -> int:
    """How many outputs a `*ForSequenceClassification` has, else 0; 2 where it does not say."""
    if not architecture(checkpoint).endswith("ForSequenceClassification"):
        return 0
    named = checkpoint.config.get("id2label")
    return len(named) if isinstance(named, dict) else int(checkpoint.config.get("num_labels", 2))


def label_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What the outputs of a `*ForSequenceClassification` are called, in their order."""
    named = checkpoint.config.get("id2label")
    told = named if isinstance(named, dict) else {}
    return tuple(str(told.get(str(i), f"LABEL_{i}")) for i in range(labels(checkpoint)))


def architecture(checkpoint: Checkpoint) -> str:
    """The class that config.json names first ("BertModel"), or ""."""
    named = checkpoint.config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def kind(checkpoint: Checkpoint) -> str:
    """Which class of sentence-transformers wrote it: SentenceTransformer, CrossEncoder,
    SparseEncoder, MultiVectorEncoder, or PyLate's ColBERT; "" before its release 5."""
    found = checkpoint.json("config_sentence_transformers.json")
    return str(found.get("model_type") or "") if isinstance(found, dict) else ""


def segments(checkpoint: Checkpoint) -> bool:
    """Whether the model is told which of a pair's two texts a token belongs to."""
    if int(checkpoint.config.get("type_vocab_size", 0) or 0) < 2:  # noqa: PLR2004 - two texts
        return False
    told = tokenizer_settings(checkpoint)
    names = told.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return str(told.get("tokenizer_class", "Bert")).startswith(_NUMBERED)


def _text_length(told: Mapping[str, Any]) -> int | None:
    if (length := _limit(told.get("max_seq_length"))) is not None:
        return length
    call = told.get("processing_kwargs")
    for modality in ("text", "common"):
        part = call.get(modality) if isinstance(call, dict) else None
        if isinstance(part, dict) and (length := _limit(part.get("max_length"))) is not None:
            return length
    return None


def _limit(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < _NO_LIMIT else None
