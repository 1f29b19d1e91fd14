"""Converted checkpoints against timm and open_clip, which read the unconverted ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apple_clips
import open_clips
from omnivec.conversion.convert import convert
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import scaled
from omnivec.core.tensors import open_file
from omnivec.families.dual_tower import PLUGIN
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from open_clips import KINDS, Reference

TEXTS = ["a fox", "Two dogs, over the lazy fox.", "", "fox " * 150]
APPLE = ("s0", "s", "b")


class Converted:
    def __init__(self, folder: Path, reference: Reference) -> None:
        self.folder, self.reference = folder, reference
        self.checkpoint = Checkpoint("tiny", folder)
        self.graphs = PLUGIN.graphs(self.checkpoint)
        self.side = self.checkpoint.config["vision_config"]["image_size"]

    def run(self, graph: str, dtype: str = "f32", **arrays: np.ndarray) -> np.ndarray:
        head = self.graphs[graph]
        session = OPENVINO.open(self.checkpoint, graph, head, "cpu", dtype)
        found: np.ndarray = session.run(arrays)["output"]
        session.close()
        return found

    def pictures(self) -> np.ndarray:
        side = self.side
        pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
        pixels[1] //= 4
        pixels[2, : side // 2] = (250, 20, 90)
        return pixels

    def seen(self) -> np.ndarray:
        bright = scaled(self.graphs["image"].steps[0], self.pictures())
        return self.reference.see(bright.transpose(0, 3, 1, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Converted]:
    found: dict[str, Converted] = {}

    def make(kind: str, **told: Any) -> Converted:
        key = f"{kind}{told}"
        if key not in found:
            folder = tmp_path_factory.mktemp("source")
            reference = open_clips.build(kind, folder, **told)
            convert(folder, folder / "made", None, lambda _: None)
            found[key] = Converted(folder / "made", reference)
        return found[key]

    return make


@pytest.fixture(scope="module")
def apples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Converted]:
    found: dict[str, Converted] = {}

    def make(kind: str) -> Converted:
        if kind not in found:
            folder = tmp_path_factory.mktemp("apple")
            reference = apple_clips.build(kind, folder / f"mobileclip_{kind}.pt")
            convert(folder, folder / "made", None, lambda _: None)
            found[kind] = Converted(folder / "made", reference)
            _shrink(found[kind])
        return found[kind]

    return make


def _shrink(apple: Converted) -> None:
    """Apple's files do not say for pictures of which side they are, and tiny towers are for
    smaller ones than the real ones."""
    file = apple.folder / "config.json"
    told = json.loads(file.read_text())
    told["vision_config"]["image_size"] = apple.side = 64
    file.write_text(json.dumps(told))
    (apple.folder / "preprocessor_config.json").unlink()
    apple.checkpoint = Checkpoint("tiny", apple.folder)


def close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    assert np.ptp(expected, axis=0).max() > 1e-3  # inputs that all look the same prove nothing


# ── against the reference ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_pictures(made: Callable[..., Converted], kind: str) -> None:
    one = made(kind)
    close(one.run("image", pixel_values=one.pictures()), one.seen())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pickled", [True, False])
def test_texts(made: Callable[..., Converted], causal: bool, pickled: bool) -> None:
    one = made("s", causal=causal, pickled=pickled)
    ids = open_clips.ids(TEXTS)
    expected = one.reference.read(ids)
    close(one.run("text", input_ids=ids, attention_mask=np.ones_like(ids)), expected)


@pytest.mark.parametrize("kind", APPLE)
def test_apples_own_files(apples: Callable[[str], Converted], kind: str) -> None:
    one = apples(kind)
    close(one.run("image", pixel_values=one.pictures()), one.seen())
    ids = open_clips.ids(TEXTS)
    expected = one.reference.read(ids)
    close(one.run("text", input_ids=ids, attention_mask=np.ones_like(ids)), expected)


@pytest.mark.parametrize(("dtype", "least"), [("bf16", 0.9998), ("int8", 0.999)])
@pytest.mark.parametrize("kind", KINDS)
def test_rounded_they_point_the_same_way(
    made: Callable[..., Converted], kind: str, dtype: str, least: float
) -> None:
    one = made(kind)
    got, expected = one.run("image", dtype, pixel_values=one.pictures()), one.seen()
    cosine = (got * expected).sum(1)
    cosine /= np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    assert cosine.min() > least


def test_what_only_training_needs_is_gone(made: Callable[..., Converted]) -> None:
    one = made("s")
    tensors = open_file("tiny", one.folder / "model.safetensors")[1]
    assert not [key for key in tensors if "running" in key or "gamma" in key or "kxk" in key]
    unfolded = sum(part.numel() for part in one.reference.image.parameters())
    assert one.checkpoint.config["vision_config"]["parameters"] < unfolded
    told = one.checkpoint.config["vision_config"]["parameters"]
    told += one.checkpoint.config["text_config"]["parameters"]
    assert sum(one.stored.size for one in tensors.values()) == told


def test_what_has_been_folded_before_is_taken_as_it_lies(
    made: Callable[..., Converted], tmp_path: Path
) -> None:
    import torch

    open_clips.build("s", tmp_path)
    reference = open_clips.build("s", tmp_path, pickled=True)
    (tmp_path / "open_clip_model.safetensors").unlink()
    for one in list(reference.image.modules()):
        if hasattr(one, "reparameterize"):
            one.reparameterize()
    file = tmp_path / "open_clip_pytorch_model.bin"
    state = {
        key: one for key, one in torch.load(file).items() if not key.startswith("visual.trunk.")
    }
    state |= {f"visual.trunk.{key}": one for key, one in reference.image.state_dict().items()}
    torch.save(state, file)
    convert(tmp_path, tmp_path / "made", None, lambda _: None)
    again = Converted(tmp_path / "made", reference)
    close(again.run("image", pixel_values=again.pictures()), made("s").seen())


def test_a_file_with_its_settings_beside_it(made: Callable[..., Converted], tmp_path: Path) -> None:
    reference = open_clips.build("s", tmp_path, pickled=True)
    file = (tmp_path / "open_clip_pytorch_model.bin").rename(tmp_path / "mobileclip2.pt")
    convert(file, tmp_path / "made", None, lambda _: None)
    again = Converted(tmp_path / "made", reference)
    close(again.run("image", pixel_values=again.pictures()), made("s").seen())
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(CheckpointError, match="put the one there that belongs to it"):
        convert(file, tmp_path / "other", None, lambda _: None)
    assert not (tmp_path / "other").exists()


# ── what is refused ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    open_clips.build("s", folder)
    return folder


def refused(source: Path, **told: Any) -> str:
    given = {"target": source.parent / "made", "tokenizer": None, "tell": lambda _: None}
    with pytest.raises(CheckpointError) as caught:
        convert(source, **{**given, **told})
    assert not (source.parent / "made" / "config.json").exists()
    return str(caught.value)


def edit(source: Path, part: str, **told: Any) -> None:
    file = source / "open_clip_config.json"
    settings = json.loads(file.read_text())
    (settings["model_cfg"][part] if part in settings["model_cfg"] else settings[part]).update(told)
    file.write_text(json.dumps(settings))


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no checkpoint of open_clip's" in refused(tmp_path / "empty")
    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "not a file of tensors" in refused(tmp_path / "text.pt")


def test_a_folder_that_has_something_in_it(source: Path) -> None:
    assert "a new or an empty folder" in refused(source, target=source)


def test_without_weights(source: Path) -> None:
    (source / "open_clip_model.safetensors").unlink()
    assert "open_clip_pytorch_model.bin" in refused(source)


@pytest.mark.parametrize(
    ("part", "told", "says"),
    [
        ("vision_cfg", {"timm_model_name": "vit_tiny_patch16_224"}, "fastvit_mci0"),
        ("vision_cfg", {"timm_model_name": "vit_base_mci_224"}, "patch_embed"),
        ("text_cfg", {"pool_type": "eos"}, "'pool_type'"),
        ("text_cfg", {"heads": "many"}, "garbles"),
        ("preprocess_cfg", {"resize_mode": "longest"}, "resize_mode"),
        ("preprocess_cfg", {"interpolation": "random"}, "interpolation"),
    ],
)
def test_towers_that_are_not_known(source: Path, part: str, told: Any, says: str) -> None:
    edit(source, part, **told)
    assert says in refused(source)


def test_open_clips_own_image_towers(source: Path) -> None:
    file = source / "open_clip_config.json"
    settings = json.loads(file.read_text())
    settings["model_cfg"]["vision_cfg"] = {"layers": 12, "width": 768, "patch_size": 32}
    file.write_text(json.dumps(settings))
    assert "one of open_clip's own" in refused(source)


def test_tensors_that_belong_to_nothing(source: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = source / "open_clip_model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "visual.trunk.extra": np.zeros(3, np.float32)}, file)
    assert "'visual.trunk.extra'" in refused(source)
    save_file({key: one for key, one in tensors.items() if "final_conv" not in key}, file)
    assert "final_conv" in refused(source)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("text.token_embedding.weight", (64,)),
        ("text.positional_embedding", (7,)),
        ("text.transformer.resblocks.0.attn.in_proj_weight", (64, 64)),
        ("visual.trunk.final_conv.conv_kxk.0.conv.weight", (3,)),
    ],
)
def test_tensors_that_do_not_fit_each_other(source: Path, key: str, shape: tuple[int]) -> None:
    from safetensors.numpy import load_file, save_file

    file = source / "open_clip_model.safetensors"
    save_file({**load_file(file), key: np.zeros(shape, np.float32)}, file)
    assert "is not the model that it claims to be" in refused(source)


def test_words_of_apples_that_are_no_table(tmp_path: Path) -> None:
    import torch

    file = tmp_path / "mobileclip_s1.pt"
    apple_clips.build("s", file)
    state = torch.load(file)
    torch.save({**state, "text_encoder.embedding_layer.weight": torch.zeros(64)}, file)
    assert "is not the model that it claims to be" in refused(file)


def test_the_tokenizer(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (source / "tokenizer.json").rename(other / "tokenizer.json")
    assert "--tokenizer" in refused(source)
    (source / "tokenizer.json").write_text("{}")
    assert "no tokenizer that can be read" in refused(source)
    convert(source, tmp_path / "made", other, lambda _: None)
    assert (tmp_path / "made/tokenizer.json").read_bytes() == (
        other / "tokenizer.json"
    ).read_bytes()


def test_the_tokenizer_of_another_model(source: Path) -> None:
    from vocabularies import tokenizer

    tokenizer("wordpiece", 77, segments=False).save_pretrained(source)
    assert "words and the model" in refused(source)
