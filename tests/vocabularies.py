"""Tokenizers of a few hundred entries, over sentences in a dozen scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SENTENCES = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "A server turns sentences into vectors, and vectors into answers!",
    "How many people live in Berlin? About 3,700,000 of them.",
    "Rerank these 12 documents: which one answers the question best?",
    "unaffable embeddings; running, runner, ran - e-mail: someone@example.org",
    "Die Größe des Hauses überraschte die Gäste am späten Abend.",
    "La recherche sémantique trouve des réponses, même sans mots communs.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "Η γρήγορη αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول.",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "敏捷的棕色狐狸跳过了懒狗。 今天的天气很好。",
    "素早い茶色の狐がのろまな犬を飛び越える。",
)


def tokenizer(kind: str, positions: int, *, segments: bool) -> Any:
    """transformers' tokenizer of a kind: "wordpiece", "wordpiece_s", "unigram", "bytes" or
    "bytes_cls"; the `_s` one has RoBERTa's special tokens, the `_cls` one BERT's."""
    from transformers import PreTrainedTokenizerFast

    if kind == "wordpiece":
        inner, names = wordpiece("[CLS]", "[SEP]", "[PAD]"), _BERT
    elif kind == "wordpiece_s":
        inner, names = wordpiece("<s>", "</s>", "<pad>", joint="</s> </s>"), _ROBERTA
    elif kind == "unigram":
        inner, names = _unigram(), _ROBERTA
    elif kind == "bytes":
        inner, names = _bytes(_ROBERTA, "</s> </s>"), _ROBERTA
    else:
        inner, names = _bytes(_BERT, "[SEP]"), _BERT
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    if not segments:
        inputs.remove("token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=positions, model_input_names=inputs, **names
    )


_BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}


def wordpiece(first: str, last: str, pad: str, joint: str | None = None) -> Any:
    """As BERT's; with `<s>` in the order that puts the padding at 1, as MPNet has it.

    The vocabulary is put together here, not trained: the trainer's order changes by run.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    bert = pad == "[PAD]"
    unknown, mask = ("[UNK]", "[MASK]") if bert else ("<unk>", "<mask>")
    specials = [pad, unknown, first, last, mask] if bert else [first, pad, last, unknown, mask]
    normalizer = normalizers.BertNormalizer(lowercase=True)
    words = [
        word
        for sentence in SENTENCES
        for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(
            normalizer.normalize_str(sentence)
        )
    ]
    letters = sorted(set("".join(words)))
    pieces = [*letters, *(f"##{letter}" for letter in letters), *_frequent(words)]
    vocabulary = dict.fromkeys(specials + pieces)
    made = Tokenizer(
        models.WordPiece({piece: at for at, piece in enumerate(vocabulary)}, unk_token=unknown)
    )
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = _template(made, first, last, joint or last)
    return made


def _frequent(words: Sequence[str]) -> list[str]:
    """Every second word, so that some are one piece and others are many."""
    return sorted({word for word in words if len(word) > 1})[::2]


def _unigram() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = [f"\u2581{word}" for word in " ".join(SENTENCES).split()]
    pieces = dict.fromkeys(sorted(set("".join(words))), -8.0)
    pieces |= {word: -6.0 - len(word) / 10 for word in _frequent(words)}
    specials = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<mask>", 0.0)]
    made = Tokenizer(models.Unigram([*specials, *pieces.items()], unk_id=3))
    made.add_special_tokens([name for name, _ in specials])
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = _template(made, "<s>", "</s>", "</s> </s>")
    return made


def _bytes(names: Mapping[str, str], joint: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    first, last = names["cls_token"], names["sep_token"]
    pad, unknown, mask = names["pad_token"], names["unk_token"], names["mask_token"]
    bert = pad == "[PAD]"
    specials = [pad, unknown, first, last, mask] if bert else [first, pad, last, unknown, mask]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = _template(made, first, last, joint)
    return made


def _template(tokenizer: Any, first: str, last: str, joint: str) -> Any:
    """`first A last`, and of a pair `first A joint B last`, segment 1 from B on in BERT."""
    from tokenizers import processors

    second = ":1" if first == "[CLS]" else ""
    return processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {joint} $B{second} {last}{second}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
