"""The ONNX files that a checkpoint brings along, written by torch's own exporter."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from checkpoints import MODES, SENTENCES
from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings
from omnivec.core.steps import Head, Normalize, Pool, Vocabulary
from omnivec.engine.resident import Opener
from omnivec.runtimes._onnx import signature
from omnivec.runtimes.onnx import PLUGIN

torch.set_num_threads(1)

NAMES = ("input_ids", "attention_mask", "token_type_ids")
MEAN = Head("pooled", (Pool(("mean",)), Normalize()))
CLASSES = {
    "last_hidden_state": "AutoModel",
    "logits": "AutoModelForSequenceClassification",
    "words": "AutoModelForMaskedLM",
}


class Exported(torch.nn.Module):
    """One output of a model; `sentence_embedding` is the mean of its hidden states."""

    def __init__(self, model: Any, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
        told = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, **told)
        if self.output != "sentence_embedding":
            return found[0]
        kept = attention_mask.unsqueeze(-1).float()
        return (found[0] * kept).sum(1) / kept.sum(1)


def export(
    folder: Path, output: str, file: str = "onnx/model.onnx", *, fixed: bool = False
) -> None:
    """The model of a folder as `file` in it."""
    import transformers

    kind = getattr(transformers, CLASSES.get(output, "AutoModel"))
    model = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    count = 3 if getattr(model.config, "type_vocab_size", 0) > 1 else 2
    ids = torch.ones(2, 7, dtype=torch.int64)
    names = [*NAMES[:count]]
    axes = {} if fixed else {name: {0: "batch", 1: "tokens"} for name in names}
    result = "logits" if output == "words" else output
    (folder / file).parent.mkdir(exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Exported(model, output).eval(),
            (ids, ids, torch.zeros_like(ids))[:count],
            str(folder / file),
            input_names=names,
            output_names=[result],
            dynamic_axes=axes if fixed else {**axes, result: {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


@pytest.fixture(name="copied")
def make_copy(tmp_path):
    """A folder of one's own, without the weights that an ONNX file replaces."""

    def copy(folder: Path, *, weights: bool = False) -> Path:
        ignored = () if weights else ("model.safetensors",)
        return Path(
            shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns(*ignored))
        )

    return copy


def shipped(tiny, copied, output, kind="bert", file="onnx/model.onnx", **options):
    whole = copied(tiny(kind, **options), weights=True)
    export(whole, output, file)
    (whole / "model.safetensors").unlink()
    return whole


def opened(folder, head=MEAN, dtype="f32"):
    return PLUGIN.open(Checkpoint("tiny", folder), "encoder", head, "cpu", dtype)


def batch(rows=4, width=12):
    lengths = np.maximum(width - 2 * np.arange(rows), 1)[:, None]
    mask = (np.arange(width)[None] < lengths).astype(np.int64)
    ids = np.random.default_rng(0).integers(5, 200, mask.shape)
    return {"input_ids": np.where(mask, ids, 0), "attention_mask": mask}


def reference(folder, arrays, name="AutoModel"):
    import transformers

    model = getattr(transformers, name).from_pretrained(folder)
    told = {key: torch.from_numpy(arrays[key]) for key in NAMES[:2]}
    with torch.inference_mode():
        return model(**told)


def close(got, expected):
    assert got.dtype == np.float32
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model.onnx"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta_v2"])
def test_hidden_states_are_pooled_here(tiny, copied, kind, file):
    from sentence_transformers import SentenceTransformer

    folder = tiny(kind, pooling=("cls", "mean"))
    model = SentenceTransformer(str(folder), device="cpu")
    told = model.tokenizer(list(SENTENCES), padding=True, truncation=True, return_tensors="np")
    expected = model.encode(list(SENTENCES), batch_size=len(SENTENCES))
    session = opened(
        shipped(tiny, copied, "last_hidden_state", kind, file, pooling=("cls", "mean")),
        Head("pooled", (Pool(("cls", "mean")), Normalize())),
    )
    arrays = {name: told[name] for name in NAMES if name in told}
    close(session.run(arrays)["output"], expected)


def test_a_row_is_the_same_alone_and_in_any_batch(tiny, copied):
    session = opened(shipped(tiny, copied, "last_hidden_state"), Head("pooled", (Pool(MODES),)))
    arrays = batch(5, 30)
    together = session.run(arrays)["output"]
    for row, length in enumerate(arrays["attention_mask"].sum(1)):
        alone = session.run({name: array[row : row + 1, :length] for name, array in arrays.items()})
        close(alone["output"][0], together[row])


