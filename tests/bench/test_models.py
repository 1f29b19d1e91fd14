"""The tokenizer of the generated shapes."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from bench import models, texts


def test_the_renamed_tokenizer_has_the_same_words_at_robertas_ids(tmp_path: Path) -> None:
    models._write_tokenizer(models.SHAPES["large"], tmp_path)
    models._write_tokenizer(models.SHAPES["base"], tmp_path / "..")
    made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain = Tokenizer.from_file(str(tmp_path / ".." / "tokenizer.json"))
    text = "The quick brown fox, unaffable!"
    got = made.encode(text)
    assert got.tokens == ["<s>", *plain.encode(text).tokens[1:-1], "</s>"]
    assert (got.ids[0], got.ids[-1]) == (0, 2)
    assert made.token_to_id("<pad>") == 1
    assert made.get_vocab_size() == plain.get_vocab_size()
    ids = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"].values()
    assert len(set(ids)) == len(ids)


def test_bodies_are_one_line_and_differ() -> None:
    windows = texts.windows(12, 200)
    assert {len(one.split()) for one in windows} == {12}
    assert len(set(windows)) > 190
    assert windows == texts.windows(12, 200)
    assert b"\n" not in texts.embed_body(["two\nlines"])
