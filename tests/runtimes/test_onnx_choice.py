"""Which of a folder's ONNX files is run, if any: files of one operation each, whose numbers do not
matter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings
from omnivec.core.steps import Contrast, Head, Pool
from omnivec.engine.resident import Opener
from omnivec.runtimes._onnx import signature
from omnivec.runtimes._steps import Steps
from omnivec.runtimes.onnx import PLUGIN, _source, _start

MEAN = Head("pooled", (Pool(("mean",)),))
WIDTH, WORDS = 32, 300


def write(
    folder: Path, file: str = "model", output: str = "last_hidden_state", **options: Any
) -> None:
    """A table of `width` numbers for each word. `told`: the output's axes as the file tells them,
    None for nothing; `extra`: further inputs."""
    width, extra = options.get("width", WIDTH), options.get("extra", ())
    axes = options.get("told", ["B", "T", width])
    table = np.random.default_rng(0).normal(size=(WORDS, width)).astype(np.float32)
    node = helper.make_node("Gather", ["table", "input_ids"], [output])
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "T"])
        for name in ("input_ids", "attention_mask", *extra)
    ]
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, axes)
    held = [numpy_helper.from_array(table, "table")]
    graph = helper.make_graph([node], "words", inputs, [result], held)
    opsets = [helper.make_opsetid("", 17)]
    path = folder / f"onnx/{file}.onnx"
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.fixture(name="folder")
def make_folder(tiny, tmp_path):
    """An architecture that no graph of our own is for, with its weights."""
    return Path(shutil.copytree(tiny("deberta_v2"), tmp_path / "copy"))


def opened(folder, dtype="auto", head=MEAN):
    return PLUGIN.open(Checkpoint("tiny", folder), "encoder", head, "cpu", dtype)


def reason(folder, head=MEAN, **options: Any):
    return PLUGIN.can(Checkpoint("tiny", folder, **options), "encoder", head, "cpu")


def batch():
    ids = np.array([[2, 7, 9, 3], [2, 8, 3, 0]])
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}


@pytest.mark.parametrize("dtype", ["auto", "f32"])
@pytest.mark.parametrize("file", ["model_quantized", "model_fp16"])
def test_weights_of_full_precision_come_before_a_smaller_file(folder, file, dtype):
    write(folder, file)
    opener = Opener(discover("families"), discover("runtimes"), Settings(dtype=dtype))
    assert opener.runtime(Checkpoint("tiny", folder), {"encoder": MEAN}).name == "torch"
    (folder / "model.safetensors").unlink()
    assert opener.runtime(Checkpoint("tiny", folder), {"encoder": MEAN}).name == "onnx"


def test_a_whole_file_serves_where_a_smaller_one_was_asked_for(folder, caplog):
    write(folder)
    assert PLUGIN.describe(opened(folder, "f16")) == ("cpu", "f32")
    assert "computes in f32, not in f16" in caplog.text


def test_a_language_models_logits_are_no_hidden_states(folder):
    write(folder, output="logits", width=WORDS)
    assert "model.onnx gives logits" in reason(folder)
    assert "model.onnx gives logits" in reason(folder, Head("tokens"))
    write(folder, output="logits")  # as narrow as hidden states
    assert "model.onnx gives logits" in reason(folder)


def test_an_output_of_another_width_is_told(folder):
    write(folder, width=WIDTH + 1)
    assert "gives last_hidden_state of 33 numbers for each token, where" in reason(folder)


@pytest.mark.parametrize("told", [None, ["B", "T", "H"]])
def test_another_width_that_only_a_batch_shows_is_told_when_it_is_opened(folder, told):
    write(folder, told=told)
    assert opened(folder).run(batch())["output"].shape == (2, WIDTH)
    write(folder, told=told, width=WIDTH + 1)
    with pytest.raises(CheckpointError, match=r"its ONNX file and config\.json do not fit"):
        opened(folder)


def test_scores_of_two_words_are_refused_before_and_when_it_is_opened(folder):
    """A causal reranker's, whose output embeddings no file gives."""
    write(folder)
    head = Head("pooled", (Pool(("last",)), Contrast(5, 6)))
    assert "two words' logits" in reason(folder, head)
    with pytest.raises(CheckpointError, match="two words' logits"):
        opened(folder, head=head)
    with pytest.raises(CheckpointError, match="openvino, or torch"):
        Steps(Checkpoint("tiny", folder), head, WIDTH)