def test_single_tokens_are_read_from_it(tiny, copied):
    arrays = batch()
    expected = reference(tiny("bert"), arrays).last_hidden_state.numpy()
    session = opened(shipped(tiny, copied, "last_hidden_state"), Head("tokens"))
    close(session.run(arrays)["output"], expected[arrays["attention_mask"] == 1])


@pytest.mark.parametrize("kind", ["bert", "deberta_v2"])
def test_its_logits_are_a_classifiers(tiny, copied, kind):
    arrays = batch()
    expected = reference(tiny(kind, num_labels=3), arrays, CLASSES["logits"]).logits.numpy()
    folder = shipped(tiny, copied, "logits", kind, num_labels=3)
    close(opened(folder, Head("logits")).run(arrays)["output"], expected)


def test_its_logits_are_a_language_heads(sparse, copied):
    step, arrays = Vocabulary("max", "log1p_relu"), batch()
    folder = copied(sparse("bert", layout="bare"), weights=True)
    export(folder, "words")
    logits = reference(folder, arrays, CLASSES["words"]).logits.numpy()
    expected = heads.words(step, logits, arrays["attention_mask"])
    (folder / "model.safetensors").unlink()
    found = opened(folder, Head("words", (step,))).run(arrays)
    got = np.zeros_like(expected)
    got[found["rows"], found["columns"]] = found["output"]
    close(got, expected)


def test_vectors_that_the_file_has_pooled_are_taken_as_they_are(tiny, copied):
    folder, arrays = shipped(tiny, copied, "sentence_embedding"), batch()
    hidden = reference(tiny("bert"), arrays).last_hidden_state.numpy()
    expected = heads.apply(MEAN, hidden, arrays["attention_mask"], {})
    session = opened(folder)
    close(session.run(arrays)["output"], expected)
    kept = arrays["attention_mask"].copy()
    kept[:, 0] = 0
    with pytest.raises(ValueError, match="whole rows"):
        session.run({**arrays, "pool_mask": kept})
    assert signature.read(folder / "onnx/model.onnx").outputs.keys() == {"sentence_embedding"}


# ── which file ───────────────────────────────────────────────────────────────────────────


def quantise(folder: Path, file: str) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        folder / "onnx/model.onnx", folder / file, weight_type=QuantType.QInt8, per_channel=True
    )


def cosines(one, other):
    return (one * other).sum(1).min()


def test_whole_floats_are_preferred_and_int8_is_on_request(tiny, copied):
    folder, arrays = shipped(tiny, copied, "last_hidden_state"), batch()
    quantise(folder, "onnx/model_quantized.onnx")
    whole, small = opened(folder, dtype="auto"), opened(folder, dtype="int8")
    assert PLUGIN.describe(whole) == ("cpu", "f32")
    assert PLUGIN.describe(small) == ("cpu", "int8")
    one, other = (session.run(arrays)["output"] for session in (whole, small))
    assert 0.9 < cosines(one, other) < 0.999999


def test_the_only_file_there_is_serves(tiny, copied):
    folder = shipped(tiny, copied, "last_hidden_state")
    quantise(folder, "onnx/model_quint8_avx2.onnx")
    (folder / "onnx/model.onnx").unlink()
    assert PLUGIN.describe(opened(folder, dtype="auto")) == ("cpu", "int8")


def test_int8_without_a_file_says_what_to_do(tiny):
    with pytest.raises(CheckpointError, match=r"model_quantized\.onnx.*--runtime openvino"):
        opened(tiny("bert"), dtype="int8")


def test_half_precision_without_a_file_is_told_and_computed_in_whole_floats(tiny, caplog):
    assert PLUGIN.describe(opened(tiny("bert"), dtype="bf16")) == ("cpu", "f32")
    assert "computes in f32, not in bf16" in caplog.text


def test_the_file_wins_over_the_weights(tiny, copied):
    folder = copied(tiny("bert"), weights=True)
    export(folder, "last_hidden_state")
    shutil.copy(tiny("bert", seed=1) / "model.safetensors", folder)
    arrays = batch()
    expected = reference(tiny("bert"), arrays).last_hidden_state.numpy()
    got = opened(folder, Head("tokens")).run(arrays)["output"]
    close(got, expected[arrays["attention_mask"] == 1])


