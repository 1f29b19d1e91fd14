"""Text to token ids: prompts, tokenising, truncation, padding.

The ids are those of transformers' fast tokenizers, which run the same library over the same
`tokenizer.json`. Truncation and special tokens are done here, on the ids: the library keeps
its truncation as mutable state, and requests that ask for different lengths share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import BadRequest, TooLong, Unsupported
from omnivec.core.nouns import Array, Features, Loaded, Text, Tokens
from omnivec.families._files import Module, settings, tokenizer_settings
from omnivec.families._frames import frame

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SOURCE = "config_sentence_transformers.json"
TASK = "Given a web search query, retrieve relevant passages that answer the query"
"""Stands where a template has the literal `{task}` and a request brings no instruction."""

# e5's and Qwen's, and that of bge's decoders
_INSTRUCT = re.compile(r"\A(Instruct: ?|<instruct>)(.*)(\nQuery: ?|\n<query>)\Z", re.DOTALL)
_ROLES = {
    "query": ("query", "search_query", "s2p_query", "web_search_query", "retrieval.query"),
    "document": ("document", "passage", "corpus", "search_document", "retrieval.passage"),
}
_STANDARD = {alias: role for role, aliases in _ROLES.items() for alias in aliases}

_LETTERS = 16  # characters for each token of the window that are tokenised at first
_MOST = 128  # and that are ever tokenised
_SPARE = 64  # tokens past the window that must be there, so that the cut is not felt inside
_NARROW = 16  # widths up to here are not rounded


# ── prompts ──────────────────────────────────────────────────────────────────────────────


class Prompts:
    """The texts that a model wants before its inputs, by name (decision 14)."""

    def __init__(self, texts: Mapping[str, str], default: str | None = None) -> None:
        self.texts = dict(texts)
        self._default = self.texts.get(default or "", "")
        self._template = self._find_template()

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> Prompts:
        """From config_sentence_transformers.json; the catalogue's own prompts come on top."""
        found = checkpoint.json(SOURCE)
        told: Mapping[str, Any] = found if isinstance(found, dict) else {}
        texts = {**(told.get("prompts") or {}), **(checkpoint.overrides.get("prompts") or {})}
        return cls(
            {str(name): text for name, text in texts.items() if isinstance(text, str)},
            told.get("default_prompt_name"),
        )

    @property
    def instructions(self) -> bool:
        """Whether there is an `Instruct: … Query:` for an instruction to go into."""
        return bool(self._template)

    def choose(self, role: str | None, instruction: str | None = None) -> str:
        """What goes before a text. Raises Unsupported (`param` "role") for an unknown role.

        An instruction changes a template of the `Instruct:` kind and nothing else; without a
        role it makes the text a query.
        """
        prompt = self._named(role)
        if instruction is not None and role is None and self._template:
            prompt = self._template
        match = _INSTRUCT.match(prompt)
        if match is None:
            return prompt
        before, task, after = match.groups()
        if instruction is not None:
            task = instruction
        return before + (TASK if task == "{task}" else task) + after

    def _named(self, role: str | None) -> str:
        if role is None:
            return self._default
        if role in self.texts:
            return self.texts[role]
        if role not in _STANDARD:
            names = ", ".join(sorted({*_ROLES, *self.texts}))
            raise Unsupported(
                f"This model has no prompt of that name; it has {names}.", param="role"
            )
        aliases = _ROLES[_STANDARD[role]]
        return next((self.texts[alias] for alias in aliases if alias in self.texts), "")

    def _find_template(self) -> str:
        asked = [self._named("query"), self._default, *self.texts.values()]
        return next((text for text in asked if _INSTRUCT.match(text)), "")


def is_query(role: str | None) -> bool:
    return _STANDARD.get(role or "") == "query"


# ── inputs ───────────────────────────────────────────────────────────────────────────────


