"""The tokenizer of the generated shapes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer

from bench import clip, models, photos, texts


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


def test_clips_files_are_read_by_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessorPil

    clip.write_files(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    coder = AutoTokenizer.from_pretrained(tmp_path)
    words = coder("A cat")["input_ids"]
    assert (words[0], words[-1]) == (clip.IDS[clip.BEGIN], clip.IDS[clip.END])
    assert len(words) == 2 + len("acat")
    assert CLIPImageProcessorPil.from_pretrained(tmp_path).crop_size["height"] == 224


def test_transformers_4_is_told_of_ropes_base(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"rope_parameters": {"rope_theta": 5.0}}))
    models._tell_older_readers(config)
    assert json.loads(config.read_text())["rope_theta"] == 5.0


def test_pictures_are_files_that_differ_and_say_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for places in (photos.PHOTOS, tmp_path):  # with and without real ones
        monkeypatch.setattr(photos, "PHOTOS", places)
        files = photos.files(3)
        assert len(set(files)) == 3
        assert all(Image.open(io.BytesIO(file)).format == "JPEG" for file in files)
    body = json.loads(texts.embed_body(photos.uris(2)))
    assert body["modality"] == "image"
    assert len(body["input"]) == 2
    assert "modality" not in json.loads(texts.embed_body(["a text"]))


def test_bodies_are_one_line_and_differ() -> None:
    windows = texts.windows(12, 200)
    assert {len(one.split()) for one in windows} == {12}
    assert len(set(windows)) > 190
    assert windows == texts.windows(12, 200)
    assert b"\n" not in texts.embed_body(["two\nlines"])
