"""The architectures that are known to run packed, and how each one classifies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from omnivec.core.steps import Head, Scale
from omnivec.runtimes._torch import sight
from omnivec.runtimes._torch.sight import Lay

Tensor: TypeAlias = Any  # torch is not there when this module is imported
Mode: TypeAlias = Literal["cls", "mean", "last"]
States: TypeAlias = Callable[[Any, Mapping[str, Tensor]], Tensor]
"""From a model and what it is fed to [B, T, H]."""


class Packed(NamedTuple):
    """`counted`: positions are counted from the padding id, as RoBERTa does. `classify` is the
    architecture's own classifier on one state for each row, [B, H] to [B, labels]; `spell` its
    language model head on any states, [S, H] to [S, V]."""

    classify: Callable[[Any, Tensor], Tensor]
    spell: Callable[[Any, Tensor], Tensor] | None = None
    counted: bool = False
    decoder: bool = False

    def pooling(self, config: Any) -> Mode:
        """Which state of a row the classifier reads."""
        if self.decoder:
            return "last"
        return cast("Mode", getattr(config, "classifier_pooling", "cls"))

    def padding(self, config: Any) -> int | None:
        """The id that positions are counted from; None where they are columns."""
        return int(config.pad_token_id) if self.counted else None


def _last(model: Any, fed: Mapping[str, Tensor]) -> Tensor:
    return model(**fed).last_hidden_state


def _embeddings(model: Any, fed: Mapping[str, Tensor]) -> Tensor:
    return model(**fed).embeddings


def _blip2_text(model: Any, fed: Mapping[str, Tensor]) -> Tensor:
    """As the model does, but not normalised, nor is `_blip2_pictures`."""
    embedded = model.embeddings(input_ids=fed["input_ids"])
    mask = fed["attention_mask"]
    states = model.qformer(query_embeds=embedded, query_length=0, attention_mask=mask)[0]
    return model.text_projection(states.to(model.text_projection.weight.dtype))


def _blip2_pictures(model: Any, fed: Mapping[str, Tensor]) -> Tensor:
    """A row for each of the questions that it has learnt to ask of a picture."""
    seen = model.vision_model(pixel_values=fed["pixel_values"])[0]
    asked = model.query_tokens.expand(len(seen), -1, -1)
    states = model.qformer(query_embeds=asked, encoder_hidden_states=seen.to(asked.dtype))[0]
    return model.vision_projection(states.to(model.vision_projection.weight.dtype))


class Manner(NamedTuple):
    """How an architecture is called through transformers. `reads`: the class that has its last
    hidden states. `states`: how it comes by them, or by what it makes of them. `speaks`: the
    class that has its language model head. `told`: inputs that it takes although its signature
    does not name them. `lay`: how it is shown pictures, if at all."""

    reads: str = "AutoModel"
    states: States = _last
    speaks: str = "AutoModelForCausalLM"
    told: frozenset[str] = frozenset()
    lay: Lay = sight.whole


def find(model_type: str) -> Packed | None:
    """None: this one is given padded rows."""
    return ARCHITECTURES.get(model_type)


def manner(model_type: str, head: Head) -> Manner:
    """That of its tower for pictures, where the architecture has two and the head a scale."""
    if model_type in TOWERS and any(isinstance(step, Scale) for step in head.steps):
        return TOWERS[model_type]
    return MANNERS.get(model_type, Manner())


def _through_pooler(model: Any, states: Tensor) -> Tensor:
    return model.classifier(model.base_model.pooler(states[:, None]))


def _first_of_row(model: Any, states: Tensor) -> Tensor:
    return model.classifier(states[:, None])


def _distilbert(model: Any, states: Tensor) -> Tensor:
    return model.classifier(model.pre_classifier(states).relu())


def _modernbert(model: Any, states: Tensor) -> Tensor:
    return model.classifier(model.head(states))


def _spell_cls(model: Any, states: Tensor) -> Tensor:
    return model.cls(states)


def _spell_lm_head(model: Any, states: Tensor) -> Tensor:
    return model.lm_head(states)


def _spell_distilbert(model: Any, states: Tensor) -> Tensor:
    return model.vocab_projector(
        model.vocab_layer_norm(model.activation(model.vocab_transform(states)))
    )


def _spell_modernbert(model: Any, states: Tensor) -> Tensor:
    return model.decoder(model.head(states))


def _score(model: Any, states: Tensor) -> Tensor:
    return model.score(states)


_BERT = Packed(_through_pooler, _spell_cls)
_ROBERTA = Packed(_first_of_row, _spell_lm_head, counted=True)
_DECODER = Packed(_score, decoder=True)

ARCHITECTURES: Mapping[str, Packed] = {
    "bert": _BERT,
    "nomic_bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Packed(_distilbert, _spell_distilbert),
    "modernbert": Packed(_modernbert, _spell_modernbert),
    "gemma": _DECODER,
    "gemma2": _DECODER,
    "gemma3_text": _DECODER,
    "qwen3": _DECODER,
    "qwen2": _DECODER,
    "llama": _DECODER,
    "mistral": _DECODER,
}

MANNERS: Mapping[str, Manner] = {
    "qwen3_vl": Manner(
        speaks="AutoModelForImageTextToText", told=frozenset(("use_cache",)), lay=sight.patches
    ),
    "colpali": Manner(
        "ColPaliForRetrieval", _embeddings, told=frozenset(("token_type_ids", "use_cache"))
    ),
    "colqwen2": Manner("ColQwen2ForRetrieval", _embeddings, lay=sight.padded_patches),
    "blip-2": Manner("Blip2TextModelWithProjection", _blip2_text),
}
TOWERS: Mapping[str, Manner] = {
    "blip-2": Manner("Blip2VisionModelWithProjection", _blip2_pictures),
}
