"""The torch runtime: heads against core/heads.py, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from checkpoints import IDENTITY, MODES, TANH, drop_tensor, laid_out, truncate_weights
from decoders import build_decoder
from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.steps import Dense, Head, LayerNorm, Normalize, Pool
from omnivec.runtimes.torch import PLUGIN

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(1)

MEAN = Head("pooled", (Pool(("mean",)),))
TOKENS = Head("tokens")


def batch(*lengths: int, width: int = 12) -> dict[str, np.ndarray]:
    """Rows of those lengths, padded with 0."""
    mask = (np.arange(width)[None] < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(0).integers(5, 100, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask}


def run(folder: Path, head: Head, arrays: dict[str, np.ndarray], dtype: str = "f32") -> np.ndarray:
    session = PLUGIN.open(Checkpoint("tiny", folder), "main", head, "cpu", dtype)
    output = session.run(arrays)["output"]
    session.close()
    assert output.dtype == np.float32
    return output


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("masked", [False, True])
def test_every_pooling_is_that_of_the_reference(tiny, mode: str, masked: bool) -> None:
    folder, arrays = tiny("bert"), batch(12, 7, 1)
    hidden = laid_out(run(folder, TOKENS, arrays), arrays["attention_mask"])
    if masked:  # the second row keeps two tokens, the last keeps none
        arrays["pool_mask"] = arrays["attention_mask"] * (np.arange(12) > 4)
    head = Head("pooled", (Pool((mode, "cls")),))
    expected = heads.apply(head, hidden, arrays["attention_mask"], {}, arrays.get("pool_mask"))
    np.testing.assert_allclose(run(folder, head, arrays), expected, rtol=0, atol=1e-5)


def test_padding_on_the_left_is_pooled_right(tiny) -> None:
    folder, arrays = tiny("bert"), batch(12, 5)
    arrays["attention_mask"][1] = arrays["attention_mask"][1][::-1]
    hidden = laid_out(run(folder, TOKENS, arrays), arrays["attention_mask"])
    head = Head("pooled", (Pool(MODES),))
    expected = heads.apply(head, hidden, arrays["attention_mask"], {})
    np.testing.assert_allclose(run(folder, head, arrays), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", sorted(heads.ACTIVATIONS))
def test_projections_are_those_of_the_reference(tiny, activation: str) -> None:
    folder = tiny("bert", dense=((24, TANH),), layer_norm=True)
    files = {"2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"}
    steps = (
        Pool(("mean",)),
        Normalize(),
        Dense("2_Dense/model.safetensors", activation),
        LayerNorm("3_LayerNorm/model.safetensors"),
        Normalize(),
    )
    from safetensors.numpy import load_file

    arrays = batch(12, 7, 1)
    expected = heads.apply(
        Head("pooled", steps),
        laid_out(run(folder, TOKENS, arrays), arrays["attention_mask"]),
        arrays["attention_mask"],
        {file: load_file(folder / file) for file in files},
    )
    ours = run(folder, Head("pooled", steps), arrays)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_tokens_can_be_projected(tiny) -> None:
    folder = tiny("bert", dense=((24, IDENTITY),))
    head = Head("tokens", (Dense("2_Dense/model.safetensors", IDENTITY), Normalize()))
    output = run(folder, head, batch(12, 7))
    assert output.shape == (19, 24)
    np.testing.assert_allclose(np.linalg.norm(output, axis=-1), 1, rtol=0, atol=1e-5)


def test_logits(tiny) -> None:
    from transformers import AutoModelForSequenceClassification

    folder, arrays = tiny("modernbert", num_labels=3), batch(12, 7)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        expected = model(**{name: torch.from_numpy(a) for name, a in arrays.items()}).logits
    ours = run(folder, Head("logits"), arrays)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-5)


def test_inputs_that_the_architecture_lacks_are_left_out(tiny) -> None:
    folder, arrays = tiny("distilbert"), batch(12, 7)
    plain = run(folder, MEAN, arrays)
    arrays["token_type_ids"] = np.zeros_like(arrays["input_ids"])
    np.testing.assert_array_equal(run(folder, MEAN, arrays), plain)


def test_width_changes_nothing(tiny) -> None:
    for kind in ("bert", "xlm_roberta", "modernbert"):
        narrow, wide = batch(9, 7, width=9), batch(9, 7, width=40)
        padding = 1 if kind == "xlm_roberta" else 0
        for arrays in (narrow, wide):
            arrays["input_ids"][arrays["attention_mask"] == 0] = padding
        wide["input_ids"][:, :9] = narrow["input_ids"]
        one, two = (run(tiny(kind), MEAN, arrays) for arrays in (narrow, wide))
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


def test_bf16_is_close(tiny) -> None:
    folder, arrays = tiny("bert"), batch(12, 7)
    exact, rough = run(folder, MEAN, arrays), run(folder, MEAN, arrays, "bf16")
    cosine = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert (cosine > 0.999).all()
    assert np.abs(exact - rough).max() > 0


def test_a_session_says_what_it_is(tiny) -> None:
    made = PLUGIN.open(Checkpoint("tiny", tiny("bert")), "main", MEAN, "cpu", "auto")
    assert PLUGIN.describe(made) == ("cpu", "f32")
    assert (made.padding, made.streams, made.batch_cost) == (0.0, 1, 1024)
    assert PLUGIN.memory() == 0
    made.close()


def test_sharded_weights_are_read(tiny) -> None:
    whole, shards = tiny("bert"), tiny("bert", shards=True)
    arrays = batch(12)
    np.testing.assert_array_equal(run(shards, MEAN, arrays), run(whole, MEAN, arrays))


def test_nothing_is_printed(tiny, capfd) -> None:
    run(tiny("bert"), MEAN, batch(12))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


# ── what cannot be opened ────────────────────────────────────────────────────────────────


def test_an_absent_torch_is_answered_with_its_command(tiny, monkeypatch) -> None:
    checkpoint = Checkpoint("tiny", tiny("bert"))
    assert PLUGIN.can(checkpoint, "main", MEAN, "auto") is None
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else found(name)
    )
    monkeypatch.delitem(sys.modules, "torch")
    reason = PLUGIN.can(checkpoint, "main", MEAN, "auto")
    assert reason == "needs torch: pip install 'omnivec[torch]'"


def test_an_absent_gpu_is_said(tiny) -> None:
    reason = PLUGIN.can(Checkpoint("tiny", tiny("bert")), "main", MEAN, "cuda")
    assert (reason is None) is torch.cuda.is_available()
    assert torch.cuda.is_available() or "CUDA" in reason


def test_models_that_are_no_transformer_are_left_to_others(tiny) -> None:
    assert PLUGIN.can(Checkpoint("tiny", tiny("model2vec")), "main", MEAN, "cpu")


def test_importing_the_runtime_imports_no_torch() -> None:
    code = (
        "import sys, omnivec.runtimes.torch as r; r.PLUGIN.memory(); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def copied(folder: Path, target: Path) -> Path:
    return shutil.copytree(folder, target / "copy")


def error(folder: Path, head: Head = MEAN) -> str:
    with pytest.raises(CheckpointError) as caught:
        PLUGIN.open(Checkpoint("tiny", folder), "main", head, "cpu", "f32")
    return str(caught.value)


def test_missing_and_broken_weights(tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert"), tmp_path)
    drop_tensor(folder / "model.safetensors", "encoder.layer.1.output.dense.weight")
    assert "lack encoder.layer.1.output.dense.weight" in error(folder)
    truncate_weights(folder / "model.safetensors")
    assert "transformers cannot open it" in error(folder)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in error(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "pickle" in error(folder)


def test_an_encoder_without_a_classifier_makes_no_reranker(tiny) -> None:
    assert "lack classifier" in error(tiny("bert"), Head("logits"))


def test_a_broken_layer_is_named(tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert", dense=((16, TANH),)), tmp_path)
    head = Head("pooled", (Pool(("mean",)), Dense("2_Dense/model.safetensors", "Tanh")))
    drop_tensor(folder / "2_Dense" / "model.safetensors", "linear.weight")
    assert "2_Dense/model.safetensors lacks linear.weight" in error(folder, head)
    truncate_weights(folder / "2_Dense" / "model.safetensors")
    assert "2_Dense/model.safetensors cannot be read" in error(folder, head)


@pytest.mark.parametrize("told", [{"model_type": "unheard-of"}, {"auto_map": {"AutoModel": "x.Y"}}])
def test_remote_code_is_not_run(tiny, tmp_path: Path, told: dict[str, Any]) -> None:
    folder = copied(tiny("bert"), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **told, "model_type": "unheard-of"}))
    (folder / "x.py").write_text("raise SystemExit('ran')")
    assert "transformers cannot open it" in error(folder)


def test_a_processor_is_no_accelerator(tiny) -> None:
    session = PLUGIN.open(Checkpoint("tiny", tiny("bert")), "main", TOKENS, "cpu", "f32")
    assert PLUGIN.accelerators() == ()
    session.close()


def test_gemma_3_outgrows_f16(tmp_path, caplog) -> None:
    """And is computed in bf16, whose numbers reach as far as f32's."""
    checkpoint = Checkpoint("tiny", build_decoder("gemma3_text", tmp_path))
    session = PLUGIN.open(checkpoint, "main", MEAN, "cpu", "f16")
    assert PLUGIN.describe(session) == ("cpu", "bf16")
    assert "bf16" in caplog.text
    exact = run(tmp_path, MEAN, batch(12, 7, 1))
    got = session.run(batch(12, 7, 1))["output"]
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(got, axis=1)
    assert ((exact * got).sum(1) / lengths).min() > 0.999


@pytest.mark.parametrize(
    ("stored", "dtype", "parts"),
    [
        ("float32", "f32", 2),
        ("float32", "bf16", 1),
        ("bfloat16", "f32", 4),
        ("bfloat16", "bf16", 2),
    ],
)
def test_what_it_weighs_is_what_its_weights_become(tiny, stored, dtype, parts) -> None:
    checkpoint = Checkpoint("tiny", tiny("bert", dtype=stored))
    assert PLUGIN.weigh(checkpoint, "main", dtype) == 100_000_000 + checkpoint.size() * parts // 2