def read(parts: Sequence[Loaded], vocabulary: int, param: str) -> str | list[int]:
    """An item's text, or its ids in the model's own vocabulary.

    Raises BadRequest for an item without either or with both, a text that is not Unicode and
    an id out of range; Unsupported for other parts.
    """
    texts = [part.text for part in parts if isinstance(part, Text)]
    ids = [number for part in parts if isinstance(part, Tokens) for number in part.ids]
    if any(not isinstance(part, Text | Tokens) for part in parts):
        raise Unsupported("This model takes text; it cannot read images.", param=param)
    if len(texts) == len(parts) and texts:
        return _unicode("\n".join(texts), param)
    if texts or not parts:
        raise BadRequest("An input is either text or token ids.", param=param)
    if any(not 0 <= number < vocabulary for number in ids):
        raise BadRequest(f"Token ids of this model are 0 to {vocabulary - 1}.", param=param)
    return ids


def _unicode(text: str, param: str) -> str:
    """JSON can spell half a surrogate pair, which is no character and which no UTF-8 has."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRequest(
                "The text has half of a surrogate pair; send whole Unicode characters.",
                param=param,
            ) from None
    return text


def limit(window: int, asked: int | None) -> int:
    return window if asked is None else min(window, asked)


def refuse(window: int, param: str, what: str = "The input is") -> TooLong:
    return TooLong(f"{what} longer than this model's window of {window} tokens.", param=param)


# ── tokens ───────────────────────────────────────────────────────────────────────────────


class Ids(NamedTuple):
    """A text's tokens without special ones. `more`: the text goes on after them."""

    tokens: list[int]
    more: bool = False


class Tokeniser:
    """A checkpoint's tokenizer, safe to use from several threads at once.

    Raises CheckpointError when there is none that this library reads.
    """

    def __init__(self, checkpoint: Checkpoint, folder: str = "") -> None:
        self._library = _load(checkpoint, folder)
        if settings(checkpoint, folder).get("do_lower_case"):
            _lower(self._library)
        told = tokenizer_settings(checkpoint, folder)
        self.single = frame(self._library, checkpoint.name, told, pair=False)
        self.pair = frame(self._library, checkpoint.name, told, pair=True)
        self.padding = _padding(self._library, checkpoint, folder)

    @property
    def size(self) -> int:
        return int(self._library.get_vocab_size())

    @property
    def library(self) -> Tokenizer:
        return self._library

    def encode(self, texts: Sequence[str | list[int]], rooms: Sequence[int]) -> list[Ids]:
        """Each text's ids, at least `rooms` of them where it has as many; ids stay as they are.

        Only as much of a long text is tokenised as is needed for that.
        """
        cut = [_cut(text, room) for text, room in zip(texts, rooms, strict=True)]
        # encode_batch releases the GIL; the fast one leaves out the offsets
        encoded = self._library.encode_batch_fast(
            [text for text in cut if isinstance(text, str)], add_special_tokens=False
        )
        lists = iter([encoding.ids for encoding in encoded])
        return [
            Ids(list(whole))
            if not isinstance(whole, str)
            else self._extend(whole, next(lists), len(part), room)
            for whole, part, room in zip(texts, cut, rooms, strict=True)
        ]

    def _extend(self, text: str, ids: list[int], length: int, room: int) -> Ids:
        """Tokenise more of a text that was cut too early, as one full of spaces is."""
        if length < len(text) and len(ids) < room + _SPARE:
            part = _until_space(text, _MOST * (room + _SPARE))
            length = len(part)
            ids = self._library.encode_batch_fast([part], add_special_tokens=False)[0].ids
        return Ids(ids, length < len(text))


def _cut(text: str | list[int], room: int) -> str | list[int]:
    if not isinstance(text, str):
        return text
    return _until_space(text, _LETTERS * (room + _SPARE))


