"""What the small files say: modules, windows, labels, segments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.families._files import labels, modules, positions, segments, window

if TYPE_CHECKING:
    from pathlib import Path


def checkpoint(folder: Path, files: dict[str, Any], **told: Any) -> Checkpoint:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return Checkpoint("x", folder, **told)


def test_modules_are_named_by_the_last_part_of_their_type(tmp_path: Path) -> None:
    listed = [
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {
            "idx": 0,
            "path": ".",
            "type": "sentence_transformers.base.modules.transformer.Transformer",
        },
    ]
    assert modules(checkpoint(tmp_path, {"modules.json": listed})) == [
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
    ]


@pytest.mark.parametrize("content", [{}, [1], [{"path": ""}], [{"idx": "x", "type": "a.B"}], 3])
def test_a_broken_module_list_is_said_so(tmp_path: Path, content: Any) -> None:
    made = checkpoint(tmp_path, {"modules.json": content})
    if content == {}:
        assert modules(made) == []
        return
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        modules(made)


HUGE = 1000000000000000019884624838656


@pytest.mark.parametrize(
    ("files", "told", "expected"),
    [
        ({}, {}, 512),
        ({"tokenizer_config.json": {"model_max_length": HUGE}}, {}, 512),
        ({"tokenizer_config.json": {"model_max_length": 300}}, {}, 300),
        (
            {
                "tokenizer_config.json": {"model_max_length": 512},
                "sentence_bert_config.json": {"max_seq_length": 256},
            },
            {},
            256,
        ),
        ({"sentence_roberta_config.json": {"max_seq_length": 100}}, {}, 100),
        (
            {"sentence_bert_config.json": {"processing_kwargs": {"text": {"max_length": 90}}}},
            {},
            90,
        ),
        ({"config.json": {"max_position_embeddings": 128}}, {}, 128),
        ({"config.json": {"max_position_embeddings": -1}}, {}, 512),
        (
            {
                "config.json": {
                    "model_type": "xlm-roberta",
                    "max_position_embeddings": 514,
                    "pad_token_id": 1,
                },
                "tokenizer_config.json": {"model_max_length": 514},
            },
            {},
            512,
        ),
        ({"sentence_bert_config.json": {"max_seq_length": 256}}, {"max_tokens": 64}, 64),
    ],
)
def test_windows(tmp_path: Path, files: Any, told: Any, expected: int) -> None:
    assert window(checkpoint(tmp_path, files, overrides=told)) == expected


def test_positions_begin_after_the_padding_index(tmp_path: Path) -> None:
    config = {"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}
    assert positions(checkpoint(tmp_path, {"config.json": config})) == 512
    assert positions(checkpoint(tmp_path, {"config.json": {"model_type": "t5"}})) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["BertModel"], "id2label": {"0": "x"}}, 0),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "x"}}, 1),
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 1}, 1),
        ({"architectures": ["BertForSequenceClassification"]}, 2),
        ({}, 0),
    ],
)
def test_labels(tmp_path: Path, config: Any, expected: int) -> None:
    assert labels(checkpoint(tmp_path, {"config.json": config})) == expected


@pytest.mark.parametrize(
    ("size", "tokenizer", "expected"),
    [
        (2, {}, True),
        (2, {"tokenizer_class": "BertTokenizer"}, True),
        (2, {"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        (2, {"model_input_names": ["input_ids", "attention_mask"]}, False),
        (2, {"model_input_names": ["input_ids", "token_type_ids"]}, True),
        (1, {"model_input_names": ["input_ids", "token_type_ids"]}, False),
        (None, {}, False),
    ],
)
def test_segments(tmp_path: Path, size: int | None, tokenizer: Any, expected: bool) -> None:
    files = {"config.json": {"type_vocab_size": size}, "tokenizer_config.json": tokenizer}
    assert segments(checkpoint(tmp_path, files)) is expected
