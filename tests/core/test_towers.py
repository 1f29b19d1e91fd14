"""The sections of a two-tower config.json, and the checkpoint of one tower."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.towers import ARCHITECTURES, IMAGE, TEXT, section, share

CLASSES = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2", "chinese_clip": "ChineseCLIP"}


def test_every_architecture_is_of_transformers_or_ours() -> None:
    assert set(ARCHITECTURES) == {*CLASSES, "mobileclip"}


def test_the_sections_of_ours_say_what_they_are() -> None:
    told = {"model_type": "mobileclip_vit_model", "parameters": 30}
    config = {"model_type": "mobileclip", "vision_config": told, "text_config": {"parameters": 10}}
    assert section(config, IMAGE) == told
    assert section(config, TEXT) == {"model_type": "", "parameters": 10}
    assert (share(config, IMAGE), share(config, TEXT)) == (0.75, 0.25)


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_left_out_is_what_transformers_takes(kind: str) -> None:
    import transformers

    config = getattr(transformers, f"{CLASSES[kind]}Config")()
    for tower, theirs in ((TEXT, config.text_config), (IMAGE, config.vision_config)):
        ours = section({"model_type": kind}, tower)
        assert ours
        assert ours == {name: theirs.to_dict()[name] for name in ours}


def test_what_is_said_wins_and_the_older_key_most() -> None:
    config = {
        "model_type": "clip",
        "text_config": {"hidden_size": 8, "num_hidden_layers": 3, "other": 1},
        "text_config_dict": {"hidden_size": 16},
        "vision_config_dict": None,
    }
    told = section(config, TEXT)
    assert told is not None
    assert (told["hidden_size"], told["num_hidden_layers"], told["other"]) == (16, 3, 1)
    assert told["model_type"] == "clip_text_model"
    assert section(config, IMAGE) == section({"model_type": "clip"}, IMAGE)


def test_the_language_model_within_is_told_what_the_whole_is() -> None:
    from transformers import Qwen3VLConfig

    config = {**Qwen3VLConfig().to_dict(), "tie_word_embeddings": True, "torch_dtype": "float16"}
    told = section(config, TEXT)
    assert told is not None
    assert told["model_type"] == "qwen3_vl_text"
    assert (told["tie_word_embeddings"], told["torch_dtype"]) == (True, "float16")
    assert told["hidden_size"] == config["text_config"]["hidden_size"]
    assert share(config, TEXT) > 0.9
    assert share(config, TEXT) + share(config, IMAGE) == pytest.approx(1)


def test_what_a_language_model_within_leaves_out_is_what_transformers_takes() -> None:
    from transformers import Qwen3VLConfig

    config = Qwen3VLConfig()
    text, image = config.text_config.to_dict(), config.vision_config.to_dict()
    text["rope_theta"] = text["rope_parameters"]["rope_theta"]
    for tower, theirs in ((TEXT, text), (IMAGE, image)):
        ours = section({"model_type": "qwen3_vl"}, tower)
        assert ours
        assert ours == {name: theirs[name] for name in ours}


@pytest.mark.parametrize(
    ("config", "tower"),
    [({}, TEXT), ({"model_type": "bert"}, TEXT), ({"model_type": "clip"}, "encoder")],
)
def test_other_models_have_none(config: dict[str, str], tower: str) -> None:
    assert section(config, tower) is None


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_towers_share_the_weights(kind: str) -> None:
    parts = [share({"model_type": kind}, tower) for tower in (TEXT, IMAGE)]
    assert sum(parts) == pytest.approx(1)
    assert all(0.2 < part < 0.8 for part in parts)


def test_a_checkpoint_of_one_tower(tmp_path: Path) -> None:
    beneath = tmp_path / "0_CLIPModel"
    beneath.mkdir()
    config = {"model_type": "clip", "text_config": {"hidden_size": 64}}
    (beneath / "config.json").write_text(json.dumps(config))
    (beneath / "model.safetensors").write_bytes(bytes(1000))
    whole = Checkpoint("tiny", tmp_path)
    home = whole.part("0_CLIPModel")
    for part in (home.part(TEXT), whole.part("0_CLIPModel/text")):
        assert part.folder == beneath
        assert part.architecture == "clip_text_model"
        assert part.config["hidden_size"] == 64
    assert home.part("encoder") is home
    assert home.part(TEXT).size() + home.part(IMAGE).size() in (999, 1000)
    assert whole.part("encoder") is whole