def _until_space(text: str, length: int) -> str:
    """At most `length` characters, ended before a space where one is near."""
    if len(text) <= length:
        return text
    space = text.rfind(" ", length - 256, length)
    return text[:space] if space > length // 2 else text[:length]


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts are kept: the longer one gives way until both have
    half (`longest_first` of the tokenizers library, which gives the longer the odd one)."""
    if first + second <= room:
        return first, second
    short = min(first, second)
    half = (room // 2, room - room // 2)
    kept = (short, room - short) if short <= room - short else half
    return kept if first <= second else (kept[1], kept[0])


# ── the tokenizers library ───────────────────────────────────────────────────────────────


def _load(checkpoint: Checkpoint, folder: str) -> Tokenizer:
    from tokenizers import Tokenizer

    place = Module("", folder)
    if not checkpoint.has(place.file("tokenizer.json")):
        return _from_vocabulary(checkpoint, place)
    try:
        library = Tokenizer.from_str(checkpoint.read(place.file("tokenizer.json")).decode())
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(
            f"{checkpoint.name}: tokenizer.json cannot be read ({error}); download it again, or "
            "save the tokenizer with a current release of transformers"
        ) from error
    library.no_padding()
    library.no_truncation()
    return library


def _from_vocabulary(checkpoint: Checkpoint, place: Module) -> Tokenizer:
    """BERT's WordPiece from vocab.txt, for repositories older than tokenizer.json."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    told = tokenizer_settings(checkpoint, place.folder)
    bert = str(told.get("tokenizer_class", "BertTokenizer")).startswith(("Bert", "DistilBert"))
    if not checkpoint.has(place.file("vocab.txt")) or not bert:
        raise CheckpointError(
            f"{checkpoint.name}: tokenizer.json is missing; download the model again, or write "
            "one with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    lines = checkpoint.read(place.file("vocab.txt")).decode().splitlines()
    vocabulary = {line: at for at, line in enumerate(lines)}
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    if not vocabulary.keys() >= set(specials):
        raise CheckpointError(f"{checkpoint.name}: vocab.txt lacks one of {', '.join(specials)}")
    library = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a word
    library.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=bool(told.get("tokenize_chinese_chars", True)),
        strip_accents=told.get("strip_accents"),
        lowercase=bool(told.get("do_lower_case", True)),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    library.add_special_tokens(list(specials))
    return library


def _lower(library: Tokenizer) -> None:
    """sentence_bert_config's `do_lower_case`: before all else, unless it is done already."""
    from tokenizers import normalizers

    found = library.normalizer
    if found is None:
        library.normalizer = normalizers.Lowercase()
    elif found.normalize_str("A") != found.normalize_str("a"):
        library.normalizer = normalizers.Sequence([normalizers.Lowercase(), found])


def _padding(library: Tokenizer, checkpoint: Checkpoint, folder: str) -> int:
    """The id that fills a batch's rows: position ids of the RoBERTa kind depend on it."""
    told = checkpoint.config.get("pad_token_id")
    if isinstance(told, int):
        return told
    token = tokenizer_settings(checkpoint, folder).get("pad_token", "[PAD]")
    word = token.get("content", "") if isinstance(token, dict) else str(token)
    return library.token_to_id(word) or 0


@lru_cache(maxsize=4096)
def width(longest: int, most: int, multiple: int) -> int:
    """A batch's width: rounded up, so that the shapes a runtime meets are few, but never past
    `most`, which is how many positions there are."""
    if longest <= _NARROW:
        return longest
    return max(longest, min(-(-longest // multiple) * multiple, most))


def pack(
    features: Sequence[Features], fill: Mapping[str, int], most: int, multiple: int = 8
) -> dict[str, Array]:
    """Rows of several lengths as int64 [B, T] arrays named in `fill`, which says what stands
    in the padding, and `attention_mask`.

    A row without any token attends to one of padding: attention over nothing is not a number.
    """
    lengths = [len(feature.arrays["input_ids"]) for feature in features]
    shape = (len(features), width(max(1, *lengths), most, multiple))
    packed = {name: np.full(shape, value, np.int64) for name, value in fill.items()}
    packed["attention_mask"] = np.zeros(shape, np.int64)
    for row, (feature, length) in enumerate(zip(features, lengths, strict=True)):
        packed["attention_mask"][row, : max(1, length)] = 1
        for name in fill:
            packed[name][row, :length] = feature.arrays[name]
    if "adapter" in features[0].arrays:
        packed["adapter"] = np.stack([feature.arrays["adapter"] for feature in features])
    return packed
