"""What is read from a checkpoint's files, and what is said of broken ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from checkpoints import drop_tensor, truncate_weights
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.steps import Dense, Head, Normalize, Pool
from omnivec.runtimes import openvino
from omnivec.runtimes._distances import bucket
from omnivec.runtimes._openvino.weights import Weights
from omnivec.runtimes.openvino import PLUGIN
from omnivec.runtimes.torch import PLUGIN as TORCH

MEAN = Head("pooled", (Pool(("mean",)), Normalize()))
WORDS = "embeddings.word_embeddings.weight"
IDS = {
    "input_ids": np.random.default_rng(0).integers(5, 200, (3, 9)),
    "attention_mask": np.ones((3, 9), np.int64),
}


@pytest.fixture
def copied(tiny, tmp_path):
    """A copy of a tiny checkpoint that a test may break."""

    def copy(kind="bert", **options) -> Path:
        return Path(shutil.copytree(tiny(kind, **options), tmp_path / "copy", dirs_exist_ok=True))

    return copy


def opened(folder, head=MEAN, dtype="f32", device="cpu"):
    return PLUGIN.open(Checkpoint("tiny", folder), "encoder", head, device, dtype)


def vectors(folder):
    return opened(folder).run(IDS)["output"]


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(folder, change, dtype=None):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {change(name): tensor.contiguous() for name, tensor in load_file(path).items()}
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    save_file(tensors, path)


# ── spellings ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["bert.", "model.", "0.auto_model."])
def test_keys_may_have_any_prefix(copied, tiny, prefix):
    folder = copied()
    rewrite(folder, lambda name: prefix + name)
    np.testing.assert_array_equal(vectors(folder), vectors(tiny("bert")))


def test_norms_may_have_their_old_names(copied, tiny):
    folder = copied()
    rewrite(
        folder,
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ),
    )
    np.testing.assert_array_equal(vectors(folder), vectors(tiny("bert")))


def test_weights_may_lie_in_several_files(tiny):
    sharded = tiny("bert", shards=True)
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    np.testing.assert_array_equal(vectors(sharded), vectors(tiny("bert")))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_are_widened_and_not_rounded(copied, dtype):
    import torch
    from transformers import AutoModel

    folder = copied()
    rewrite(folder, lambda name: name, getattr(torch, dtype))
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        told = {name: torch.from_numpy(array) for name, array in IDS.items()}
        expected = model(**told).last_hidden_state.numpy()
    got = opened(folder, Head("tokens")).run(IDS)["output"]
    np.testing.assert_allclose(got, expected.reshape(got.shape), atol=1e-5, rtol=0)


def nomic_names(name):
    """transformers' own names, which it converts to the hub's when it saves."""
    for hub, own in {
        "emb_ln": "embeddings.LayerNorm",
        "encoder.layers": "layers",
        "attn.out_proj": "self_attn.o_proj",
        "fc11": "up_proj",
        "fc12": "gate_proj",
        "fc2": "down_proj",
        "norm1": "post_attention_layernorm",
        "norm2": "post_mlp_layernorm",
    }.items():
        name = name.replace(hub, own)
    return name


def test_nomic_keys_of_both_spellings(copied, tiny):
    from safetensors.numpy import load_file, save_file

    folder = copied("nomic_bert")
    path = folder / "model.safetensors"
    renamed = {}
    for name, array in load_file(path).items():
        if "Wqkv" in name:
            for letter, part in zip("qkv", np.split(array, 3), strict=True):
                own = nomic_names(name).replace("attn.Wqkv", f"self_attn.{letter}_proj")
                renamed[own] = np.ascontiguousarray(part)
        else:
            renamed[nomic_names(name)] = array
    assert not renamed.keys() & load_file(path).keys() - {
        WORDS,
        WORDS.replace("word", "token_type"),
    }
    save_file(renamed, path)
    np.testing.assert_allclose(vectors(folder), vectors(tiny("nomic_bert")), atol=1e-6)


def test_nomic_config_of_the_hub(copied, tiny):
    """As nomic-ai/nomic-embed-text-v1.5 has it."""
    folder = copied("nomic_bert")
    told = json.loads((folder / "config.json").read_text())
    hub = {
        "model_type": "nomic_bert",
        "activation_function": "swiglu",
        "causal": False,
        "layer_norm_epsilon": told["layer_norm_eps"],
        "n_embd": told["hidden_size"],
        "n_head": told["num_attention_heads"],
        "n_inner": told["intermediate_size"],
        "n_layer": told["num_hidden_layers"],
        "n_positions": 8192,
        "prenorm": False,
        "rotary_emb_base": told["rope_parameters"]["rope_theta"],
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_scaling_factor": None,
        "type_vocab_size": 2,
        "vocab_size": told["vocab_size"],
    }
    (folder / "config.json").write_text(json.dumps(hub))
    np.testing.assert_array_equal(vectors(folder), vectors(tiny("nomic_bert")))


# ── refusals ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("keep", [0, 0.001, 0.3, 0.99])
def test_a_file_cut_short_is_said_to_be(copied, keep):
    folder = copied()
    truncate_weights(folder / "model.safetensors", keep)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole"):
        opened(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        (10).to_bytes(8, "little") + b"not json!!",
        (20).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}',
        b"\xff" * 64,
    ],
    ids=["git-lfs", "not json", "not a header", "noise"],
)
def test_something_else_under_that_name_is_said_to_be(copied, content):
    folder = copied()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors"):
        opened(folder)


def header(**entry):
    text = json.dumps({"x": entry}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(16)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header(dtype="F32", shape=[2, 2], data_offsets=[0, 64]), "not a whole"),
        (header(dtype="F32", shape=[3], data_offsets=[0, 16]), "not a whole"),
        (header(dtype="F32", shape=[-2, -2], data_offsets=[0, 16]), "not a whole"),
        (header(dtype="F32", shape=[4], data_offsets=[16, 0]), "not a whole"),
        (header(dtype="F8_E4M3", shape=[16], data_offsets=[0, 16]), "F8_E4M3"),
    ],
    ids=["past the end", "too few", "negative", "backwards", "dtype"],
)
def test_a_header_that_lies_is_not_believed(tmp_path, content, said):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        Weights("tiny", [path])


def test_tensors_that_are_not_aligned_are_read_all_the_same(tmp_path):
    text = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]}}).encode()
    path = tmp_path / "model.safetensors"
    values = np.array([1.5, -2], "<f4")
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" + values.tobytes())
    np.testing.assert_array_equal(Weights("tiny", [path]).take("x", 2), values)


def test_a_missing_tensor_is_named(copied):
    folder = copied()
    drop_tensor(folder / "model.safetensors", "encoder.layer.1.output.dense.bias")
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        opened(folder)


def test_another_models_weights_are_refused(copied, tiny):
    folder = copied()
    shutil.copy(tiny("modernbert") / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="word_embeddings"):
        opened(folder)


def test_a_config_of_another_size_is_refused(copied):
    folder = copied()
    edit(folder, hidden_size=48)
    with pytest.raises(CheckpointError, match=r"373 x 32, and config\.json says any x 48"):
        opened(folder)


@pytest.mark.parametrize("heads", [None, 0, 5, "two"])
def test_a_config_that_garbles_a_size_is_refused(copied, heads):
    folder = copied()
    edit(folder, num_attention_heads=heads)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        opened(folder)


def test_an_encoder_without_a_classifier_cannot_score(tiny):
    with pytest.raises(CheckpointError, match=r"classifier"):
        opened(tiny("xlm_roberta"), Head("logits"))


def test_a_pickle_is_refused(copied):
    folder = copied()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        opened(folder)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_of_torch_save_are_those_of_safetensors(copied, dtype, runtime):
    import torch
    from safetensors.torch import load_file

    folder = copied()
    rewrite(folder, lambda name: name, getattr(torch, dtype))
    expected = runtime.open(Checkpoint("tiny", folder), "main", MEAN, "cpu", "f32").run(IDS)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    told = Checkpoint("tiny", folder, overrides={"pickle": True})
    got = runtime.open(told, "main", MEAN, "cpu", "f32").run(IDS)
    np.testing.assert_allclose(got["output"], expected["output"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("runtime", [PLUGIN, TORCH], ids=["openvino", "torch"])
def test_a_head_may_lie_in_a_file_of_torch_save(copied, runtime):
    import torch

    folder = copied()
    layer = torch.nn.Linear(32, 3)
    torch.save(layer.state_dict(), folder / "head.pt")
    checkpoint = Checkpoint("tiny", folder)
    plain = runtime.open(checkpoint, "main", Head("tokens"), "cpu", "f32").run(IDS)["output"]
    head = Head("tokens", (Dense("head.pt", "Identity"),))
    got = runtime.open(checkpoint, "main", head, "cpu", "f32").run(IDS)["output"]
    expected = layer(torch.from_numpy(plain)).detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    (folder / "head.pt").write_bytes(b"not a zip")
    with pytest.raises(CheckpointError, match="writes it"):
        runtime.open(checkpoint, "main", head, "cpu", "f32")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "t5"}, "no graph for 't5'"),
        ({"model_type": ""}, "without model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "causal"),
        ({"rotary_emb_fraction": 0.5}, "rotary"),
    ],
    ids=str,
)
def test_what_the_graphs_cannot_do_is_said_beforehand(copied, changes, said):
    folder = copied()
    edit(folder, **changes)
    checkpoint = Checkpoint("tiny", folder)
    assert said in PLUGIN.can(checkpoint, "encoder", MEAN, "cpu")
    with pytest.raises(CheckpointError, match="tiny"):
        opened(folder)


def test_scaled_rotary_positions_are_refused(copied):
    folder = copied("modernbert")
    scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}
    edit(folder, rope_parameters={"full_attention": scaled})
    with pytest.raises(CheckpointError, match="yarn"):
        opened(folder)


def test_an_unknown_activation_is_refused(copied):
    folder = copied()
    edit(folder, hidden_act="laplace")
    with pytest.raises(CheckpointError, match="laplace"):
        opened(folder)


def test_it_can_on_a_cpu_and_not_on_another_device(tiny):
    checkpoint = Checkpoint("tiny", tiny("bert"))
    assert PLUGIN.can(checkpoint, "encoder", MEAN, "cpu") is None
    assert PLUGIN.can(checkpoint, "encoder", MEAN, "auto") is None
    assert "--device cpu" in PLUGIN.can(checkpoint, "encoder", MEAN, "cuda")
    with pytest.raises(CheckpointError, match="CPU"):
        opened(tiny("bert"), device="cuda")


@pytest.mark.parametrize("bf16", [True, False])
def test_half_precision_is_what_the_processor_has_and_a_substitute_is_told(
    bf16, monkeypatch, caplog
):
    monkeypatch.setattr(openvino, "has_bf16", lambda: bf16)
    half = "bf16" if bf16 else "f32"
    assert openvino.precision("auto", "tiny") == half
    assert openvino.precision("f32", "tiny") == "f32"
    assert not caplog.messages
    assert openvino.precision("f16", "tiny") == half
    assert openvino.precision("bf16", "tiny") == half
    assert [f"computed in {half}" in message for message in caplog.messages] == [True] * (2 - bf16)


def test_the_buckets_of_mpnet_are_those_of_transformers():
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distance = np.arange(-300, 301)
    expected = MPNetEncoder.relative_position_bucket(torch.from_numpy(-distance))
    np.testing.assert_array_equal(bucket(distance), expected.numpy())