def test_weights_beside_the_file_behind_links_as_a_cache_has_them(tiny, copied, tmp_path):
    """Those of over 2 GB lie in a file of their own; a Hugging Face cache links to both."""
    folder, arrays = shipped(tiny, copied, "last_hidden_state"), batch()
    expected = opened(folder).run(arrays)["output"]
    file, blobs = folder / "onnx/model.onnx", tmp_path / "blobs"
    blobs.mkdir()
    model = onnx.load(file)
    file.unlink()
    onnx.save_model(
        model, file, save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    weighed = PLUGIN.weigh(Checkpoint("tiny", folder), "encoder", "auto")
    for one, name in ((file, "5d1"), (file.with_name("model.onnx_data"), "e07")):
        one.rename(blobs / name)
        one.symlink_to(blobs / name)
    close(opened(folder).run(arrays)["output"], expected)
    assert PLUGIN.weigh(Checkpoint("tiny", folder), "encoder", "auto") == weighed


def test_where_openvino_has_no_graph_the_file_is_chosen_before_torch(tiny, copied):
    opener = Opener(discover("families"), discover("runtimes"), Settings())
    folder = shipped(tiny, copied, "last_hidden_state", "deberta_v2")
    heads_of = {"encoder": MEAN}
    assert opener.runtime(Checkpoint("tiny", folder), heads_of).name == "onnx"
    assert opener.runtime(Checkpoint("tiny", tiny("deberta_v2")), heads_of).name == "torch"
    assert opener.runtime(Checkpoint("tiny", tiny("bert")), heads_of).name == "openvino"


# ── files of no use ──────────────────────────────────────────────────────────────────────


def reason(folder: Path, head: Head = MEAN) -> str | None:
    return PLUGIN.can(Checkpoint("tiny", folder), "encoder", head, "cpu")


def test_a_file_that_is_cut_short_is_told(tiny, copied):
    folder = shipped(tiny, copied, "last_hidden_state", "deberta_v2")
    file = folder / "onnx/model.onnx"
    whole = file.read_bytes()
    assert reason(folder) is None
    for broken in (
        b"",
        whole[:1],
        whole[:3000],
        whole[:-9],
        b"version https://git-lfs",
        b"\xff" * 99,
    ):
        file.write_bytes(broken)
        assert "model.onnx is cut short, or no ONNX file" in reason(folder)


def test_a_file_whose_nodes_are_nonsense_is_told(tiny, copied):
    folder = shipped(tiny, copied, "last_hidden_state")
    file = folder / "onnx/model.onnx"
    file.write_bytes(file.read_bytes().replace(b"MatMul", b"MatMxx"))
    with pytest.raises(CheckpointError, match="refused the graph"):
        opened(folder)


def test_a_file_for_one_size_is_told(tiny, copied):
    folder = copied(tiny("deberta_v2"), weights=True)
    export(folder, "last_hidden_state", fixed=True)
    assert "takes batches of one size only" in reason(folder)
    with pytest.raises(CheckpointError, match="one size"):
        opened(folder)


def test_a_file_for_another_use_is_told(tiny, copied):
    folder = shipped(tiny, copied, "last_hidden_state", "deberta_v2")
    assert "gives last_hidden_state; use --runtime auto" in reason(folder, Head("logits"))


def test_a_file_with_a_foreign_input_is_told(tiny, copied):
    folder = shipped(tiny, copied, "last_hidden_state", "deberta_v2")
    file = folder / "onnx/model.onnx"
    model = onnx.load(file)
    extra = onnx.helper.make_tensor_value_info("past", onnx.TensorProto.FLOAT, ["B"])
    model.graph.input.append(extra)
    onnx.save(model, file)
    assert "wants the input 'past'" in reason(folder)


def test_weights_serve_where_the_file_does_not(tiny, copied, caplog):
    folder, arrays = copied(tiny("bert"), weights=True), batch()
    export(folder, "last_hidden_state", fixed=True)
    expected = reference(folder, arrays).last_hidden_state.numpy()
    got = opened(folder, Head("tokens")).run(arrays)["output"]
    close(got, expected[arrays["attention_mask"] == 1])
    assert "takes batches of one size only" in caplog.text


def test_weights_listed_among_the_inputs_are_no_inputs(tiny, copied):
    """As files have them that were written before 2019, and by some tools still."""
    folder = shipped(tiny, copied, "last_hidden_state")
    file = folder / "onnx/model.onnx"
    model = onnx.load(file)
    for held in model.graph.initializer:
        listed = onnx.helper.make_tensor_value_info(held.name, held.data_type, held.dims)
        model.graph.input.append(listed)
    onnx.save(model, file)
    found = signature.read(file)
    assert list(found.inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    assert found.inputs["input_ids"] == (onnx.TensorProto.INT64, (None, None))
    assert found.outputs["last_hidden_state"].axes[2] in (None, 32)
    assert opened(folder).run(batch())["output"].shape == (4, 32)