def test_a_half_file_of_no_use_gives_way_to_the_whole_one(folder, caplog):
    write(folder, "model_fp16", extra=("past",))
    write(folder)
    assert PLUGIN.describe(opened(folder, "f16")) == ("cpu", "f32")
    assert "model_fp16.onnx wants the input 'past'" in caplog.text


def test_files_of_no_use_where_there_is_no_graph_of_our_own_are_told(folder):
    checkpoint = Checkpoint("tiny", folder)
    write(folder, "model_fp16", extra=("past",))
    write(folder, extra=("past",))
    with pytest.raises(CheckpointError, match=r"'deberta-v2'.*model\.onnx wants the input 'past'"):
        _source(checkpoint, MEAN, "f16")


def test_a_model_of_the_hub_is_told_how_its_onnx_files_are_fetched(folder):
    assert reason(folder).endswith("add that, or use --runtime auto")
    told = PLUGIN.can(Checkpoint("org/name", folder, revision="a1"), "encoder", MEAN, "cpu")
    assert "`hf download org/name --local-dir DIR` and serve DIR" in told
    told = PLUGIN.can(Checkpoint("alias", folder, revision="a1"), "encoder", MEAN, "cpu")
    assert "`hf download ORG/NAME --local-dir DIR`" in told


# ── graphs of our own, of a config.json that is wrong ────────────────────────────────────


def changed(folder, to, **changes: Any):
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **changes}))
    return to


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 3),
        ("num_attention_heads", 0),
        ("num_attention_heads", -4),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", "2"),
        ("layer_norm_eps", "small"),
        ("layer_norm_eps", None),
        ("layer_norm_eps", -5),
        ("hidden_size", "32"),
    ],
)
def test_a_number_that_cannot_be_is_named(tiny, tmp_path, key, value):
    folder = changed(tiny("bert"), tmp_path / "wrong", **{key: value})
    with pytest.raises(CheckpointError, match=rf"config\.json lacks or garbles '{key}'"):
        opened(folder)


@pytest.mark.parametrize("value", [10**9, 60, None])
def test_places_behind_the_last_are_told_when_it_is_opened(tiny, tmp_path, value):
    folder = changed(tiny("roberta", positions=48), tmp_path / "wrong", pad_token_id=value)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        opened(folder)


def test_a_graph_of_our_own_is_not_called_a_file(tiny):
    with pytest.raises(CheckpointError, match=r"refused the graph; config\.json"):
        _start("tiny", b"no graph", {"held": np.zeros(1, np.float32)}, ["CPUExecutionProvider"])


# ── files that want to be read for ever ──────────────────────────────────────────────────


def framed(number: int, content: bytes) -> bytes:
    """A field of protobuf, of any length."""
    size, length = len(content), b""
    while size > 127:
        size, length = size >> 7, length + bytes([size & 127 | 128])
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize("shape", ["one", "many"])
def test_a_file_of_nothing_but_small_fields_is_given_up(folder, shape, monkeypatch):
    monkeypatch.setattr(signature, "FIELDS", 1000)
    empty = b"\x08\x00" * 1200
    content = empty if shape == "one" else framed(5, empty[:600]) * 4
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(framed(7, content))
    with pytest.raises(ValueError, match="more fields"):
        signature.read(folder / "onnx/model.onnx")
    assert "is cut short, or no ONNX file" in reason(folder)


def test_a_file_is_read_once_until_it_changes(folder):
    write(folder)
    file = folder / "onnx/model.onnx"
    first = signature.read(file)
    assert signature.read(file) is first
    write(folder, output="token_embeddings")
    assert list(signature.read(file).outputs) == ["token_embeddings"]


# ── files that pool by themselves ────────────────────────────────────────────────────────


@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_file_that_pools_prompts_is_refused_where_they_are_left_out(
    tiny, tmp_path, include_prompt
):
    made = tiny("deberta_v2", pooling=("mean",), include_prompt=include_prompt, normalize=False)
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    write(folder, output="sentence_embedding", told=["B", WIDTH])
    checkpoint = Checkpoint("tiny", folder)
    (head,) = discover("families")["encoder"].graphs(checkpoint).values()
    told = PLUGIN.can(checkpoint, "encoder", head, "cpu")
    assert (told is None) == include_prompt
    assert include_prompt or "model.onnx gives sentence_embedding" in told
