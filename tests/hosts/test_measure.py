"""What a bench asks, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any

import pytest

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Card, Encode, Extract, Score, Text
from omnivec.core.settings import Settings
from omnivec.hosts.measure import Bench, flops, lengths, resident, tasks

BERT = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
}


@pytest.mark.parametrize("tokens", [1, 128, 8192])
def test_the_operations_of_bert_are_those_of_the_formula(tokens: int) -> None:
    assert flops(BERT, tokens) == 6 * (24 * 384**2 + 4 * tokens * 384)


def test_a_gate_is_a_third_matrix_and_shared_keys_are_fewer() -> None:
    gated = {**BERT, "model_type": "nomic_bert", "hidden_act": "swiglu"}
    assert flops(gated, 1) == flops(BERT, 1) + 6 * 2 * 384 * 1536
    shared = {**BERT, "num_key_value_heads": 3}
    assert flops(shared, 1) == flops(BERT, 1) - 6 * 2 * 384 * 2 * (384 - 96)
    wide = {**BERT, "head_dim": 64}
    assert flops(wide, 7) == flops(BERT, 7) + 6 * (8 * 384 + 4 * 7) * (12 * 64 - 384)


def test_other_names_of_the_same_sizes_are_read() -> None:
    distil = {"dim": 384, "n_layers": 6, "n_heads": 12, "hidden_dim": 1536}
    assert flops(distil, 32) == flops(BERT, 32)
    assert flops({**distil, "hidden_dim": None}, 32) == flops(BERT, 32)


@pytest.mark.parametrize("config", [{}, {"hidden_size": 8}, {**BERT, "num_hidden_layers": 0}])
def test_without_sizes_there_is_no_answer(config: dict[str, Any]) -> None:
    assert flops(config, 8) is None


def test_lengths_end_at_the_models_window() -> None:
    assert lengths(Card(name="m", max_tokens=256)) == [8, 32, 128, 256]
    assert lengths(Card(name="m", max_tokens=512)) == [8, 32, 128, 512]
    assert lengths(Card(name="m", max_tokens=8192)) == [8, 32, 128, 512, 8192]
    assert lengths(Card(name="m")) == [8, 32, 128, 512]


def test_no_two_texts_are_alike_and_each_is_long_enough() -> None:
    asked = list(itertools.islice(tasks(Card(name="m", tasks=("encode", "score")), 32), 200))
    texts = {part.text for task in asked for part in task.items[0].parts if isinstance(part, Text)}
    assert len(texts) == 200
    assert all(len(text.split()) >= 32 for text in texts)
    assert all(isinstance(task, Encode) and task.max_tokens == 32 for task in asked)
    reranker = next(tasks(Card(name="m", tasks=("score",)), 32))
    own, free = (
        next(tasks(Card(name="m", tasks=("extract",), zero_shot=zero_shot), 32))
        for zero_shot in (False, True)
    )
    assert isinstance(own, Extract)
    assert isinstance(free, Extract)
    assert (own.labels, len(free.labels), own.items) == ((), 1, free.items)
    assert isinstance(reranker, Score)


def test_every_text_of_a_cell_has_its_length() -> None:
    report = asyncio.run(Bench(Settings(models=("fake:dims=8",)), 6.0).run())
    assert [(cell.tokens, cell.clients) for cell in report.cells] == list(
        itertools.product([8, 32, 128, 512], [1, 8, 64])
    )
    for cell in report.cells:
        assert cell.tokens_per_second == pytest.approx(cell.tokens * cell.texts_per_second)
        assert cell.texts == pytest.approx(cell.texts_per_second * cell.seconds)
        assert (cell.gflops, cell.share) == (None, None)
    assert (report.model, report.runtime, report.dims) == ("fake", "fake", 8)
    assert report.ceiling_gflops is None
    assert report.left_out == ()
    assert report.memory_loaded > 0


def test_what_takes_too_long_is_left_out_and_told() -> None:
    report = asyncio.run(Bench(Settings(models=("fake:dims=8,slow=0.3",)), 1.2).run())
    assert report.cells == ()
    assert len(report.left_out) == 12
    assert "8 tokens with 1 clients" in report.left_out[0]


def test_a_stop_keeps_what_is_done() -> None:
    told: list[int] = []
    report = asyncio.run(
        Bench(
            Settings(models=("fake:dims=8",)),
            6.0,
            stopped=lambda: len(told) > 3,
            told=lambda done, _of: told.append(done),
        ).run()
    )
    assert 2 <= len(report.cells) <= 3
    assert "stopped" in report.left_out[-1]


def test_a_model_that_cannot_be_opened_is_told(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(CheckpointError):
        asyncio.run(Bench(Settings(models=(str(tmp_path),)), 1.0).run())


def test_resident_memory_follows_what_is_touched() -> None:
    before = resident()
    block = bytearray(os.urandom(1 << 20) * 64)
    assert resident() - before > 32 << 20
    del block
